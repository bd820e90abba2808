package enforcer

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"
)

// modelHoldOff keeps the holders of a lease that was released by force from slots of its pools.
type modelHoldOff struct {
	lease  LeaseID
	of     []Caller
	pools  []string
	length time.Duration
	until  time.Time
}

// isHeldOff reports whether a caller is held off from one of the pools.
func (m *model) isHeldOff(c Caller, items []Item, now time.Time) bool {
	return slices.ContainsFunc(m.holdOffs, func(h modelHoldOff) bool {
		return h.until.After(now) && h.bars(c, items)
	})
}

func (h modelHoldOff) bars(c Caller, items []Item) bool {
	return slices.ContainsFunc(h.pools, func(p string) bool { return has(items, p) }) &&
		slices.ContainsFunc(h.of, func(o Caller) bool {
			if c.UID != Nobody || c.Credential != "" {
				return o.UID == c.UID && o.Credential == c.Credential
			}
			return o.UID == c.UID && o.Credential == c.Credential && o.PID == c.PID && o.Inode == c.Inode &&
				c.PID+int32(c.Inode) != 0
		})
}

// lift ends the hold-off of a lease.
func (m *model) lift(id LeaseID) {
	m.holdOffs = slices.DeleteFunc(m.holdOffs, func(h modelHoldOff) bool { return h.lease == id })
}

// releaseWith returns why a release that states a hold-off is denied, and what it does.
func (m *model) releaseWith(r *Release, now time.Time) (why DenialCode, effect func()) {
	span := *r.HoldOff
	i := m.find(r.ID)
	was := slices.IndexFunc(m.holdOffs, func(h modelHoldOff) bool { return h.lease == r.ID })
	h := modelHoldOff{lease: r.ID, length: span, until: now.Add(span)}
	switch {
	case !r.Force:
		return BadRequest, nil
	case !r.Caller.Admin:
		return Forbidden, nil
	case span < 0, span > 0 && span < time.Second, span > 7*24*time.Hour:
		return BadRequest, nil
	case i < 0 && was < 0:
		return LeaseUnknown, nil
	case i < 0:
		h.of, h.pools = m.holdOffs[was].of, m.holdOffs[was].pools
	default:
		for _, c := range m.leases[i].holders {
			if c.UID != Nobody || c.Credential != "" || c.PID+int32(c.Inode) != 0 {
				h.of = append(h.of, c)
			}
		}
		for _, it := range m.leases[i].items {
			h.pools = append(h.pools, it.Pool)
		}
	}
	switch {
	case span > 0 && len(h.of) == 0:
		return BadRequest, nil
	case span > 0 && was < 0 && len(m.holdOffs) >= cmp.Or(m.options.MaxHoldOffs, 256):
		return RateLimited, nil
	}
	return "", func() {
		m.lift(r.ID)
		if i >= 0 {
			m.drop(r.ID)
		}
		if span == 0 {
			return
		}
		m.holdOffs = append(m.holdOffs, h)
		m.queue = slices.DeleteFunc(m.queue, func(w modelWaiter) bool {
			return !w.draws && h.bars(w.r.Caller, w.items)
		})
	}
}

// evict is a release by force with a hold-off, of a lease that is held or of one that was released so.
func (s *twin) evict(t *rapid.T) {
	id, c := s.lease(t)
	if n := len(s.m.holdOffs); n > 0 && rapid.IntRange(0, 2).Draw(t, "again") == 0 {
		id = s.m.holdOffs[rapid.IntRange(0, n-1).Draw(t, "which hold-off")].lease
	}
	c.Admin = rapid.IntRange(0, 9).Draw(t, "admin") > 0
	span := rapid.OneOf(rapid.SampledFrom([]time.Duration{0, 0, -1, 1, MinHoldOff, MaxHoldOff, MaxHoldOff + 1}),
		rapid.Map(rapid.IntRange(1, 60), func(n int) time.Duration { return time.Duration(n) * time.Second }),
		rapid.Map(rapid.IntRange(1, 60), func(n int) time.Duration { return time.Duration(n) * time.Minute })).
		Draw(t, "hold off")
	r := &Release{ID: id, Caller: c, Force: rapid.IntRange(0, 9).Draw(t, "force") > 0, HoldOff: &span}
	why, effect := s.m.releaseWith(r, s.now)
	s.change(t, r, why, effect)
}

// sameHoldOffs: the hold-offs in force are the model's, and no waiter is held off.
func (s *twin) sameHoldOffs(t *rapid.T, rule string) {
	var got, want []string
	for _, h := range s.e.HoldOffs() {
		var of []string
		for _, c := range h.Of {
			of = append(of, identity(c))
		}
		got = append(got, fmt.Sprint(h.Lease, h.Pools, of, h.Until.Sub(h.Since), h.Until.Sub(s.now)))
	}
	for _, h := range s.m.holdOffs {
		var of []string
		for _, c := range h.of {
			if who := identity(c); !slices.Contains(of, who) {
				of = append(of, who)
			}
		}
		want = append(want, fmt.Sprint(h.lease, h.pools, of, h.length, h.until.Sub(s.now)))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("%s: the hold-offs are\n%s\nand the model has\n%s", rule, got, want)
	}
	for _, w := range s.m.queue {
		if !w.draws && s.m.isHeldOff(w.r.Caller, w.items, s.now) {
			t.Fatalf("NoHeldOffWaiter: %+v waits", w.r)
		}
	}
}

// identity is what a hold-off knows a holder by.
func identity(c Caller) string {
	if c.UID == Nobody && c.Credential == "" {
		return fmt.Sprint("process ", c.PID, " ", c.Inode)
	}
	return fmt.Sprint("user ", c.UID, c.Credential)
}
