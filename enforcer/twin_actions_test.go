package enforcer

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"pgregory.net/rapid"
)

// lease draws a lease, mostly one that is held and of those one that is doubted, and somebody who may be its holder.
func (s *twin) lease(t *rapid.T) (LeaseID, Caller) {
	c := s.caller(t)
	if len(s.ids) == 0 {
		return LeaseID{0xff}, c
	}
	if len(s.m.leases) == 0 || rapid.IntRange(0, 9).Draw(t, "stranger") == 0 {
		return rapid.SampledFrom(s.ids).Draw(t, "id"), c
	}
	some := s.m.leases
	if rapid.Bool().Draw(t, "a doubted one") {
		if doubted := slices.DeleteFunc(slices.Clone(some), func(l modelLease) bool {
			return !l.unconfirmed
		}); len(doubted) > 0 {
			some = doubted
		}
	}
	l := rapid.SampledFrom(some).Draw(t, "lease")
	if rapid.IntRange(0, 3).Draw(t, "holder") > 0 {
		c = rapid.SampledFrom(l.holders).Draw(t, "which")
	}
	return l.id, c
}

func (s *twin) caller(t *rapid.T) Caller {
	uid := rapid.SampledFrom([]uint32{1, 2, 1, 2, 1, 2, Nobody}).Draw(t, "uid")
	c := Caller{UID: uid, Credential: rapid.SampledFrom([]string{"", "", "", "key"}).Draw(t, "credential")}
	return process(c, rapid.SampledFrom([]int{1, 2, 1, 2, 1, 2, 0, -1}).Draw(t, "process"))
}

// process is one of a user's: 1 to 3 are visible and in different pods, -1 is known by its inode alone, and 0 not at
// all.
func process(c Caller, n int) Caller {
	if c.UID == 2 {
		c.Profile = ProfileOf(Profile{Login: "ann", Groups: "20\ncad"})
	}
	switch {
	case n > 0:
		c.PID, c.Start = int32(10*(c.UID%10)+uint32(n)), 1
		c.Pod = []string{"", "p1", "p2"}[n-1]
	case n < 0:
		c.Inode = 7
	}
	return c
}

// owner draws who keeps data on a lease; mostly nobody.
func (s *twin) owner(t *rapid.T) string {
	return rapid.SampledFrom([]string{"", "", "", "p", "q"}).Draw(t, "owner")
}

// through draws through whom a lease is acted on: mostly who keeps data on it.
func (s *twin) through(t *rapid.T, id LeaseID) string {
	if i := s.m.find(id); i >= 0 && rapid.IntRange(0, 5).Draw(t, "its own owner") > 0 {
		if d := s.m.leases[i].data; d != nil {
			return d.Owner
		}
		return ""
	}
	return s.owner(t)
}

func (s *twin) setData(t *rapid.T) {
	id, c := s.lease(t)
	s.serial++
	r := &SetData{ID: id, Caller: c, Data: &Data{Owner: s.through(t, id), Bytes: fmt.Append(nil, "then ", s.serial)}}
	if rapid.IntRange(0, 9).Draw(t, "large") == 0 {
		r.Data.Bytes = make([]byte, MaxData+1)
	}
	i, why := s.m.find(id), s.m.act(id, c, r.Data.Owner, false)
	switch {
	case r.Data.Owner == "":
		why = BadRequest
	case len(r.Data.Bytes) > MaxData:
		why = TooLarge
	case why == "":
		l := s.m.leases[i]
		if s.m.tooMuch(c.Who(), kept(l.labels, r.Data, len(l.holders)-1)-kept(l.labels, l.data, len(l.holders)-1)) {
			why = RateLimited
		}
	}
	s.change(t, r, why, func() { s.m.leases[i].data = r.Data })
}

func (s *twin) renew(t *rapid.T) {
	id, c := s.lease(t)
	ttl := time.Duration(rapid.IntRange(0, 30).Draw(t, "ttl")) * time.Second
	owner := s.through(t, id)
	i, why := s.m.find(id), s.m.act(id, c, owner, false)
	if why == "" && s.m.leases[i].lifetime != LifetimeTTL {
		if why = BadRequest; ttl == 0 && s.m.idles(s.m.leases[i]) {
			s.change(t, &Renew{ID: id, Caller: c, Owner: owner}, "", func() { s.m.leases[i].renewed = s.now })
			return
		}
	}
	same, held := true, []Caller(nil)
	if why == "" {
		same, held = s.same(s.m.leases[i], c), append([]Caller{c}, s.m.leases[i].holders[1:]...)
		if !same {
			why = s.m.rehold(i, held, c, s.now)
		}
	}
	s.change(t, &Renew{ID: id, Caller: c, Owner: owner, TTL: ttl}, why, func() {
		l := &s.m.leases[i]
		if ttl > 0 {
			l.ttl = ttl
		}
		l.expires = s.now.Add(l.ttl)
		if !same {
			s.m.rehand(i, held, s.now)
		} else {
			l.renewed = s.now
		}
	})
}

