package enforcer

import (
	"cmp"
	"encoding/binary"
	"flag"
	"fmt"
	"math"
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
	crashing    int // at the next decision that is journalled: 1 before it is, 2 after
	crashed     bool
	licences    []*License // that may be in force
	ledger
}

// do has a request decided, journalled and applied, and reports whether the agent lives to see it: a decision that is
// lost has not happened, one that is journalled has, though nobody was told.
func (s *twin) do(t *rapid.T, r Request) (d Decision, lost bool) {
	before := fmt.Sprint(summary(s.e))
	d = s.e.Decide(r, s.now)
	if after := fmt.Sprint(summary(s.e)); before != after {
		t.Fatalf("DecideChangesNothing: %T changed the state:\n%s\n%s", r, before, after)
	}
	if s.crashing > 0 && slices.ContainsFunc(d.Events, Event.Durable) {
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
		}
	}
	return d, false
}

func (s *twin) journal(ev Event) {
	if !ev.Durable() || ev.Kind == EventForgot {
		return
	}
	i := 0
	if ev.Lease != nil && !outlasts(ev.Lease) {
		i = 1
	}
	s.journals[i] = append(s.journals[i], ev)
}

func outlasts(l *Lease) bool {
	return l.Lifetime == LifetimeHeld || l.Lifetime == LifetimeBorrow || l.Lifetime == LifetimeDraw
}

// recover makes an enforcer of the journals alone, now.
func (s *twin) recover() *Enforcer {
	e := New(s.options)
	e.Apply(Event{Kind: EventStepped, Unproved: s.m.unproved}) // the mark outlives the agent
	for _, j := range s.journals {
		for _, ev := range j {
			switch ev.Kind {
			case EventGranted, EventRenewed, EventChanged:
				l := *ev.Lease // the journal keeps what was written
				l.ExpiresAt = l.Resumed(s.now, 15*time.Second)
				ev.Lease = &l
			default:
			}
			e.Apply(ev)
		}
	}
	return e
}

// compact has the journals begin with what the enforcer holds and remembers now.
func (s *twin) compact(*rapid.T) {
	for i, keep := range []func(*Lease) bool{outlasts, func(l *Lease) bool { return !outlasts(l) }} {
		var j []Event
		if i == 0 {
			j = append(j, Event{Kind: EventSet, Draws: s.e.Meters()})
		}
		for _, g := range s.e.Granted(keep) {
			j = append(j, Event{Kind: EventGranted, At: g.Lease.AcquiredAt, Lease: g.Lease, Terms: g.Terms})
		}
		s.journals[i] = append(j, s.e.Remembered(keep)...)
	}
	s.m.compact()
}

