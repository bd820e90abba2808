package enforcer

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// counted is an enforcer with one pool of some slots, which are counted by one thing.
type counted struct {
	t   *testing.T
	e   *Enforcer
	now time.Time
}

func newCounted(t *testing.T, limit Limit, by CountBy) *counted {
	c := &counted{t, New(Options{}), noon}
	c.limit(limit, by)
	return c
}

func (c *counted) limit(n Limit, by CountBy) {
	c.do(&SetVerdict{&Verdict{State: StateValid, Code: Valid,
		Pools: map[string]PoolGrant{"a": {Name: "a", Limit: n, Budget: n, CountBy: by}}}})
}

func (c *counted) do(r Request) Decision {
	d := c.e.Decide(r, c.now)
	for _, ev := range d.Events {
		c.e.Apply(ev)
	}
	return d
}

func (c *counted) acquire(id byte, by Caller, wait time.Duration) Decision {
	return c.do(&Acquire{ID: LeaseID{id}, Caller: by, Pool: "a", N: 1, Lifetime: LifetimeProcess, Wait: wait})
}

func (c *counted) inUse(want int64) {
	c.t.Helper()
	if p, _ := c.e.Pool("a", c.now); p.InUse != want {
		c.t.Errorf("%d are in use, want %d", p.InUse, want)
	}
}

// proc is a process of one user, each in a pod of its own.
func proc(pid int32) Caller {
	return Caller{UID: 7, PID: pid, Start: 1, Pod: "pod " + string(rune('a'+pid))}
}

// A process takes twenty leases that count as one, and twenty others are to join one each. Where each of them counts of
// its own, a join is a grant: refused while nothing is free.
func TestJoinIsAGrant(t *testing.T) {
	for by, joins := range map[CountBy]bool{CountProcess: false, CountPod: false, CountUser: true, CountHost: true} {
		c := newCounted(t, 1, by)
		for id := byte(1); id <= 20; id++ {
			if d := c.acquire(id, proc(1), 0); d.Denial != nil {
				t.Fatalf("by %s: lease %d: %v", by, id, d.Denial)
			}
		}
		for id := byte(1); id <= 20; id++ {
			d := c.do(&Join{ID: LeaseID{id}, Caller: proc(1 + int32(id))}).Denial
			if joins != (d == nil) || d != nil && (d.Code != NoSlots || d.Pool != "a" || d.InUse != 1 ||
				!strings.Contains(d.Detail, "count once more, by "+string(by))) {
				t.Errorf("by %s: a join is answered %+v", by, d)
			}
		}
		c.inUse(1)
		for id := byte(1); id <= 20; id++ {
			c.do(&Leave{ID: LeaseID{id}, Holder: proc(1)})
		}
		c.inUse(map[bool]int64{true: 1}[joins])
	}
}

// Where there is room a join counts, a second lease of the process that joined costs nothing, and whoever waits is
// served when one of the co-holders leaves, whichever it is.
func TestCoHoldersCount(t *testing.T) {
	for leaves := range 2 {
		c := newCounted(t, 2, CountProcess)
		c.acquire(1, proc(1), 0)
		if d := c.do(&Join{ID: LeaseID{1}, Caller: proc(2)}); d.Denial != nil {
			t.Fatal(d.Denial)
		}
		c.inUse(2)
		c.acquire(2, proc(2), 0)
		c.inUse(2)
		c.do(&Leave{ID: LeaseID{2}, Holder: proc(2)})
		if d := c.acquire(3, proc(3), time.Minute); d.Waiter == nil {
			t.Fatalf("a third process got %+v", d)
		}
		if d := c.do(&Join{ID: LeaseID{1}, Caller: proc(4)}).Denial; d == nil || d.Code != NoSlots {
			t.Errorf("a join before one that waits: %v", d)
		}
		c.do(&Leave{ID: LeaseID{1}, Holder: proc(1 + int32(leaves))})
		c.inUse(1)
		if d := c.do(&Serve{}); d.Lease == nil || d.Lease.ID != (LeaseID{3}) {
			t.Errorf("one left, and %+v is served", d)
		}
		c.inUse(2)
	}
}

// One that has just come to join is not before those who wait for more than is free.
func TestJoinWaitsItsTurn(t *testing.T) {
	c := newCounted(t, 3, CountProcess)
	c.acquire(1, proc(1), 0)
	c.acquire(2, proc(2), 0)
	c.do(&Acquire{ID: LeaseID{3}, Caller: proc(3), Pool: "a", N: 2, Lifetime: LifetimeProcess, Wait: time.Minute})
	if d := c.do(&Join{ID: LeaseID{1}, Caller: proc(4)}).Denial; d == nil || d.Code != NoSlots {
		t.Errorf("a join before one that waits: %v", d)
	}
	if d := c.do(&Join{ID: LeaseID{1}, Caller: proc(2)}).Denial; d != nil {
		t.Errorf("a join that costs nothing: %v", d)
	}
}

