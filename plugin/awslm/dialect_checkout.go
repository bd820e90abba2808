package awslm

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/redact"
)

// plan sorts the entitlements of a checkout: those to take, those to answer only, and those to refuse.
type plan struct {
	list  []EntitlementData // as in the answer
	items []enforcer.Item   // of pools or meters
	of    map[string]int    // by pool or meter: its place in list
	no    map[int]string    // by place in list: the reason to refuse it
}

// plan compares the request with the licence. A checkout takes from terms of the kind takes only; instead is the reason
// to refuse the others.
func (v *view) plan(asked []EntitlementData, beneficiary string, takes termKind, instead string) *plan {
	p := &plan{list: slices.Clone(asked), of: map[string]int{}, no: map[int]string{}}
	for i := range p.list {
		e := &p.list[i]
		t := v.term(e.Name, beneficiary)
		n, _ := ParseValue(e.Value) // validated
		switch {
		case t == nil:
			p.no[i] = "the licence has no such entitlement"
		case t.unit != e.Unit:
			p.no[i] = "the licence states it in " + t.unit + ", and units are not converted"
		case t.is == isFeature && !t.on:
			p.no[i] = "it is off"
		case t.is == isFeature:
			e.Value = redact.Shape(Entitlement{Name: t.name, Value: t.value}).Value
		case t.is == isRate && n > t.most:
			p.no[i] = "it is more than the licence gives"
		case t.is == isRate, n == 0: // nothing is taken
		case t.is != takes:
			p.no[i] = instead
		case n > enforcer.MaxSlots:
			p.no[i] = "it is more than one checkout may take"
		default:
			if _, twice := p.of[t.name]; twice {
				p.no[i] = "it is named twice"
				continue
			}
			p.items, p.of[t.name] = append(p.items, enforcer.Item{Pool: t.name, N: n}), i
		}
	}
	return p
}

// without removes the pool or meter that a denial is about. It is false if the plan does not have it.
func (p *plan) without(d *enforcer.Denial) bool {
	i, ok := p.of[d.Pool]
	if !ok {
		return false
	}
	p.no[i] = sentence(d)
	delete(p.of, d.Pool)
	p.items = slices.DeleteFunc(p.items, func(it enforcer.Item) bool { return it.Pool == d.Pool })
	return true
}

func (p *plan) allowed() (out []EntitlementData) {
	for i, e := range p.list {
		if _, no := p.no[i]; !no {
			out = append(out, e)
		}
	}
	return out
}

// refusal explains why nothing is allowed.
func (p *plan) refusal(code string) *Fault {
	var why []string
	for i, e := range p.list {
		if s, no := p.no[i]; no && len(why) < 5 {
			why = append(why, plugin.Short(e.Name)+": "+s)
		}
	}
	return &Fault{code, "No entitlements are allowed: " + strings.Join(why, ". ") + "."}
}

// maxCounted is the number of counted entitlements that one checkout may name.
const maxCounted = enforcer.MaxItems

// growsWithin is how long a checkout waits for the agent to get more of a pool that it shares with other hosts.
const growsWithin = 2 * time.Second

// checkout answers CheckoutLicense.
func (h *local) checkout(ctx context.Context, c enforcer.Caller, r *CheckoutRequest) (any, *Fault) {
	client, request := digest(who(c), r.ClientToken), asked(OpCheckout, r)
	defer h.alone(client)()
	token, rec, l, f := h.prior(c, client, request)
	switch {
	case f != nil:
		return nil, f
	case rec != nil && len(rec.Draws) > 0: // the enforcer knows whether they were drawn
		answer, f := h.draw(ctx, c, token, rec, nil)
		if f == nil || f.Code == ErrServerInternal {
			return answer, f
		} // they were not, and the record is gone: the request counts as new
	case rec != nil:
		return rec.checkedOut(token, l), nil
	}
	v, f := h.find(r.ProductSKU, r.KeyFingerprint, r.Beneficiary, r.Entitlements)
	if f != nil {
		return nil, f
	}
	takes, instead := isPool, "it is consumed: check it out PERPETUAL"
	if r.CheckoutType == Perpetual {
		takes, instead = isMeter, "its slots come back: check them out PROVISIONAL"
	} else if v.ConsumptionConfiguration.ProvisionalConfiguration == nil {
		return nil, &Fault{ErrNoEntitlements,
			"The licence has no ProvisionalConfiguration: it cannot be checked out PROVISIONAL."}
	}
	p := v.plan(r.Entitlements, r.Beneficiary, takes, instead)
	if len(p.items) > maxCounted {
		return nil, invalid("Entitlements name %d counted ones; at most %d can be checked out together.",
			len(p.items), maxCounted)
	}
	rec = &record{Client: client, Request: request, Operation: OpCheckout, Type: r.CheckoutType, Arn: v.LicenseArn,
		Node: r.NodeID, Beneficiary: r.Beneficiary}
	ttl := min(v.TTL(), enforcer.MaxTTL)
	switch {
	case r.CheckoutType == Perpetual:
		rec.Seconds = int64(usualTTL / time.Second)
		return h.drawNew(ctx, c, rec, p)
	default:
		rec.Seconds = int64(ttl / time.Second)
		return h.lease(ctx, c, rec, p, ttl)
	}
}

