package enforcer

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Bounds of a request.
const (
	MaxItems       = 64
	MaxSlots       = 1 << 48 // slots of one item, which may be bytes of a disk; no sum overflows
	MaxN           = 1 << 40 // draws that are adjusted at once, and parts of slots of one item
	MaxName        = 64      // bytes of a pool's name
	MaxClientToken = 256     // bytes
	MaxLabels      = 32
	MaxLabel       = 256 // bytes of a label's key or value
	MaxWait        = 24 * time.Hour
)

func deny(code DenialCode, format string, args ...any) Decision {
	return Decision{Denial: &Denial{Code: code, Detail: fmt.Sprintf(format, args...)}}
}

func bad(field, format string, args ...any) *Denial {
	return &Denial{Code: BadRequest, Field: field, Detail: fmt.Sprintf(format, args...)}
}

func (r *Acquire) decide(e *Enforcer, now time.Time) Decision {
	if d := r.check(); d != nil {
		return Decision{Denial: d}
	}
	items := r.Items
	var single [1]Item
	if r.Pool != "" {
		single[0] = Item{Pool: r.Pool, N: r.N, Of: r.Of}
		items = single[:]
	}
	token := r.token(items)
	if token != nil {
		if was := e.tokens[token.Key]; was != nil {
			return was.replay(r, items, token)
		}
		if d := r.denyToken(e); d != nil {
			return Decision{Denial: d}
		}
	}
	v := e.at(now)
	if d := v.deny(r.Version); d != nil {
		return Decision{Denial: d}
	}
	shared := e.sharedBy(r)
	a := e.ask(r, items, shared, now)
	if d := a.denyByRule(); d != nil {
		return Decision{Denial: d}
	}
	if _, ok := v.Meters[items[0].Pool]; ok {
		return r.draw(e, v, slices.Clone(items), token, now)
	}
	if r.Lifetime == LifetimeDraw {
		return Decision{Denial: bad("lifetime", "pool %s: lifetime draw is for meters; slots come back", items[0].Pool)}
	}
	if d := r.denyBorrow(e, v, now); d != nil {
		return Decision{Denial: d}
	}
	if d := r.denyLease(e, shared); d != nil {
		return Decision{Denial: d}
	}
	if d := e.heldOff(r.Caller, items, now); d != nil {
		return Decision{Denial: d}
	}
	if d := e.denyBorrowByRule(a, now); d != nil {
		return r.wait(e, slices.Clone(items), token, d, now)
	}
	granted, d := e.fitAll(r, v, items, nil, a)
	if d != nil {
		return r.wait(e, slices.Clone(items), token, d, now)
	}
	return e.grant(r, v, granted, token, shared, now)
}

// fitAll returns what the request gets of each pool under the verdict, or why it gets nothing. w is its place in the
// queue; nil: it has just come. a is the request under the rules; nil: there are none.
func (e *Enforcer) fitAll(r *Acquire, v *Verdict, items []Item, w *waiting, a *asking) ([]Item, *Denial) {
	var holder *Holder
	if a != nil {
		holder = a.holder
	} else {
		holder = &Holder{Caller: r.Caller, Labels: r.Labels}
	}
	if len(items) == 1 { // the commonest
		got, d := e.fit(v, items[0], r.MinN, holder, w, a, 0)
		if d != nil {
			return nil, d
		}
		return e.pool(got.Pool).alike(got), nil
	}
	granted := make([]Item, len(items))
	for i, it := range items {
		got, d := e.fit(v, it, r.MinN, holder, w, a, i)
		if d != nil {
			return nil, d
		}
		granted[i] = got
	}
	return granted, nil
}

// alike returns an item as the items of a lease, which those of the pool's last lease are where they are the same:
// items never change.
func (p *pool) alike(it Item) []Item {
	if len(p.last) == 1 && p.last[0] == it {
		return p.last
	}
	return []Item{it}
}

