package enforcer

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is the enforcer written naively: a slice of leases, and everything counted anew each time.
type model struct {
	leases []modelLease
	tokens map[string]modelToken
	pools  map[string]PoolGrant
	good   bool
	policy OnExpiry
	ends   time.Time // termination, of the last good verdict
	turned time.Time
	shrunk map[string]time.Time // pool → since when it has been over its limit under Revoke
	queue  []modelWaiter        // in their turn
}

type modelWaiter struct {
	id    LeaseID
	uid   uint32
	items []Item
	minN  int64
	ttl   time.Duration // zero: held
	until time.Time
}

// waits reports whether anybody before w (at all, for a nil one) waits for the pool.
func (m *model) waits(pool string, w *modelWaiter) bool {
	for i := range m.queue {
		if w != nil && m.queue[i].id == w.id {
			return false
		}
		if slices.ContainsFunc(m.queue[i].items, func(it Item) bool { return it.Pool == pool }) {
			return true
		}
	}
	return false
}

// fit returns what a request gets now, or why it gets nothing.
func (m *model) fit(items []Item, minN int64, uid uint32, w *modelWaiter) (granted []Item, want DenialCode) {
	for _, it := range items {
		room := m.room(it.Pool, uid)
		switch {
		case m.pools[it.Pool].Name == "":
			return nil, PoolUnknown
		case m.waits(it.Pool, w) && it.N > m.own(it.Pool, uid):
			return nil, NoSlots
		case it.N <= room:
			granted = append(granted, it)
		case minN > 0 && minN <= room:
			granted = append(granted, Item{it.Pool, room})
		default:
			return nil, NoSlots
		}
	}
	return granted, ""
}

// vain reports whether a request can never be granted.
func (m *model) vain(items []Item, minN int64) bool {
	return !m.good || slices.ContainsFunc(items, func(it Item) bool { return m.pools[it.Pool].Name == "" || cmp.Or(minN, it.N) > m.cap(it.Pool) })
}

// serve grants what the waiters can be granted, the first one first, and returns who got what.
func (m *model) serve(now time.Time) (out []string) {
	for again := true; again && m.good; {
		again = false
		for i, w := range m.queue {
			granted, code := m.fit(w.items, w.minN, w.uid, &m.queue[i])
			if code != "" || slices.ContainsFunc(w.items, func(it Item) bool { return m.waits(it.Pool, &m.queue[i]) }) {
				continue
			}
			l := modelLease{id: w.id, uid: w.uid, items: granted, ttl: w.ttl, at: now}
			if w.ttl > 0 {
				l.expires = now.Add(w.ttl)
			}
			m.leases = append(m.leases, l)
			m.queue = slices.Delete(m.queue, i, i+1)
			out = append(out, fmt.Sprint(w.id, granted))
			again = true
			break
		}
	}
	return out
}

type modelLease struct {
	id      LeaseID
	uid     uint32
	items   []Item
	ttl     time.Duration
	expires time.Time // zero: held
	at      time.Time
}

type modelToken struct {
	request string
	id      LeaseID
	until   time.Time
}

// used counts a pool's slots: by lease, or by the largest lease of each user.
func (m *model) used(pool string, without ...LeaseID) (n int64) {
	byUser := map[uint32]int64{}
	for _, l := range m.leases {
		for _, it := range l.items {
			if it.Pool != pool || slices.Contains(without, l.id) {
				continue
			}
			if m.pools[pool].CountBy == CountUser {
				byUser[l.uid] = max(byUser[l.uid], it.N)
				continue
			}
			n += it.N
		}
	}
	for _, k := range byUser {
		n += k
	}
	return n
}

// own returns how many slots a user can be granted at no cost, because he is counted with them already.
func (m *model) own(pool string, uid uint32) (own int64) {
	if m.pools[pool].CountBy == CountUser {
		for _, l := range m.leases {
			for _, it := range l.items {
				if it.Pool == pool && l.uid == uid {
					own = max(own, it.N)
				}
			}
		}
	}
	return own
}

