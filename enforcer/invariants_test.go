package enforcer

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"
)

// ledger is what the outside world remembers: what was granted, when, and to which token.
type ledger struct {
	byToken map[TokenKey]time.Time
	drawn   map[LeaseID]bool
}

func newLedger() ledger { return ledger{map[TokenKey]time.Time{}, map[LeaseID]bool{}} }

// see holds an event, before it is applied, against what must never happen.
func (s *twin) see(t *rapid.T, e *Enforcer, ev Event) {
	switch ev.Kind {
	case EventGranted, EventChanged:
		s.neverOverBudget(t, ev.Lease)
		if ev.Kind == EventChanged {
			return
		}
		s.tokenKeptADay(t, ev.Lease)
	case EventDrawn:
		s.tokenKeptADay(t, ev.Lease)
		if s.drawn[ev.Lease.ID] {
			t.Fatalf("DrawExactlyOnce: %v is drawn again", ev.Lease.ID)
		}
		s.drawn[ev.Lease.ID] = true
	case EventEnded:
		s.endedForAReason(t, e, ev)
	default:
	}
}

// NeverOverBudget: with a lease that is granted, or held by others, no more is in use than budget and overage.
func (s *twin) neverOverBudget(t *rapid.T, l *Lease) {
	with := *s.m
	is := modelLease{id: l.ID, holders: []Caller{l.Holder.Caller}, items: l.Items, labels: l.Holder.Labels}
	for _, o := range l.Others {
		is.holders = append(is.holders, o.Caller)
	}
	with.leases = append(slices.DeleteFunc(slices.Clone(s.m.leases), func(m modelLease) bool {
		return m.id == l.ID
	}), is)
	for _, it := range l.Items {
		was, is := s.m.used(it.Pool), with.used(it.Pool)
		if is > was && is > s.m.cap(it.Pool, s.now) {
			t.Fatalf("NeverOverBudget: %s has %d in use of %d after %v", it.Pool, is, s.m.cap(it.Pool, s.now), l.Items)
		}
	}
	if v := s.m.at(s.now); !v.Good() && s.m.find(l.ID) < 0 {
		t.Fatalf("NothingAfterTheEnd: %v is granted at %v under %s", l.Items, s.now, v.Code)
	}
}

// TokenKeptADay: a client token that was used in the last day gets nothing new.
func (s *twin) tokenKeptADay(t *rapid.T, l *Lease) {
	if l.Token == nil {
		return
	}
	if at, ok := s.byToken[l.Token.Key]; ok && s.now.Before(at.Add(TokenKept)) {
		t.Fatalf("TokenKeptADay: what was granted at %v is granted again at %v", at, s.now)
	}
	s.byToken[l.Token.Key] = s.now
}

// EndedForAReason: what expires is past its time, what is revoked was announced 10 s ago, and a borrow ends early only
// by force, by the licence's leave, or with its holder's grant undelivered.
func (s *twin) endedForAReason(t *rapid.T, e *Enforcer, ev Event) {
	l := ev.Lease
	switch ev.Cause {
	case CauseExpired:
		if l.ExpiresAt.IsZero() || s.now.Before(l.ExpiresAt) {
			t.Fatalf("EndedForAReason: %+v expires at %v", l, s.now)
		}
	case CauseRevoked:
		seen, _ := e.Lease(l.ID)
		if seen.RevokeAt.IsZero() || s.now.Before(seen.RevokeAt) {
			t.Fatalf("EndedForAReason: %+v is revoked at %v", seen, s.now)
		}
	case CauseReleased:
		if l.Lifetime == LifetimeBorrow && !s.m.verdict.EarlyReturn {
			t.Fatalf("BorrowedUntilItsDate: %+v comes back early", l)
		}
	default:
	}
}