// grant is the decision that grants a request. shared is as of sharedBy.
func (e *Enforcer) grant(r *Acquire, v *Verdict, items []Item, token *ClientToken, shared *sharedHolder,
	now time.Time) Decision {
	holder := r.holder(shared)
	l := &Lease{ID: r.ID, Items: items, Lifetime: r.lifetime(), AcquiredAt: now, Holder: holder, Token: token,
		Data: r.Data}
	switch l.Lifetime {
	case LifetimeTTL:
		l.TTL = cmp.Or(r.TTL, DefaultTTL)
		l.ExpiresAt = now.Add(l.TTL)
	case LifetimeBorrow:
		l.ExpiresAt = r.Until
	default:
	}
	room := r.Room
	if r.Wait > 0 { // somebody keeps the request
		room = nil
	}
	events := room.one()
	ev := &events[0]
	ev.Kind, ev.At, ev.Lease, ev.Terms = EventGranted, now, l, e.termsOf(v)
	ev.found.by, ev.found.holder = e, shared
	return Decision{Lease: l, Events: append(events, e.returns(l, now)...)}
}

// sharedBy returns the holder that the lease to be shares: leases of one caller without labels share one. nil: it
// shares none, or is the first.
func (e *Enforcer) sharedBy(r *Acquire) *sharedHolder {
	if len(r.Labels) > 0 {
		return nil
	}
	if s := e.latest; s != nil && s.Caller == r.Caller {
		return s
	}
	return e.holders[r.Caller]
}

// holder returns the holder of the lease to be.
func (r *Acquire) holder(shared *sharedHolder) *Holder {
	if shared != nil {
		return shared.Holder
	}
	return &Holder{Caller: r.Caller, Labels: r.Labels}
}

func (r *Acquire) lifetime() Lifetime { return cmp.Or(r.Lifetime, LifetimeTTL) }

// check denies what no state could grant.
func (r *Acquire) check() *Denial {
	switch {
	case r.Pool == "" && len(r.Items) == 0:
		return bad("pool", "pool is missing: say which pool the slots are to come from")
	case r.Of != 0 && r.Pool == "":
		return bad("of", "of goes with pool and n; each of items has an of of its own")
	case r.Pool != "" && len(r.Items) > 0:
		return bad("items", "pool and items are both given: use one of them")
	case r.Pool != "" && r.N < 1:
		return bad("n", "n is %d: ask for at least 1 slot", r.N)
	case r.N > MaxSlots:
		return bad("n", "n is %d: at most %d slots can be asked for at once", r.N, int64(MaxSlots))
	case r.MinN < 0:
		return bad("min_n", "min_n is %d: leave it out, or give at least 1", r.MinN)
	case r.MinN > 0 && r.Pool == "":
		return bad("min_n", "min_n goes with pool and n, not with items, which are all or nothing")
	case r.MinN > r.N && r.Pool != "":
		return bad("min_n", "min_n %d is more than n %d", r.MinN, r.N)
	case len(r.Items) > MaxItems:
		return bad("items", "%d items are given, at most %d may be", len(r.Items), MaxItems)
	case len(r.Token) > MaxClientToken:
		return bad("client_token", "client_token has %d bytes, at most %d may be", len(r.Token), MaxClientToken)
	case len(r.Labels) > MaxLabels:
		return bad("labels", "%d labels are given, at most %d may be", len(r.Labels), MaxLabels)
	case len(r.Pool) > MaxName:
		return bad("pool", "pool has %d bytes, a pool's name has at most %d", len(r.Pool), MaxName)
	}
	if d := checkParts("of", r.Of); d != nil {
		return d
	}
	for i, it := range r.Items {
		if d := checkParts("items", it.Of); d != nil {
			return d
		}
		if it.Pool == "" || len(it.Pool) > MaxName {
			return bad("items", "items[%d]: pool is missing or longer than %d bytes", i, MaxName)
		}
		if it.N < 1 {
			return bad("items", "items[%d]: n is %d: ask for at least 1 slot", i, it.N)
		}
		if it.N > MaxSlots {
			return bad("items", "items[%d]: n is %d: at most %d slots can be asked for at once", i, it.N,
				int64(MaxSlots))
		}
		if slices.ContainsFunc(r.Items[:i], func(o Item) bool { return o.Pool == it.Pool }) {
			return bad("items", "items[%d]: pool %q is named twice; add its n up", i, it.Pool)
		}
	}
	for k, v := range r.Labels {
		if k == "" || len(k) > MaxLabel || len(v) > MaxLabel {
			return bad("labels", "a label's key is empty, or key or value is longer than %d bytes", MaxLabel)
		}
	}
	if r.Wait < 0 || r.Wait > MaxWait {
		return bad("wait_seconds", "wait_seconds is %v: give from 0 to %v", r.Wait.Seconds(), MaxWait.Seconds())
	}
	if d := r.Data.check(); d != nil {
		return d
	}
	return r.checkLifetime()
}

