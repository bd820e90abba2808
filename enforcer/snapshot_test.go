package enforcer

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// throng is an enforcer of many leases, of which some have a client token, some come under another licence, and some
// are over.
type throng struct {
	e    *Enforcer
	now  time.Time
	ids  []LeaseID
	next uint64
	rng  *rand.Rand
}

func newThrong(leases int, seed uint64) *throng {
	c := &throng{e: New(Options{Durable: true}), now: time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC),
		rng: rand.New(rand.NewPCG(seed, 1))}
	c.licence(1)
	for range leases {
		c.acquire()
	}
	return c
}

func (c *throng) do(r Request) Decision {
	d := c.e.Decide(r, c.now)
	for _, ev := range d.Events {
		c.e.Apply(ev)
	}
	return d
}

func (c *throng) licence(day int) {
	l := &License{ID: fmt.Sprint("licence ", day), Issued: time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC)}
	c.do(&SetVerdict{&Verdict{State: StateValid, Code: Valid, OnExpiry: Drain,
		Licenses: []Judged{{License: l, InForce: true, Code: Valid}},
		Pools:    map[string]PoolGrant{"a": {Name: "a", Limit: Unlimited, Budget: Unlimited, CountBy: CountLease}}}})
}

func (c *throng) acquire() {
	c.next++
	var id LeaseID
	for i := range id {
		id[i] = byte(c.rng.Uint32())
	}
	r := &Acquire{ID: id, Caller: Caller{UID: uint32(c.next % 3), PID: 7, Start: 1}, Pool: "a", N: 1,
		Lifetime: []Lifetime{LifetimeTTL, LifetimeHeld, LifetimeProcess}[c.next%3]}
	if r.Lifetime == LifetimeTTL {
		r.TTL = time.Hour
	}
	if c.next%2 == 0 {
		r.Token = fmt.Sprint(c.next)
	}
	if c.do(r).Lease != nil {
		c.ids = append(c.ids, id)
	}
}

// change does one thing of those that change what is held or remembered.
func (c *throng) change(kind int) {
	if len(c.ids) == 0 {
		c.acquire()
		return
	}
	i := c.rng.IntN(len(c.ids))
	l, _ := c.e.Lease(c.ids[i])
	switch kind {
	case 0:
		c.acquire()
	case 1, 2:
		c.do(&End{ID: l.ID, Cause: CauseReleased})
		c.ids = slices.Delete(c.ids, i, i+1)
	case 3:
		if l.Lifetime == LifetimeTTL {
			c.now = c.now.Add(time.Millisecond)
			c.do(&Renew{ID: l.ID, Caller: l.Holder.Caller, TTL: 2 * time.Hour})
		}
	case 4:
		c.do(&SetData{ID: l.ID, Caller: l.Holder.Caller, Data: &Data{Owner: "d", Bytes: []byte{byte(c.next)}}})
	case 5:
		c.licence(2 + c.rng.IntN(20))
	case 6:
		c.now = c.now.Add(time.Minute)
		c.do(&Step{By: time.Minute})
	case 8:
		c.now = c.now.Add(TokenKept / 5)
		for len(c.do(&Tick{}).Events) > 0 {
		}
		c.ids = slices.DeleteFunc(c.ids, func(id LeaseID) bool { _, held := c.e.Lease(id); return !held })
	case 7:
		if l.Lifetime == LifetimeProcess {
			c.do(&Join{ID: l.ID, Caller: Caller{UID: l.Holder.UID, PID: 9, Start: uint64(c.next)}})
		}
	}
}

// words are a snapshot in a fixed order.
func words(leases []Granted, tokens []Event) (out []string) {
	for _, g := range leases {
		l := *g.Lease
		out = append(out, fmt.Sprint(l.ID, l.Lifetime, l.TTL, l.AcquiredAt, l.ExpiresAt, len(l.Others), l.Data, l.Token,
			*g.Terms))
	}
	for _, ev := range tokens {
		out = append(out, fmt.Sprint(ev.Kind, ev.At, ev.Lease.ID, ev.Lease.ExpiresAt, ev.Cause))
	}
	slices.Sort(out)
	return out
}