// restart has the agent start anew after a crash.
func (s *twin) restart(t *rapid.T) {
	s.crashing, s.crashed = 0, false
	s.e, s.replayed = s.recover(), s.recover()
	s.m.resume(s.now)
	s.acknowledgedSurvives(t)
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

// settle ends a step: a crash that was under way is over, what is due ends, and who waits is served.
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
		s.m.queue = slices.DeleteFunc(s.m.queue, func(w modelWaiter) bool { return s.m.vain(w.r, s.now) })
	}
	for {
		queue := slices.Clone(s.m.queue)
		d, lost := s.do(t, &Serve{Recheck: recheck})
		if lost {
			s.restart(t)
			continue
		}
		if len(d.Events) > 0 && d.Events[0].Cause == CauseDenied {
			continue
		}
		got, want := "", s.m.serve(s.now)
		if d.Lease != nil {
			got = fmt.Sprint(d.Lease.ID, d.Lease.Items)
			s.ids = append(s.ids, d.Lease.ID)
			s.firstComeFirstServed(t, queue, d.Lease)
		} else if len(d.Events) > 0 {
			got = fmt.Sprint(d.Events[0].Waiter.ID, " has it already")
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
		r.Labels = map[string]string{"job": rapid.SampledFrom([]string{"", "a long job"}).Draw(t, "label")}
	}
	if owner := s.owner(t); owner != "" {
		r.Data = &Data{Owner: owner, Bytes: fmt.Append(nil, "of ", s.serial)}
	}
	if r.Lifetime == "" {
		r.Lifetime = rapid.SampledFrom([]Lifetime{LifetimeTTL, LifetimeTTL, LifetimeHeld, LifetimeProcess,
			LifetimeConnection, LifetimeBorrow}).Draw(t, "lifetime")
	}
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
	got, lost := s.do(t, r)
	switch {
	case code(got) != why:
		t.Fatalf("acquire %+v: got %q (%v), the model says %q", r, code(got), got.Denial, why)
	case why == NoSlots:
		s.deniedOnlyWhenFull(t, r)
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
			s.m.queue = append(s.m.queue, modelWaiter{r, itemsOf(r), sooner(s.now.Add(r.Wait), r.Until)})
		}
	case got.Replayed || got.Lease == nil || !slices.Equal(got.Lease.Items, granted):
		t.Fatalf("acquire %+v: got %+v, the model grants %v", r, got.Lease, granted)
	case !lost:
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

// lease draws a lease, mostly one that is held and of those one that is doubted, and somebody who may be its holder.
func (s *twin) lease(t *rapid.T) (LeaseID, Caller) {
	c := s.caller(t)
	if len(s.ids) == 0 {
		return LeaseID{0xff}, c
	}
	if len(s.m.leases) == 0 || rapid.IntRange(0, 9).Draw(t, "stranger") == 0 {
		return rapid.SampledFrom(s.ids).Draw(t, "id"), c
	}
	some := s.m.leases
	if rapid.Bool().Draw(t, "a doubted one") {
		if doubted := slices.DeleteFunc(slices.Clone(some), func(l modelLease) bool {
			return !l.unconfirmed
		}); len(doubted) > 0 {
			some = doubted
		}
	}
	l := rapid.SampledFrom(some).Draw(t, "lease")
	if rapid.IntRange(0, 3).Draw(t, "holder") > 0 {
		c = rapid.SampledFrom(l.holders).Draw(t, "which")
	}
	return l.id, c
}

func (s *twin) caller(t *rapid.T) Caller {
	uid := rapid.SampledFrom([]uint32{1, 2, 1, 2, 1, 2, Nobody}).Draw(t, "uid")
	c := Caller{UID: uid, Credential: rapid.SampledFrom([]string{"", "", "", "key"}).Draw(t, "credential")}
	return process(c, rapid.SampledFrom([]int{1, 2, 1, 2, 1, 2, 0, -1}).Draw(t, "process"))
}

// process is one of a user's: 1 to 3 are visible and in different pods, -1 is known by its inode alone, and 0 not at
// all.
func process(c Caller, n int) Caller {
	switch {
	case n > 0:
		c.PID, c.Start = int32(10*(c.UID%10)+uint32(n)), 1
		c.Pod = []string{"", "p1", "p2"}[n-1]
	case n < 0:
		c.Inode = 7
	}
	return c
}

// owner draws who keeps data on a lease; mostly nobody.
func (s *twin) owner(t *rapid.T) string {
	return rapid.SampledFrom([]string{"", "", "", "p", "q"}).Draw(t, "owner")
}

// through draws through whom a lease is acted on: mostly who keeps data on it.
func (s *twin) through(t *rapid.T, id LeaseID) string {
	if i := s.m.find(id); i >= 0 && rapid.IntRange(0, 5).Draw(t, "its own owner") > 0 {
		if d := s.m.leases[i].data; d != nil {
			return d.Owner
		}
		return ""
	}
	return s.owner(t)
}

func (s *twin) setData(t *rapid.T) {
	id, c := s.lease(t)
	s.serial++
	r := &SetData{ID: id, Caller: c, Data: &Data{Owner: s.through(t, id), Bytes: fmt.Append(nil, "then ", s.serial)}}
	if rapid.IntRange(0, 9).Draw(t, "large") == 0 {
		r.Data.Bytes = make([]byte, MaxData+1)
	}
	i, why := s.m.find(id), s.m.act(id, c, r.Data.Owner, false)
	switch {
	case r.Data.Owner == "":
		why = BadRequest
	case len(r.Data.Bytes) > MaxData:
		why = TooLarge
	case why == "":
		l := s.m.leases[i]
		if s.m.tooMuch(c.Who(), kept(l.labels, r.Data, len(l.holders)-1)-kept(l.labels, l.data, len(l.holders)-1)) {
			why = RateLimited
		}
	}
	s.change(t, r, why, func() { s.m.leases[i].data = r.Data })
}

func (s *twin) renew(t *rapid.T) {
	id, c := s.lease(t)
	ttl := time.Duration(rapid.IntRange(0, 30).Draw(t, "ttl")) * time.Second
	owner := s.through(t, id)
	i, why := s.m.find(id), s.m.act(id, c, owner, false)
	if why == "" && s.m.leases[i].lifetime != LifetimeTTL {
		why = BadRequest
	}
	same, held := true, []Caller(nil)
	if why == "" {
		same, held = s.same(s.m.leases[i], c), append([]Caller{c}, s.m.leases[i].holders[1:]...)
		if !same {
			why = s.m.rehold(i, held, s.now)
		}
	}
	s.change(t, &Renew{ID: id, Caller: c, Owner: owner, TTL: ttl}, why, func() {
		l := &s.m.leases[i]
		if ttl > 0 {
			l.ttl = ttl
		}
		l.expires = s.now.Add(l.ttl)
		if !same {
			l.holders = held
		}
	})
}

// same reports whether a caller counts as one of a lease's holders in each of its pools.
func (s *twin) same(l modelLease, c Caller) bool {
	return !slices.ContainsFunc(l.items, func(it Item) bool {
		g := s.m.pools[it.Pool]
		by := cmp.Or(g.HoldersBy, g.CountBy)
		return !slices.ContainsFunc(l.holders, func(h Caller) bool { return s.m.group(by, h) == s.m.group(by, c) })
	})
}

func (s *twin) release(t *rapid.T) {
	id, c := s.lease(t)
	c.Admin = rapid.Bool().Draw(t, "admin")
	force := rapid.IntRange(0, 4).Draw(t, "force") == 0
	owner := s.through(t, id)
	i, why := s.m.find(id), s.m.act(id, c, owner, force)
	switch {
	case force && !c.Admin:
		why = Forbidden
	case why == "" && s.m.leases[i].lifetime == LifetimeBorrow && !force && !s.m.verdict.EarlyReturn:
		why = Forbidden
	}
	s.change(t, &Release{ID: id, Caller: c, Owner: owner, Force: force}, why, func() { s.m.drop(id) })
}

func (s *twin) join(t *rapid.T) {
	id, c := s.lease(t)
	c = process(Caller{UID: c.UID, Credential: c.Credential}, rapid.IntRange(-1, 3).Draw(t, "process"))
	i, why := s.m.find(id), s.m.act(id, c, "", false)
	if why == "" && s.m.leases[i].lifetime != LifetimeProcess {
		why = BadRequest
	} else if why == "" && !slices.Contains(s.m.leases[i].holders, c) {
		if why = RateLimited; !s.m.tooMuch(c.Who(), holderBytes) {
			why = s.m.rehold(i, append(slices.Clone(s.m.leases[i].holders), c), s.now)
		}
	}
	s.change(t, &Join{ID: id, Caller: c}, why, func() {
		if l := &s.m.leases[i]; !slices.Contains(l.holders, c) {
			l.holders = append(slices.Clip(l.holders), c)
		}
	})
}

func (s *twin) leave(t *rapid.T) {
	id, c := s.lease(t)
	i, why := s.m.find(id), DenialCode("")
	if i < 0 {
		why = LeaseUnknown
	}
	s.change(t, &Leave{ID: id, Holder: c}, why, func() {
		l := &s.m.leases[i]
		if l.holders = slices.DeleteFunc(slices.Clone(l.holders), func(h Caller) bool {
			return h == c
		}); len(l.holders) == 0 {
			l.holders = []Caller{c}
			s.m.drop(id)
		}
	})
}

func (s *twin) doubt(t *rapid.T) {
	id, _ := s.lease(t)
	why := DenialCode("")
	i := s.m.find(id)
	if i < 0 {
		why = LeaseUnknown
	}
	until := s.now.Add(15 * time.Second)
	s.change(t, &Doubt{ID: id, Until: until}, why, func() {
		if l := &s.m.leases[i]; l.lifetime != LifetimeHeld && l.lifetime != LifetimeBorrow {
			l.expires, l.unconfirmed = until, l.lifetime != LifetimeTTL
		}
	})
}

func (s *twin) attach(t *rapid.T) {
	id, c := s.lease(t)
	i, why := s.m.find(id), s.m.act(id, c, "", false)
	var held []Caller
	if why == "" {
		held = append([]Caller{c}, slices.DeleteFunc(slices.Clone(s.m.leases[i].holders[1:]), func(o Caller) bool {
			return o == c
		})...)
		if s.m.leases[i].unconfirmed {
			why = s.m.rehold(i, held, s.now)
		} else if s.m.leases[i].lifetime != LifetimeProcess || s.m.leases[i].holders[0] != c {
			why = NotHolder
		}
	}
	s.change(t, &Attach{ID: id, Caller: c}, why, func() {
		if l := &s.m.leases[i]; l.unconfirmed {
			l.holders, l.expires, l.unconfirmed = held, time.Time{}, false
		}
	})
}

func (s *twin) holderDies(t *rapid.T) {
	id, _ := s.lease(t)
	why := DenialCode("")
	if s.m.find(id) < 0 {
		why = LeaseUnknown
	}
	s.change(t, &End{ID: id, Cause: CauseHolderGone}, why, func() { s.m.drop(id) })
}

func (s *twin) adjust(t *rapid.T) {
	r := &Adjust{Pool: rapid.SampledFrom(append(meterNames, "a")).Draw(t, "meter"),
		Drawn: rapid.Int64Range(-1, 9).Draw(t, "drawn"), Caller: Caller{Admin: rapid.Bool().Draw(t, "admin")}}
	why := DenialCode("")
	switch {
	case !r.Caller.Admin:
		why = Forbidden
	case r.Drawn < 0:
		why = BadRequest
	case s.m.verdict == nil:
		why = LicenseMissing
	case s.m.at(s.now).Meters[r.Pool].Name == "":
		why = PoolUnknown
	}
	s.change(t, r, why, func() {
		g := s.m.at(s.now).Meters[r.Pool]
		s.m.draws = append(s.m.draws, modelDraw{g.Key, r.Drawn, s.m.counting(g, s.now), true})
	})
}

func (s *twin) shift(t *rapid.T) {
	r := &Shift{Pool: rapid.SampledFrom(append(meterNames, "a")).Draw(t, "meter"),
		Caller: Caller{Admin: rapid.Bool().Draw(t, "admin")},
		By: rapid.OneOf(rapid.Int64Range(-4, 4),
			rapid.SampledFrom([]int64{math.MinInt64, -MaxN - 1, -MaxN, MaxN + 1, math.MaxInt64})).Draw(t, "by")}
	why, drawn := DenialCode(""), int64(0)
	if r.By < -MaxN || r.By > MaxN {
		why = BadRequest
	} else if s.m.verdict == nil {
		why = LicenseMissing
	} else if g := s.m.at(s.now).Meters[r.Pool]; !s.m.at(s.now).Good() {
		why = LicenseExpired
	} else if g.Name == "" {
		why = PoolUnknown
	} else if !r.Caller.Admin && !g.Adjustable {
		why = Forbidden
	} else {
		drawn = s.m.drawn(g, s.now)
		if r.By < -drawn {
			why = BadRequest
		} else if r.By > 0 && g.Budget != Unlimited && r.By > int64(g.Budget)-drawn {
			why = MeterEmpty
		}
	}
	s.change(t, r, why, func() {
		g := s.m.at(s.now).Meters[r.Pool]
		s.m.draws = append(s.m.draws, modelDraw{g.Key, drawn + r.By, s.m.counting(g, s.now), true})
	})
}

func (s *twin) giveUp(t *rapid.T) {
	if len(s.m.queue) == 0 {
		return
	}
	i := rapid.IntRange(0, len(s.m.queue)-1).Draw(t, "who")
	if d, _ := s.do(t, &Cancel{ID: s.m.queue[i].r.ID}); len(d.Events) != 1 {
		t.Fatalf("a waiter gives up: %+v", d)
	}
	s.m.queue = slices.Delete(s.m.queue, i, i+1)
}

// wait lets time pass as the agent does: what is due happens at its instant.
func (s *twin) wait(t *rapid.T) {
	seconds := rapid.OneOf(rapid.Int64Range(0, 8), rapid.Int64Range(0, 20), rapid.Int64Range(0, 90_000),
		rapid.Int64Range(0, 3_000_000)).Draw(t, "seconds")
	target := s.now.Add(time.Duration(seconds) * time.Second)
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
			if ev.Kind == EventEnded {
				s.see(t, s.e, ev)
				s.m.drop(ev.Lease.ID)
			}
		}
	}
	s.now = s.now.Add(time.Duration(rapid.Int64Range(0, 100).Draw(t, "away")) * time.Second)
	s.restart(t)
}