func (r *Acquire) checkLifetime() *Denial {
	if r.lifetime() != LifetimeBorrow && !r.Until.IsZero() {
		return bad("until", "until goes with lifetime borrow, not with %s", r.lifetime())
	}
	if r.Named && r.lifetime() != LifetimeProcess {
		return bad("lifetime",
			"a lease of another process (pid) lives by that process, so its lifetime is process, not %s; leave "+
				"lifetime, ttl_seconds and until out",
			r.lifetime())
	}
	switch r.lifetime() {
	case LifetimeTTL:
		return checkTTL(r.TTL)
	case LifetimeHeld, LifetimeProcess, LifetimeConnection, LifetimeDraw, LifetimeBorrow:
		if r.TTL != 0 {
			return bad("ttl_seconds", "ttl_seconds goes with lifetime ttl, not with %s", r.Lifetime)
		}
		if r.Lifetime == LifetimeBorrow && r.Until.IsZero() {
			return bad("until", "until is missing: say when the borrowed slots come back")
		}
		return nil
	default:
		return bad("lifetime", "there is no lifetime %q; use process, connection, ttl, held or borrow", r.Lifetime)
	}
}

func checkTTL(ttl time.Duration) *Denial {
	if ttl != 0 && (ttl < MinTTL || ttl > MaxTTL) {
		return bad("ttl_seconds", "ttl_seconds is %v: give from %v to %v", ttl.Seconds(), MinTTL.Seconds(),
			MaxTTL.Seconds())
	}
	return nil
}

// fit returns what the request gets of one pool under the verdict, or why it gets nothing.
// It is the i-th item of the request a.
func (e *Enforcer) fit(v *Verdict, it Item, minN int64, holder *Holder, w *waiting, a *asking, i int) (Item, *Denial) {
	p, d := e.open(v, it.Pool)
	if d == nil {
		d = p.divides(it)
	}
	if d != nil {
		return Item{}, d
	}
	parts := p.grant.parts(it)
	room, free := p.room(holder)
	if a != nil {
		return e.fitUnder(a, i, p, room, free)
	}
	if parts > free && p.queue.ahead(w) {
		return Item{}, p.behind(it)
	}
	if room.Covers(parts) {
		return it, nil
	}
	if got := p.grant.whole(int64(room), it); minN > 0 && got.N >= minN {
		return got, nil
	}
	return Item{}, p.denial(it)
}

// notShared denies what nobody shares, or what whoever shares it cannot be asked for, as cut says.
func notShared(kind, name, why string, cut *Failing) *Denial {
	d := &Denial{Code: NotShared, Pool: name, Detail: fmt.Sprintf("%s %s: %s", kind, name, why),
		Hint: "use a site server, a fleet or an upstream checkout, or have the vendor bind the licence to this one " +
			"host or agent key"}
	if cut != nil {
		mend := cmp.Or(cut.Hint, "wait until it can be asked, or mend what the detail names")
		d.Hint = mend + "; `usher doctor` says more"
	}
	return d
}