// room returns how many slots a user can be granted in one lease.
func (m *model) room(pool string, uid uint32) int64 {
	return max(0, m.cap(pool)-m.used(pool)) + m.own(pool, uid)
}

func (m *model) cap(pool string) int64 {
	g := m.pools[pool]
	return int64(g.Budget) + int64(g.Overage)
}

func (m *model) find(id LeaseID) int {
	return slices.IndexFunc(m.leases, func(l modelLease) bool { return l.id == id })
}

func (m *model) drop(id LeaseID) { m.leases = slices.Delete(m.leases, m.find(id), m.find(id)+1) }

// pass lets time pass to now: what is due ends.
func (m *model) pass(now time.Time) {
	m.leases = slices.DeleteFunc(m.leases, func(l modelLease) bool { return !l.expires.IsZero() && !l.expires.After(now) })
	for p := range m.shrunk {
		if m.used(p) <= m.cap(p) {
			delete(m.shrunk, p)
		}
	}
	if at := m.revokeAll(); !at.IsZero() && !at.After(now) {
		m.leases = nil
	}
	for _, p := range []string{"a", "b", "c"} {
		since, ok := m.shrunk[p]
		if !ok || since.Add(RevokeDelay).After(now) {
			continue
		}
		young := slices.Clone(m.leases)
		slices.SortStableFunc(young, func(x, y modelLease) int { return cmp.Or(y.at.Compare(x.at), slices.Compare(x.id[:], y.id[:])) })
		for _, l := range young {
			if m.used(p) > m.cap(p) && slices.ContainsFunc(l.items, func(it Item) bool { return it.Pool == p }) {
				m.drop(l.id)
			}
		}
		delete(m.shrunk, p)
	}
	for t, tok := range m.tokens {
		for !tok.until.After(now) && m.find(tok.id) >= 0 {
			tok.until = tok.until.Add(TokenKept)
			m.tokens[t] = tok
		}
		if !tok.until.After(now) {
			delete(m.tokens, t)
		}
	}
}

func (m *model) revokeAll() time.Time {
	switch {
	case m.good || m.turned.IsZero() || m.policy == Keep:
		return time.Time{}
	case m.policy == Revoke:
		return m.turned.Add(RevokeDelay)
	case m.ends.IsZero():
		return time.Time{}
	default:
		return later(m.turned.Add(RevokeDelay), m.ends)
	}
}