// A lease of a time to live is held by whoever renews it: twenty that one process took are not renewed by twenty.
func TestRenewalByAnotherIsAGrant(t *testing.T) {
	c := newCounted(t, 1, CountProcess)
	for id := byte(1); id <= 3; id++ {
		c.do(&Acquire{ID: LeaseID{id}, Caller: proc(1), Pool: "a", N: 1, TTL: time.Minute})
	}
	if d := c.do(&Renew{ID: LeaseID{1}, Caller: proc(2)}).Denial; d == nil || d.Code != NoSlots {
		t.Errorf("another process renews one of three: %v", d)
	}
	if d := c.do(&Renew{ID: LeaseID{1}, Caller: proc(1)}).Denial; d != nil {
		t.Errorf("its own process renews it: %v", d)
	}
	c.do(&Release{ID: LeaseID{2}, Caller: proc(1)})
	c.do(&Release{ID: LeaseID{3}, Caller: proc(1)})
	if d := c.do(&Renew{ID: LeaseID{1}, Caller: proc(2)}).Denial; d != nil {
		t.Errorf("another process renews the only one: %v", d)
	}
	c.inUse(1)
	if l, _ := c.e.Lease(LeaseID{1}); l.Holder.PID != 2 || !l.ExpiresAt.Equal(noon.Add(time.Minute)) {
		t.Errorf("the lease is %+v", l)
	}
}

// An attach by a process that counts of its own is a grant too; the lease goes back to a process that counts as its
// holder did.
func TestAttachIsAGrant(t *testing.T) {
	c := newCounted(t, 1, CountProcess)
	c.acquire(1, proc(1), 0)
	c.acquire(2, proc(1), 0)
	c.do(&Doubt{ID: LeaseID{1}, Until: noon.Add(time.Minute)})
	if d := c.do(&Attach{ID: LeaseID{1}, Caller: proc(2)}).Denial; d == nil || d.Code != NoSlots {
		t.Errorf("another process attaches: %v", d)
	}
	if d := c.do(&Attach{ID: LeaseID{1}, Caller: proc(1)}).Denial; d != nil {
		t.Errorf("its own process attaches: %v", d)
	}
	c.inUse(1)
}

// An earlier journal's leases stand: a join that would be refused now is no reason to lose a lease. But nothing that
// counts is granted, joined or attached while more is in use than may be.
func TestJoinsOfBeforeAreKept(t *testing.T) {
	c := &counted{t, New(Options{}), noon}
	lease := func(holder Caller, others ...Caller) *Lease {
		l := &Lease{ID: LeaseID{byte(holder.PID)}, Items: []Item{{Pool: "a", N: 1}}, Lifetime: LifetimeProcess,
			AcquiredAt: noon,
			Holder:     &Holder{Caller: holder}}
		for _, o := range others {
			l.Others = append(l.Others, &Holder{Caller: o})
		}
		return l
	}
	c.e.Apply(Event{Kind: EventGranted, At: noon, Lease: lease(proc(1))})
	c.e.Apply(Event{Kind: EventChanged, At: noon, Lease: lease(proc(1), proc(2), proc(3))})
	c.limit(1, CountProcess)
	c.inUse(3)
	for _, r := range []Request{&Join{ID: LeaseID{1}, Caller: proc(4)},
		&Acquire{ID: LeaseID{9}, Caller: proc(4), Pool: "a", N: 1}} {
		if d := c.do(r).Denial; d == nil || d.Code != NoSlots {
			t.Errorf("%T over the limit: %v", r, d)
		}
	}
	if d := c.do(&Join{ID: LeaseID{1}, Caller: proc(2)}).Denial; d != nil {
		t.Errorf("a co-holder joins again: %v", d)
	}
	for pid := int32(1); pid <= 3; pid++ {
		c.inUse(4 - int64(pid))
		c.do(&Leave{ID: LeaseID{1}, Holder: proc(pid)})
	}
	c.inUse(0)
}

// No process that counts joins once the licence has ended; one that costs nothing still does.
func TestNoJoinAfterTheEnd(t *testing.T) {
	c := newCounted(t, 5, CountProcess)
	c.acquire(1, proc(1), 0)
	c.do(&SetVerdict{&Verdict{State: StateExpired, Code: Expired, Reason: "it expired"}})
	if d := c.do(&Join{ID: LeaseID{1}, Caller: proc(2)}).Denial; d == nil || d.Code != LicenseExpired {
		t.Errorf("a join after the end: %v", d)
	}
	if d := c.do(&Join{ID: LeaseID{1}, Caller: proc(1)}).Denial; d != nil {
		t.Errorf("the holder joins again: %v", d)
	}
}

// TestUnknownIsCountedByLease: where it is not known what a holder counts as, each of its leases counts.
func TestUnknownIsCountedByLease(t *testing.T) {
	for by, nobody := range map[CountBy]Caller{CountPod: {UID: 7, PID: 5, Start: 1}, CountProcess: {UID: 7},
		CountUser: {UID: Nobody}} {
		c := newCounted(t, 5, by)
		c.acquire(1, nobody, 0)
		c.acquire(2, nobody, 0)
		c.inUse(2)
	}
	c := newCounted(t, 5, CountPod)
	for id, pid := range []int32{1, 1, 2} {
		c.acquire(byte(id), proc(pid), 0)
	}
	c.inUse(2)
}

