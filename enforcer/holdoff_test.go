package enforcer

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// holdOffStory is an enforcer with the pools a (2 slots), b (1) and p (4, counted by process), an admin and some users.
type holdOffStory struct {
	t   *testing.T
	e   *Enforcer
	now time.Time
	ids byte
}

func newHoldOffStory(t *testing.T, o Options) *holdOffStory {
	s := &holdOffStory{t: t, e: New(o), now: time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)}
	s.do(&SetVerdict{&Verdict{State: StateValid, Code: Valid, Pools: map[string]PoolGrant{
		"a": {Name: "a", Limit: 2, Budget: 2}, "b": {Name: "b", Limit: 1, Budget: 1},
		"p": {Name: "p", Limit: 4, Budget: 4, CountBy: CountProcess}}}})
	return s
}

// do decides a request and applies what comes of it, and has waiters served.
func (s *holdOffStory) do(r Request) Decision {
	d := s.e.Decide(r, s.now)
	for _, ev := range d.Events {
		s.e.Apply(ev)
	}
	if _, serving := r.(*Serve); !serving {
		for len(s.do(&Serve{}).Events) > 0 {
		}
	}
	return d
}

func (s *holdOffStory) acquire(c Caller, pools ...string) Decision {
	s.ids++
	r := &Acquire{ID: LeaseID{s.ids}, Caller: c, Lifetime: LifetimeProcess}
	for _, p := range pools {
		r.Items = append(r.Items, Item{Pool: p, N: 1})
	}
	return s.do(r)
}

func (s *holdOffStory) waitFor(c Caller, pools ...string) LeaseID {
	s.t.Helper()
	s.ids++
	r := &Acquire{ID: LeaseID{s.ids}, Caller: c, Lifetime: LifetimeProcess, Wait: time.Hour}
	for _, p := range pools {
		r.Items = append(r.Items, Item{Pool: p, N: 1})
	}
	if d := s.do(r); d.Waiter == nil {
		s.t.Fatalf("it does not wait: %+v", d.Denial)
	}
	return r.ID
}

func (s *holdOffStory) evict(id LeaseID, span time.Duration) Decision {
	return s.do(&Release{ID: id, Caller: Caller{Admin: true}, Force: true, HoldOff: &span})
}

// pass lets time pass, with what is due.
func (s *holdOffStory) pass(span time.Duration) {
	s.now = s.now.Add(span)
	for at := s.e.NextTick(); !at.IsZero() && !at.After(s.now); at = s.e.NextTick() {
		if len(s.do(&Tick{}).Events) == 0 {
			s.t.Fatal("a tick is due and does nothing")
		}
	}
}

// want wants a decision that denies with a code, or does not for an empty one.
func (s *holdOffStory) want(what string, d Decision, why DenialCode) {
	s.t.Helper()
	if code(d) != why {
		s.t.Errorf("%s: %q (%v), want %q", what, code(d), d.Denial, why)
	}
}

func worker(uid uint32, pid int32) Caller { return Caller{UID: uid, PID: pid, Start: uint64(pid)} }

// An ousted holder does not take its slot back, not by another process either; another user does. What it holds
// besides stays, and it is granted slots of other pools.
func TestHoldOff(t *testing.T) {
	s := newHoldOffStory(t, Options{})
	hog, job := worker(1, 10), worker(2, 20)
	first := s.acquire(hog, "a").Lease.ID
	second := s.acquire(hog, "a").Lease.ID
	if d := s.evict(first, 10*time.Minute); d.Denial != nil || d.Lease.ID != first {
		t.Fatalf("%+v", d)
	}
	for _, p := range s.e.AppendPools(nil, s.e.PoolNames(), s.now) {
		one, _ := s.e.Pool(p.Name, s.now)
		if want := p.Name == "a"; len(p.HoldOffs) == 1 != want || len(one.HoldOffs) == 1 != want {
			t.Errorf("pool %s: %+v", p.Name, p.HoldOffs)
		}
	}
	denied := s.acquire(hog, "a")
	s.want("the ousted process", denied, HeldOff)
	if d := denied.Denial; d.Pool != "a" || !d.Next.Equal(s.now.Add(10*time.Minute)) ||
		!strings.Contains(d.Detail,
			"pool a: uid 1 is held off until 2026-01-05T12:10:00Z: an admin released its lease "+
				first.String()) || !strings.Contains(d.Hint, first.String()+" --force --hold-off 0") {
		t.Errorf("%+v", d)
	}
	s.want("a new process of its user", s.acquire(worker(1, 11), "a"), HeldOff)
	s.want("with another pool", s.acquire(hog, "b", "a"), HeldOff)
	s.want("another pool alone", s.acquire(hog, "b"), "")
	s.want("another user", s.acquire(job, "a"), "")
	if _, held := s.e.Lease(second); !held {
		t.Error("the other lease of the holder is over")
	}
	s.pass(10*time.Minute - 1)
	s.want("a moment too early", s.acquire(hog, "a"), HeldOff)
	s.do(&End{ID: second, Cause: CauseHolderGone})
	s.pass(1)
	s.want("in time", s.acquire(hog, "a"), "")
	if len(s.e.HoldOffs()) != 0 || len(s.e.holdOffs.by) != 0 {
		t.Errorf("left are %+v, %+v", s.e.HoldOffs(), s.e.holdOffs.by)
	}
}

