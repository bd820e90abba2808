package shares

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// plan is what is kept of one pool or meter, *Pool or *Meter, and says what is due.
type plan interface {
	limit(total int64)               // what the licence grants the whole site; zero: it is no term of it any more
	miss(now time.Duration, n int64) // of an acquire that was denied
}

// ledger is what is kept of the licences' pools, or of their meters. Its spans and instants are by one clock.
type ledger[P plan] struct {
	cfg  *Config
	mu   *sync.Mutex // the keeper's; guards entries
	file File
	// site returns the terms of a licence that are a whole site's, with what it grants; nil: no upstream gives shares.
	site func(Licence) map[string]enforcer.Limit
	make func() P
	// encode returns the record, and what to do once it is written. mu is held for both.
	encode  func(map[enforcer.Ref]*entry[P]) (data []byte, written func(), err error)
	unkept  string // what is logged when the record cannot be written
	entries map[enforcer.Ref]*entry[P]

	writing sync.Mutex // held over the disk, so that records are written in order; guards failing; taken before mu
	failing bool       // the record could not be written last
}

// entry is what is kept for one licence.
type entry[P plan] struct {
	state []byte       // what the upstream said last; recorded
	plans map[string]P // by pool or meter; recorded

	licence Licence
	named   bool                        // Set has named it
	goneAt  time.Duration               // since when it is not in force; zero: it is
	calling string                      // the pool or meter of the call that is under way; empty: none is
	fault   string                      // how calls failed last; empty: the last one did not
	failing map[string]enforcer.Failing // by whoever gives the shares: see Config.Giver
	watch   watch                       // of blocks
}

// inForce reports whether the licence is in force.
func (e *entry[P]) inForce() bool { return e.named && e.goneAt == 0 }

// refs returns what there is, in order. mu is held.
func (l *ledger[P]) refs() []enforcer.Ref { return slices.Sorted(maps.Keys(l.entries)) }

// set is Keeper.Set. mu is held.
func (l *ledger[P]) set(licences []Licence, now time.Duration) (changed bool) {
	there := map[enforcer.Ref]bool{}
	for _, licence := range licences {
		site := l.site(licence)
		if len(site) == 0 {
			continue
		}
		ref := licence.Ref()
		there[ref] = true
		e, _ := enforcer.Kept(l.entries, licence.License)
		if e == nil {
			e = &entry[P]{plans: map[string]P{}}
			l.entries[ref] = e
		}
		changed = changed || !e.inForce()
		e.licence, e.named, e.goneAt = licence, true, 0
		for name := range site {
			if _, ok := e.plans[name]; !ok {
				e.plans[name], changed = l.make(), true
			}
		}
		for name, p := range e.plans {
			p.limit(int64(site[name]))
		}
	}
	for ref, e := range l.entries {
		if e.inForce() && !there[ref] {
			e.goneAt = max(now, 1)
		}
	}
	return changed
}

// miss takes note of an acquire that was denied for want of n. mu is held.
func (l *ledger[P]) miss(name string, now time.Duration, n int64) {
	for _, e := range l.entries {
		if p, ok := e.plans[name]; ok && e.inForce() {
			p.miss(now, n)
		}
	}
}

// subject is a pool or meter of one licence.
type subject[P plan] struct {
	*entry[P]
	name string
	plan P
}

// due returns the calls that are to be made now, and how long to wait for more. next says what is due for a subject:
// nil for nothing, and when to look again (zero: when something changes). mu is held.
func (l *ledger[P]) due(now time.Duration, next func(subject[P]) (func(context.Context), time.Duration)) (
	calls []func(context.Context), wait time.Duration) {
	wait = longestTimer
	for _, ref := range l.refs() {
		e := l.entries[ref]
		if e.calling != "" || !e.named {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(e.plans)) {
			call, again := next(subject[P]{e, name, e.plans[name]})
			if call != nil {
				e.calling = name
				calls = append(calls, func(ctx context.Context) {
					call(ctx)
					l.mu.Lock()
					e.calling = ""
					l.mu.Unlock()
				})
				break // one call of a licence after the other: each shows what the last one said
			}
			if again != 0 {
				wait = min(wait, max(time.Millisecond, again-now))
			}
		}
	}
	return calls, wait
}