// TestNarrowingNeverCountsLooser: whatever leases there are and whoever holds them, as many slots are in use by what a
// configuration may narrow a licence's word to as by that word, and what may not is looser somewhere.
func TestNarrowingNeverCountsLooser(t *testing.T) {
	words := []CountBy{CountLease, CountProcess, CountPod, CountUser, CountHost}
	all := append(slices.Clip(words), "user/2", "host/3", "process/1",
		"pod+process", "user+label:x", "user+pod/2", "label:x+pod", "label:x/2")
	looser := map[[2]CountBy]bool{}
	property := func(t *rapid.T) {
		caller := rapid.Custom(func(t *rapid.T) Caller {
			return Caller{UID: rapid.SampledFrom([]uint32{1, 2, Nobody}).Draw(t, "uid"),
				PID:   rapid.Int32Range(0, 2).Draw(t, "pid"),
				Inode: rapid.Uint64Range(0, 1).Draw(t, "inode"),
				Pod:   rapid.SampledFrom([]string{"", "p", "q"}).Draw(t, "pod")}
		})
		var leases []*Lease
		for range rapid.IntRange(1, 5).Draw(t, "leases") {
			holders := rapid.SliceOfN(caller, 1, 3).Draw(t, "holders")
			l := &Lease{Holder: &Holder{Caller: holders[0]},
				Items: []Item{{Pool: "a", N: rapid.Int64Range(1, 3).Draw(t, "n")}}}
			for _, o := range holders[1:] {
				o.UID = holders[0].UID // one user, as only that may join
				l.Others = append(l.Others, &Holder{Caller: o})
			}
			if v := rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "x"); v != "" {
				l.Holder.Labels = map[string]string{"x": v}
			}
			leases = append(leases, l)
		}
		used := func(g PoolGrant) int64 {
			p := pool{grant: g}
			for _, l := range leases {
				p.take(l, nil, l.Items[0].N)
			}
			return p.inUse
		}
		for _, signed := range all {
			for _, by := range all {
				is, was := used(PoolGrant{CountBy: by, HoldersBy: holdersBy(signed, by)}),
					used(PoolGrant{CountBy: signed})
				if by.Narrows(signed) && is < was {
					t.Fatalf("%s narrows %s, and counts %d as %d", by, signed, was, is)
				}
				if is < was {
					looser[[2]CountBy{by, signed}] = true
				}
			}
		}
	}
	// A few draws may miss a case that is rare: what is refused is looked for until it was looser once.
	missing := func() (pairs []string) {
		for _, signed := range words {
			for _, by := range words {
				if !by.Narrows(signed) && !looser[[2]CountBy{by, signed}] {
					pairs = append(pairs, fmt.Sprintf("%s for %s", by, signed))
				}
			}
		}
		return pairs
	}
	for tries := 0; tries == 0 || tries < 50 && len(missing()) > 0; tries++ {
		rapid.Check(t, property)
	}
	if pairs := missing(); len(pairs) > 0 {
		t.Errorf("refused, and looser nowhere: %v", pairs)
	}
}

// The co-holders that a licence counts one by one are so counted where a configuration has it counted by lease.
func TestNarrowedToLeaseCountsCoHolders(t *testing.T) {
	l := &License{ID: "L", System: "usher", Product: "acme",
		Pools: map[string]PoolTerm{"a": {Max: 2, Scope: ScopeHost, CountBy: CountProcess}}}
	v := Judge(Facts{Documents: []Document{{Name: "a.lic", License: l}}, Narrowing: Narrowing{CountBy: CountLease}},
		noon)
	c := &counted{t, New(Options{}), noon}
	c.do(&SetVerdict{v})
	c.acquire(1, proc(1), 0)
	c.do(&Join{ID: LeaseID{1}, Caller: proc(2)})
	c.inUse(2)
	if d := c.do(&Join{ID: LeaseID{1}, Caller: proc(3)}).Denial; d == nil || d.Code != NoSlots {
		t.Errorf("a third joins two: %v", d)
	}
}

// TestModelKnowsEveryRequest: whatever can be asked of the core is asked of it beside the model.
func TestModelKnowsEveryRequest(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var twin strings.Builder
	for _, name := range files {
		if strings.HasPrefix(name, "twin_") {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			twin.Write(text)
		}
	}
	var requests []string
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if m, ok := d.(*ast.FuncDecl); ok && m.Name.Name == "decide" && m.Recv != nil {
				requests = append(requests, m.Recv.List[0].Type.(*ast.StarExpr).X.(*ast.Ident).Name)
			}
		}
	}
	if len(requests) < 16 {
		t.Errorf("only %q were found", requests)
	}
	slices.Sort(requests)
	for _, r := range requests {
		if !strings.Contains(twin.String(), "&"+r+"{") {
			t.Errorf("%s is not asked beside the model", r)
		}
	}
}