// behind denies a request because others wait for the pool's slots.
func (p *pool) behind(it Item) *Denial {
	d := p.denial(it)
	if p.covers(p.capacity(), it) {
		d.Detail = fmt.Sprintf("pool %s: %d of %s slots are in use, and %d acquires wait for what comes free", it.Pool,
			p.grant.slots(p.inUse), p.capacity(), p.queue.Len())
		d.Hint = "wait too (wait_seconds), or try again later"
	}
	return d
}

// covers reports whether an item fits under a limit of slots.
func (p *pool) covers(slots Limit, it Item) bool {
	return p.grant.limit(slots).Covers(p.grant.parts(it))
}

// denial says why the pool has not so many slots, and when a slot comes free.
func (p *pool) denial(it Item) *Denial {
	inUse := p.grant.slots(p.inUse)
	d := &Denial{Code: NoSlots, Pool: it.Pool, Limit: p.capacity(), InUse: inUse, HasUsage: true}
	if most := p.most(); most != p.capacity() && p.covers(most, it) {
		d.Site = most
		d.Detail = fmt.Sprintf(
			"pool %s: %d of %s slots are in use of this agent's share of the site's %s, and the request is for %s more",
			it.Pool, inUse, p.capacity(), most, it.Amount())
		d.Hint = "wait (wait_seconds): a share grows by what the site has left; or try again in a moment"
		if cut := p.grant.Cut; cut != nil {
			d.Detail += "; " + cut.words(shareServer)
			d.Hint = "mend that: `usher doctor` says more; this agent asks again by itself, also for acquires that " +
				"wait (wait_seconds)"
		}
		return d
	}
	if !p.covers(p.capacity(), it) {
		d.Detail = fmt.Sprintf("pool %s: the request is for %s slots, and there are only %s in all", it.Pool,
			it.Amount(), p.capacity())
		d.Hint = "ask for fewer, or have the licence extended"
		return d
	}
	d.Detail = fmt.Sprintf("pool %s: %d of %s slots are in use, and the request is for %s more", it.Pool, inUse,
		p.capacity(), it.Amount())
	d.Hint = "release a lease, or try again later"
	if first := p.first(); first != nil {
		d.Next, d.NextHolder = first.ExpiresAt, first.Holder
		unless := " unless it is renewed"
		if first.Lifetime == LifetimeBorrow {
			unless = ""
		}
		d.Hint = fmt.Sprintf("the next lease ends at %s%s; try again then", stamp(d.Next), unless)
	}
	return d
}

// String returns the number, or "unlimited".
func (l Limit) String() string {
	if l == Unlimited {
		return "unlimited"
	}
	return fmt.Sprint(int64(l))
}

// coversVersion reports whether version is among versions.
func coversVersion(versions, version string) (bool, error) {
	if versions == "" {
		return true, nil
	}
	vs, err := ParseVersions(versions)
	if err != nil {
		return false, err
	}
	return vs.Covers(version)
}

func (r *Renew) decide(e *Enforcer, now time.Time) Decision {
	h, d := e.find(r.ID, &r.Caller, r.Owner, false, now)
	if d != nil {
		return Decision{Denial: d}
	}
	switch h.Lifetime {
	case LifetimeTTL:
	case LifetimeBorrow:
		return Decision{Denial: bad("lifetime",
			"lease %s is borrowed until %s, and a borrow cannot be renewed; borrow again", r.ID, stamp(h.ExpiresAt))}
	default:
		if e.idles(h) && r.TTL == 0 {
			return Decision{Lease: h.Lease, Events: []Event{{Kind: EventUsed, At: now, Lease: h.Lease}}}
		}
		return Decision{Denial: bad("lifetime", "lease %s has lifetime %s and needs no renewal", r.ID, h.Lifetime)}
	}
	if d := checkTTL(r.TTL); d != nil {
		return Decision{Denial: d}
	}
	l := *h.Lease
	l.TTL, l.Unconfirmed = cmp.Or(r.TTL, l.TTL), false
	l.ExpiresAt = now.Add(l.TTL)
	if e.sameUnits(h.Lease, r.Caller) {
		return Decision{Lease: &l, Events: []Event{{Kind: EventRenewed, At: now, Lease: &l,
			found: found{by: e, lease: h}}}}
	}
	// The caller that renews a lease holds it, and counts as its holder from now on.
	l.Holder = &Holder{Caller: r.Caller, Labels: l.Holder.Labels}
	return e.rehold(h.Lease, &l, l.Holder, now)
}