// A snapshot that is taken in steps is of the instant at which it began, whatever happens between the steps.
func TestSnapshotOfOneInstant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newThrong(rapid.IntRange(0, 200).Draw(t, "leases"), rapid.Uint64().Draw(t, "seed"))
		for range rapid.IntRange(0, 50).Draw(t, "before") {
			c.change(c.rng.IntN(9))
		}
		p, err := c.e.Snapshot().Next(math.MaxInt)
		if err != nil || !p.Last || len(p.Leases) != len(c.ids) {
			t.Fatalf("%d leases of %d, last: %v, %v", len(p.Leases), len(c.ids), p.Last, err)
		}
		want := words(p.Leases, p.Tokens)
		given := c.e.Snapshot()
		s := c.e.Snapshot()
		if p, err := given.Next(1); !errors.Is(err, ErrGivenUp) {
			t.Fatalf("a snapshot that was given up: %v, %v", p, err)
		}
		var all Part
		for !all.Last {
			for range rapid.IntRange(0, 20).Draw(t, "meanwhile") {
				c.change(c.rng.IntN(9))
			}
			p, err := s.Next(rapid.IntRange(1, 60).Draw(t, "step"))
			if err != nil || len(all.Tokens) > 0 && len(p.Leases) > 0 {
				t.Fatalf("%d leases after %d tokens, %v", len(p.Leases), len(all.Tokens), err)
			}
			all.Leases, all.Tokens = append(all.Leases, p.Leases...), append(all.Tokens, p.Tokens...)
			all.Last = p.Last
		}
		if is := words(all.Leases, all.Tokens); !slices.Equal(is, want) {
			t.Fatalf("a snapshot in steps has\n%q\nwant\n%q", is, want)
		}
	})
}

// No step looks at more than it is told to.
func TestSnapshotTakesSmallSteps(t *testing.T) {
	const leases, most = 50_000, 256
	c := newThrong(leases, 1)
	s := c.e.Snapshot()
	steps := 0
	for last := false; !last; steps++ {
		p, err := s.Next(most)
		if n := len(p.Leases) + len(p.Tokens); err != nil || n > most {
			t.Fatalf("a step has %d entries, %v", n, err)
		}
		last = p.Last
	}
	if steps < leases/most {
		t.Errorf("%d steps", steps)
	}
}

// A Table is a map, whatever is put in and taken out, and takes no memory for what was once in it.
func TestTable(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var table Table[int]
		want := map[LeaseID]int{}
		ids := rapid.Custom(func(t *rapid.T) (id LeaseID) { // counted up, so that many are of one part
			id[rapid.SampledFrom([]int{0, 7, 8, 15}).Draw(t, "where")] = byte(rapid.IntRange(0, 60).Draw(t, "id"))
			return id
		})
		if rapid.Bool().Draw(t, "crowded") { // each that is new sends another on to the old ones
			for i, id := range randomIDs(mostYoung) {
				*table.New(id), want[id] = i, i
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"new": func(t *rapid.T) {
				id, v := ids.Draw(t, "id"), rapid.Int().Draw(t, "value")
				if _, had := want[id]; had {
					t.Skip("it is there")
				}
				*table.New(id), want[id] = v, v
			},
			"put": func(t *rapid.T) {
				id, v := ids.Draw(t, "id"), rapid.Int().Draw(t, "value")
				table.Put(id, v)
				want[id] = v
			},
			"place": func(t *rapid.T) {
				id, v := ids.Draw(t, "id"), rapid.Int().Draw(t, "value")
				was, had := want[id]
				if at, known := table.Place(id); known != had || *at != was {
					t.Fatalf("%v: %d %v, want %d %v", id, *at, known, was, had)
				} else {
					*at, want[id] = v, v
				}
			},
			"delete": func(t *rapid.T) {
				id := ids.Draw(t, "id")
				table.Delete(id)
				delete(want, id)
			},
			"reserve": func(t *rapid.T) { table.Reserve(rapid.IntRange(0, 4000).Draw(t, "room")) },
			"fit":     func(*rapid.T) { table.Fit() },
			"touch": func(t *rapid.T) {
				id := ids.Draw(t, "id")
				table.Touch(&id)
			},
			"": func(t *rapid.T) {
				n := 0
				for id, v := range table.All {
					if w, ok := want[id]; !ok || w != v {
						t.Fatalf("%v: %d, want %d %v", id, v, w, ok)
					}
					n++
				}
				if n != len(want) || table.Len() != n {
					t.Fatalf("%d values, Len says %d, want %d", n, table.Len(), len(want))
				}
				for id, w := range want {
					if v, ok := table.Get(id); !ok || v != w {
						t.Fatalf("%v: %d %v, want %d", id, v, ok, w)
					}
				}
			},
		})
	})
}

