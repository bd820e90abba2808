package config

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// bound is an enforcer under rules, and beside it one that knows the same leases and no rules.
type bound struct {
	*testing.T
	ruled, free *enforcer.Enforcer
	now         time.Time
	next        byte
}

// apply carries events out on both sides, but those of the rules alone.
func (b *bound) apply(events []enforcer.Event) {
	for _, ev := range events {
		b.ruled.Apply(ev)
		switch ev.Kind {
		case enforcer.EventPolicies, enforcer.EventLingers, enforcer.EventLingerOver, enforcer.EventQueued,
			enforcer.EventLeft, enforcer.EventUsed:
		default:
			ev.Waiter = nil
			b.free.Apply(ev)
		}
	}
}

// ask acquires under the rules; what they grant must be granted without them, too.
func (b *bound) ask(r enforcer.Acquire) {
	b.next++
	r.ID = enforcer.LeaseID{b.next}
	granted := b.ruled.Decide(&r, b.now)
	if granted.Lease != nil {
		plain := r
		plain.N, plain.MinN = granted.Lease.Items[0].N, 0
		if d := b.free.Decide(&plain, b.now); d.Lease == nil {
			b.Fatalf("rules grant %+v, which without them is denied: %v", r, d.Denial)
		}
	}
	b.apply(granted.Events)
	b.serve()
}

func (b *bound) serve() {
	for range 50 {
		d := b.ruled.Decide(&enforcer.Serve{}, b.now)
		if len(d.Events) == 0 {
			return
		}
		for _, ev := range d.Events {
			if ev.Kind != enforcer.EventGranted {
				continue
			}
			l := ev.Lease
			plain := enforcer.Acquire{ID: l.ID, Caller: l.Holder.Caller, Labels: l.Holder.Labels, Pool: l.Items[0].Pool,
				N: l.Items[0].N, Lifetime: l.Lifetime}
			if x := b.free.Decide(&plain, b.now); x.Lease == nil {
				b.Fatalf("rules serve %+v, which without them is denied: %v", plain, x.Denial)
			}
		}
		b.apply(d.Events)
	}
	b.Fatal("there is no end of serving")
}

func (b *bound) release(id byte) {
	b.apply(b.ruled.Decide(&enforcer.Release{ID: enforcer.LeaseID{id}, Caller: enforcer.Caller{Admin: true},
		Force: true}, b.now).Events)
	b.serve()
}

func (b *bound) pass(d time.Duration) {
	b.now = b.now.Add(d)
	for range 100 {
		if at := b.ruled.NextTick(); at.IsZero() || at.After(b.now) {
			return
		}
		b.apply(b.ruled.Decide(&enforcer.Tick{}, b.now).Events)
		b.serve()
	}
	b.Fatal("there is no end of ticks")
}

// Whatever rules a file states, what loads becomes the enforcer's rules, one each, and grants nothing that would not be
// granted without them.
func FuzzPolicies(f *testing.F) {
	f.Add([]byte("groups: [{name: cad, members: [Ann, 'b*'], ignore_case: true}]\npolicies:\n" +
		"  - {name: a, match: {user: ['@cad', bob], uid: [1, 2-4], label: {team: 'x*'}}, pools: [s*], " +
		"except: [seats], reserve: 2}\n" +
		"  - {name: b, not: {group: [cad], exe: ['/opt/*'], host: ['build-?']}, max: 1, per: user, text: no}\n"))
	for _, verb := range []string{"deny: true", "max: 2", "max: 281474976710656", "max: 1, per: pod",
		"reserve: 2, match: {uid: [2]}", "reserve: 281474976710656, match: {label: {a: '*'}}", "priority: 100",
		"linger: 24h", "max_hold: 1s", "idle_timeout: 1m", "overage_max: 0", "overage_max: 9", "no_borrow: true",
		"max_borrow: 9000h", "borrow_low_water: 3", "linger: 1m, max_hold: 2m, max: 3, priority: 7"} {
		f.Add([]byte("policies: [{name: a, " + verb + "}, {name: b, match: {user: [ann]}, max: 3, linger: 5m}]\n"))
	}
	f.Add([]byte("policies: &p [*p]\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		c, err := Load(Source{File: "usher.yaml", Data: file})
		if err != nil || len(c.Policies) > 50 {
			return
		}
		rules := c.Rules("build-1")
		if len(rules.Rules) != len(c.Policies) {
			t.Fatalf("%d policies become %d rules", len(c.Policies), len(rules.Rules))
		}
		for i, r := range rules.Rules {
			if r.Name != c.Policies[i].Name || r.Does() == "" {
				t.Fatalf("policy %+v becomes %+v, which does nothing", c.Policies[i], r)
			}
		}
		v := &enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid, MaxBorrow: 48 * time.Hour,
			Pools: map[string]enforcer.PoolGrant{}}
		for _, g := range []enforcer.PoolGrant{
			{Name: "streams", Limit: 4, Budget: 4, Overage: 1, CountBy: enforcer.CountLease},
			{Name: "seats", Limit: 2, Budget: 2, CountBy: enforcer.CountUser}} {
			v.Pools[g.Name] = g
		}
		rules.Review(v)
		b := &bound{T: t, ruled: enforcer.New(enforcer.Options{}), free: enforcer.New(enforcer.Options{}),
			now: time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC)}
		b.apply(b.ruled.Decide(&enforcer.SetVerdict{Verdict: v}, b.now).Events)
		b.apply(b.ruled.Decide(&enforcer.SetPolicies{Policies: rules}, b.now).Events)
		for round := range 3 {
			for uid := range uint32(4) {
				who := enforcer.Caller{UID: uid, PID: int32(uid) + 1, Host: "build-1", Exe: "/opt/cad/bin", Pod: "p",
					Profile: enforcer.ProfileOf(enforcer.Profile{Login: []string{"root", "ann", "bob", "eve"}[uid],
						Groups: "1\ncad"})}
				for _, pool := range []string{"streams", "seats"} {
					r := enforcer.Acquire{Caller: who, Pool: pool, N: int64(round) + 1, MinN: int64(uid) % 2,
						Lifetime: enforcer.LifetimeProcess, Wait: time.Duration(round) * time.Minute}
					if uid == 3 {
						r.Labels = map[string]string{"team": "xy", "a": "b"}
					}
					b.ask(r)
					b.ruled.Explain(&enforcer.Holder{Caller: who}, pool, b.now)
				}
				r := enforcer.Acquire{Caller: who, Pool: "streams", N: 1, Lifetime: enforcer.LifetimeBorrow,
					Until: b.now.Add(time.Duration(round+1) * 20 * time.Hour)}
				b.ask(r)
			}
			b.release(byte(round)*3 + 1)
			b.release(byte(round)*3 + 2)
			b.pass(time.Duration(round+1) * time.Minute)
			b.apply(b.ruled.Decide(&enforcer.SetPolicies{Policies: c.Rules("desk")}, b.now).Events)
			b.serve()
		}
	})
}