// TestAgainstModel drives the enforcer and the model with the same operations and wants the same answers, and these
// invariants after each step:
//
//   - no pool has more in use than it had room for when the last slot was granted (limit plus overage);
//   - what is in use is what the leases hold;
//   - Decide changes nothing;
//   - a fresh enforcer that applies the same events is in the same state.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{tokens: map[string]modelToken{}, pools: map[string]PoolGrant{}, shrunk: map[string]time.Time{}}
		e, replayed := New(Options{}), New(Options{})
		now := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
		var ids []LeaseID
		var serial uint64

		do := func(r Request) Decision {
			before := fmt.Sprint(summary(e))
			d := e.Decide(r, now)
			if after := fmt.Sprint(summary(e)); before != after {
				t.Fatalf("Decide(%T) changed the state:\n%s\n%s", r, before, after)
			}
			for _, ev := range d.Events {
				e.Apply(ev)
				replayed.Apply(ev)
			}
			return d
		}
		tick := func() {
			for at := e.NextTick(); !at.IsZero() && !at.After(now); at = e.NextTick() {
				if len(do(&Tick{}).Events) == 0 {
					t.Fatalf("a tick is due at %v and does nothing", at)
				}
			}
			m.pass(now)
			m.queue = slices.DeleteFunc(m.queue, func(w modelWaiter) bool { return !w.until.After(now) })
		}
		// serve has waiters served, and wants the model to grant the same in the same order.
		serve := func(recheck bool) {
			if recheck {
				m.queue = slices.DeleteFunc(m.queue, func(w modelWaiter) bool { return m.vain(w.items, w.minN) })
			}
			want, got := m.serve(now), []string(nil)
			for {
				d := do(&Serve{Recheck: recheck})
				if len(d.Events) == 0 {
					break
				}
				if d.Lease != nil {
					ids = append(ids, d.Lease.ID)
					got = append(got, fmt.Sprint(d.Lease.ID, d.Lease.Items))
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("served %v, the model serves %v", got, want)
			}
			if e.Waiting() != len(m.queue) {
				t.Fatalf("%d wait, in the model %d", e.Waiting(), len(m.queue))
			}
		}
		pool := rapid.SampledFrom([]string{"a", "b", "c"})
		id := func() LeaseID {
			if len(ids) == 0 || rapid.IntRange(0, 9).Draw(t, "stranger") == 0 {
				return LeaseID{0xff}
			}
			return rapid.SampledFrom(ids).Draw(t, "id")
		}
		uid := rapid.Uint32Range(1, 3)

		acquire := func(t *rapid.T, r *Acquire) {
			serial++
			binary.BigEndian.PutUint64(r.ID[:], serial)
			r.Caller.UID = uid.Draw(t, "uid")
			if rapid.IntRange(0, 2).Draw(t, "waits") == 0 {
				r.Wait = time.Duration(rapid.IntRange(1, 30).Draw(t, "wait")) * time.Second
			} else if rapid.IntRange(0, 3).Draw(t, "with token") == 0 {
				r.Token = rapid.SampledFrom([]string{"x", "y"}).Draw(t, "token")
			}
			if rapid.Bool().Draw(t, "held") {
				r.Lifetime = LifetimeHeld
			} else {
				r.TTL = time.Duration(rapid.IntRange(1, 30).Draw(t, "ttl")) * time.Second
			}
			items := r.Items
			if r.Pool != "" {
				items = []Item{{r.Pool, r.N}}
			}
			var names []string
			for _, it := range items {
				names = append(names, it.Pool)
			}
			token := fmt.Sprint(r.Token, r.Caller.UID, names)
			request := fmt.Sprint(items, r.MinN, r.Lifetime, r.TTL)
			got := do(r)
			gotCode := DenialCode("")
			if got.Denial != nil {
				gotCode = got.Denial.Code
			}
			want, granted := DenialCode(""), []Item(nil)
			tok, known := m.tokens[token]
			switch {
			case r.Token != "" && known && (tok.request != request || m.find(tok.id) < 0):
				want = TokenReused
			case r.Token != "" && known:
				if got.Lease == nil || got.Lease.ID != tok.id || !got.Replayed || len(got.Events) != 0 {
					t.Fatalf("a retry with the same token got %+v", got)
				}
				return
			case !m.good && m.turned.IsZero():
				want = LicenseMissing
			case !m.good:
				want = LicenseExpired
			default:
				granted, want = m.fit(items, r.MinN, r.Caller.UID, nil)
			}
			if want == NoSlots && r.Wait > 0 && !m.vain(items, r.MinN) {
				if got.Waiter == nil || got.Denial != nil || got.Lease != nil {
					t.Fatalf("acquire %v: got %+v, and it waits in the model", items, got)
				}
				m.queue = append(m.queue, modelWaiter{r.ID, r.Caller.UID, items, r.MinN, r.TTL, now.Add(r.Wait)})
				return
			}
			if gotCode != want {
				t.Fatalf("acquire %v: got %q, the model says %q", items, gotCode, want)
			}
			if want != "" {
				return
			}
			if !slices.Equal(got.Lease.Items, granted) {
				t.Fatalf("acquire %v: got %v, the model grants %v", items, got.Lease.Items, granted)
			}
			l := modelLease{id: r.ID, uid: r.Caller.UID, items: granted, ttl: r.TTL, at: now}
			if r.Lifetime != LifetimeHeld {
				l.expires = now.Add(r.TTL)
			}
			m.leases = append(m.leases, l)
			ids = append(ids, r.ID)
			if r.Token != "" {
				m.tokens[token] = modelToken{request, r.ID, now.Add(TokenKept)}
			}
		}

		t.Repeat(map[string]func(*rapid.T){
			"acquire": func(t *rapid.T) {
				r := &Acquire{Pool: pool.Draw(t, "pool"), N: rapid.Int64Range(1, 4).Draw(t, "n")}
				if rapid.IntRange(0, 3).Draw(t, "part") == 0 {
					r.MinN = rapid.Int64Range(1, r.N).Draw(t, "min_n")
				}
				acquire(t, r)
			},
			"acquire items": func(t *rapid.T) {
				acquire(t, &Acquire{Items: []Item{{"a", rapid.Int64Range(1, 3).Draw(t, "a")}, {"b", rapid.Int64Range(1, 3).Draw(t, "b")}}})
			},
			"renew": func(t *rapid.T) {
				id, u := id(), uid.Draw(t, "uid")
				ttl := time.Duration(rapid.IntRange(0, 30).Draw(t, "ttl")) * time.Second
				got := do(&Renew{ID: id, Caller: Caller{UID: u}, TTL: ttl})
				i := m.find(id)
				switch {
				case i < 0:
					wantCode(t, got, LeaseUnknown)
				case m.leases[i].uid != u:
					wantCode(t, got, NotHolder)
				case m.leases[i].expires.IsZero():
					wantCode(t, got, BadRequest)
				default:
					wantCode(t, got, "")
					m.leases[i].ttl = cmp.Or(ttl, m.leases[i].ttl)
					m.leases[i].expires = now.Add(m.leases[i].ttl)
				}
			},
			"release": func(t *rapid.T) {
				id, u := id(), uid.Draw(t, "uid")
				admin, force := rapid.Bool().Draw(t, "admin"), rapid.IntRange(0, 4).Draw(t, "force") == 0
				got := do(&Release{ID: id, Caller: Caller{UID: u, Admin: admin}, Force: force})
				i := m.find(id)
				switch {
				case force && !admin:
					wantCode(t, got, Forbidden)
				case i < 0:
					wantCode(t, got, LeaseUnknown)
				case m.leases[i].uid != u && !force:
					wantCode(t, got, NotHolder)
				default:
					wantCode(t, got, "")
					m.drop(id)
					for p := range m.shrunk {
						if m.used(p) <= m.cap(p) {
							delete(m.shrunk, p)
						}
					}
				}
			},
			"give up": func(t *rapid.T) {
				if len(m.queue) == 0 {
					return
				}
				i := rapid.IntRange(0, len(m.queue)-1).Draw(t, "who")
				if d := do(&Cancel{ID: m.queue[i].id}); len(d.Events) != 1 {
					t.Fatalf("a waiter gives up: %+v", d)
				}
				m.queue = slices.Delete(m.queue, i, i+1)
			},
			"time": func(t *rapid.T) {
				seconds := rapid.OneOf(rapid.Int64Range(0, 20), rapid.Int64Range(0, 90_000)).Draw(t, "seconds")
				target := now.Add(time.Duration(seconds) * time.Second)
				// The agent ticks when a tick is due, so that leases end one by one; so does this.
				for at := e.NextTick(); !at.IsZero() && at.Before(target); at = e.NextTick() {
					now = later(now, at)
					tick()
					serve(false)
				}
				now = target
				tick()
			},
			"licence": func(t *rapid.T) {
				v := &Verdict{State: StateValid, Code: Valid, Pools: map[string]PoolGrant{}, OnExpiry: rapid.SampledFrom([]OnExpiry{Drain, Revoke, Keep}).Draw(t, "on_expiry")}
				if rapid.Bool().Draw(t, "bad") {
					v.State, v.Code, v.Reason = StateExpired, Expired, "it expired"
				}
				if rapid.Bool().Draw(t, "ends") {
					v.TerminatesAt = now.Add(time.Minute)
				}
				if v.Good() || rapid.Bool().Draw(t, "terms stay") {
					for _, p := range []string{"a", "b", "c"} {
						if rapid.IntRange(0, 4).Draw(t, "has "+p) > 0 {
							limit := Limit(rapid.Int64Range(0, 6).Draw(t, "limit"))
							v.Pools[p] = PoolGrant{Name: p, Limit: limit, Budget: limit, Overage: Limit(rapid.Int64Range(0, 1).Draw(t, "overage")),
								CountBy: rapid.SampledFrom([]CountBy{CountLease, CountUser}).Draw(t, "by")}
						}
					}
				}
				do(&SetVerdict{v})
				m.good = v.Good()
				if m.good {
					m.turned, m.policy, m.ends = time.Time{}, v.OnExpiry, v.TerminatesAt
				} else if m.turned.IsZero() {
					m.turned = now
				}
				was := m.pools
				m.pools = map[string]PoolGrant{}
				for _, p := range []string{"a", "b", "c"} {
					g, ok := v.Pools[p]
					if !ok {
						g = PoolGrant{CountBy: was[p].CountBy}
					}
					m.pools[p] = g
					over := m.used(p) > m.cap(p)
					if _, ok := m.shrunk[p]; !over || !m.good || v.OnExpiry != Revoke {
						delete(m.shrunk, p)
					} else if !ok {
						m.shrunk[p] = now
					}
				}
				serve(true)
			},
			"": func(t *rapid.T) {
				tick()
				serve(false)
				for _, p := range []string{"a", "b", "c"} {
					s, ok := e.Pool(p)
					if used := m.used(p); ok && s.InUse != used || !ok && used != 0 {
						t.Fatalf("pool %s: %d in use, the model says %d", p, s.InUse, used)
					}
				}
				if len(e.leases) != len(m.leases) {
					t.Fatalf("%d leases, the model has %d", len(e.leases), len(m.leases))
				}
				for _, l := range m.leases {
					got, ok := e.Lease(l.id)
					if !ok || !got.ExpiresAt.Equal(l.expires) {
						t.Fatalf("lease %v: got %+v, the model says %+v", l.id, got, l)
					}
				}
				if a, b := fmt.Sprint(summary(e)), fmt.Sprint(summary(replayed)); a != b {
					t.Fatalf("the same events made another state:\n%s\n%s", a, b)
				}
			},
		})
	})
}