// step sets the time, and tells of it as the agent does.
func (s *twin) step(t *rapid.T) {
	by := time.Duration(rapid.OneOf(rapid.Int64Range(-30, 30), rapid.Int64Range(-3_000_000, 3_000_000)).Draw(t, "by")) *
		time.Second
	s.now = s.now.Add(by)
	unproved := time.Duration(rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, 6_000_000)).Draw(t, "unproved")) *
		time.Second
	s.do(t, &Step{by, unproved})
	s.m.step(by, unproved)
	// else the journal, which is not told of forgetting, may remember by the former time what was forgotten
	s.compact(t)
	for k, at := range s.byToken {
		s.byToken[k] = at.Add(min(0, by)) // set forward, it is remembered for longer
	}
}

// issue draws the licences that may be in force.
func (s *twin) issue(t *rapid.T) {
	for i, id := range []string{"L0", "L1", "L2"} {
		l := &License{ID: id, System: "usher", Issued: s.now.Add(time.Duration(i) * time.Hour),
			OnExpiry: rapid.SampledFrom([]OnExpiry{Drain, Revoke, Keep}).Draw(t, "on_expiry")}
		if rapid.Bool().Draw(t, "ends") {
			l.Expires = s.now.Add(rapid.SampledFrom([]time.Duration{time.Minute, time.Hour}).Draw(t, "expires"))
		}
		if rapid.IntRange(0, 2).Draw(t, "free") == 0 {
			l.Role = RoleFree
		}
		if rapid.IntRange(0, 3).Draw(t, "supersedes") == 0 {
			l.Supersedes = []string{"L1"}
		}
		s.licences = append(s.licences, l)
	}
}

