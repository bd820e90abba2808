package desk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/agent/journal"
	"github.com/usher-agent/usher/agent/journal/sealed"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/enforcer"
)

// store keeps what the desk has acknowledged, in two journals. What dies with the host (leases of processes,
// connections and of a time to live) is written to the runtime folder, which dies with it, and needs no fsync; what
// outlives it (held leases, borrows, draws) is in the state folder, and on the disk before it is acknowledged. Recovery
// is Apply over both.
type store struct {
	runtime, durable *journal.Journal
	log              *slog.Logger
	meta             []byte        // the record of this boot and PID namespace
	placed           bool          // meta is written
	was              Place         // where the runtime's leases of before were granted
	mark             enforcer.Mark // as it was kept last when the store was opened
	due              chan struct{} // capacity 1: see wake
	nudged           chan struct{} // capacity 1: see Desk.LookAtJournals
	// how long unconfirmed leases had left when the store was opened
	doubts map[enforcer.LeaseID]time.Duration
	mixed  bool          // of what was found, not all are leases of a time to live without labels and data
	passed time.Duration // what present has written since; guarded by the desk's lock
	// the records of one write, where each ends in buf, and buf itself; reused
	records [][]byte
	ends    []int
	buf     []byte

	seals *seals.Seals // nil: nothing is sealed
	// leases of the durable journal, and some that have ended; under the desk's lock
	held    map[enforcer.LeaseID]struct{}
	touched [2]touched // of the runtime journal, of the durable one
	// the durable journal tells of hold-offs, none of which is in force any more; under the desk's lock
	holdOffsOver bool
	anew         bool           // the journals are to begin anew: another thing is kept of leases
	profiles     atomic.Bool    // of holders are kept
	steps        int            // how often the time had been set when the journals were compacted last; run's alone
	sealing      sync.Mutex     // one seal or compaction at a time; taken before the desk's lock
	trouble      sealed.Trouble // with seals; guarded by sealing
	owed         [2]debt        // of the runtime journal, of the durable one; under the desk's lock
	refused      [2]refusal     // likewise
	health       health
	locked       func(state bool) error                  // see Options
	beat         func(every time.Duration) time.Duration // likewise
	withheld     enforcer.Withheld
	found        []string // journals that are not as they were sealed
}

// metaVersion is the first byte of a record that says where the leases after it were granted.
const metaVersion = 0x80

// Place is where leases were granted, in which a process's number and start time are meant: a process of another boot
// is dead, one of another PID namespace is known by its inode or not at all.
type Place struct {
	Boot   string `json:"boot"`
	PIDNS  string `json:"pidns"`
	TimeNS string `json:"timens,omitempty"` // absent before it was written: as it is now
	// TimeOffset is how far that time namespace's clock is ahead of the host's.
	TimeOffset time.Duration `json:"time_offset_ns,omitempty"`
	// Present is how much longer there was an agent to which a holder that is not known to live could show itself.
	Present time.Duration `json:"present_ns,omitempty"`
}

// Here is the place of this process.
func Here() Place {
	ns, _ := os.Readlink("/proc/self/ns/pid") // none but on Linux
	times, _ := os.Readlink("/proc/self/ns/time")
	ahead, _ := clock.Offset()
	return Place{Boot: clock.BootID(), PIDNS: ns, TimeNS: times, TimeOffset: ahead}
}

// durable reports whether an event outlives the host.
func durable(ev *enforcer.Event) bool {
	switch ev.Kind {
	case enforcer.EventDrawn, enforcer.EventSet, enforcer.EventHeldOff, enforcer.EventLifted:
		return true
	default:
		return ev.Lease != nil && ev.Lease.Lifetime.OutlivesHost()
	}
}

// journalled reports whether an event is kept at all. A token is forgotten by its own time, which its lease's record
// tells.
func journalled(ev *enforcer.Event) bool { return ev.Durable() && ev.Kind != enforcer.EventForgot }

