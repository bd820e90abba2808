package usage

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/usher-agent/usher/client/wire"
)

// Of more users than are told apart the sums are exact; each that is named has no more than is stated, and lacks no
// more than is stated; and none that is not named had more than the lightest that is, and what it may lack.
func TestUsersInBoundedSpace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDay()
		d.ofPool, d.ofAll = rapid.IntRange(1, 4).Draw(t, "of a pool"), rapid.IntRange(1, 8).Draw(t, "of all")
		naive := map[string]map[string]wire.UserUsage{"a": {}, "b": {}}
		steps := rapid.IntRange(1, 60).Draw(t, "steps")
		for range steps {
			pool := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "pool")
			u := wire.UserUsage{User: fmt.Sprint("u", rapid.IntRange(0, 12).Draw(t, "user")),
				Peak:        rapid.Int64Range(0, 5).Draw(t, "peak"),
				SlotSeconds: float64(rapid.IntRange(0, 9).Draw(t, "slots")),
				Grants:      1, Denials: rapid.Int64Range(0, 2).Draw(t, "denials"),
				Drawn: rapid.Int64Range(0, 2).Draw(t, "drawn")}
			naive[pool][u.User] = AddUser(naive[pool][u.User], u)
			d.add(pool, u)
		}
		n := rapid.IntRange(0, 6).Draw(t, "named")
		kept := d.line(dayKey{setting: "plain"}, n)
		names := 0
		for pool, users := range naive {
			p := kept.Pools[pool]
			var sum, whole wire.UserUsage
			lightest := 0.0
			named := map[string]bool{}
			for _, u := range p.Users {
				is := users[u.User]
				if u.SlotSeconds > is.SlotSeconds || is.SlotSeconds > u.SlotSeconds+p.Short || u.Peak > is.Peak ||
					u.Denials > is.Denials || u.Drawn > is.Drawn {
					t.Fatalf("%s has %+v, is said to have %+v, short %v", u.User, is, u, p.Short)
				}
				lightest, named[u.User] = u.SlotSeconds, true
				sum = AddUser(sum, u)
			}
			sum = AddUser(sum, p.Others)
			left := int64(0)
			for name, u := range users {
				if whole = AddUser(whole, u); named[name] {
					continue
				}
				left++
				if n > 0 && len(p.Users) == n && u.SlotSeconds > lightest+p.Short {
					t.Fatalf("%s has %+v and is not named; the lightest has %v, short %v", name, u, lightest, p.Short)
				}
			}
			sum.User, whole.User, sum.Others = "", "", 0
			if sum != whole || p.Others.Others < left || len(p.Users) > n {
				t.Fatalf("pool %s: all are %+v, want %+v; %d others, want %d", pool, sum, whole, p.Others.Others, left)
			}
			names += len(d.pools[pool].usersOrNone())
		}
		if names != d.names || names > 2*d.ofAll+1 {
			t.Fatalf("%d names are kept, counted as %d", names, d.names)
		}
	})
}

func (of *openUsers) usersOrNone() map[string]wire.UserUsage {
	if of == nil {
		return nil
	}
	return of.users
}

// A day with more pools and longer names than a line of the record can hold is cut to one.
func TestDayFitsALine(t *testing.T) {
	d := newDay()
	for i := range 3000 {
		d.add(fmt.Sprint("pool-", i%40), wire.UserUsage{User: fmt.Sprintf("%0400d", i), SlotSeconds: float64(i)})
	}
	b, err := d.closed(dayKey{setting: "plain"})
	if err != nil || len(b) > lineBytes || len(b) < lineBytes/4 {
		t.Errorf("a line of %d bytes, %v", len(b), err)
	}
}