// Waiters of an ousted holder are turned away, whatever they wait for besides, and keep nobody waiting. The holder
// cannot begin to wait either, not even for a pool that is full.
func TestHoldOffOfWaiters(t *testing.T) {
	s := newHoldOffStory(t, Options{})
	hog, job := worker(1, 10), worker(2, 20)
	held := s.acquire(hog, "a").Lease.ID
	s.acquire(job, "a")
	s.acquire(job, "b")
	one, both, other := s.waitFor(worker(1, 11), "a"), s.waitFor(hog, "b", "a"), s.waitFor(hog, "b")
	next := s.waitFor(job, "a")
	s.now = s.now.Add(time.Minute)
	d := s.evict(held, 10*time.Minute)
	var away []LeaseID
	for _, ev := range d.Events {
		if ev.Kind == EventLeft {
			away = append(away, ev.Waiter.ID)
			if ev.Cause != CauseDenied || ev.Denial.Code != HeldOff || ev.Denial.Waited != time.Minute {
				t.Errorf("turned away: %+v", ev.Denial)
			}
		}
	}
	if !slices.Equal(away, []LeaseID{one, both}) {
		t.Errorf("turned away are %v", away)
	}
	if _, served := s.e.Lease(next); !served {
		t.Error("the waiter behind them was not served")
	}
	if s.e.Waiting() != 1 || s.e.waiters[other] == nil {
		t.Errorf("%d wait", s.e.Waiting())
	}
	s.ids++
	s.want("to wait for a full pool and that one", s.do(&Acquire{ID: LeaseID{s.ids}, Caller: hog, Wait: time.Hour,
		Items: []Item{{Pool: "b", N: 1}, {Pool: "a", N: 1}}}), HeldOff)
}

// A lease of the ousted holder cannot grow: a co-holder that counts once more is a grant.
func TestHoldOffOfCoHolders(t *testing.T) {
	s := newHoldOffStory(t, Options{})
	held, kept := s.acquire(worker(1, 10), "p").Lease.ID, s.acquire(worker(1, 11), "p").Lease.ID
	s.evict(held, time.Minute)
	s.want("a new process joins", s.do(&Join{ID: kept, Caller: worker(1, 12)}), HeldOff)
	s.pass(time.Minute)
	s.want("a new process joins in time", s.do(&Join{ID: kept, Caller: worker(1, 12)}), "")
}

// Where the kernel tells of no user, the hold-off is of the processes; where it tells of no process either, there is
// nobody to hold off. A credential is a user.
func TestHoldOffOfNobody(t *testing.T) {
	s := newHoldOffStory(t, Options{})
	none := Caller{UID: Nobody}
	held := s.acquire(worker(Nobody, 10), "p").Lease.ID
	s.do(&Join{ID: held, Caller: worker(Nobody, 11)})
	s.evict(held, time.Minute)
	s.want("the holder", s.acquire(worker(Nobody, 10), "p"), HeldOff)
	s.want("the co-holder", s.acquire(worker(Nobody, 11), "p"), HeldOff)
	recycled := worker(Nobody, 10)
	recycled.Start++
	s.want("a later process of its number", s.acquire(recycled, "p"), "")
	s.want("another process", s.acquire(worker(Nobody, 12), "p"), "")
	unseen := s.acquire(none, "a").Lease.ID
	s.want("an invisible process", s.evict(unseen, time.Minute), BadRequest)
	if _, held := s.e.Lease(unseen); !held {
		t.Error("its lease was released")
	}
	s.want("without a hold-off", s.evict(unseen, 0), "")
	key := Caller{UID: Nobody, Credential: "token:1"}
	s.evict(s.acquire(key, "a").Lease.ID, time.Minute)
	s.want("a credential", s.acquire(key, "a"), HeldOff)
	s.want("another credential", s.acquire(Caller{UID: Nobody, Credential: "token:2"}, "a"), "")
}