// One part of a table behaves as the whole does: what lies behind others only because of them is found when these go.
func TestTablePart(t *testing.T) {
	t.Run("young", func(t *testing.T) {
		testTablePart(t, 0, func(table *Table[int]) *tablePart[int] { return &table.young })
	})
	t.Run("old", func(t *testing.T) {
		testTablePart(t, mostYoung+1, func(table *Table[int]) *tablePart[int] { return &table.parts[5] })
	})
}

// testTablePart puts ids in and takes them out of one part of a table that has so many others.
func testTablePart(t *testing.T, others int, part func(*Table[int]) *tablePart[int]) {
	rng := rand.New(rand.NewPCG(1, 2))
	var table Table[int]
	want := map[LeaseID]int{}
	for i, id := range randomIDs(others) {
		*table.New(id), want[id] = i, i
	}
	var ids []LeaseID
	for len(ids) < 300 {
		var id LeaseID
		id[0], id[1], id[2], id[9] = byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32())
		if id.partOf() == 5 {
			ids = append(ids, id)
		}
	}
	for i := range 20_000 {
		id := ids[rng.IntN(len(ids))]
		if down := i/4000%2 == 1; rng.IntN(3) == 0 != down {
			table.Delete(id)
			delete(want, id)
		} else {
			table.Put(id, i)
			want[id] = i
		}
		probe := ids[rng.IntN(len(ids))]
		v, ok := table.Get(probe)
		if w, held := want[probe]; ok != held || v != w || table.Len() != len(want) {
			t.Fatalf("step %d: %d %v, want %d %v; %d of %d", i, v, ok, w, held, table.Len(), len(want))
		}
		if p := part(&table); cap(p.entries) > max(8, 4*int(p.n)+4) || len(p.index) > 2*cap(p.entries) {
			t.Fatalf("room for %d, and %d places, for %d leases", cap(p.entries), len(p.index), p.n)
		}
	}
}

// A paged list keeps its order, and lets go of the pages that it no longer needs.
func TestPaged(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var is paged[int]
	var want []int
	for i := range 40_000 {
		if down := i/5000%2 == 1; len(want) > 0 && rng.IntN(3) == 0 != down {
			if x := is.pop(); x != want[len(want)-1] {
				t.Fatalf("step %d: %d is taken off", i, x)
			}
			want = want[:len(want)-1]
		} else {
			is.push(i)
			want = append(want, i)
		}
		if is.len() != len(want) || len(is.pages) > len(want)/pageSize+2 {
			t.Fatalf("step %d: %d entries in %d pages, want %d", i, is.len(), len(is.pages), len(want))
		}
		if n := len(want); n > 0 {
			if at := rng.IntN(n); *is.at(at) != want[at] {
				t.Fatalf("step %d: entry %d is %d", i, at, *is.at(at))
			}
		}
	}
}
