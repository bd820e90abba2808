package desk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"

	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/agent/journal"
	"github.com/usher-agent/usher/agent/journal/record"
	"github.com/usher-agent/usher/agent/journal/sealed"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/enforcer"
)

// mostGist is of how many held leases the seal keeps a copy. Where there are more, and the journal is lost, no slot is
// handed out.
const mostGist = 512

// touched says that a journal was written since it was sealed.
type touched struct {
	since atomic.Bool
	wake  chan struct{}
}

// touch costs a look at one word where it was said before.
func (t *touched) touch() {
	if t.since.Load() || t.since.Swap(true) {
		return
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// gist is what the seal keeps of the durable journal, so that it is known when the journal is gone.
type gist struct {
	Draws   []enforcer.Draw `json:"draws,omitempty"`
	Mark    markRecord      `json:"mark"`
	Leases  [][]byte        `json:"leases,omitempty"` // a record each
	Omitted int             `json:"omitted,omitempty"`
	// a record each
	HoldOffs [][]byte `json:"hold_offs,omitempty"`
}

// vault returns the seal of a journal's folder, and the journal's name.
func (s *store) vault(j *journal.Journal) (*files.Vault, string) {
	if j == s.durable {
		return s.seals.State, seals.DurableJournal
	}
	return s.seals.Runtime, seals.RuntimeJournal
}

// open opens a journal and says how it is not as it was sealed.
func (s *store) open(dir, name string, sync bool, into *replay) (*journal.Journal, error) {
	c := journal.Config{Dir: dir, Name: name, Sync: sync, Late: !sync, Map: !sync}
	var vault *files.Vault
	if s.seals != nil {
		vault = s.seals.State
		if !sync {
			vault = s.seals.Runtime
		}
	}
	c.Expect = func(records int) { into.core.Reserve(into.core.Len() + records) }
	reading := readAhead(into)
	j, r, fault, err := sealed.Open(c, vault, reading.apply)
	if failed := reading.end(); err == nil {
		err = failed
	}
	into.core.Fit()
	if errors.Is(err, errNotHeld) || errors.Is(err, record.ErrUnreadable) {
		err = fmt.Errorf(
			"the journal %s: %w: run `usher doctor --repair`, which leaves it out and keeps the damaged file beside it",
			filepath.Join(dir, name), err)
	}
	if err != nil {
		return j, err
	}
	switch {
	case r.TornBytes > 0 && !sync && s.past():
		s.log.Warn("the end of the runtime folder's journal was lost, as by a power cut; it is of an earlier start of "+
			"the host, whose leases are over in any case", "journal", filepath.Join(dir, name), "bytes", r.TornBytes)
	case r.TornBytes > 0:
		s.log.Warn("a crash has cut the journal's last record off; it was never acknowledged", "journal",
			filepath.Join(dir, name), "bytes", r.TornBytes)
	}
	switch expected := false; {
	case fault == "":
	// the operator has been told
	case name == seals.DurableJournal && vault.Fact(seals.RepairedFact, &expected) && expected:
		s.found = append(s.found, name)
	default:
		if err := vault.Note(name, fault); err != nil {
			s.log.Warn("what was found of a journal could not be written; it is found again", "error", err)
		}
		s.found = append(s.found, name)
	}
	return j, nil
}

// note remembers a lease that outlives the host. The desk's lock is held, or nobody else knows the store.
func (s *store) note(kind enforcer.EventKind, l *enforcer.Lease) {
	switch kind {
	case enforcer.EventGranted, enforcer.EventRenewed, enforcer.EventChanged:
		if l.Lifetime.OutlivesHost() {
			s.held[l.ID] = struct{}{}
		}
	case enforcer.EventHeldOff, enforcer.EventLifted:
		s.holdOffsOver = true
	default:
	}
}

// gistOf returns the gist of the durable journal. The desk's lock is held, or nobody else knows the core.
func (s *store) gistOf(core *enforcer.Enforcer, mark enforcer.Mark) []byte {
	g := gist{Draws: core.Meters(), Mark: markRecord(mark)}
	for id := range s.held {
		l, ok := core.Lease(id)
		switch {
		case !ok:
			delete(s.held, id)
		case len(g.Leases) < mostGist:
			g.Leases = append(g.Leases,
				encodeEvent(nil, enforcer.Event{Kind: enforcer.EventGranted, At: l.AcquiredAt, Lease: l}))
		default:
			g.Omitted++
		}
	}
	for _, h := range core.HoldOffs() {
		g.HoldOffs = append(g.HoldOffs, encodeEvent(nil, heldOff(h)))
	}
	b, err := json.Marshal(g)
	if err != nil {
		s.log.Error("the gist of the journal could not be made, and its seal keeps the one before", "error", err)
		return nil
	}
	return b
}

// restore has a durable journal that is gone or was changed tell again what was last known: no meter stands lower, no
// held lease is missing, and the mark is no earlier. What the journal tells besides stands too. It returns of how many
// leases nothing is known.
func (s *store) restore(core *enforcer.Enforcer, mark *enforcer.Mark) (omitted bool, err error) {
	if len(s.found) == 0 {
		return false, nil
	}
	defer func() {
		if err == nil && s.seals.State.Fact(seals.RepairedFact, new(bool)) {
			err = s.seals.State.SetFact(seals.RepairedFact, false)
		}
	}()
	vault, name := s.vault(s.durable)
	var g gist
	if b := vault.Known(name); b == nil || json.Unmarshal(b, &g) != nil {
		return true, nil
	}
	is := map[string]enforcer.Draw{}
	for _, d := range core.Meters() {
		is[d.Key] = d
	}
	apply := func(ev enforcer.Event) error {
		if _, err := s.durable.Append(encodeEvent(nil, ev)); err != nil {
			return fmt.Errorf("what was last known could not be written to the journal: %w", err)
		}
		core.Apply(ev)
		s.note(ev.Kind, ev.Lease)
		return nil
	}
	var back []enforcer.Draw
	for _, d := range g.Draws {
		if was, ok := is[d.Key]; !ok || was.Period.Before(d.Period) ||
			was.Period.Equal(d.Period) && was.Drawn < d.Drawn {
			back = append(back, d)
		}
	}
	if len(back) > 0 {
		if err := apply(enforcer.Event{Kind: enforcer.EventSet, Draws: back}); err != nil {
			return false, err
		}
	}
	for _, b := range g.Leases {
		ev, err := decodeEvent(b, func(enforcer.LeaseID) *enforcer.Lease { return nil }, nil)
		if err != nil {
			return true, nil // another version wrote it: nothing is known of its records
		}
		if _, held := core.Lease(ev.Lease.ID); held {
			continue
		}
		if err := apply(ev); err != nil {
			return false, err
		}
	}
	for _, ev := range lostHoldOffs(core, g.HoldOffs) {
		if err := apply(ev); err != nil {
			return false, err
		}
	}
	if m := enforcer.Mark(g.Mark); m.Time.After(mark.Time) && (m.Unsure == 0 || mark.Time.IsZero()) {
		*mark = m
		b, err := encodeMark(m)
		if err == nil {
			_, err = s.durable.Append(b)
		}
		if err != nil {
			return false, fmt.Errorf("the latest time known could not be written to the journal: %w", err)
		}
	}
	c, err := s.durable.Append()
	if err == nil {
		err = c.Wait(context.Background())
	}
	return g.Omitted > 0, err
}

// seal has the seal speak for all that is written and safe. s.sealing is held, or nobody else knows the store.
func (s *store) seal(j *journal.Journal, gist []byte) {
	vault, name := s.vault(j)
	s.trouble.Tell(s.log, name, "what was written since the last seal is believed as it is found",
		sealed.Seal(j, vault, name, gist))
}

// sealAll seals both journals at the end.
func (s *store) sealAll(d *Desk) {
	if s.seals == nil {
		return
	}
	s.sealNow(s.durable, d)
	s.sealNow(s.runtime, d)
}

// sealNow seals a journal of a running agent. Nothing that decides waits for it.
func (s *store) sealNow(j *journal.Journal, d *Desk) {
	if s.seals == nil {
		return
	}
	s.sealing.Lock()
	defer s.sealing.Unlock()
	var gist []byte
	if j == s.durable {
		s.touched[1].since.Store(false)
		d.mu.Lock()
		gist = s.gistOf(d.core, d.mark)
		d.mu.Unlock()
		if err := s.barrier()(); err != nil { // what the gist tells is on the disk before it is sealed
			s.log.Warn("the journal could not be written to the disk", "error", err)
		}
	} else {
		s.touched[0].since.Store(false)
	}
	s.seal(j, gist)
}
