package config

import (
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// seat is an enforcer under the rules of one example of docs/policies.md, with a pool streams of 4 slots.
type seat struct {
	*testing.T
	e    *enforcer.Enforcer
	now  time.Time
	next byte
	told []enforcer.Event
}

func (s *seat) do(r enforcer.Request) enforcer.Decision {
	s.Helper()
	d := s.e.Decide(r, s.now)
	for _, ev := range d.Events {
		s.e.Apply(ev)
		s.told = append(s.told, ev)
	}
	if _, acquires := r.(*enforcer.Acquire); !acquires || d.Waiter == nil {
		for dec := s.e.Decide(&enforcer.Serve{}, s.now); len(dec.Events) >
			0; dec = s.e.Decide(&enforcer.Serve{}, s.now) {
			for _, ev := range dec.Events {
				s.e.Apply(ev)
				s.told = append(s.told, ev)
			}
		}
	}
	return d
}

// ask acquires n slots; rule names the rule that denies it, and - wants no_slots; empty: it is granted.
func (s *seat) ask(uid uint32, n int64, rule string, more ...func(*enforcer.Acquire)) enforcer.LeaseID {
	s.Helper()
	s.next++
	r := &enforcer.Acquire{ID: enforcer.LeaseID{s.next}, Caller: enforcer.Caller{UID: uid, PID: int32(uid)},
		Pool: "streams",
		N:    n, Lifetime: enforcer.LifetimeProcess}
	for _, m := range more {
		m(r)
	}
	d := s.do(r)
	switch {
	case rule == "":
		if d.Lease == nil && d.Waiter == nil {
			s.Errorf("uid %d asks for %d: %v", uid, n, d.Denial)
		}
	case rule == "-":
		if d.Denial == nil || d.Denial.Code != enforcer.NoSlots {
			s.Errorf("uid %d asks for %d: %+v, want no_slots", uid, n, d.Denial)
		}
	case d.Denial == nil || d.Denial.Code != enforcer.DeniedByPolicy || d.Denial.Rule != rule ||
		!strings.Contains(d.Denial.Detail, "(rule "+rule+")"):
		s.Errorf("uid %d asks for %d: %+v, want a denial by %s", uid, n, d.Denial, rule)
	}
	return r.ID
}

func (s *seat) release(uid uint32, id enforcer.LeaseID) {
	s.Helper()
	if d := s.do(&enforcer.Release{ID: id, Caller: enforcer.Caller{UID: uid}}).Denial; d != nil {
		s.Errorf("a release: %v", d)
	}
}

func (s *seat) pass(d time.Duration) {
	s.Helper()
	s.now = s.now.Add(d)
	for at := s.e.NextTick(); !at.IsZero() && !at.After(s.now); at = s.e.NextTick() {
		s.do(&enforcer.Tick{})
	}
}

func (s *seat) ended(id enforcer.LeaseID, cause enforcer.Cause, rule string) {
	s.Helper()
	for _, ev := range s.told {
		if ev.Kind == enforcer.EventEnded && ev.Lease.ID == id {
			if ev.Cause != cause || ev.Rule != rule {
				s.Errorf("a lease ended by %q of rule %q, want %q of %q", ev.Cause, ev.Rule, cause, rule)
			}
			return
		}
	}
	s.Errorf("a lease has not ended, want %q", cause)
}

func (s *seat) held(id enforcer.LeaseID, want bool) {
	s.Helper()
	if s.e.Holds(id) != want {
		s.Errorf("a lease is held: %v, want %v", !want, want)
	}
}

func waits(r *enforcer.Acquire) { r.Wait = time.Hour }

func borrows(d time.Duration) func(*enforcer.Acquire) {
	return func(r *enforcer.Acquire) {
		r.Lifetime, r.Until = enforcer.LifetimeBorrow, time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC).Add(d)
	}
}

