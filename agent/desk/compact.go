package desk

import (
	"time"

	"github.com/usher-agent/usher/agent/journal"
	"github.com/usher-agent/usher/enforcer"
)

// compact has the journals begin with what is held now, where they have grown or the time was set: until when tokens
// are remembered has moved with it, and the records of before say otherwise. d is the desk whose events they are.
func (s *store) compact(d *Desk) {
	d.mu.Lock()
	steps, over, anew := d.steps, s.holdOffsOver, s.anew
	s.holdOffsOver, s.anew = false, false
	d.mu.Unlock()
	failed := false
	defer func() {
		if !failed {
			s.steps = steps
			return
		}
		d.mu.Lock()
		s.holdOffsOver, s.anew = s.holdOffsOver || over, s.anew || anew
		d.mu.Unlock()
	}()
	for _, j := range []*journal.Journal{s.runtime, s.durable} {
		if !j.Due() && steps == s.steps && !(over && j == s.durable) && !anew {
			continue
		}
		err := s.renew(j, d)
		if failed = failed || err != nil; err != nil {
			s.log.Error("the journal was not compacted; it goes on as it is", "error", err)
		}
	}
}

// snapshotStep is how many leases and tokens a compaction looks at while it holds the desk's lock: a small part of a
// millisecond's work.
const snapshotStep = 256

// rewrite has a journal begin with what is held, drawn and remembered now. Decisions go on meanwhile, and none waits
// for more than snapshotStep leases to be looked at.
func (s *store) rewrite(j *journal.Journal, d *Desk) (err error) {
	// What the snapshot speaks of and the place in the journal are of one moment.
	d.mu.Lock()
	n := s.number(j)
	if err := s.pay(j, n); err != nil && len(s.owed[n].records) > 0 {
		j.Fail(err) // so that nothing is written behind what it lacks
	}
	mark, paid := j.Mark(), len(s.owed[n].records)
	s.owed[n].covered = paid
	passed := s.passed
	snapshot, meters, clock := d.core.Snapshot(), d.core.Meters(), d.mark
	holdOffs, lingering := d.core.HoldOffs(), d.core.Lingers()
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		snapshot.End()
		if s.owed[n].covered = 0; err == nil {
			s.owed[n].settle(paid)
			s.placed = s.placed || j == s.runtime
		}
		d.mu.Unlock()
	}()
	return j.CompactFrom(mark, func(write func([]byte) error) error {
		out := writer{s: s, write: write, durable: j == s.durable, passed: passed}
		if err := out.begin(clock, meters, holdOffs, lingering); err != nil {
			return err
		}
		var p pace
		for {
			d.mu.Lock()
			part, err := snapshot.Next(snapshotStep)
			d.mu.Unlock()
			p.giveWay()
			if err == nil {
				err = out.part(part)
			}
			if err != nil || part.Last {
				return err
			}
		}
	})
}

// writer writes a snapshot's records, as far as they belong to one journal.
type writer struct {
	s       *store
	write   func([]byte) error
	durable bool          // it is the durable journal
	passed  time.Duration // as of the store, at the snapshot's instant
	buf     []byte
}

func (w *writer) put(ev enforcer.Event) error {
	if ev.Lease != nil && durable(&enforcer.Event{Lease: ev.Lease}) != w.durable {
		return nil
	}
	w.buf = encode(w.buf[:0], &ev, w.s.profiles.Load())
	return w.write(w.buf)
}

// begin writes what comes before all leases.
func (w *writer) begin(clock enforcer.Mark, meters []enforcer.Draw, holdOffs []*enforcer.HoldOff,
	lingering []*enforcer.Linger) error {
	if !w.durable {
		err := w.write(w.s.meta)
		for _, x := range lingering {
			if err == nil {
				err = w.put(lingers(x))
			}
		}
		return err
	}
	b, err := encodeMark(clock)
	if err == nil {
		err = w.write(b)
	}
	if err == nil && len(meters) > 0 {
		err = w.put(enforcer.Event{Kind: enforcer.EventSet, Draws: meters})
	}
	for _, h := range holdOffs {
		if err == nil {
			err = w.put(heldOff(h))
		}
	}
	return err
}

func (w *writer) part(p enforcer.Part) error {
	for _, g := range p.Leases {
		l := g.Lease
		err := w.put(enforcer.Event{Kind: enforcer.EventGranted, At: l.AcquiredAt, Lease: l, Terms: g.Terms})
		if err == nil && l.Unconfirmed { // with how long it has left
			err = w.put(enforcer.Event{Kind: enforcer.EventChanged, At: l.ExpiresAt.Add(w.passed - w.s.showWithin(l)),
				Lease: l})
		}
		if err != nil {
			return err
		}
	}
	for _, ev := range p.Tokens {
		if err := w.put(ev); err != nil {
			return err
		}
	}
	return nil
}
