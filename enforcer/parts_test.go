package enforcer

import (
	"math"
	"strings"
	"testing"
	"time"
)

// partly is an enforcer with a pool whose slots have 64 parts.
type partly struct {
	*Enforcer
	t  *testing.T
	id byte
}

func newPartly(t *testing.T, limit Limit, quantum int64) *partly {
	p := &partly{New(Options{}), t, 0}
	p.judge(limit, quantum)
	return p
}

func (p *partly) judge(limit Limit, quantum int64) {
	f := factsWith(doc("a.lic", func(l *License) {
		l.Pools = map[string]PoolTerm{"units": {Max: limit, Scope: ScopeHost, Quantum: quantum}}
	}))
	p.do(&SetVerdict{Judge(f, noon)})
}

func (p *partly) do(r Request) Decision {
	d := p.Decide(r, noon)
	for _, ev := range d.Events {
		p.Apply(ev)
	}
	return d
}

func (p *partly) take(n, of int64) *Denial {
	p.id++
	return p.do(&Acquire{ID: LeaseID{p.id}, Pool: "units", N: n, Of: of, Lifetime: LifetimeHeld}).Denial
}

func (p *partly) inUse(slots, parts int64) {
	p.t.Helper()
	if s, _ := p.Pool("units", noon); s.InUse != slots || s.Parts != parts {
		p.t.Errorf("%d slots and %d parts are in use, and not %d and %d", s.InUse, s.Parts, slots, parts)
	}
}

// Parts of slots are added up, and the sum is rounded up to slots: not each lease.
func TestPartsRoundTheSum(t *testing.T) {
	p := newPartly(t, 2, 64)
	for range 64 {
		if d := p.take(1, 64); d != nil {
			t.Fatal(d.Detail)
		}
	}
	p.inUse(1, 64)
	if d := p.take(1, 2); d != nil {
		t.Fatal(d.Detail)
	}
	p.inUse(2, 96)
	if d := p.take(1, 0); d == nil || d.Code != NoSlots || !strings.Contains(d.Detail, "2 of 2 slots") {
		t.Errorf("a whole slot, of which half is left: %+v", d)
	}
	if d := p.take(33, 64); d == nil || !strings.Contains(d.Detail, "the request is for 33/64 more") {
		t.Errorf("one part too many: %+v", d)
	}
	if d := p.take(8, 16); d != nil {
		t.Errorf("the other half: %+v", d)
	}
	p.inUse(2, 128)
	if d := p.take(1, 64); d == nil || d.Code != NoSlots {
		t.Errorf("beyond the limit: %+v", d)
	}
	p.do(&Release{ID: LeaseID{1}})
	p.inUse(2, 127)
}

// Whole slots and min_n mean what they mean in any pool; a part of what is asked is rounded down.
func TestPartsOfARequest(t *testing.T) {
	p := newPartly(t, 2, 64)
	if d := p.take(1, 0); d != nil {
		t.Fatal(d.Detail)
	}
	p.inUse(1, 64)
	got := p.do(&Acquire{ID: LeaseID{99}, Pool: "units", N: 9, Of: 4, MinN: 1, Lifetime: LifetimeHeld})
	if got.Denial != nil || got.Lease.Items[0] != (Item{"units", 4, 4}) {
		t.Errorf("%+v, %+v", got.Lease, got.Denial)
	}
	p.inUse(2, 128)
}

// What a pool's slots cannot be divided into is refused, and so is what no sum could hold.
func TestPartsRefused(t *testing.T) {
	p := newPartly(t, 2, 64)
	for _, c := range []struct {
		n, of int64
		field string
	}{{1, 3, "of"}, {1, 128, "of"}, {1, -1, "of"}, {1, MaxQuantum + 1, "of"}, {MaxN, 0, "n"}, {MaxN, 64, ""}} {
		if d := p.take(c.n, c.of); d == nil || d.Field != c.field {
			t.Errorf("%d/%d: %+v", c.n, c.of, d)
		}
	}
	whole := newPartly(t, 2, 0)
	if d := whole.take(1, 2); d == nil || d.Field != "of" {
		t.Errorf("a pool without parts: %+v", d)
	}
	if d := whole.take(1, 1); d != nil {
		t.Errorf("a whole slot, by another name: %+v", d)
	}
	for _, term := range []PoolTerm{{Max: 1, Quantum: -1}, {Max: 1, Quantum: MaxQuantum + 1},
		{Max: maxParts, Quantum: 2}} {
		l := doc("a.lic", func(l *License) { l.Pools = map[string]PoolTerm{"units": term} }).License
		if err := l.Validate(); err == nil {
			t.Errorf("%+v is a good term", term)
		}
	}
	l := doc("a.lic", func(l *License) {
		l.Pools = map[string]PoolTerm{"units": {Max: math.MaxInt32, Quantum: MaxQuantum}}
	}).License
	if err := l.Validate(); err != nil {
		t.Error(err)
	}
}

// A licence that divides slots otherwise counts what is held again; where slots have no parts any more, each part that
// is held counts as a whole one.
func TestPartsOfAnotherLicence(t *testing.T) {
	p := newPartly(t, 4, 64)
	for range 3 {
		if d := p.take(16, 64); d != nil {
			t.Fatal(d.Detail)
		}
	}
	p.inUse(1, 48)
	p.judge(4, 4)
	p.inUse(1, 3)
	p.judge(4, 0)
	p.inUse(3, 0)
	if d := p.take(2, 0); d == nil || d.Code != NoSlots {
		t.Errorf("beyond the limit: %+v", d)
	}
	p.judge(4, MaxQuantum)
	p.inUse(1, 3*MaxQuantum/4)
}

// A waiter for a part is served when one comes free, and turned away when slots have no such parts any more.
func TestPartsAreWaitedFor(t *testing.T) {
	p := newPartly(t, 1, 64)
	for range 2 {
		if d := p.take(1, 2); d != nil {
			t.Fatal(d.Detail)
		}
	}
	wait := func(id byte) Decision {
		return p.do(&Acquire{ID: LeaseID{id}, Pool: "units", N: 1, Of: 2, Lifetime: LifetimeHeld, Wait: time.Minute})
	}
	if d := wait(98); d.Waiter == nil {
		t.Fatalf("%+v", d.Denial)
	}
	p.do(&Release{ID: LeaseID{1}})
	if d := p.do(&Serve{}); d.Lease == nil || d.Lease.ID != (LeaseID{98}) {
		t.Errorf("%+v", d)
	}
	wait(99)
	p.judge(1, 0)
	if p.do(&Serve{Recheck: true}); p.Waiting() != 0 {
		t.Error("a part of what has none is waited for")
	}
}