// NoStarvation: no newcomer is granted what an earlier waiter waits for, unless it costs nothing.
func (s *twin) noStarvation(t *rapid.T, l *Lease) {
	if len(s.m.rules) > 0 {
		return // see noOvertaking
	}
	for _, it := range l.Items {
		for _, w := range s.m.queue {
			if has(w.items, it.Pool) &&
				s.m.weigh(it) > s.m.own(it.Pool, &Acquire{Caller: l.Holder.Caller, Labels: l.Holder.Labels}) {
				t.Fatalf("NoStarvation: %v is granted, and %v waits for %s", l.Items, w.items, it.Pool)
			}
		}
	}
}

// FirstComeFirstServed: nobody who waited less is served before in a pool, unless it costs nothing there. before is the
// model as it was before that.
func (s *twin) firstComeFirstServed(t *rapid.T, before *model, l *Lease) {
	if len(s.m.rules) > 0 {
		return
	}
	for _, w := range before.queue {
		if w.r.ID == l.ID {
			return
		}
		for _, it := range l.Items {
			if has(w.items, it.Pool) &&
				before.costs(it.Pool, l.Holder.Caller, l.Holder.Labels, before.weigh(it)) > 0 {
				t.Fatalf("FirstComeFirstServed: %v before %v", l.Items, w.items)
			}
		}
	}
}

// DeniedOnlyWhenFull: some pool has less than the least that would do, or others wait for it.
func (s *twin) deniedOnlyWhenFull(t *rapid.T, r *Acquire) {
	for _, it := range itemsOf(r) {
		least := it
		if r.MinN > 0 {
			least.N = r.MinN
		}
		if s.m.weigh(least) > s.m.cap(it.Pool, s.now)-s.m.used(it.Pool) || s.m.refused(it.Pool, s.now) != "" ||
			slices.ContainsFunc(s.m.queue, func(w modelWaiter) bool {
				return has(w.items, it.Pool)
			}) {
			return
		}
	}
	t.Fatalf("DeniedOnlyWhenFull: %+v", r)
}

// deniedOnlyWhenEmpty is DeniedOnlyWhenFull of meters.
func (s *twin) deniedOnlyWhenEmpty(t *rapid.T, r *Acquire) {
	for _, it := range itemsOf(r) {
		g := s.m.at(s.now).Meters[it.Pool]
		if room, endless := s.m.drawRoom(g, s.now); !endless && cmp.Or(r.MinN, it.N) > room-s.m.drawn(g, s.now) ||
			s.m.ahead(it.Pool, LeaseID{}) {
			return
		}
	}
	t.Fatalf("DeniedOnlyWhenFull: %+v", r)
}

// AcknowledgedSurvives: after a crash every lease that was acknowledged is there as it was, every draw counts, and
// every token of the last day is known. What was journalled and not acknowledged, the model has too.
func (s *twin) acknowledgedSurvives(t *rapid.T) {
	if s.e.leases.Len() != len(s.m.leases) {
		t.Fatalf("AcknowledgedSurvives: %d leases, the model has %d", s.e.leases.Len(), len(s.m.leases))
	}
	for _, l := range s.m.leases {
		s.sameLease(t, "AcknowledgedSurvives", l)
	}
	for key, tok := range s.m.tokens {
		if !slices.ContainsFunc(slices.Collect(maps.Values(s.e.tokens)), func(r *remembered) bool {
			return r.lease.ID == tok.id
		}) {
			t.Fatalf("AcknowledgedSurvives: token %s is forgotten", key)
		}
	}
	s.meters(t, "AcknowledgedSurvives")
	s.sameHoldOffs(t, "AcknowledgedSurvives")
	s.sameLingers(t, "AcknowledgedSurvives")
}

func (s *twin) sameLease(t *rapid.T, rule string, l modelLease) {
	got, _ := s.e.leases.Get(l.id)
	if got == nil {
		t.Fatalf("%s: lease %v is lost", rule, l.id)
	}
	holders := []Caller{got.Holder.Caller}
	for _, o := range got.Others {
		holders = append(holders, o.Caller)
	}
	if !got.ExpiresAt.Equal(l.expires) || got.Unconfirmed != l.unconfirmed || !slices.Equal(got.Items, l.items) ||
		!slices.Equal(holders, l.holders) || got.Data != l.data {
		t.Fatalf("%s: lease %v is %+v, the model says %+v", rule, l.id, got.Lease, l)
	}
}

