package enforcer

import (
	"encoding/binary"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var (
	poolNames  = []string{"a", "b", "c"}
	meterNames = []string{"m", "weekly", "monthly"}
)

// twin drives an enforcer and the model with the same requests and wants the same answers. It journals as the agent
// does, in two journals, and crashes as the agent may: between deciding and writing, between writing and applying, and
// within a write.
type twin struct {
	options     Options
	m           *model
	e, replayed *Enforcer // the second has the same events, and nothing else
	now         time.Time
	journals    [2][]Event // what outlives the host, and what does not; read in this order
	ids         []LeaseID
	serial      uint64
	taking      *taking
	crashing    int // at the next decision that is journalled: 1 before it is, 2 after
	crashed     bool
	room        Room
	stirred     []string   // pools, by the events since nobody was served
	anywhere    bool       // every pool is stirred
	licences    []*License // that may be in force
	usage       modelUsage
	ledger
}

// do has a request decided, journalled and applied, and reports whether the agent lives to see it: a decision that is
// lost has not happened, one that is journalled has, though nobody was told.
func (s *twin) do(t *rapid.T, r Request) (d Decision, lost bool) {
	before := fmt.Sprint(summary(s.e))
	s.lend(r)
	d = s.e.Decide(r, s.now)
	defer func() { // what lies in the room is nobody's any more when this is done
		d.Events = slices.Clone(d.Events)
		s.room.events[0] = Event{Kind: "overwritten", Lease: &Lease{}, Waiter: &Waiter{}}
	}()
	if after := fmt.Sprint(summary(s.e)); before != after {
		t.Fatalf("DecideChangesNothing: %T changed the state:\n%s\n%s", r, before, after)
	}
	if s.crashing > 0 && slices.ContainsFunc(d.Events, func(ev Event) bool { return ev.Durable() }) {
		s.crashed = true
		if s.crashing == 1 {
			return d, true
		}
	}
	for _, ev := range d.Events {
		s.journal(ev)
		s.see(t, s.e, ev)
		if !s.crashed {
			s.e.Apply(ev)
			s.replayed.Apply(ev)
			s.usage.saw(s.e, ev)
			var all bool
			s.stirred, all = ev.Stirs(s.stirred)
			s.anywhere = s.anywhere || all
		}
	}
	return d, false
}

// lend gives a request that may have a room the twin's only one.
func (s *twin) lend(r Request) {
	switch r := r.(type) {
	case *Acquire:
		r.Room = &s.room
	case *Release:
		r.Room = &s.room
	default:
	}
}

func (s *twin) journal(ev Event) {
	if !ev.Durable() || ev.Kind == EventForgot {
		return
	}
	i := 0
	if ev.Lease != nil && !outlasts(ev.Lease) || ev.Linger != nil {
		i = 1
	}
	s.journals[i] = append(s.journals[i], ev)
}

func outlasts(l *Lease) bool {
	return l.Lifetime == LifetimeHeld || l.Lifetime == LifetimeBorrow || l.Lifetime == LifetimeDraw
}

// recover makes an enforcer of the journals alone, now.
func (s *twin) recover(carry func(*Enforcer, *Event)) *Enforcer {
	e := New(s.options)
	// the mark outlives the agent
	e.Apply(Event{Kind: EventStepped, Unproved: s.m.unproved, Unsure: unsureFor(s.m.unsure)})
	for i, j := range s.journals {
		for _, h := range e.HoldOffs() { // read from the first journal, before the second
			if is := h.Resumed(s.now); i == 1 && is != h {
				e.Apply(Event{Kind: EventHeldOff, At: s.now, HoldOff: is})
			}
		}
		for _, ev := range j {
			switch ev.Kind {
			case EventGranted, EventRenewed, EventChanged:
				l := *ev.Lease // the journal keeps what was written
				l.ExpiresAt = l.Resumed(s.now, 15*time.Second)
				ev.Lease = &l
			default:
			}
			carry(e, &ev)
		}
	}
	for _, x := range e.Lingers() {
		if is := x.Resumed(s.now); is != x {
			e.Apply(Event{Kind: EventLingerOver, At: s.now, Linger: x, Cause: CauseExpired})
			e.Apply(Event{Kind: EventLingers, At: s.now, Linger: is})
		}
	}
	return e
}

// restart has the agent start again after a crash.
func (s *twin) restart(t *rapid.T) {
	s.crashing, s.crashed, s.taking = 0, false, nil
	s.e = s.recover(func(e *Enforcer, ev *Event) { // as the agent does: a snapshot and a record may tell of one grant
		if !e.Restore(ev) || ev.Kind == EventGranted && e.Restore(ev) {
			t.Fatalf("a record is not carried out once: %+v", ev)
		}
	})
	s.replayed = s.recover(func(e *Enforcer, ev *Event) { e.Apply(*ev) })
	s.anywhere = true
	s.usage.begin(s.e, s.now)
	s.m.resume(s.now)
	s.acknowledgedSurvives(t)
	s.do(t, &SetPolicies{NewPolicies(s.m.rules)})
	if s.m.verdict != nil {
		s.do(t, &SetVerdict{s.m.verdict})
	}
	s.m.crash(s.now)
	for _, l := range s.m.leases {
		if i := s.m.find(l.id); l.lifetime != LifetimeBorrow && !l.expires.IsZero() &&
			s.m.leases[i].expires.Before(s.now.Add(15*time.Second)) {
			t.Fatalf("NothingFreedByAbsence: lease %v has no time to show itself", l.id)
		}
	}
	s.tick(t)
}

// settle ends a step: a crash that was under way is over, what is due ends, and waiters are served.
func (s *twin) settle(t *rapid.T) {
	if s.crashed {
		s.restart(t)
	}
	s.tick(t)
	s.serve(t, false)
}

// tick ends what is due. Crashes within that are away's.
func (s *twin) tick(t *rapid.T) {
	crashing := s.crashing
	s.crashing = 0
	defer func() { s.crashing = crashing }()
	for at := s.e.NextTick(); !at.IsZero() && !at.After(s.now); at = s.e.NextTick() {
		if d, _ := s.do(t, &Tick{}); len(d.Events) == 0 {
			t.Fatalf("a tick is due at %v and does nothing", at)
		}
	}
	s.m.pass(s.now)
}

// serve has waiters served, and wants the model to serve the same in the same order.
func (s *twin) serve(t *rapid.T, recheck bool) {
	if recheck {
		waiting := len(s.m.queue)
		s.m.queue = slices.DeleteFunc(s.m.queue, func(w modelWaiter) bool { return s.m.vain(w, s.now) })
		if away := waiting - len(s.m.queue); away > 0 {
			if d, _ := s.do(t, &Serve{Recheck: true}); len(d.Events) != away {
				t.Fatalf("%d wait in vain, and %+v are turned away", away, d.Events)
			}
		}
	}
	for {
		before := *s.m
		before.queue = slices.Clone(s.m.queue)
		serve := &Serve{Recheck: recheck}
		if !s.anywhere {
			serve.Among = append([]string{}, s.stirred...)
		}
		d, lost := s.do(t, serve)
		if recheck = false; len(d.Events) == 0 {
			s.stirred, s.anywhere = nil, false
		}
		if lost {
			s.restart(t)
			continue
		}
		got, want := "", s.m.serve(s.now)
		switch {
		case d.Lease != nil:
			got = fmt.Sprint(d.Lease.ID, " ", d.Lease.Items)
			if d.Lease.Lifetime != LifetimeDraw {
				s.ids = append(s.ids, d.Lease.ID)
			}
			s.firstComeFirstServed(t, &before, d.Lease)
		case len(d.Events) > 0 && d.Events[0].Cause == CauseReplayed:
			got = fmt.Sprint(d.Events[0].Waiter.ID, " has it already")
		case len(d.Events) > 0:
			got = fmt.Sprint(d.Events[0].Waiter.ID, " is turned away")
		}
		if got != want {
			t.Fatalf("served %q, the model serves %q", got, want)
		}
		if s.crashed {
			s.restart(t)
		} else if got == "" {
			return
		}
	}
}

func (s *twin) acquire(t *rapid.T, r *Acquire) {
	s.serial++
	binary.BigEndian.PutUint64(r.ID[:], s.serial)
	r.Caller = s.caller(t)
	if rapid.IntRange(0, 2).Draw(t, "waits") == 0 {
		r.Wait = time.Duration(rapid.IntRange(1, 30).Draw(t, "wait")) * time.Second
	}
	if rapid.IntRange(0, 3).Draw(t, "with token") == 0 {
		r.Token = rapid.SampledFrom([]string{"x", "y"}).Draw(t, "token")
	}
	if rapid.IntRange(0, 3).Draw(t, "with label") == 0 {
		r.Labels = map[string]string{"job": rapid.SampledFrom([]string{"", "a long job", "other"}).Draw(t, "label")}
	}
	if owner := s.owner(t); owner != "" {
		r.Data = &Data{Owner: owner, Bytes: fmt.Append(nil, "of ", s.serial)}
	}
	if r.Lifetime == "" {
		r.Lifetime = rapid.SampledFrom([]Lifetime{LifetimeTTL, LifetimeTTL, LifetimeHeld, LifetimeProcess,
			LifetimeConnection, LifetimeBorrow}).Draw(t, "lifetime")
	}
	r.Named = r.Lifetime == LifetimeProcess && rapid.Bool().Draw(t, "named")
	switch r.Lifetime {
	case LifetimeTTL:
		r.TTL = time.Duration(rapid.IntRange(1, 30).Draw(t, "ttl")) * time.Second
	case LifetimeBorrow:
		r.Until = s.now.Add(time.Duration(rapid.OneOf(rapid.Int64Range(0, 20), rapid.Int64Range(-1, 90_000)).Draw(t,
			"until")) * time.Second)
	default:
	}
	granted, waits, replayed, why := s.m.answer(r, s.now)
	tok := s.m.tokens[tokenText(r)]
	explained := s.explains(r)
	got, lost := s.do(t, r)
	explained(t, got)
	switch {
	case code(got) != why:
		t.Fatalf("acquire %+v: got %q (%v), the model says %q", r, code(got), got.Denial, why)
	case why == NoSlots:
		s.deniedOnlyWhenFull(t, r)
	case why == MeterEmpty:
		s.deniedOnlyWhenEmpty(t, r)
	case why != "":
	case replayed:
		if !got.Replayed || got.Lease == nil || got.Lease.ID != tok.id || len(got.Events) != 0 ||
			tok.draw && got.Lease.Data != tok.data {
			t.Fatalf("a retry with the same token got %+v", got)
		}
	case waits:
		if got.Waiter == nil || got.Lease != nil {
			t.Fatalf("acquire %+v: got %+v, and it waits in the model", r, got)
		}
		if !s.crashed {
			_, draws := s.m.at(s.now).Meters[itemsOf(r)[0].Pool]
			s.m.enqueue(modelWaiter{r: r, items: itemsOf(r), draws: draws, until: sooner(s.now.Add(r.Wait), r.Until),
				since: s.now})
		}
	case got.Replayed || got.Lease == nil || !slices.Equal(got.Lease.Items, granted):
		t.Fatalf("acquire %+v: got %+v, the model grants %v", r, got.Lease, granted)
	case !lost:
		s.narrowsOnly(t, r)
		s.noStarvation(t, got.Lease)
		s.m.grant(r, granted, s.now)
		if got.Lease.Lifetime != LifetimeDraw {
			s.ids = append(s.ids, r.ID)
		}
	}
}

// change carries out a request about one lease, of which the model says what comes of it.
func (s *twin) change(t *rapid.T, r Request, why DenialCode, effect func()) {
	got, lost := s.do(t, r)
	if code(got) != why {
		t.Fatalf("%T %+v: got %q (%v), the model says %q", r, r, code(got), got.Denial, why)
	}
	if why == "" && !lost && effect != nil {
		effect()
		s.m.eased()
	}
}

func code(d Decision) DenialCode {
	if d.Denial == nil {
		return ""
	}
	return d.Denial.Code
}

// wait lets time pass as the agent does: what is due happens at its instant.
func (s *twin) wait(t *rapid.T) {
	seconds := rapid.OneOf(rapid.Int64Range(0, 8), rapid.Int64Range(0, 20), rapid.Int64Range(0, 90_000),
		rapid.Int64Range(0, 3_000_000)).Draw(t, "seconds")
	s.pass(t, time.Duration(seconds)*time.Second)
}

func (s *twin) pass(t *rapid.T, span time.Duration) {
	target := s.now.Add(span)
	for at := s.e.NextTick(); !at.IsZero() && at.Before(target); at = s.e.NextTick() {
		s.now = later(s.now, at)
		s.tick(t)
		s.serve(t, false)
	}
	s.now = target
}

// away is a crash within a tick, of which a part was written, and some time until the agent is back.
func (s *twin) away(t *rapid.T) {
	if at := s.e.NextTick(); !at.IsZero() {
		s.now = later(s.now, at)
		d := s.e.Decide(&Tick{}, s.now)
		for _, ev := range d.Events[:rapid.IntRange(0, len(d.Events)).Draw(t, "written")] {
			s.journal(ev)
			switch ev.Kind {
			case EventEnded:
				s.see(t, s.e, ev)
				s.m.drop(ev.Lease.ID)
			case EventLifted:
				s.m.lift(ev.HoldOff.Lease)
			case EventLingerOver:
				s.m.unlinger(ev.Linger)
			default:
			}
		}
	}
	s.now = s.now.Add(time.Duration(rapid.Int64Range(0, 100).Draw(t, "away")) * time.Second)
	s.restart(t)
}

// unsureFor returns for how long a first clock still needs its proof.
func unsureFor(unsure bool) time.Duration {
	if unsure {
		return Leap
	}
	return 0
}

// takeOver has what was drawn in a false period recorded in the present one, if the agent lives to see it.
func (s *twin) takeOver(t *rapid.T) {
	if _, lost := s.do(t, &TakeOver{}); lost || s.m.verdict == nil {
		return
	}
	for _, g := range s.m.verdict.Meters {
		s.m.move(g, s.now)
	}
}

// step sets the time, and tells of it as the agent does.
func (s *twin) step(t *rapid.T) {
	by := time.Duration(rapid.OneOf(rapid.Int64Range(-30, 30), rapid.Int64Range(-3_000_000, 3_000_000)).Draw(t, "by")) *
		time.Second
	s.now = s.now.Add(by)
	unproved := time.Duration(rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, 6_000_000)).Draw(t, "unproved")) *
		time.Second
	unsure := rapid.Bool().Draw(t, "unsure")
	s.do(t, &Step{by, unproved, unsureFor(unsure)})
	s.m.step(by, unproved, unsure)
	s.takeOver(t)
	// else the journal, which is not told of forgetting, may remember by the former time what was forgotten
	s.compact(t)
	for k, at := range s.byToken {
		s.byToken[k] = at.Add(min(0, by)) // set forward, it is remembered for longer
	}
}