// licence has another verdict, which at times turns into others by itself before the next is judged.
func (s *twin) licence(t *rapid.T) {
	v := s.verdict(t, s.m.verdict != nil)
	if at := s.now; v.Good() {
		for range rapid.IntRange(0, 2).Draw(t, "turns") {
			next := s.verdict(t, true)
			at = at.Add(time.Duration(rapid.Int64Range(1, 30).Draw(t, "in")) * time.Second)
			next.JudgedAt = at
			if v.Until.IsZero() {
				v.Until = at
			}
			v.Next = append(v.Next, next)
			if !next.Good() {
				break
			}
		}
	}
	s.do(t, &SetVerdict{v})
	s.do(t, &TakeOver{})
	s.m.judge(v, s.now)
	s.serve(t, true)
}

func (s *twin) verdict(t *rapid.T, mayBeBad bool) *Verdict {
	base := rapid.SampledFrom(s.licences).Draw(t, "base")
	v := &Verdict{State: StateValid, Code: Valid, Pools: map[string]PoolGrant{}, Meters: map[string]MeterGrant{},
		OnExpiry: base.OnExpiry, TerminatesAt: base.Expires,
		Licenses:    []Judged{{License: base, InForce: true, Code: Valid}},
		MaxBorrow:   rapid.SampledFrom([]time.Duration{0, 20 * time.Second, 20 * time.Hour}).Draw(t, "max_borrow"),
		EarlyReturn: rapid.Bool().Draw(t, "early_return")}
	for _, l := range s.licences {
		code := rapid.SampledFrom([]Code{"", Superseded, Expired, Revoked, "spare"}).Draw(t, "of "+l.ID)
		if l == base || code == "" {
			continue
		}
		j := Judged{License: l, Code: code}
		if code == "spare" {
			j.Code, j.Spare = Superseded, true
		}
		v.Licenses = append(v.Licenses, j)
	}
	if mayBeBad && rapid.IntRange(0, 3).Draw(t, "bad") == 0 {
		v.State, v.Code, v.Reason = StateExpired, Expired, "it expired"
		v.Licenses[0].InForce = false
	}
	if !base.Expires.IsZero() {
		v.CoveredUntil = s.now.Add(rapid.SampledFrom([]time.Duration{time.Minute, time.Hour}).Draw(t, "covered"))
	}
	if v.Good() || rapid.Bool().Draw(t, "terms stay") {
		for _, p := range poolNames {
			if rapid.IntRange(0, 4).Draw(t, "has "+p) > 0 {
				limit := Limit(rapid.Int64Range(0, 6).Draw(t, "limit"))
				g := PoolGrant{Name: p, Limit: limit, Budget: limit,
					Overage: Limit(rapid.Int64Range(0, 1).Draw(t, "overage")),
					CountBy: rapid.SampledFrom([]CountBy{CountLease, CountLease, CountUser, CountProcess, CountProcess,
						CountPod, CountHost}).Draw(t, "by")}
				if g.CountBy == CountLease && rapid.IntRange(0, 3).Draw(t, "narrowed") == 0 {
					g.HoldersBy = rapid.SampledFrom([]CountBy{CountProcess, CountPod}).Draw(t, "holders by")
				}
				v.Pools[p] = g
			}
		}
		for _, p := range meterNames {
			if rapid.IntRange(0, 4).Draw(t, "has "+p) > 0 {
				limit := Limit(rapid.Int64Range(-1, 9).Draw(t, "limit"))
				v.Meters[p] = MeterGrant{Name: p, Key: "L/" + p, Limit: limit, Budget: limit,
					Adjustable: rapid.Bool().Draw(t, "adjustable"),
					Resets:     map[string]Resets{"weekly": ResetsWeekly, "monthly": ResetsMonthly}[p]}
			}
		}
	}
	return v
}