// openStore opens the journals and applies what they hold to core. now returns the licence time by a mark: what would
// end by itself gets its time anew from then.
func openStore(runtimeDir, stateDir string, sealed *seals.Seals, core *enforcer.Enforcer,
	now func(enforcer.Mark) time.Time,
	log *slog.Logger) (s *store, err error) {
	s = &store{log: log, due: make(chan struct{}, 1), nudged: make(chan struct{}, 1), seals: sealed,
		held:   map[enforcer.LeaseID]struct{}{},
		locked: func(bool) error { return nil },
		beat:   func(every time.Duration) time.Duration { return every }}
	for i := range s.touched {
		s.touched[i].wake = make(chan struct{}, 1)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	into := newReplay(core)
	into.each = s.note
	defer func() { s.mark, s.was, s.doubts, s.mixed = into.mark, into.was, into.left(), into.mixed }()
	if s.durable, err = s.open(stateDir, seals.DurableJournal, true, into); err != nil {
		return s, err
	}
	omitted, err := s.restore(core, &into.mark)
	if err != nil {
		return s, err
	}
	// This is not written: the next recovery comes to the same.
	into.resumeHoldOffs(now(into.mark))
	s.forgetHoldOffs(core)
	if err := s.mendPast(stateDir, runtimeDir); err != nil {
		return s, err
	}
	into.ready = now(into.mark).Add(readingTime(filepath.Join(runtimeDir, seals.RuntimeJournal)))
	if s.runtime, err = s.open(runtimeDir, seals.RuntimeJournal, false, into); err != nil {
		return s, err
	}
	into.resumeLingers(now(into.mark)) // nor is this written
	if s.past() && into.was.Boot == "" {
		into.was.Boot = earlier
	}
	if sealed != nil {
		s.withheld = sealed.Withheld(omitted)
		s.seal(s.durable, s.gistOf(core, into.mark))
		s.seal(s.runtime, nil)
	}
	b, err := json.Marshal(Here())
	if err != nil {
		return s, err
	}
	s.meta = append([]byte{metaVersion}, b...)
	if err = s.place(); errors.Is(err, journal.ErrFull) {
		log.Error("the runtime folder is full: until there is room, no lease is given that must be kept there",
			"folder", runtimeDir, "error", err)
		err = nil
	}
	return s, err
}

// readingTime returns how long a journal takes to be read at the most, a second for each 8 MiB: what is short-lived
// must not have ended by then.
func readingTime(path string) time.Duration {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return time.Duration(info.Size()>>23) * time.Second
}

// commit waits until a write may be acknowledged; nil: at once.
type commit func() error

// place writes where the leases of this start are granted. No record of one may stand before that. The desk's lock is
// held, or nobody else has the store yet.
func (s *store) place() error {
	_, err := s.runtime.Append(s.meta)
	s.placed = err == nil
	return err
}

// write writes events, in their order, before they are applied. What it returns is to be waited for outside the desk's
// lock. Where it fails, rest are the events that are not written.
func (s *store) write(events []enforcer.Event) (wait commit, rest []enforcer.Event, err error) {
	for i := 0; i < len(events); {
		if !journalled(&events[i]) {
			i++
			continue
		}
		c, n, err := s.writeSome(events[i:])
		if err != nil {
			return nil, events[i:], err
		}
		if c != nil {
			wait = c
		}
		i += n
	}
	return wait, nil, nil
}

// writeSome writes the first of some events, which is journalled, and those after it that go to the same journal, with
// one write. It returns how many these are, and what is to be waited for where that is the disk.
func (s *store) writeSome(events []enforcer.Event) (wait commit, n int, err error) {
	lasting := durable(&events[0])
	j, of := s.runtime, 0
	if lasting {
		j, of = s.durable, 1
	}
	if err := s.pay(j, of); err != nil {
		s.refused[of].note(err, 0)
		return nil, 0, err
	}
	s.touched[of].touch()
	s.buf, s.ends = s.buf[:0], s.ends[:0]
	for i := range events {
		if ev := &events[i]; journalled(ev) {
			if durable(ev) != lasting {
				break
			}
			if lasting {
				s.note(ev.Kind, ev.Lease)
			}
			s.buf = encode(s.buf, ev, s.profiles.Load())
			s.ends = append(s.ends, len(s.buf))
		}
		n++
	}
	s.records = s.records[:0]
	from := 0
	for _, to := range s.ends {
		s.records = append(s.records, s.buf[from:to:to])
		from = to
	}
	c, err := j.Append(s.records...)
	s.refused[of].note(err, len(s.buf))
	if err != nil {
		return nil, 0, err
	}
	if lasting {
		wait = func() error { return c.Wait(context.Background()) }
	}
	if c.Due {
		s.wake()
	}
	return wait, n, nil
}

// barrier returns the commit of all that was written so far.
func (s *store) barrier() commit {
	c, err := s.durable.Append()
	if err != nil {
		return func() error { return err }
	}
	return func() error { return c.Wait(context.Background()) }
}

// presentEvery is how often the journals are looked at, and how often it is written, while leases are unconfirmed, that
// there is an agent.
const presentEvery = time.Second

// RunJournals compacts the journals when they have grown, seals them, and keeps how long unconfirmed leases
// have left, until ctx ends. Call it beside Run.
func (d *Desk) RunJournals(ctx context.Context) error { return d.store.run(ctx, d) }

// LookAtJournals has RunJournals see at once whether the journals are well, and begin those anew that are not: a folder
// of theirs has just been mended. It waits for nothing.
func (d *Desk) LookAtJournals() {
	if d.store == nil {
		return
	}
	select {
	case d.store.nudged <- struct{}{}:
	default:
	}
}

// run is RunJournals.
func (s *store) run(ctx context.Context, d *Desk) error {
	tick := time.NewTimer(s.beat(presentEvery))
	defer tick.Stop()
	last := d.boot()
	var seal [2]<-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.due:
			s.compact(d)
		case <-s.nudged:
			s.health.hurry()
			s.look(d)
		case <-tick.C:
			tick.Reset(s.beat(presentEvery))
			now := d.boot()
			s.look(d)
			d.keepMemory()
			if d.Unconfirmed() > 0 {
				if err := s.present(d, now-last); err != nil {
					s.log.Error(
						"how long unconfirmed leases have left could not be written; a crash would give them longer",
						"error", err)
				}
			}
			last = now
		case <-s.touched[0].wake:
			seal[0] = time.After(seals.RuntimeAfter)
		case <-s.touched[1].wake:
			seal[1] = time.After(seals.DurableAfter)
		case <-seal[0]:
			s.sealNow(s.runtime, d)
		case <-seal[1]:
			s.sealNow(s.durable, d)
		}
	}
}