// Longer sequences than rapid's own, unless the command line says otherwise.
func init() { _ = flag.Set("rapid.steps", "60") }

func newTwin(t *rapid.T) *twin {
	o := Options{Durable: true}
	if rapid.IntRange(0, 2).Draw(t, "narrow") == 0 {
		o = Options{Durable: true, MaxLeases: rapid.IntRange(1, 8).Draw(t, "leases"),
			MaxTokens:  rapid.IntRange(1, 4).Draw(t, "tokens"),
			MaxWaiters: rapid.IntRange(1, 6).Draw(t, "waiters"), MaxBytes: rapid.IntRange(1, 900).Draw(t, "bytes"),
			MaxHoldOffs: rapid.IntRange(1, 3).Draw(t, "hold-offs")}
	}
	o.batch = pick(t, "batch", 1, 2, 3, Batch)
	o.CountUsers, o.mostUsers = true, pick(t, "users", 1, 2, mostUsers)
	s := &twin{options: o, m: newModel(o), e: New(o), replayed: New(o),
		now: time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC), ledger: newLedger()}
	s.issue(t)
	s.usage.begin(s.e, s.now)
	return s
}

func (s *twin) crashNext(t *rapid.T) { s.crashing = rapid.IntRange(1, 2).Draw(t, "journalled") }

