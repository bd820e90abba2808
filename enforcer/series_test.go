package enforcer

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A series is a sorted list, whatever is added and removed in whatever order, and keeps no more blocks than it needs.
func TestSeriesIsASortedList(t *testing.T) {
	for seed := range uint64(6) {
		x := &seriesTest{t: t, r: rand.New(rand.NewPCG(seed, 1))}
		for range 80 {
			switch x.r.IntN(4) {
			case 0:
				for range x.r.IntN(2 * blockSize) {
					x.add(1000 + int(x.serial)/3)
				}
			case 1:
				for range x.r.IntN(blockSize) {
					x.add(x.r.IntN(1000))
				}
			default:
				x.remove()
			}
			x.check()
		}
	}
}

// A lease that comes last costs no look at others, nor does one that goes, however many there are: in a million leases
// each look is memory that is in no cache.
func TestSeriesLooksAtNoOtherLease(t *testing.T) {
	x := &seriesTest{t: t, r: rand.New(rand.NewPCG(1, 1))}
	for i := range 3*blockSize + 7 {
		x.add(i)
	}
	between := []*held{x.list[10], x.list[blockSize+20], x.list[3*blockSize]}
	for _, h := range x.list {
		if !slices.Contains(between, h) {
			h.Lease = nil // a look at it ends the test
		}
	}
	for i := range 2 * blockSize {
		h := &held{Lease: &Lease{AcquiredAt: noon.Add(time.Duration(10_000 + i))}}
		x.s.add(h)
		if i%3 == 0 {
			x.s.remove(h)
			x.s.add(h)
		}
	}
	for _, h := range between {
		x.s.remove(h)
	}
}

// seriesTest is a series, and the same leases in a list.
type seriesTest struct {
	t      *testing.T
	r      *rand.Rand
	s      series
	list   []*held
	serial uint64
}

func (x *seriesTest) add(at int) {
	x.serial++
	l := &Lease{AcquiredAt: noon.Add(time.Duration(at))}
	binary.BigEndian.PutUint64(l.ID[:], x.r.Uint64())
	h := &held{Lease: l}
	x.s.add(h)
	x.list = append(x.list, h)
}

func (x *seriesTest) remove() {
	if len(x.list) == 0 {
		return
	}
	i := x.r.IntN(len(x.list))
	j := min(len(x.list), i+x.r.IntN(3*blockSize))
	for _, h := range x.list[i:j] {
		x.s.remove(h)
	}
	x.list = slices.Delete(x.list, i, j)
}

func (x *seriesTest) check() {
	t, s := x.t, &x.s
	slices.SortFunc(x.list, func(a, b *held) int { return CursorOf(a.Lease).compare(CursorOf(b.Lease)) })
	if got := slices.Collect(s.all); !slices.Equal(got, x.list) || s.n != len(x.list) {
		t.Fatalf("%d leases, counted as %d, of %d, or in another order", len(got), s.n, len(x.list))
	}
	back := slices.Collect(s.latest)
	slices.Reverse(back)
	if !slices.Equal(back, x.list) {
		t.Fatal("backwards it is another list")
	}
	small := 0
	for i, b := range s.blocks {
		if first := CursorOf(b.leases[0].Lease); first.compare(b.low) < 0 ||
			i > 0 && CursorOf(s.blocks[i-1].leases[len(s.blocks[i-1].leases)-1].Lease).compare(b.low) >= 0 {
			t.Fatalf("block %d is said to begin with %v", i, b.low)
		}
		if len(b.leases) == 0 || len(b.leases) > blockSize {
			t.Fatalf("a block of %d", len(b.leases))
		}
		if len(b.leases) <= blockSize/4 {
			small++
		}
	}
	if small > len(s.blocks)/2+1 {
		t.Fatalf("%d of %d blocks are nearly empty", small, len(s.blocks))
	}
	if len(x.list) == 0 {
		return
	}
	if n := len(x.list); CursorOf(x.list[n-1].Lease).compare(s.high) > 0 ||
		n > 1 && CursorOf(x.list[n-2].Lease).compare(s.before) > 0 {
		t.Fatalf("of %d leases the last are said to be no later than %v and %v", n, s.before, s.high)
	}
	i := x.r.IntN(len(x.list))
	rest := slices.Collect(func(yield func(*held) bool) { s.after(CursorOf(x.list[i].Lease), yield) })
	if !slices.Equal(rest, x.list[i+1:]) {
		t.Fatalf("%d come after place %d of %d", len(rest), i, len(x.list))
	}
}

// Pages that follow on each other have each lease once that is held throughout, whatever begins, ends, changes and is
// replaced between them.
func TestPagesHaveEachLeaseOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCrowd(Options{batch: rapid.IntRange(1, 20).Draw(t, "batch")},
			PoolGrant{Name: "a", Limit: Unlimited, Budget: Unlimited},
			PoolGrant{Name: "b", Limit: Unlimited, Budget: Unlimited})
		acquire := func() *Lease {
			c.now = c.now.Add(time.Duration(rapid.IntRange(0, 1).Draw(t, "passes")))
			items := []Item{{Pool: "a", N: 1}, {Pool: "b", N: 1}}
			return c.ask(&Acquire{Items: items[rapid.IntRange(0, 1).Draw(t, "first"):],
				Caller: Caller{UID: uint32(rapid.IntRange(5, 6).Draw(t, "uid")), PID: 9}}).Lease
		}
		var all []*Lease
		for range rapid.IntRange(0, 60).Draw(t, "leases") {
			all = append(all, acquire())
		}
		var f Filter
		if rapid.Bool().Draw(t, "of one") {
			f.User = &User{UID: 5}
		}
		f.Pool = pick(t, "pool", "", "a", "b")
		throughout, seen := map[LeaseID]bool{}, map[LeaseID]int{}
		for _, l := range all {
			throughout[l.ID] = f.has(l)
		}
		var at Cursor
		for more := true; more; {
			var part []*Lease
			part, at, more = c.Page(f, at, rapid.IntRange(1, 9).Draw(t, "most"))
			for _, l := range part {
				seen[l.ID]++
			}
			switch rapid.IntRange(0, 3).Draw(t, "meanwhile") {
			case 0:
				acquire()
			case 1:
				if len(all) > 0 {
					l := all[rapid.IntRange(0, len(all)-1).Draw(t, "ends")]
					delete(throughout, l.ID)
					c.ask(&End{ID: l.ID, Cause: CauseForced})
				}
			case 2:
				if len(all) > 0 {
					c.ask(&Renew{ID: all[rapid.IntRange(0, len(all)-1).Draw(t, "renewed")].ID,
						Caller: Caller{UID: uint32(rapid.IntRange(5, 6).Draw(t, "by")), PID: 8}})
				}
			case 3:
				base := paper(pick(t, "licence", "x", "y"), Unlimited, func(l *License) { l.Issued = c.now })
				c.ask(&SetVerdict{&Verdict{State: StateValid, Code: Valid, Pools: c.Verdict().Pools,
					Licenses: []Judged{{License: base, InForce: true}}}})
			}
		}
		for id, want := range throughout {
			if want && seen[id] != 1 {
				t.Fatalf("lease %s was held throughout, and is listed %d times", id, seen[id])
			}
		}
		for id, n := range seen {
			if n > 1 {
				t.Fatalf("lease %s is listed %d times", id, n)
			}
		}
	})
}