func (r *Release) decide(e *Enforcer, now time.Time) Decision {
	if r.Force && !r.Caller.Admin {
		return Decision{Denial: &Denial{Code: Forbidden, Detail: "releasing by force is for admins",
			Hint: "ask as root, as the agent's user, or by a rule under socket.admin"}}
	}
	if r.HoldOff != nil {
		return r.holdOff(e, now)
	}
	h, d := e.find(r.ID, &r.Caller, r.Owner, r.Force, now)
	if d != nil {
		return Decision{Denial: d}
	}
	cause := r.Cause
	if cause == "" {
		if h.Lifetime == LifetimeBorrow && !r.Force && !e.verdict.returnsEarly() {
			return Decision{Denial: notEarly(h.Lease)}
		}
		cause = CauseReleased
		if r.Force {
			cause = CauseForced
		}
	}
	events := r.Room.one()
	ev := &events[0]
	ev.Kind, ev.At, ev.Lease, ev.Cause = EventEnded, now, h.Lease, cause
	ev.found.by, ev.found.lease = e, h
	if cause == CauseReleased {
		events = append(events, e.linger(h, now)...)
	}
	return Decision{Lease: h.Lease, Events: events}
}

// find returns the lease if the caller may act on it through owner, the owner of its data.
func (e *Enforcer) find(id LeaseID, c *Caller, owner string, force bool, now time.Time) (*held, *Denial) {
	h, ok := e.leases.Get(id)
	switch {
	case !ok:
		return nil, e.unknown(id)
	case !h.ExpiresAt.IsZero() && !now.Before(h.ExpiresAt):
		return nil, &Denial{Code: LeaseUnknown,
			Detail: fmt.Sprintf("lease %s ended at %s: %s", id, stamp(h.ExpiresAt), whyEnded(CauseExpired, h.Lifetime))}
	case !force && !h.Holder.mayAct(c):
		return nil, &Denial{Code: NotHolder, Detail: fmt.Sprintf("lease %s belongs to another user", id),
			Hint: "only the user that acquired it may act on it; an admin may release it by force"}
	case !force && h.owner() != owner:
		return nil, &Denial{Code: NotHolder, Detail: fmt.Sprintf("lease %s was acquired through another API", id),
			Hint: "act on it through the one that it was acquired through; an admin may release it by force"}
	}
	return h, nil
}

// unknown says what became of a lease that is not held.
func (e *Enforcer) unknown(id LeaseID) *Denial {
	for _, r := range e.ended {
		if r.id != id {
			continue
		}
		return &Denial{Code: LeaseUnknown,
			Detail: fmt.Sprintf("lease %s ended at %s: %s", id, stamp(r.at), whyEnded(r.cause, r.lifetime))}
	}
	return &Denial{Code: LeaseUnknown, Detail: fmt.Sprintf("lease %s is not held here", id),
		Hint: "it may have ended a while ago; acquire a new one"}
}

func whyEnded(c Cause, l Lifetime) string {
	if c == CauseExpired && l == LifetimeBorrow {
		return "it was borrowed until then"
	}
	return map[Cause]string{
		CauseReleased: "it was released", CauseForced: "an admin released it by force",
		CauseExpired:    "it was not renewed in time",
		CauseRevoked:    "it was revoked, because the licence no longer covers it",
		CauseMaxHold:    "a rule of the site lets it last no longer",
		CauseIdle:       "it was not renewed for as long as a rule of the site allows",
		CauseHolderGone: "its holder was gone", CauseUndelivered: "its grant could not be delivered",
	}[c]
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (r *SetVerdict) decide(_ *Enforcer, now time.Time) Decision {
	return Decision{Events: []Event{{Kind: EventVerdict, At: now, Verdict: r.Verdict}}}
}