// present writes that there was an agent for a while longer.
func (s *store) present(d *Desk, more time.Duration) error {
	m := Here()
	m.Present = more
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.passed += more
	_, err = s.runtime.Append(append([]byte{metaVersion}, b...))
	return err
}

// showWithin returns how long the holder of a lease, which is not known to live, has to show itself.
func (s *store) showWithin(l *enforcer.Lease) time.Duration {
	if left, ok := s.doubts[l.ID]; ok && l.Unconfirmed {
		return left
	}
	return recoverWithin
}

// wake has run look whether the journals are to be compacted.
func (s *store) wake() {
	select {
	case s.due <- struct{}{}:
	default:
	}
}

// Close closes the journals.
func (s *store) Close() error {
	var errs []error
	for _, j := range []*journal.Journal{s.runtime, s.durable} {
		if j != nil {
			errs = append(errs, j.Close())
		}
	}
	return errors.Join(errs...)
}

// repeats reports whether a decision answers somebody, at once or after a wait, with a lease that an earlier request
// was granted and that must be on the disk before it is acknowledged.
func repeats(dec *enforcer.Decision) bool {
	if dec.Replayed && durable(&enforcer.Event{Lease: dec.Lease}) {
		return true
	}
	for i := range dec.Events {
		if ev := &dec.Events[i]; ev.Cause == enforcer.CauseReplayed && durable(ev) {
			return true
		}
	}
	return false
}

// gives reports whether somebody is given something by an event. d.mu is held.
func (d *Desk) gives(ev enforcer.Event) bool {
	switch ev.Kind {
	case enforcer.EventChanged: // joined or attached; who doubts or leaves takes
		was, held := d.core.Lease(ev.Lease.ID)
		return held && (len(ev.Lease.Others) > len(was.Others) || was.Unconfirmed && !ev.Lease.Unconfirmed)
	case enforcer.EventGranted, enforcer.EventRenewed, enforcer.EventDrawn, enforcer.EventSet, enforcer.EventNoted,
		enforcer.EventHeldOff: // the admin is given the word that it holds
		return true
	default:
		return false
	}
}

func notStored(err error) *enforcer.Denial {
	return &enforcer.Denial{Code: enforcer.Storage,
		Detail: fmt.Sprintf("what was to be kept could not be stored: %v", err),
		Hint:   "see to the disk that state.dir and state.runtime_dir are on"}
}