// same reports whether a caller counts as one of a lease's holders in each of its pools.
func (s *twin) same(l modelLease, c Caller) bool {
	return !slices.ContainsFunc(l.items, func(it Item) bool {
		g := s.m.pools[it.Pool]
		by := cmp.Or(g.HoldersBy, g.CountBy)
		unit, _ := s.m.groupOf(by, c, l.labels)
		return by != CountLease && !slices.ContainsFunc(l.holders, func(h Caller) bool {
			is, _ := s.m.groupOf(by, h, l.labels)
			return is == unit
		})
	})
}

func (s *twin) release(t *rapid.T) {
	id, c := s.lease(t)
	c.Admin = rapid.Bool().Draw(t, "admin")
	force := rapid.IntRange(0, 4).Draw(t, "force") == 0
	owner := s.through(t, id)
	i, why := s.m.find(id), s.m.act(id, c, owner, force)
	switch {
	case force && !c.Admin:
		why = Forbidden
	case why == "" && s.m.leases[i].lifetime == LifetimeBorrow && !force && !s.m.verdict.EarlyReturn:
		why = Forbidden
	}
	s.change(t, &Release{ID: id, Caller: c, Owner: owner, Force: force}, why, func() {
		if !force {
			s.m.linger(id, s.now)
		}
		s.m.drop(id)
	})
}

func (s *twin) join(t *rapid.T) {
	id, c := s.lease(t)
	c = process(Caller{UID: c.UID, Credential: c.Credential}, rapid.IntRange(-1, 3).Draw(t, "process"))
	i, why := s.m.find(id), s.m.act(id, c, "", false)
	if why == "" && s.m.leases[i].lifetime != LifetimeProcess {
		why = BadRequest
	} else if why == "" && !slices.Contains(s.m.leases[i].holders, c) {
		if why = RateLimited; !s.m.tooMuch(c.Who(), holderBytes) {
			why = s.m.rehold(i, append(slices.Clone(s.m.leases[i].holders), c), c, s.now)
		}
	}
	s.change(t, &Join{ID: id, Caller: c}, why, func() {
		if l := &s.m.leases[i]; !slices.Contains(l.holders, c) {
			l.holders = append(slices.Clip(l.holders), c)
		}
	})
}

func (s *twin) leave(t *rapid.T) {
	id, c := s.lease(t)
	i, why := s.m.find(id), DenialCode("")
	if i < 0 {
		why = LeaseUnknown
	}
	s.change(t, &Leave{ID: id, Holder: c}, why, func() {
		l := &s.m.leases[i]
		if left := slices.DeleteFunc(slices.Clone(l.holders), func(h Caller) bool {
			return h == c
		}); len(left) == 0 {
			s.m.linger(id, s.now)
			s.m.drop(id)
		} else {
			s.m.rehand(i, left, s.now)
		}
	})
}

// gone has a process leave what it holds, and some more, in one step.
func (s *twin) gone(t *rapid.T) {
	id, c := s.lease(t)
	r := &Gone{IDs: []LeaseID{id, {0xfe}, id}, Holder: c}
	for _, l := range s.m.leases {
		if slices.Contains(l.holders, c) {
			r.IDs = append(r.IDs, l.id)
		}
	}
	s.change(t, r, "", func() {
		var over []LeaseID
		for _, id := range slices.Compact(slices.SortedFunc(slices.Values(r.IDs), func(a, b LeaseID) int {
			return bytes.Compare(a[:], b[:])
		})) {
			i := s.m.find(id)
			if i < 0 {
				continue
			}
			l := &s.m.leases[i]
			left := slices.DeleteFunc(slices.Clone(l.holders), func(h Caller) bool { return h == c })
			if len(left) > 0 {
				s.m.rehand(i, left, s.now)
				continue
			}
			over = append(over, id)
		}
		slices.SortFunc(over, func(a, b LeaseID) int { return slices.Index(r.IDs, a) - slices.Index(r.IDs, b) })
		for _, id := range over { // each as though it were alone
			s.m.linger(id, s.now)
		}
		for _, id := range over {
			s.m.drop(id)
		}
	})
}

