package desk

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/usher-agent/usher/agent/journal"
	"github.com/usher-agent/usher/enforcer"
)

// mostOwed is how many records are kept that a journal does not take. What ends beyond that goes on after a crash.
const mostOwed = 1 << 16

// debt is what has ended and a journal did not take, in its order. It is written before anything else is.
type debt struct {
	records [][]byte
	covered int  // how many of them the successor that is being written has no need of
	said    bool // that there is one
}

// errSucceeded reports that a journal lacks what its successor, which is not in its place yet or is only just, must not
// have: the snapshot that it begins with is of a later moment.
var errSucceeded = errors.New("the journal is being begun anew")

// settle forgets the first n records, which a successor of the journal has no need of.
func (b *debt) settle(n int) {
	b.records = b.records[n:]
	if len(b.records) == 0 {
		*b = debt{}
	}
}

// number returns the index of what is kept of a journal.
func (s *store) number(j *journal.Journal) int {
	if j == s.durable {
		return 1
	}
	return 0
}

// pay writes what a journal lacks before anything else is written to it. The desk's lock is held.
func (s *store) pay(j *journal.Journal, n int) error {
	if j == s.runtime && !s.placed {
		if err := s.place(); err != nil {
			return err
		}
	}
	if s.owed[n].covered > 0 {
		return errSucceeded
	}
	for len(s.owed[n].records) > 0 {
		if _, err := j.Append(s.owed[n].records[0]); err != nil {
			return err
		}
		s.touched[n].touch()
		s.owed[n].settle(1)
	}
	return nil
}

// owe keeps events that have ended something, until they can be written. why is why they cannot now. The desk's lock
// is held.
func (s *store) owe(events []enforcer.Event, why error) {
	for _, ev := range events {
		if !journalled(&ev) {
			continue
		}
		j, n := s.runtime, 0
		if durable(&ev) {
			j, n = s.durable, 1
		}
		b := encodeEvent(nil, ev)
		if s.pay(j, n) == nil {
			if _, err := j.Append(b); err == nil {
				continue
			}
		}
		if !s.owed[n].said {
			s.log.Error("what ended could not be written, and would be thought to go on after a crash; it is written "+
				"when that can be done", "error", why)
			s.owed[n].said = true
		}
		if len(s.owed[n].records) < mostOwed {
			s.owed[n].records = append(s.owed[n].records, b)
		}
	}
}

// refusal is why a journal has not taken what was to be kept in it, for want of room; its zero value: it has taken it.
type refusal struct {
	err  error
	size int // of what was to be kept, in bytes
}

// note takes note of what came of an Append of so many bytes.
func (r *refusal) note(err error, size int) {
	if err == nil && r.err != nil {
		*r = refusal{}
	} else if err != nil && errors.Is(err, journal.ErrFull) {
		*r = refusal{err, size}
	}
}

// still returns why a journal takes nothing; nil: there is room again. Nobody need ask for a lease to see that. The
// desk's lock is held.
func (r *refusal) still(j *journal.Journal) error {
	if r.err != nil && !errors.Is(j.Room(r.size), journal.ErrFull) {
		*r = refusal{}
	}
	return r.err
}

// The shortest and the longest pause between two tries to make a journal well.
const (
	mendAfter = presentEvery
	mendMost  = 5 * time.Second
)

// health is why journals are not well.
type health struct {
	mu     sync.Mutex // guards all below; a leaf
	faults [2]error   // of the runtime journal, of the durable one
	next   [2]time.Time
	pause  [2]time.Duration
}

// hurry has the next look try to make journals well, however short a time ago the last try was.
func (h *health) hurry() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next, h.pause = [2]time.Time{}, [2]time.Duration{}
}

// Unwell says why journals are not well; nil: they are. What is to be kept in one is denied meanwhile.
func (d *Desk) Unwell() error {
	if d.store == nil {
		return nil
	}
	h := &d.store.health
	h.mu.Lock()
	defer h.mu.Unlock()
	return errors.Join(h.faults[:]...)
}

// look sees whether the journals are well, and begins those anew that are not.
func (s *store) look(d *Desk) {
	for n, j := range []*journal.Journal{s.runtime, s.durable} {
		err := cmp.Or(s.locked(n == 1), j.Look())
		if errors.Is(err, journal.ErrClosed) {
			continue
		}
		d.mu.Lock()
		owed := s.pay(j, n)
		if len(s.owed[n].records) == 0 {
			owed = nil
		}
		full := s.refused[n].still(j)
		d.mu.Unlock()
		if s.turn(n, cmp.Or(err, owed, full)) && err != nil {
			s.mend(n, j, d, err)
		}
	}
}

// turn notes how a journal is, and reports whether it is time to try to make it well.
func (s *store) turn(n int, err error) bool {
	h := &s.health
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	switch was := h.faults[n]; {
	case err == nil:
		if was != nil {
			s.log.Info("a journal is well again", "journal", journalNames[n])
		}
		h.faults[n], h.pause[n] = nil, 0
		return false
	case was == nil:
		what := "a journal is not well, and is begun anew from what the agent knows"
		if errors.Is(err, journal.ErrFull) {
			what = "a journal has no room; what is to be kept in it is denied until it has"
		}
		s.log.Error(what, "journal", journalNames[n], "error", err)
		h.next[n] = now
	}
	h.faults[n] = err
	if now.Before(h.next[n]) {
		return false
	}
	h.pause[n] = min(max(mendAfter, 2*h.pause[n]), mendMost)
	h.next[n] = now.Add(h.pause[n])
	return true
}

var journalNames = [2]string{"of the runtime folder", "of the state folder"}

// mend begins a journal anew with what is held now. Nothing is acknowledged by one that cannot be.
func (s *store) mend(n int, j *journal.Journal, d *Desk, why error) {
	if n == 1 || !errors.Is(why, journal.ErrLost) {
		j.Fail(why)
	}
	err := s.locked(n == 1) // another agent may have the place of a folder that is not
	if err == nil {
		err = s.renew(j, d)
	}
	if err == nil {
		s.turn(n, nil)
		return
	}
	j.Fail(why)
	s.turn(n, fmt.Errorf("%w; beginning it anew failed: %w", why, err))
}

// renew has a journal begin with what is held now, and seals it.
func (s *store) renew(j *journal.Journal, d *Desk) error {
	s.sealing.Lock()
	err := s.rewrite(j, d)
	s.sealing.Unlock()
	if err == nil {
		s.sealNow(j, d)
	}
	return err
}
