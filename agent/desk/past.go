package desk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/agent/journal"
	"github.com/usher-agent/usher/agent/journal/record"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/enforcer"
)

// PastError says that the runtime folder's journal is damaged and of an earlier start of the host. A start mends it.
type PastError struct{ Err error }

func (e *PastError) Error() string {
	return e.Err.Error() + "; it is of an earlier start of the host, and the agent mends it when it starts"
}

// Unwrap returns what is wrong with the journal.
func (e *PastError) Unwrap() error { return e.Err }

// mendable reports whether a start mends what is wrong with the journal at path, which the seals say is of an earlier
// start of the host: not what a later version wrote, and not what may tell of this start.
func mendable(path string, why error) bool {
	if why == nil || errors.As(why, new(*journal.VersionError)) || errors.Is(why, record.ErrNewer) {
		return false
	}
	records, err := journal.Provable(path)
	return err != nil || // it proves nothing
		!slices.ContainsFunc(records, func(b []byte) bool { return tellsOf(b, clock.BootID()) })
}

// past reports whether the runtime journal is of an earlier start of the host, and was not sealed in this one.
func (s *store) past() bool { return s.seals != nil && s.seals.Runtime.Past(seals.RuntimeJournal) }

// mendPast has the start go on from a runtime journal of another start of the host, whatever a power cut has left of
// it: on a disk nothing of it was synced. Its leases are over with that host's processes. What its records prove is
// kept, for client tokens outlive leases, and the damaged file lies beside it. A journal that may tell of this start is
// left as it is, and so is one of a later version.
func (s *store) mendPast(stateDir, runtimeDir string) error {
	if !s.past() {
		return nil
	}
	path := filepath.Join(runtimeDir, seals.RuntimeJournal)
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return nil // there is none, or opening it says what is wrong
	}
	events := &eventsRepair{}
	all := newReplay(enforcer.New(enforcer.Options{Durable: true}))
	err := journal.Verify(filepath.Join(stateDir, seals.DurableJournal), func(b []byte) error {
		events.before = append(events.before, bytes.Clone(b))
		return all.apply(b)
	})
	if err != nil {
		return err
	}
	why := journal.Verify(path, all.apply)
	if !mendable(path, why) {
		return nil // opening it says what is wrong
	}
	r, err := RepairJournal(path, events.mend)
	switch {
	case errors.Is(err, record.ErrNewer):
		return nil // opening it says what is wrong
	case err != nil: // nothing in it is provable
		aside := path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000000000Z")
		if failed := os.Rename(path, aside); failed != nil && !errors.Is(failed, fs.ErrNotExist) {
			return fmt.Errorf("the journal %s of an earlier start of the host cannot be set aside: %w", path, failed)
		}
		s.log.Warn(
			"the runtime folder's journal is of an earlier start of the host and was damaged, as by a power cut; "+
				"it was set aside, for its leases are over in any case", "journal", path, "kept_as", aside,
			"was", inShort(why))
	default:
		s.log.Warn(
			"the runtime folder's journal is of an earlier start of the host and was damaged, as by a power cut; "+
				"its leases are over in any case, and what it proves besides is kept", "journal", path,
			"kept_as", path+".damaged-*", "was", inShort(why), "records", r.Kept, "bytes_lost", r.Dropped, "left_out",
			r.LeftOut)
	}
	return nil
}

// inShort is what is wrong with a journal, without the advice to mend it by hand.
func inShort(why error) string {
	if c := (*journal.CorruptError)(nil); errors.As(why, &c) {
		return fmt.Sprintf("damaged at byte %d: %s", c.Offset, c.Reason)
	}
	return why.Error()
}

// earlier is the boot of leases of which only that is known: it was not this one.
const earlier = "an earlier one"

// tellsOf reports whether a record says that what follows was granted in a start of the host.
func tellsOf(b []byte, boot string) bool {
	var p Place
	return len(b) > 0 && b[0] == metaVersion && json.Unmarshal(b[1:], &p) == nil && p.Boot == boot
}
