package enforcer

import (
	"cmp"
	"maps"
	"math/big"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// modelUsers counts what users have in use naively: it counts all leases behind each event, and adds up the time since
// its last look.
type modelUsers struct {
	seen  map[string]map[User]int64 // in parts
	days  map[modelDay]*modelSum
	taken map[modelDay]*modelSum
	all   bool // the enforcer looks at all users
}

type modelDay struct {
	pool string
	user User
	day  time.Time
}

func newModelUsers() modelUsers {
	return modelUsers{map[string]map[User]int64{}, map[modelDay]*modelSum{}, map[modelDay]*modelSum{}, false}
}

func dayIn(in map[modelDay]*modelSum, pool string, who User, at time.Time) *modelSum {
	k := modelDay{pool, who, at.UTC().Truncate(24 * time.Hour)}
	if in[k] == nil {
		in[k] = &modelSum{}
	}
	return in[k]
}

// usedBy counts what each user's leases use of a pool, as though there were no others'.
func usedBy(e *Enforcer, p *pool) map[User]int64 {
	groups := map[User]map[string][]int64{}
	out := map[User]int64{}
	most := int64(0)
	for h := range p.members.all {
		who, n := h.Holder.Who(), p.grant.parts(h.item(p.name))
		if groups[who] == nil {
			groups[who] = map[string][]int64{}
		}
		u := p.grant.units(h.Lease)
		out[who] += u.alone * n
		for _, unit := range u.groups {
			groups[who][unit], most = append(groups[who][unit], n), u.most
		}
	}
	for who, of := range groups {
		for _, parts := range of {
			slices.SortFunc(parts, func(a, b int64) int { return cmp.Compare(b, a) })
			for i, n := range parts {
				if i == 0 || most > 0 && int64(i)%most == 0 {
					out[who] += n
				}
			}
		}
	}
	return out
}

// pass counts a stretch of one hour or less.
func (u *modelUsers) pass(pool string, each int64, from, to time.Time) {
	for who, parts := range u.seen[pool] {
		if parts == 0 {
			continue
		}
		sum := dayIn(u.days, pool, who, from)
		r := new(big.Rat).SetFrac64(parts, each*int64(time.Millisecond))
		sum.slots.Add(&sum.slots, r.Mul(r, new(big.Rat).SetInt64(int64(to.Sub(from)))))
		sum.peak = max(sum.peak, (parts+each-1)/each)
	}
}

func (u *modelUsers) look(e *Enforcer, p *pool, each int64, now time.Time) {
	is := usedBy(e, p)
	for who, parts := range is {
		if was := u.seen[p.name][who]; was == parts && !u.all {
			continue // nothing has happened to this user
		}
		sum := dayIn(u.days, p.name, who, now)
		sum.peak = max(sum.peak, (parts+each-1)/each)
	}
	u.seen[p.name] = is
}

// take takes what the enforcer has counted of all users of a pool.
func (u *modelUsers) take(t *rapid.T, e *Enforcer, name string, now time.Time) {
	for more := true; more; {
		var all []UserUsage
		var lost int
		if all, lost, more = e.TakeUserUsage(name, 2, now); lost > 0 {
			t.Fatalf("UserUsageAgrees: %d are lost", lost)
		}
		for _, a := range all {
			who := a.User
			if a.Others > 0 {
				who = User{Credential: "others"}
			}
			sum := dayIn(u.taken, a.Pool, who, a.Day)
			sum.slots.Add(&sum.slots, new(big.Rat).SetInt64(a.Slots))
			sum.grants += a.Grants
			sum.peak = max(sum.peak, a.Peak)
		}
	}
}

// agree wants that the enforcer has counted the same of each user, and of all together where it does not tell all
// apart.
func (u *modelUsers) agree(t *rapid.T, e *Enforcer, takes int64, now time.Time) {
	u.take(t, e, "", now)
	for _, name := range e.PoolNames() {
		u.take(t, e, name, now)
	}
	others := User{Credential: "others"}
	near := func(k modelDay, got, want *modelSum, n int64) {
		diff, _ := new(big.Rat).Sub(&got.slots, &want.slots).Float64()
		if most := float64(2*n*(takes+1) + 2); diff > most || diff < -most || got.grants != want.grants ||
			got.peak != want.peak {
			t.Fatalf("UserUsageAgrees: %v: %v slot-milliseconds, peak %d, %d grants; the model has %v, %d, %d", k,
				&got.slots, got.peak, got.grants, &want.slots, want.peak, want.grants)
		}
	}
	whole := map[modelDay]*modelSum{}
	users := map[modelDay]int64{}
	for k, want := range u.days {
		sum := dayIn(whole, k.pool, User{}, k.day)
		sum.slots.Add(&sum.slots, &want.slots)
		sum.grants += want.grants
		sum.peak = max(sum.peak, want.peak)
		users[modelDay{k.pool, User{}, k.day}]++
		if u.taken[modelDay{k.pool, others, k.day}] == nil {
			near(k, dayIn(u.taken, k.pool, k.user, k.day), want, 1)
		}
	}
	sums := map[modelDay]*modelSum{}
	for k, got := range u.taken {
		sum := dayIn(sums, k.pool, User{}, k.day)
		sum.slots.Add(&sum.slots, &got.slots)
		sum.grants += got.grants
		sum.peak = max(sum.peak, got.peak)
		if k.user == others {
			continue
		}
		want := dayIn(u.days, k.pool, k.user, k.day)
		if more, _ := new(big.Rat).Sub(&got.slots, &want.slots).Float64(); more > float64(2*takes+4) ||
			got.grants > want.grants || got.peak > want.peak {
			t.Fatalf("UserUsageAgrees: %v: more than the user had", k)
		}
	}
	for k := range maps.Keys(whole) {
		near(k, dayIn(sums, k.pool, User{}, k.day), whole[k], users[k]+1)
	}
}

// What was counted of users is exact together, where more users come and go than are told apart.
func TestUsersBeyondTheBound(t *testing.T) {
	e := New(Options{CountUsers: true, mostUsers: 3})
	now := noon
	do := func(r Request) Decision {
		d := e.Decide(r, now)
		for _, ev := range d.Events {
			e.Apply(ev)
		}
		return d
	}
	do(&SetVerdict{Verdict: &Verdict{State: StateValid, Code: Valid, JudgedAt: now, Pools: map[string]PoolGrant{
		"p": {Name: "p", Limit: 50, Budget: 50}}}})
	e.TakeUsage([]string{"p"}, now)
	for uid := range uint32(20) {
		d := do(&Acquire{Caller: Caller{UID: uid}, Pool: "p", N: 1 + int64(uid), Lifetime: LifetimeTTL, TTL: time.Hour})
		now = now.Add(time.Second)
		do(&Release{Caller: Caller{UID: uid}, ID: d.Lease.ID})
	}
	var slots, grants, users, peak int64
	others := 0
	for more := true; more; {
		var all []UserUsage
		all, _, more = e.TakeUserUsage("p", 2, now)
		for _, u := range all {
			slots, grants, peak = slots+u.Slots, grants+u.Grants, max(peak, u.Peak)
			if others += u.Others; u.Others == 0 {
				users++
			}
		}
	}
	if slots != 210_000 || grants != 20 || peak != 20 || users != 3 || others != 17 {
		t.Errorf("%d slot-milliseconds, %d grants, peak %d, of %d users and %d others", slots, grants, peak, users,
			others)
	}
	if n := len(e.pools["p"].users.list); n != 0 {
		t.Errorf("%d users without a lease are kept", n)
	}
}