// meters holds what the meters stand at against the sum of what was drawn.
func (s *twin) meters(t *rapid.T, rule string) {
	if s.m.verdict == nil {
		return
	}
	for _, g := range s.m.verdict.Meters {
		shown, _ := s.e.Pool(g.Name, s.now)
		if got, want := s.e.drawn(g, s.now).Drawn, s.m.drawn(g, s.now); got != want ||
			s.e.verdict != nil && shown.InUse != want {
			t.Fatalf("%s: meter %s stands at %d, %d is shown, and %d were drawn", rule, g.Name, got, shown.InUse, want)
		} else if n := s.waitedFor(g.Name); s.e.verdict != nil && shown.Waiting != n {
			t.Fatalf("%s: of meter %s %d are waited for, and %d shown", rule, g.Name, n, shown.Waiting)
		}
	}
}

// invariants are what holds between any two steps.
func (s *twin) invariants(t *rapid.T) {
	if got, want := s.e.NextTick(), soonest(s.e); !got.Equal(want) {
		t.Fatalf("the next tick is due at %v, a walk over the pools finds %v", got, want)
	}
	for _, p := range poolNames {
		borrowed, waiting := int64(0), s.waitedFor(p)
		for _, l := range s.m.leases {
			for _, it := range l.items {
				if it.Pool == p && l.lifetime == LifetimeBorrow {
					borrowed += s.m.weigh(it)
				}
			}
		}
		if got, ok := s.e.Pool(p, s.now); ok && (got.InUse != s.m.slots(p, s.m.used(p)) ||
			got.Borrowed != s.m.slots(p, borrowed) || got.Waiting != s.m.slots(p, waiting) ||
			got.Quantum > 1 && got.Parts != s.m.used(p)) || !ok && s.m.used(p) != 0 {
			t.Fatalf("CountsAgree: %+v, the model has %d parts in use, %d borrowed, %d waited for", got, s.m.used(p),
				borrowed, waiting)
		}
	}
	s.meters(t, "DrawExactlyOnce")
	if s.e.leases.Len() != len(s.m.leases) || s.e.Waiting() != len(s.m.queue) {
		t.Fatalf("CountsAgree: %d leases, %d wait; the model has %d, %d", s.e.leases.Len(), s.e.Waiting(),
			len(s.m.leases), len(s.m.queue))
	}
	for _, l := range s.m.leases {
		s.sameLease(t, "SameLeases", l)
	}
	for _, w := range s.m.queue {
		if _, how := s.m.turn(w, s.now); how != "" &&
			!s.m.waitsOn(w) {
			t.Fatalf("GrantedTheInstantItFits: %v waits, and %s", w.items, how)
		}
	}
	s.accounts(t)
	s.sameHoldOffs(t, "SameHoldOffs")
	s.sameRules(t)
	s.noOvertaking(t)
	if at := s.e.NextTick(); !at.IsZero() && !at.After(s.now) {
		t.Fatalf("NothingStaysDue: a tick is due at %v", at)
	}
	if a, b := fmt.Sprint(summary(s.e)), fmt.Sprint(summary(s.replayed)); a != b {
		t.Fatalf("ReplayMakesTheSameState:\n%s\n%s", a, b)
	}
}

// waitedFor adds up how much of a pool or meter is waited for.
func (s *twin) waitedFor(name string) (n int64) {
	for _, w := range s.m.queue {
		for _, it := range w.items {
			switch {
			case it.Pool != name:
			case w.draws:
				n += it.N
			default:
				n += s.m.weigh(it)
			}
		}
	}
	return n
}