// A hold-off is changed and lifted by the id of the lease that was released. Each has its own end, and a holder is told
// of the one that ends last.
func TestHoldOffsOfOneHolder(t *testing.T) {
	s := newHoldOffStory(t, Options{})
	hog := worker(1, 10)
	one, two := s.acquire(hog, "a").Lease.ID, s.acquire(hog, "a").Lease.ID
	s.evict(one, time.Hour)
	s.evict(two, time.Minute)
	until := func(want time.Duration) {
		t.Helper()
		d := s.acquire(hog, "a")
		if code(d) != HeldOff || !d.Denial.Next.Equal(s.now.Add(want)) {
			t.Errorf("%q (%v), want until %v from now", code(d), d.Denial, want)
		}
	}
	until(time.Hour)
	s.evict(one, 0)
	until(time.Minute)
	s.pass(30 * time.Second)
	s.evict(two, time.Hour)
	until(time.Hour)
	if list := s.e.HoldOffs(); len(list) != 1 || list[0].Lease != two || list[0].Until.Sub(list[0].Since) != time.Hour {
		t.Errorf("%+v", list)
	}
	s.want("lifted", s.evict(two, 0), "")
	s.want("after it", s.acquire(hog, "a"), "")
	s.want("lifted once more", s.evict(two, 0), LeaseUnknown)
}

// What goes beyond the bounds, and what is no admin's, is refused, and releases nothing.
func TestHoldOffBounds(t *testing.T) {
	s := newHoldOffStory(t, Options{MaxHoldOffs: 1})
	one, two := s.acquire(worker(1, 10), "a").Lease.ID, s.acquire(worker(2, 20), "a").Lease.ID
	span := time.Minute
	for what, r := range map[string]*Release{
		"not by force": {ID: one, Caller: worker(1, 10), HoldOff: &span},
		"negative":     {ID: one, Force: true, Caller: Caller{Admin: true}, HoldOff: new(time.Duration(-1))},
		"too short":    {ID: one, Force: true, Caller: Caller{Admin: true}, HoldOff: new(MinHoldOff - 1)},
		"too long":     {ID: one, Force: true, Caller: Caller{Admin: true}, HoldOff: new(MaxHoldOff + 1)},
	} {
		d := s.do(r)
		s.want(what, d, BadRequest)
		if d.Denial != nil && d.Denial.Field != "hold_off_seconds" {
			t.Errorf("%s: field %q", what, d.Denial.Field)
		}
	}
	s.want("by no admin", s.do(&Release{ID: one, Force: true, Caller: worker(1, 10), HoldOff: &span}), Forbidden)
	s.want("the longest", s.evict(one, MaxHoldOff), "")
	d := s.evict(two, time.Minute)
	s.want("one too many", d, RateLimited)
	if _, held := s.e.Lease(two); !held || d.Denial.Hint == "" {
		t.Errorf("held: %t; %+v", held, d.Denial)
	}
	s.want("a change of the one", s.evict(one, time.Minute), "")
	s.want("without a hold-off", s.evict(two, 0), "")
}

// A hold-off is as long as it was to be: when the time is set, and when a clock that was wrong had set its end.
func TestHoldOffAndTheClock(t *testing.T) {
	for _, by := range []time.Duration{365 * aDay, -365 * aDay} {
		s := newHoldOffStory(t, Options{})
		hog := worker(1, 10)
		s.evict(s.acquire(hog, "a").Lease.ID, time.Minute)
		s.now = s.now.Add(by)
		s.do(&Step{By: by})
		s.pass(time.Minute - 1)
		s.want("after a step", s.acquire(hog, "a"), HeldOff)
		s.pass(1)
		s.want("in time after a step", s.acquire(hog, "a"), "")
	}
	at := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	h := &HoldOff{Since: at, Until: at.Add(time.Hour)}
	for later, want := range map[time.Duration]time.Duration{0: time.Hour, 20 * time.Minute: 40 * time.Minute,
		2 * time.Hour: -time.Hour, -365 * aDay: time.Hour} {
		if got := h.Resumed(at.Add(later)).Until.Sub(at.Add(later)); got != want {
			t.Errorf("%v later it has %v left, want %v", later, got, want)
		}
	}
}