func wantCode(t *rapid.T, got Decision, want DenialCode) {
	t.Helper()
	code := DenialCode("")
	if got.Denial != nil {
		code = got.Denial.Code
	}
	if code != want {
		t.Fatalf("got %q (%+v), the model says %q", code, got.Denial, want)
	}
}

// summary is all of an enforcer's state that its answers depend on, in a fixed order.
func summary(e *Enforcer) (out []string) {
	for id, h := range e.leases {
		out = append(out, fmt.Sprint(id, *h.Lease, h.at, h.more))
	}
	for k, r := range e.tokens {
		out = append(out, fmt.Sprint(k, r.ended, r.until, r.lease.ID))
	}
	for name, p := range e.pools {
		out = append(out, fmt.Sprint(name, p.grant, p.queue.Len(), p.inUse, p.peak, p.leases, len(p.groups), len(p.expiry), p.revokeAt))
	}
	for id, w := range e.waiters {
		out = append(out, fmt.Sprint("waits ", id, w.Items, w.Until, w.turn))
	}
	for k, m := range e.meters {
		out = append(out, fmt.Sprint("meter ", k, m))
	}
	for c, h := range e.holders {
		out = append(out, fmt.Sprint(c, h.leases))
	}
	slices.Sort(out)
	return append(out, fmt.Sprint(e.onExpiry, e.terminatesAt, e.turnedAt, e.revokeAllAt, e.NextTick(), len(e.memory.heap), len(e.ended)))
}