// lease takes slots of pools for a time. It leaves out pools that are full, as long as anything remains allowed.
func (h *local) lease(ctx context.Context, c enforcer.Caller, rec *record, p *plan, ttl time.Duration) (any, *Fault) {
	wait, waited := time.Duration(0), false
	for len(p.items) > 0 {
		rec.Allowed = p.allowed()
		l, _, d := h.Acquire(ctx, &enforcer.Acquire{Caller: c, Items: p.items, Lifetime: enforcer.LifetimeTTL, TTL: ttl,
			Wait: wait}, rec.encode())
		if d == nil {
			h.note(rec.Client, l, c)
			return rec.checkedOut(l.ID.String(), l), nil
		}
		if wait = 0; !waited && d.Code == enforcer.NoSlots && h.mayGrow(d.Pool) {
			wait, waited = growsWithin, true
			continue
		}
		if f := faultOf(d); f.Code != ErrNoEntitlements || !p.without(d) {
			return nil, f
		}
	}
	if rec.Allowed = p.allowed(); len(rec.Allowed) == 0 {
		return nil, p.refusal(ErrNoEntitlements)
	}
	return h.keepAlone(c, rec, ttl)
}

// mayGrow reports whether the agent may soon get more of a pool: it holds a part of a site's pool.
func (h *local) mayGrow(pool string) bool {
	return slices.ContainsFunc(h.Pools(), func(p enforcer.PoolStatus) bool {
		return p.Name == pool && p.NotShared == "" && p.Limit != p.Budget && p.Budget != enforcer.Unlimited
	})
}

// keepAlone stores a checkout that takes nothing.
func (h *local) keepAlone(c enforcer.Caller, rec *record, lasts time.Duration) (any, *Fault) {
	rec.Who, rec.Issued = who(c), h.Now().Unix()
	rec.Until = rec.Issued + int64(lasts/time.Second)
	token := newToken()
	if f := h.keep(token, rec); f != nil {
		return nil, f
	}
	return rec.checkedOut(token, nil), nil
}

// drawNew draws from meters permanently. It stores the intended draws first, so that a repetition after a crash draws
// the same.
func (h *local) drawNew(ctx context.Context, c enforcer.Caller, rec *record, p *plan) (any, *Fault) {
	if rec.Allowed = p.allowed(); len(rec.Allowed) == 0 {
		return nil, p.refusal(ErrNoEntitlements)
	}
	if len(p.items) == 0 {
		return h.keepAlone(c, rec, usualTTL)
	}
	token := newToken()
	rec.Who, rec.Issued, rec.Draws = who(c), h.Now().Unix(), p.items
	rec.Until = rec.Issued + int64(drawKept/time.Second)
	if f := h.keep(token, rec); f != nil {
		return nil, f
	}
	return h.draw(ctx, c, token, rec, p)
}

// draw takes a record's draws once, under its token. p is the plan of a new request; nil: the request is repeated.
func (h *local) draw(ctx context.Context, c enforcer.Caller, token string, rec *record, p *plan) (any, *Fault) {
	wait := growsWithin // once, for the agent to take more of a site's draws
	for {
		_, _, d := h.Acquire(ctx, &enforcer.Acquire{Caller: c, Items: rec.Draws, Lifetime: enforcer.LifetimeDraw,
			Token: token, Wait: wait}, nil)
		wait = 0
		if d == nil {
			return rec.checkedOut(token, nil), nil
		}
		f := faultOf(d)
		if d.Code == enforcer.Storage {
			return nil, f // it may have been stored: a repetition decides
		}
		if f.Code != ErrNoEntitlements || p == nil || !p.without(d) {
			if _, lost := h.forget(token); lost != nil {
				return nil, lost
			}
			return nil, f
		}
		rec = &record{Client: rec.Client, Request: rec.Request, Operation: rec.Operation, Type: rec.Type, Arn: rec.Arn,
			Node: rec.Node, Beneficiary: rec.Beneficiary,
			Seconds: rec.Seconds, Who: rec.Who, Issued: rec.Issued, Until: rec.Until, Draws: slices.Clone(p.items),
			Allowed: p.allowed()}
		if len(rec.Allowed) == 0 {
			if _, lost := h.forget(token); lost != nil {
				return nil, lost
			}
			return nil, p.refusal(ErrNoEntitlements)
		}
		if f := h.keep(token, rec); f != nil {
			return nil, f
		}
		if len(rec.Draws) == 0 {
			return rec.checkedOut(token, nil), nil
		}
	}
}

