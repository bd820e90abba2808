package enforcer

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// randomIDs are ids as they are drawn for leases.
func randomIDs(n int) []LeaseID {
	rng := rand.New(rand.NewPCG(3, 4))
	ids := make([]LeaseID, n)
	for i := range ids {
		for at := range ids[i] {
			ids[i][at] = byte(rng.Uint32())
		}
	}
	return ids
}

// each returns the parts of a table.
func (t *Table[V]) each() []*tablePart[V] {
	out := []*tablePart[V]{&t.young}
	if t.parts != nil {
		for i := range t.parts {
			out = append(out, &t.parts[i])
		}
	}
	return out
}

// room returns how many values a table has room for.
func (t *Table[V]) room() (n int) {
	for _, p := range t.each() {
		n += cap(p.entries)
	}
	return n
}

// A table for which room was made moves nothing while it is filled, and gives back room that nothing needed.
func TestTableMakesRoomOnce(t *testing.T) {
	t.Parallel()
	const n = 50_000
	ids := randomIDs(n)
	var table Table[int]
	table.Reserve(n)
	slots := table.room
	before := slots()
	for i, id := range ids {
		table.Put(id, i)
	}
	// Ids are random: some parts may get a little more than there is room for.
	if after := slots(); after > before*21/20 || after > n*3/2 {
		t.Errorf("room for %d was made for %d values, and %d are there when these are put in", before, n, after)
	}
	for _, id := range ids[n/10:] {
		table.Delete(id)
	}
	table.Reserve(n)
	table.Fit()
	if after := slots(); after > n/10*2 {
		t.Errorf("room for %d is kept for %d values", after, n/10)
	}
	for i, id := range ids[:n/10] {
		if v, ok := table.Get(id); !ok || v != i {
			t.Fatalf("value %d is %d, %v", i, v, ok)
		}
	}
}

// With as many values as a table has before it grows or after, an id is missed after a few looks, so that they are in
// one line of a processor's cache or two; and what comes and goes takes no more room each time.
func TestTableIsSparse(t *testing.T) {
	t.Parallel()
	ids := randomIDs(60_000)
	var table Table[int]
	check := func(n int) {
		looks, places, room := 0, 0, 0
		for _, p := range table.each() {
			places, room = places+len(p.index), room+cap(p.entries)
			if len(p.index) == 0 {
				continue
			}
			free := 0 // the next free place behind, going backwards
			for at := 2*len(p.index) - 1; at >= 0; at-- {
				if p.index[at%len(p.index)] == 0 {
					free = at
				}
				if at < len(p.index) {
					looks += free - at + 1
				}
			}
		}
		if n >= 2000 && (looks > 5*places || places > 3*n || room > 2*n) {
			t.Errorf("%d values: a missing id takes %.1f looks; there are %d places, and room for %d", n,
				float64(looks)/float64(places), places, room)
		}
	}
	for i, id := range ids {
		table.Put(id, i)
		if i%1000 == 0 {
			check(i + 1)
		}
	}
	before := table.room()
	for _, id := range ids[:1000] { // others come and go; the parts have a few values less, so that none grows
		table.Delete(id)
	}
	for i := range 100_000 {
		id := ids[i%1000]
		table.Put(id, i)
		table.Delete(id)
	}
	if after := table.room(); after > before {
		t.Errorf("room for %d became room for %d", before, after)
	}
}

// Among many old ids one that comes and goes soon touches none of them, whatever the young ones are.
func TestYoungComeAndGo(t *testing.T) {
	t.Parallel()
	ids := randomIDs(20_000)
	var table Table[int]
	for i, id := range ids[:15_000] {
		*table.New(id) = i
	}
	if table.young.n != mostYoung || table.old != 15_000-mostYoung {
		t.Fatalf("%d are young, and %d old", table.young.n, table.old)
	}
	come := ids[15_000:]
	const together = 300 // they are in the place of as many that were young
	for i, id := range come[:together] {
		*table.New(id) = i
	}
	old := table.old
	for i := range come[together:] {
		table.Delete(come[i])
		*table.New(come[together+i]) = i
		if table.old != old {
			t.Fatalf("%d are old with the %d-th, and %d were before", table.old, i, old)
		}
	}
}

// What is put in order is the same ids, part by part.
func TestInOrder(t *testing.T) {
	t.Parallel()
	ids := append(randomIDs(5000), LeaseID{}, LeaseID{})
	left := map[LeaseID]int{}
	for _, id := range ids {
		left[id]++
	}
	last := 0
	for _, id := range InOrder(slices.Values(ids)) {
		if part := id.partOf(); part < last {
			t.Fatalf("an id of part %d is behind one of part %d", part, last)
		} else {
			last = part
		}
		if left[id]--; left[id] == 0 {
			delete(left, id)
		}
	}
	if len(left) > 0 {
		t.Errorf("%d ids are missing, or too many", len(left))
	}
	if got := InOrder(slices.Values([]LeaseID(nil))); len(got) != 0 {
		t.Errorf("of no ids: %v", got)
	}
}

// A holder whose last lease is over is another one when it comes back, and counts as what it is.
func TestHolderComesBack(t *testing.T) {
	t.Parallel()
	e := New(Options{})
	now := time.Unix(1e9, 0)
	h, like := &Holder{Caller: Caller{UID: 1, PID: 2, Start: 3}}, &Holder{Caller: Caller{UID: 1, PID: 2, Start: 3}}
	other := &Holder{Caller: Caller{UID: 4}}
	grant := func(id byte, of *Holder) *Lease {
		l := &Lease{ID: LeaseID{id}, Holder: of, Items: []Item{{Pool: "p", N: 1}}, Lifetime: LifetimeHeld,
			AcquiredAt: now}
		e.Apply(Event{Kind: EventGranted, At: now, Lease: l})
		return l
	}
	end := func(l *Lease) { e.Apply(Event{Kind: EventEnded, At: now, Lease: l, Cause: CauseReleased}) }
	counted := func(step string, want int) {
		t.Helper()
		got := 0
		if s := e.holders[h.Caller]; s != nil && s.leases > 0 {
			got = s.leases
			if a := e.accounts[h.Who()]; s.account != a || a.leases.n != want {
				t.Errorf("%s: the user's account is another's", step)
			}
		}
		if got != want {
			t.Errorf("%s: the holder has %d leases, want %d", step, got, want)
		}
	}
	a := grant(1, h)
	counted("the first", 1)
	end(a)
	counted("over", 0)
	b := grant(2, h)
	counted("again", 1)
	c := grant(3, like)
	counted("by another record", 2)
	grant(4, other)
	d := grant(5, h)
	counted("after another's", 3)
	for _, l := range []*Lease{b, c, d} {
		end(l)
	}
	counted("all are over", 0)
}
