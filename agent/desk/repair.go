package desk

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/usher-agent/usher/agent/journal"
	"github.com/usher-agent/usher/agent/journal/record"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/enforcer"
)

// Repaired reports the repair of one journal.
type Repaired struct {
	File string
	journal.Repaired
	// LeftOut counts sound records that follow from nothing, as what they follow from is damaged: the end of a lease
	// whose grant is lost.
	LeftOut int
	// Restored counts leases whose grant is lost, and which a later record proves.
	Restored int
}

// Repair mends the journals of two folders, which no agent may be using. A lease may be held again
// whose end was in a lost record. Draws stay drawn. A journal is replaced only by one that a start
// replays.
func Repair(stateDir, runtimeDir string) (out []Repaired, err error) {
	var events eventsRepair
	for _, path := range []string{filepath.Join(stateDir, seals.DurableJournal),
		filepath.Join(runtimeDir, seals.RuntimeJournal)} {
		r, err := RepairJournal(path, events.mend)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return out, err
		}
		out = append(out, r)
	}
	return out, nil
}

// RepairJournal mends one journal: mend returns the records that are to stand for its own, and counts what it left out
// and restored. The error of a journal that is not there is an [fs.ErrNotExist].
func RepairJournal(path string, mend func(*Repaired, [][]byte) ([][]byte, error)) (r Repaired, err error) {
	r.File = path
	r.Repaired, err = journal.Repair(filepath.Dir(path), filepath.Base(path), func(records [][]byte) ([][]byte, error) {
		return mend(&r, records)
	})
	return r, err
}

// Verify reads the journals of two folders as a start does, and changes nothing. It calls found with the path of each
// that is there, and with what a start would say of it; nil: nothing. past says that the runtime folder's journal is of
// an earlier start of the host; damage that a start mends is a [*PastError] then.
func Verify(stateDir, runtimeDir string, past bool, found func(path string, err error)) {
	all := newReplay(enforcer.New(enforcer.Options{Durable: true}))
	broken := false
	for _, path := range []string{filepath.Join(stateDir, seals.DurableJournal),
		filepath.Join(runtimeDir, seals.RuntimeJournal)} {
		err := journal.Verify(path, all.apply)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		// A start mends nothing before the durable journal is sound.
		if past && !broken && filepath.Base(path) == seals.RuntimeJournal && !errors.Is(err, fs.ErrPermission) &&
			mendable(path, err) {
			err = &PastError{err}
		}
		broken = broken || err != nil
		found(path, err)
	}
}

// eventsRepair mends the journals of events, which are replayed one after the other.
type eventsRepair struct{ before [][]byte }

// mend returns the records that replay after those of the journals before.
func (e *eventsRepair) mend(out *Repaired, records [][]byte) ([][]byte, error) {
	into := newReplay(enforcer.New(enforcer.Options{Durable: true}))
	for _, b := range e.before {
		if err := into.apply(b); err != nil {
			return nil, err
		}
	}
	var keep [][]byte
	for _, b := range records {
		b, err := into.follow(out, b)
		if err != nil {
			return nil, err
		}
		if b == nil {
			continue
		}
		if err := into.apply(b); err != nil {
			return nil, err
		}
		keep = append(keep, b)
	}
	e.before = slices.Concat(e.before, keep)
	// The kept records are applied to a new core, as a start will apply them.
	again := newReplay(enforcer.New(enforcer.Options{Durable: true}))
	for _, b := range e.before {
		if err := again.apply(b); err != nil {
			return nil, err
		}
	}
	return keep, nil
}

// follow returns the record that replaces one, so that it follows from those that were applied; nil: none does.
func (r *replay) follow(out *Repaired, b []byte) ([]byte, error) {
	if len(b) > 0 && (b[0] == metaVersion || b[0] == markVersion) {
		if err := newReplay(nil).apply(b); err != nil {
			out.LeftOut++
			return nil, nil
		}
		return b, nil
	}
	ev, err := decodeEvent(b, r.held, nil)
	switch {
	case errors.Is(err, record.ErrNewer):
		return nil, err
	case errors.Is(err, errNotHeld) && ev.Lease != nil: // a later word of a lease says all that its grant said
		out.Restored++
		return encodeEvent(nil, enforcer.Event{Kind: enforcer.EventGranted, At: ev.Lease.AcquiredAt, Lease: ev.Lease}),
			nil
	case err != nil || !r.fits(ev):
		out.LeftOut++
		return nil, nil
	}
	return b, nil
}

// fits reports whether an event changes a lease only in what such an event may change.
func (r *replay) fits(ev enforcer.Event) bool {
	switch ev.Kind {
	case enforcer.EventRenewed, enforcer.EventChanged:
		was := r.held(ev.Lease.ID)
		sound := was.Lifetime == ev.Lease.Lifetime && slices.Equal(was.Items, ev.Lease.Items)
		return sound && (ev.Kind == enforcer.EventChanged || !was.ExpiresAt.IsZero() && !ev.Lease.ExpiresAt.IsZero())
	default:
		return true
	}
}