// call has send make one call of the given name, and tells of what came of it; nil: it went well. mu is not held.
func (l *ledger[P]) call(ctx context.Context, name string, licence Licence, state []byte, within time.Duration,
	send func(context.Context, plugin.Request) error) *plugin.Error {
	r := l.cfg.Request(licence.License, licence.Document)
	r.State, r.Nonce = state, make([]byte, 32)
	rand.Read(r.Nonce) // never fails: see crypto/rand
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	failed := failure(send(ctx, r))
	l.cfg.Called(name, resultOf(failed))
	return failed
}

// resultOf names what came of a call. That there is nothing to give is an answer, and no fault.
func resultOf(e *plugin.Error) string {
	switch {
	case e == nil:
		return "ok"
	case answered(e):
		return strings.ToLower(e.SystemCode)
	default:
		return string(e.Class)
	}
}

// answered reports whether an upstream's refusal is what it says to a caller while all is well.
func answered(e *plugin.Error) bool {
	switch e.SystemCode {
	case plugin.SystemFull, plugin.SystemLapsed, plugin.SystemNoPools, plugin.SystemSettling:
		return true
	}
	return false
}

// heard takes note of what came of a call to a giver, for the judge. mu is held.
func (e *entry[P]) heard(giver string, err *plugin.Error, now time.Time) {
	if err == nil || answered(err) {
		delete(e.failing, giver)
		return
	}
	if e.failing == nil {
		e.failing = map[string]enforcer.Failing{}
	}
	since := e.failing[giver].Since
	if since.IsZero() {
		since = now
	}
	e.failing[giver] = enforcer.Failing{Class: string(err.Class), Reason: err.Reason, Hint: err.Hint, Since: since,
		Who: giver}
}

// shared reports whether a licence in force has shares. mu is held.
func (l *ledger[P]) shared() bool {
	for _, e := range l.entries {
		if e.inForce() {
			return true
		}
	}
	return false
}

// faults adds the pools or meters of licences in force for which calls fail, and why. mu is held.
func (l *ledger[P]) faults(out map[enforcer.Share]enforcer.Failing) {
	for ref, e := range l.entries {
		for name := range e.plans {
			if f, fails := e.failing[l.cfg.Giver(name)]; fails && e.inForce() {
				out[enforcer.Share{License: ref, Pool: name}] = f
			}
		}
	}
}

// failure returns the error of a call as the contract has it; nil for none.
func failure(err error) *plugin.Error {
	if err == nil {
		return nil
	}
	var e *plugin.Error
	if !errors.As(err, &e) {
		e = plugin.Transiently("%v", err)
	}
	return e.Checked()
}

// failsOtherwise reports whether a call failed otherwise than the one before, so that it is to be logged. mu is held.
func (e *entry[P]) failsOtherwise(err *plugin.Error) bool {
	fault := string(err.Class) + err.SystemCode + err.Reason
	changed := e.fault != fault
	e.fault = fault
	return changed
}

// save writes the record, whole or not at all, and reports whether it could. change, unless nil, is written before it
// is in force: it makes a change and returns what undoes it, and is called again when the record is on the disk. mu is
// not held, so that nobody else waits for the disk.
func (l *ledger[P]) save(change func() (undo func())) bool {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	undo := func() {}
	if change != nil {
		undo = change()
	}
	data, written, err := l.encode(l.entries)
	undo()
	l.mu.Unlock()
	if err == nil {
		err = l.file.Write(l.file.Path, data)
	}
	if err != nil {
		if !l.failing {
			l.cfg.Log.Error(l.unkept, "error", fmt.Errorf("%s: %w", l.file.Path, err))
		}
		l.failing = true
		return false
	}
	l.failing = false
	l.mu.Lock()
	defer l.mu.Unlock()
	if change != nil {
		change()
	}
	written()
	return true
}

// Bounds of waits for both.
const (
	missedFor   = 5 * time.Second // for how long an acquire that was denied counts as need
	firstRetry  = 250 * time.Millisecond
	refusedWait = 5 * time.Minute // before an upstream that serves none, has no more, or refuses, is asked again
)

// backoff returns how long to wait after so many failures: full jitter under a bound that doubles, up to longest.
func backoff(tries int, longest time.Duration, jitter float64) time.Duration {
	bound := firstRetry << min(tries, 16)
	return firstRetry/2 + time.Duration(jitter*float64(min(bound, max(longest, firstRetry))))
}