func (s *twin) doubt(t *rapid.T) {
	id, _ := s.lease(t)
	why := DenialCode("")
	i := s.m.find(id)
	if i < 0 {
		why = LeaseUnknown
	}
	until := s.now.Add(15 * time.Second)
	s.change(t, &Doubt{ID: id, Until: until}, why, func() {
		if l := &s.m.leases[i]; l.lifetime != LifetimeHeld && l.lifetime != LifetimeBorrow {
			l.expires, l.unconfirmed = until, l.lifetime != LifetimeTTL
		}
	})
}

func (s *twin) attach(t *rapid.T) {
	id, c := s.lease(t)
	i, why := s.m.find(id), s.m.act(id, c, "", false)
	var held []Caller
	if why == "" {
		held = append([]Caller{c}, slices.DeleteFunc(slices.Clone(s.m.leases[i].holders[1:]), func(o Caller) bool {
			return o == c
		})...)
		if s.m.leases[i].unconfirmed {
			why = s.m.rehold(i, held, c, s.now)
		} else if s.m.leases[i].lifetime != LifetimeProcess || s.m.leases[i].holders[0] != c {
			why = NotHolder
		}
	}
	s.change(t, &Attach{ID: id, Caller: c}, why, func() {
		if l := &s.m.leases[i]; l.unconfirmed {
			s.m.rehand(i, held, s.now)
			l.expires, l.unconfirmed = time.Time{}, false
		}
	})
}

func (s *twin) holderDies(t *rapid.T) {
	id, _ := s.lease(t)
	why := DenialCode("")
	if s.m.find(id) < 0 {
		why = LeaseUnknown
	}
	s.change(t, &End{ID: id, Cause: CauseHolderGone}, why, func() {
		s.m.linger(id, s.now)
		s.m.drop(id)
	})
}

func (s *twin) adjust(t *rapid.T) {
	r := &Adjust{Pool: rapid.SampledFrom(append(meterNames, "a")).Draw(t, "meter"),
		Drawn: rapid.Int64Range(-1, 9).Draw(t, "drawn"), Caller: Caller{Admin: rapid.Bool().Draw(t, "admin")}}
	why := DenialCode("")
	switch {
	case !r.Caller.Admin:
		why = Forbidden
	case r.Drawn < 0:
		why = BadRequest
	case s.m.verdict == nil:
		why = LicenseMissing
	case s.m.at(s.now).Meters[r.Pool].Name == "":
		why = PoolUnknown
	}
	s.change(t, r, why, func() {
		g := s.m.at(s.now).Meters[r.Pool]
		s.m.record(g, r.Drawn, true, s.now)
	})
}

func (s *twin) shift(t *rapid.T) {
	r := &Shift{Pool: rapid.SampledFrom(append(meterNames, "a")).Draw(t, "meter"),
		Caller: Caller{Admin: rapid.Bool().Draw(t, "admin")},
		By: rapid.OneOf(rapid.Int64Range(-4, 4),
			rapid.SampledFrom([]int64{math.MinInt64, -MaxN - 1, -MaxN, MaxN + 1, math.MaxInt64})).Draw(t, "by")}
	why, drawn := DenialCode(""), int64(0)
	if r.By < -MaxN || r.By > MaxN {
		why = BadRequest
	} else if s.m.verdict == nil {
		why = LicenseMissing
	} else if g := s.m.at(s.now).Meters[r.Pool]; !s.m.at(s.now).Good() {
		why = LicenseExpired
	} else if g.Name == "" {
		why = PoolUnknown
	} else if !r.Caller.Admin && !g.Adjustable {
		why = Forbidden
	} else if r.By > 0 && s.m.at(s.now).Paused != "" {
		why = NoSlots
	} else {
		drawn = s.m.drawn(g, s.now)
		if r.By < -drawn {
			why = BadRequest
		} else if room, endless := s.m.drawRoom(g, s.now); r.By > 0 &&
			(!endless && r.By > room-drawn || s.m.ahead(r.Pool, LeaseID{})) {
			why = MeterEmpty
		}
	}
	s.change(t, r, why, func() {
		g := s.m.at(s.now).Meters[r.Pool]
		s.m.record(g, drawn+r.By, true, s.now)
	})
}

func (s *twin) giveUp(t *rapid.T) {
	if len(s.m.queue) == 0 {
		return
	}
	i := rapid.IntRange(0, len(s.m.queue)-1).Draw(t, "who")
	if d, _ := s.do(t, &Cancel{ID: s.m.queue[i].r.ID}); len(d.Events) != 1 {
		t.Fatalf("a waiter gives up: %+v", d)
	}
	s.m.queue = slices.Delete(s.m.queue, i, i+1)
}