// examples are what each example of docs/policies.md does. Uid 1001 is of the CAD desk, and 1002 is a guest.
var examples = map[string]func(*seat){
	"no-guests": func(s *seat) {
		s.ask(1002, 1, "no-guests")
		s.ask(1001, 4, "")
	},
	"cad-only": func(s *seat) {
		s.ask(1002, 1, "cad-only")
		s.ask(1001, 1, "")
	},
	"at-most-two": func(s *seat) {
		s.ask(1001, 3, "at-most-two", waits) // never
		first := s.ask(1001, 1, "")
		s.ask(1002, 1, "")
		s.ask(1002, 1, "at-most-two")
		waiter := s.ask(1002, 1, "", waits)
		s.ask(1003, 2, "") // passes it
		s.held(waiter, false)
		s.release(1001, first)
		s.held(waiter, true)
	},
	"for-cad": func(s *seat) {
		s.ask(1002, 2, "for-cad", waits) // never: there is one for others
		other := s.ask(1002, 1, "")
		s.ask(1002, 1, "for-cad")
		large := s.ask(1002, 1, "", waits)
		s.ask(1001, 3, "") // what is kept for it, before one that waits
		s.held(large, false)
		s.ask(1001, 1, "-")
		s.release(1002, other)
		s.held(large, true)
	},
	"release-builds": func(s *seat) {
		full := s.ask(1003, 4, "")
		old := s.ask(1002, 4, "", waits)
		s.pass(11 * time.Minute)
		recent := s.ask(1002, 4, "", waits)
		s.pass(time.Minute)
		first := s.ask(1001, 4, "", waits)
		s.release(1003, full)
		s.held(old, true) // it has waited longer than ten minutes
		s.release(1002, old)
		s.held(first, true)
		s.held(recent, false)
	},
	"keep-a-while": func(s *seat) {
		s.ask(1003, 2, "")
		own := s.ask(1001, 2, "")
		waiter := s.ask(1002, 1, "", waits)
		s.release(1001, own)
		s.held(waiter, false)
		s.ask(1002, 1, "-") // another waits
		s.ask(1001, 1, "")
		s.pass(time.Minute)
		s.held(waiter, false)
		s.pass(time.Minute)
		s.held(waiter, true)
	},
	"a-working-day": func(s *seat) {
		id := s.ask(1001, 1, "")
		s.pass(12*time.Hour - time.Second)
		s.held(id, true)
		s.pass(time.Second)
		s.ended(id, enforcer.CauseMaxHold, "a-working-day")
	},
	"not-idle": func(s *seat) {
		id := s.ask(1001, 1, "")
		s.pass(29 * time.Minute)
		if d := s.do(&enforcer.Renew{ID: id, Caller: enforcer.Caller{UID: 1001}}); d.Denial != nil {
			s.Errorf("a lease of lifetime process is not renewed: %v", d.Denial)
		}
		s.pass(29 * time.Minute)
		s.held(id, true)
		s.pass(time.Minute)
		s.ended(id, enforcer.CauseIdle, "not-idle")
	},
	"no-overage-for-tests": func(s *seat) {
		s.ask(1003, 4, "")
		s.ask(1002, 1, "no-overage-for-tests")
		s.ask(1001, 1, "")
	},
	"short-trips": func(s *seat) {
		s.ask(1001, 1, "short-trips", borrows(4*24*time.Hour))
		s.ask(1001, 3, "", borrows(24*time.Hour))
		s.ask(1001, 1, "short-trips", borrows(24*time.Hour))
		s.ask(1001, 1, "")
	},
}

// Each example of docs/policies.md does what the page says.
func TestPolicyExamples(t *testing.T) {
	page := file(t, "docs/policies.md")
	ran := 0
	for _, block := range strings.Split(page, "\n    - name: ")[1:] {
		name, _, _ := strings.Cut(block, "\n")
		block, _, _ = strings.Cut(block, "\n\n")
		text := "    - name: " + block
		ran++
		t.Run(name, func(t *testing.T) {
			example := examples[name]
			if example == nil {
				t.Fatalf("nothing tries the example %s", name)
			}
			c := load(t, "policies:\n"+text+"\n")
			s := &seat{T: t, e: enforcer.New(enforcer.Options{Durable: true}),
				now: time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC)}
			pool := enforcer.PoolGrant{Name: "streams", Limit: 4, Budget: 4, CountBy: enforcer.CountLease}
			if name == "no-overage-for-tests" {
				pool.Overage = 1
			}
			s.do(&enforcer.SetVerdict{Verdict: &enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
				Pools: map[string]enforcer.PoolGrant{"streams": pool}, MaxBorrow: 30 * 24 * time.Hour}})
			s.do(&enforcer.SetPolicies{Policies: c.Rules("host")})
			example(s)
		})
	}
	if ran != len(examples) {
		t.Errorf("the page has %d examples, and %d are tried", ran, len(examples))
	}
}

// Groups, cases and hosts of the configuration are the core's patterns.
func TestRulesOfConfiguration(t *testing.T) {
	c := load(t, `groups:
  - {name: cad, members: ["Ann*"], ignore_case: true}
policies:
  - {name: a, max: 1, match: {user: ["@cad", bob], uid: [7, 10-12], label: {team: "x*"}}}
  - {name: b, max: 1, match: {host: ["build-*"]}}
  - {name: c, max: 1, not: {host: ["build-*"]}}
`)
	rules := c.Rules("build-1").Rules
	if rules[1].Elsewhere || !rules[2].Elsewhere {
		t.Errorf("on build-1: %+v", rules)
	}
	if away := c.Rules("desk").Rules; !away[1].Elsewhere || away[2].Elsewhere {
		t.Errorf("on desk: %+v", away)
	}
	for _, x := range []struct {
		login, team string
		uid         uint32
		want        bool
	}{{"ANNA", "xy", 11, true}, {"bob", "x", 7, true}, {"Bob", "x", 7, false}, {"ann", "y", 7, false}, {"ann", "x", 8,
		false}} {
		h := &enforcer.Holder{Caller: enforcer.Caller{UID: x.uid,
			Profile: enforcer.ProfileOf(enforcer.Profile{Login: x.login})}, Labels: map[string]string{"team": x.team}}
		if got := rules[0].Concerns(h); got != x.want {
			t.Errorf("%+v is concerned: %v", x, got)
		}
	}
}