// checkedOut returns the answer to a checkout: the same for each repetition.
func (r *record) checkedOut(token string, l *enforcer.Lease) *CheckoutResponse {
	at := r.issued(l)
	return &CheckoutResponse{CheckoutType: r.Type, LicenseArn: redact.Text(r.Arn), LicenseConsumptionToken: token,
		EntitlementsAllowed: r.Allowed, NodeID: r.Node,
		IssuedAt: LocalTime(at), Expiration: LocalTime(at.Add(time.Duration(r.Seconds) * time.Second))}
}

func (r *record) issued(l *enforcer.Lease) time.Time {
	if l != nil {
		return l.AcquiredAt
	}
	return time.Unix(r.Issued, 0)
}

// out finds the record, and the lease if there is one, of a consumption token.
func (h *local) out(c enforcer.Caller, token string) (*record, *enforcer.Lease, *Fault) {
	if id, ok := enforcer.ParseLeaseID(token); ok {
		if l, held := h.Lease(id, c); held {
			if r := recordOf(l); r != nil {
				return r, l, nil
			}
		}
	}
	if r := h.stored(c, token); r != nil {
		return r, nil, nil
	}
	return nil, nil, &Fault{ErrResourceNotFound,
		"The consumption token is not known here: it was checked in, it is over, or it belongs to another caller."}
}

// extend answers ExtendLicenseConsumption.
func (h *local) extend(c enforcer.Caller, r *ExtendRequest) (any, *Fault) {
	rec, l, f := h.out(c, r.LicenseConsumptionToken)
	switch {
	case f != nil:
		return nil, f
	case rec.Operation == OpBorrow:
		return nil, &Fault{ErrInvalidParameter, "A borrowed licence cannot be extended; borrow it again."}
	case rec.Type != Provisional:
		return nil, &Fault{ErrInvalidParameter,
			"A PERPETUAL checkout does not end, and cannot be extended."}
	}
	ttl := time.Duration(rec.Seconds) * time.Second
	until := h.Now().Add(ttl)
	switch {
	case r.DryRun:
	case l != nil:
		renewed, d := h.Renew(&enforcer.Renew{ID: l.ID, Caller: c, TTL: ttl})
		if d != nil {
			return nil, faultOf(d)
		}
		until = renewed.ExpiresAt
	default:
		if v := h.byArn(rec.Arn); v == nil || !v.inForce {
			return nil, &Fault{ErrResourceNotFound,
				"The checkout's licence can no longer be consumed."}
		}
		switch there, f := h.prolong(r.LicenseConsumptionToken, until); {
		case f != nil:
			return nil, f
		case !there:
			return nil, &Fault{ErrResourceNotFound, "It was checked in just now."}
		}
	}
	return &ExtendResponse{LicenseConsumptionToken: r.LicenseConsumptionToken, Expiration: ZonedTime(until)}, nil
}

// checkIn answers CheckInLicense.
func (h *local) checkIn(c enforcer.Caller, r *CheckInRequest) (any, *Fault) {
	rec, l, f := h.out(c, r.LicenseConsumptionToken)
	switch {
	case f != nil:
		return nil, f
	case r.Beneficiary != "" && rec.Operation != OpBorrow && r.Beneficiary != rec.Beneficiary:
		return nil, &Fault{ErrInvalidParameter, "It was not checked out for this beneficiary."}
	case rec.Type == Perpetual:
		return nil, &Fault{ErrInvalidParameter, "A PERPETUAL checkout cannot be checked in."}
	case l != nil:
		if d := h.Release(&enforcer.Release{ID: l.ID, Caller: c}); d != nil {
			return nil, faultOf(d)
		}
		return struct{}{}, nil
	}
	there, f := h.forget(r.LicenseConsumptionToken)
	if f == nil && !there {
		f = &Fault{ErrResourceNotFound, "It was checked in just now."}
	}
	return struct{}{}, f
}