// SharesAgree: the holder that a lease shares, and that one's account, are where a search finds them.
func (s *twin) shares(t *rapid.T) {
	counted := map[*sharedHolder]int{}
	for _, h := range s.e.leases.All {
		switch is := s.e.holders[h.Holder.Caller]; {
		case len(h.Holder.Labels) > 0:
			if h.shared != nil {
				t.Fatalf("SharesAgree: lease %s has labels and shares a holder", h.ID)
			}
		case h.shared == nil || h.shared != is || is.account != s.e.accounts[h.Holder.Who()]:
			t.Fatalf("SharesAgree: lease %s shares %+v, and its holder is %+v", h.ID, h.shared, is)
		default:
			counted[is]++
		}
	}
	for c, is := range s.e.holders {
		if is.leases != counted[is] {
			t.Fatalf("SharesAgree: %d leases share %v, counted as %d", counted[is], c, is.leases)
		}
		if is.leases == 0 && (is != s.e.latest || is.account != nil) {
			t.Fatalf("SharesAgree: %v has no lease, and is kept: %+v", c, is)
		}
	}
}

// AccountsAgree: what each user is counted with is what it has, its leases are listed whole in portions of any size,
// and no trace is left of a user that has nothing.
func (s *twin) accounts(t *rapid.T) {
	size := rapid.IntRange(1, 4).Draw(t, "portion")
	if s.e.bytes != s.m.bytesOf(nil) {
		t.Fatalf("AccountsAgree: %d bytes, the model has %d", s.e.bytes, s.m.bytesOf(nil))
	}
	s.shares(t)
	listed := 0
	for u, a := range s.e.accounts {
		if a.waiters != s.m.waitersOf(&u) || a.tokens != s.m.tokensOf(&u) || a.bytes != s.m.bytesOf(&u) ||
			a.leases.n+a.waiters+a.tokens == 0 {
			t.Fatalf("AccountsAgree: %s: %d wait, %d tokens, %d bytes; the model has %d, %d, %d", u, a.waiters,
				a.tokens, a.bytes, s.m.waitersOf(&u), s.m.tokensOf(&u), s.m.bytesOf(&u))
		}
		own := s.paged(t, Filter{User: &u}, size)
		listed += len(own)
		for _, p := range poolNames {
			s.paged(t, Filter{User: &u, Pool: p}, size)
		}
	}
	if all := s.paged(t, Filter{}, size); listed != len(s.m.leases) || len(all) != listed {
		t.Fatalf("AccountsAgree: %d leases are listed by user, %d in all, and %d are held", listed, len(all),
			len(s.m.leases))
	}
	for _, p := range poolNames {
		s.paged(t, Filter{Pool: p}, size)
	}
}

// ListedOnce: the pages of a list, of any size, have each lease of the model's once that the filter lets through, in
// the order of their grants.
func (s *twin) paged(t *rapid.T, f Filter, size int) (out []*Lease) {
	var at Cursor
	for more := true; more; {
		var part []*Lease
		if part, at, more = s.e.Page(f, at, size); len(part) > size {
			t.Fatalf("ListedOnce: a page of %d, of at most %d", len(part), size)
		}
		out = append(out, part...)
	}
	want := 0
	for _, l := range s.m.leases {
		if (f.User == nil || l.holders[0].Who() == *f.User) && (f.Pool == "" || has(l.items, f.Pool)) {
			want++
		}
	}
	for i, l := range out {
		if s.m.find(l.ID) < 0 || i > 0 && CursorOf(out[i-1]).compare(CursorOf(l)) >= 0 ||
			f.User != nil && l.Holder.Who() != *f.User || f.Pool != "" && !has(l.Items, f.Pool) {
			t.Fatalf("ListedOnce: %+v is listed by %+v at %d", l, f, i)
		}
	}
	if len(out) != want {
		t.Fatalf("ListedOnce: %d leases are listed by %+v, and %d are held", len(out), f, want)
	}
	return out
}

func further(h *held) []int32 {
	if h.more == nil {
		return nil
	}
	return *h.more
}