// Longer sequences than rapid's own, unless the command line says otherwise.
func init() { _ = flag.Set("rapid.steps", "60") }

// TestAgainstModel: whatever is asked for in whatever order, and wherever the agent dies, the answers are the model's,
// and the invariants hold: DecideChangesNothing, NeverOverBudget, CountsAgree, NoStarvation, FirstComeFirstServed,
// GrantedTheInstantItFits, DeniedOnlyWhenFull, DrawExactlyOnce, TokenKeptADay, EndedForAReason, BorrowedUntilItsDate,
// AcknowledgedSurvives, NothingFreedByAbsence, AccountsAgree, NothingStaysDue, ReplayMakesTheSameState.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Options{Durable: true}
		if rapid.IntRange(0, 2).Draw(t, "narrow") == 0 {
			o = Options{Durable: true, MaxLeases: rapid.IntRange(1, 8).Draw(t, "leases"),
				MaxTokens:  rapid.IntRange(1, 4).Draw(t, "tokens"),
				MaxWaiters: rapid.IntRange(1, 6).Draw(t, "waiters"), MaxBytes: rapid.IntRange(1, 900).Draw(t, "bytes")}
		}
		s := &twin{options: o, m: newModel(o), e: New(o), replayed: New(o),
			now: time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC), ledger: newLedger()}
		s.issue(t)
		pool := rapid.SampledFrom(poolNames)
		one := func(t *rapid.T) {
			r := &Acquire{Pool: pool.Draw(t, "pool"), N: rapid.Int64Range(1, 4).Draw(t, "n")}
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
				s.acquire(t, &Acquire{Items: []Item{{"a", rapid.Int64Range(1, 3).Draw(t, "a")},
					{pool.Filter(func(p string) bool {
						return p != "a"
					}).Draw(t, "other"), rapid.Int64Range(1, 3).Draw(t, "b")}}})
			},
			"draw": func(t *rapid.T) {
				r := &Acquire{Pool: rapid.SampledFrom(append(meterNames, "a")).Draw(t, "meter"),
					N: rapid.Int64Range(1, 5).Draw(t, "n"), Lifetime: LifetimeDraw}
				if rapid.IntRange(0, 3).Draw(t, "part") == 0 {
					r.MinN = rapid.Int64Range(1, r.N).Draw(t, "min_n")
				}
				s.acquire(t, r)
			},
			"draw items": func(t *rapid.T) {
				s.acquire(t, &Acquire{Items: []Item{{"m", 1},
					{rapid.SampledFrom([]string{"weekly", "a"}).Draw(t, "other"), 2}}, Lifetime: LifetimeDraw})
			},
			"renew": s.renew, "release": s.release, "join": s.join, "leave": s.leave, "doubt": s.doubt,
			"attach":      s.attach,
			"holder dies": s.holderDies, "adjust": s.adjust, "shift": s.shift, "set data": s.setData,
			"give up": s.giveUp, "time": s.wait, "licence": s.licence, "join 2": s.join, "step": s.step,
			"crash": s.away, "attach 2": s.attach, "compact": s.compact,
			"crash in the next": func(t *rapid.T) { s.crashing = rapid.IntRange(1, 2).Draw(t, "journalled") },
			"": func(t *rapid.T) {
				s.settle(t)
				s.invariants(t)
			},
		})
	})
}