func (s *twin) check(t *rapid.T) {
	s.settle(t)
	s.invariants(t)
	s.usage.agree(t, s.e, s.now)
}

// TestAgainstModel: whatever is asked for in whatever order, and wherever the agent dies, the answers are the model's,
// and the invariants hold: DecideChangesNothing, NeverOverBudget, CountsAgree, NoStarvation, FirstComeFirstServed,
// GrantedTheInstantItFits, DeniedOnlyWhenFull, DrawExactlyOnce, TokenKeptADay, EndedForAReason, BorrowedUntilItsDate,
// AcknowledgedSurvives, NothingFreedByAbsence, AccountsAgree, NothingStaysDue, ReplayMakesTheSameState,
// UsageAgrees.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newTwin(t)
		pool := rapid.SampledFrom(poolNames)
		parts := rapid.SampledFrom([]int64{0, 0, 2, 4})
		one := func(t *rapid.T) {
			r := &Acquire{Pool: pool.Draw(t, "pool"), N: rapid.Int64Range(1, 4).Draw(t, "n"), Of: parts.Draw(t, "of")}
			if rapid.IntRange(0, 3).Draw(t, "part") == 0 {
				r.MinN = rapid.Int64Range(1, r.N).Draw(t, "min_n")
			}
			s.acquire(t, r)
		}
		if rapid.IntRange(0, 9).Draw(t, "no licence yet") > 0 {
			s.licence(t)
		}
		t.Repeat(map[string]func(*rapid.T){
			"acquire": one, "acquire 2": one, "acquire 3": one, "acquire 4": one, // more often than others
			"acquire items": func(t *rapid.T) {
				s.acquire(t, &Acquire{Items: []Item{{Pool: "a", N: rapid.Int64Range(1, 3).Draw(t, "a")},
					{Pool: pool.Filter(func(p string) bool {
						return p != "a"
					}).Draw(t, "other"), N: rapid.Int64Range(1, 3).Draw(t, "b"), Of: parts.Draw(t, "of")}}})
			},
			"draw": s.draw, "draw items": s.drawItems, "draws arrive": s.drawsArrive,
			"renew": s.renew, "release": s.release, "join": s.join, "leave": s.leave, "doubt": s.doubt,
			"attach":      s.attach,
			"holder dies": s.holderDies, "adjust": s.adjust, "shift": s.shift, "set data": s.setData,
			"give up": s.giveUp, "time": s.wait, "licence": s.licence, "join 2": s.join, "gone": s.gone, "step": s.step,
			"crash": s.away, "evict": s.evict, "attach 2": s.attach, "compact": s.compact,
			"compact on": s.compactOn, "compact on 2": s.compactOn,
			"crash in the next": s.crashNext, "": s.check,
		})
	})
}