// soonest returns NextTick as a walk over every pool finds it.
func soonest(e *Enforcer) (next time.Time) {
	for _, t := range e.tenures {
		if t.leases > 0 {
			next = sooner(next, t.revokeAt)
		}
	}
	for _, p := range e.pools {
		next = sooner(next, p.revokeAt)
		for i := range p.expiry.len() {
			next = sooner(next, p.expiry.at(i).ExpiresAt)
		}
	}
	for _, h := range e.HoldOffs() {
		next = sooner(next, h.Until)
	}
	for _, p := range e.pools {
		for _, l := range p.lingers.listed() {
			next = sooner(next, l.Until)
		}
	}
	for _, h := range e.leases.All {
		if h.timer != nil {
			next = sooner(next, h.timer.ends)
		}
	}
	return sooner(sooner(next, e.patience.next()), e.memory.next())
}

// summary is all of an enforcer's state that its answers depend on, in a fixed order.
func summary(e *Enforcer) (out []string) {
	for id, h := range e.leases.All {
		l := *h.Lease
		l.Holder = nil // another one in every enforcer
		out = append(out, fmt.Sprint(id, l, *h.Holder, h.at, further(h), e.tenureOf(h).ID))
	}
	for k, r := range e.tokens {
		out = append(out, fmt.Sprint(k, r.ended, r.until, r.lease.ID, r.lease.Data))
	}
	for name, p := range e.pools {
		grant, waits, cut := p.grant, int64(0), Failing{}
		if p.queue != nil {
			waits = p.queue.waiting
		}
		if grant.Cut != nil {
			grant.Cut, cut = nil, *grant.Cut
		}
		out = append(out, fmt.Sprint(name, grant, cut, p.queue.Len(), p.inUse, p.peak, p.leases, len(p.groups),
			p.expiry.len(), p.revokeAt, p.revoke, waits, p.borrowed))
		for _, l := range p.lingers.listed() {
			out = append(out, fmt.Sprint(name, " lingers ", *l.Linger))
		}
		if p.rules == nil {
			continue
		}
		for i, x := range p.rules.tallies {
			if x == nil {
				continue
			}
			for unit, u := range x.units {
				out = append(out, fmt.Sprint(name, " rule ", i, unit, u.inUse, len(u.groups)))
			}
		}
		for i, r := range p.rules.reserves {
			out = append(out, fmt.Sprint(name, " reserve ", i, r.kept, r.inUse))
		}
	}
	for _, x := range e.timing.heap {
		out = append(out, fmt.Sprint("timer ", x.h.ID, x.began, x.used, x.ends, x.cause))
	}
	for id, w := range e.waiters {
		out = append(out, fmt.Sprint("waits ", id, w.Items, w.Until, w.turn, w.rank))
	}
	for name, q := range e.forDraws {
		out = append(out, fmt.Sprint("draws of ", name, q.Len(), q.waiting))
	}
	for k, m := range e.meters {
		out = append(out, fmt.Sprint("meter ", k, m))
	}
	for c, h := range e.holders {
		if h.leases > 0 { // the latest alone may have none
			out = append(out, fmt.Sprint(c, h.leases))
		}
	}
	for _, h := range e.HoldOffs() {
		out = append(out, fmt.Sprint("held off ", *h))
	}
	for u, hs := range e.holdOffs.by {
		out = append(out, fmt.Sprint("held off by user ", u, len(hs)))
	}
	for u, a := range e.accounts {
		out = append(out, fmt.Sprint("account ", u, a.leases.n, a.waiters, a.tokens, a.bytes))
	}
	slices.Sort(out)
	return append(out, fmt.Sprint(tenures(e), e.NextTick(), len(e.memory.heap), len(e.ended)))
}

// tenures is what an enforcer knows of the licences whose leases are held, in a fixed order: their places are not told
// apart.
func tenures(e *Enforcer) (out []string) {
	for i, t := range e.tenures {
		if t.leases > 0 || uint32(i) == e.current {
			out = append(out, fmt.Sprint(*t.Terms, t.leases, t.turnedAt, t.revokeAt, uint32(i) == e.current))
		}
	}
	slices.Sort(out)
	return out
}
