package enforcer

import (
	"testing"
	"time"
)

// When the time is set, what is counted from an instant is as far from its end as it was, and what ends at a date is
// not moved.
func TestStep(t *testing.T) {
	for _, by := range []time.Duration{365 * aDay, -365 * aDay} {
		s := newStory(t)
		for _, c := range [][]string{{"drop", "a.lic", "streams=6", "max_borrow=400d", "issued=-400d"},
			{"acquire", "ttl", "streams=1", "token=t"}, {"acquire", "long", "streams=1", "ttl=1h"},
			{"acquire", "held", "streams=1", "held"},
			{"acquire", "borrowed", "streams=1", "until=+300d"},
			{"acquire", "process", "streams=2", "lifetime=process", "pid=7"}, {"doubt", "process"},
			{"acquire", "waiter", "streams=1", "wait=2m"}} {
			s.run(c)
		}
		start := s.now
		s.now = s.now.Add(by)
		s.one(&Step{By: by})
		s.judgeNow()
		left := func(name string) time.Duration {
			l, ok := s.e.Lease(s.ids[name])
			if !ok {
				t.Fatalf("%s is over", name)
			}
			return l.ExpiresAt.Sub(s.now)
		}
		if left("ttl") != time.Minute || left("long") != time.Hour || left("process") != 15*time.Second {
			t.Errorf("by %v: %v, %v, %v are left", by, left("ttl"), left("long"), left("process"))
		}
		if l, _ := s.e.Lease(s.ids["borrowed"]); !l.ExpiresAt.Equal(start.Add(300 * aDay)) {
			t.Errorf("by %v: the borrow ends at %v", by, l.ExpiresAt)
		}
		if l, _ := s.e.Lease(s.ids["held"]); !l.ExpiresAt.IsZero() {
			t.Errorf("by %v: what is held ends at %v", by, l.ExpiresAt)
		}
		w := s.e.waiters[s.ids["waiter"]]
		if w.Until.Sub(s.now) != 2*time.Minute || s.now.Sub(w.Since) != 0 {
			t.Errorf("by %v: the waiter waits from %v until %v", by, w.Since, w.Until)
		}
		if d := s.e.Decide(&Acquire{ID: LeaseID{99}, Caller: Caller{UID: 1000, User: "ann"}, Pool: "streams", N: 1,
			Lifetime: LifetimeTTL, TTL: time.Minute, Token: "t"}, s.now); !d.Replayed ||
			d.Lease.ExpiresAt.Sub(s.now) != time.Minute {
			t.Errorf("by %v: its token is answered with %+v", by, d)
		}
		// Each ends when it would have, in its order.
		if by < 0 {
			s.pass(s.now.Add(15 * time.Second))
			if _, ok := s.e.Lease(s.ids["process"]); ok {
				t.Error("what is unconfirmed goes on")
			}
			if _, ok := s.e.Lease(s.ids["waiter"]); !ok {
				t.Error("who waited is not served")
			}
			s.pass(s.now.Add(46 * time.Second))
			if _, ok := s.e.Lease(s.ids["ttl"]); ok {
				t.Error("a ttl lease goes on")
			}
			left("long")
		}
	}
}

// A revocation stays as long after the turn as it was to be.
func TestStepAndRevocation(t *testing.T) {
	s := newStory(t)
	s.run([]string{"drop", "a.lic", "streams=6", "on_expiry=revoke"})
	s.run([]string{"acquire", "a", "streams=1", "held"})
	s.run([]string{"break", "a.lic", "MALFORMED"})
	s.facts.Documents = nil
	s.judge()
	s.pass(s.now.Add(4 * time.Second))
	s.now = s.now.Add(-30 * aDay)
	s.one(&Step{By: -30 * aDay})
	l, ok := s.e.Lease(s.ids["a"])
	if !ok || l.RevokeAt.Sub(s.now) != RevokeDelay-4*time.Second {
		t.Errorf("it is revoked %v from now", l.RevokeAt.Sub(s.now))
	}
}
