package ucloud

import (
	"cmp"
	"math"
	"net/http"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// offer is a product and the pool that it hands out.
type offer struct {
	pool     string
	settings *ProductSettings // nil: the configuration says nothing of it
	ref      ProductRef
}

func (s *local) provider() string { return cmp.Or(s.dialect.Provider, DefaultProvider) }

// offers returns the products: those of the licence's pools.
func (s *local) offers() (out []offer) {
	for _, p := range s.Pools() {
		if p.Meter {
			continue
		}
		out = append(out, s.offerOf(p.Name))
	}
	return out
}

// offerOf returns the product of a pool. Without settings it is called after the pool, and its category, too.
func (s *local) offerOf(pool string) offer {
	o := offer{pool: pool, ref: ProductRef{pool, pool, s.provider()}}
	for i := range s.dialect.Products {
		if p := &s.dialect.Products[i]; p.Pool == pool {
			o.settings = p
			o.ref.ID = cmp.Or(p.ID, pool)
			o.ref.Category = cmp.Or(p.Category, o.ref.ID)
		}
	}
	return o
}

// offered returns the product that a reference names; false: the licence has no such pool.
func (s *local) offered(ref ProductRef) (offer, bool) {
	for _, o := range s.offers() {
		if o.ref == ref {
			return o, true
		}
	}
	return offer{}, false
}

// product returns the record of a product.
func (o offer) product() Product {
	p := Product{Name: o.ref.ID, PricePerUnit: 1, Category: Category{o.ref.Category, o.ref.Provider}, Version: 1,
		FreeToUse: true, AllowAllocationRequestsFrom: "ALL", UnitOfPrice: "PER_UNIT", ChargeType: "ABSOLUTE",
		Tags: []string{}, ProductType: "LICENSE", Type: "license"}
	if s := o.settings; s != nil {
		p.Balance, p.MaxUsableBalance = s.Balance, s.MaxUsableBalance
		p.PricePerUnit, p.Description, p.Priority = s.Price, s.Description, s.Priority
		p.Version, p.FreeToUse, p.HiddenInGrantApplications = cmp.Or(s.Version, 1), s.FreeToUse, s.Hidden
		p.AllowAllocationRequestsFrom = cmp.Or(s.AllocationsFrom, p.AllowAllocationRequestsFrom)
		p.UnitOfPrice, p.ChargeType = cmp.Or(s.UnitOfPrice, p.UnitOfPrice), cmp.Or(s.ChargeType, p.ChargeType)
		p.Tags = append(p.Tags, s.Tags...)
	}
	return p
}

// credited reports whether a product may be used: it is free, or there is credit.
func (o offer) credited() bool {
	s := o.settings
	return s == nil || s.FreeToUse || s.Balance != nil && *s.Balance > 0
}

// support returns what is supported of a product; its maintenance is null where none is announced.
func (o offer) support() LicenseSupport {
	out := LicenseSupport{Product: o.ref}
	if o.settings == nil || o.settings.Maintenance.Availability == "" {
		return out
	}
	m := o.settings.Maintenance
	out.Maintenance = &Maintenance{Description: m.Description, Availability: m.Availability,
		StartsAt: m.StartsAt.UnixMilli()}
	if !m.EstimatedEndsAt.IsZero() {
		out.Maintenance.EstimatedEndsAt = new(m.EstimatedEndsAt.UnixMilli())
	}
	return out
}

// closed reports whether a maintenance makes a product unusable now. A stated end ends it.
func (o offer) closed(now time.Time) bool {
	m := o.support().Maintenance
	if m == nil || m.Availability != NoService {
		return false
	}
	at, ends := now.UnixMilli(), int64(math.MaxInt64)
	if m.EstimatedEndsAt != nil {
		ends = *m.EstimatedEndsAt
	}
	return m.StartsAt <= at && at < ends
}

// usable returns why nothing may be made or bound of a product; nil: it may.
func (x *request) usable(ref ProductRef) (offer, *Fault) {
	if ref.ID == "" {
		return offer{}, refuse(http.StatusBadRequest, "Resource does not specify a product")
	}
	o, ok := x.offered(ref)
	switch {
	case !ok:
		return o, x.missing(ref)
	case !o.credited():
		f := refuse(http.StatusPaymentRequired, "You are missing allocations for: "+plugin.Short(ref.ID))
		f.Code = new(ErrorNoCredits)
		return o, f
	case o.closed(x.Now()):
		return o, refuse(http.StatusNotFound, "Service is currently undergoing maintenance.")
	}
	return o, nil
}

// missing is the refusal for a product that the licence in force does not have.
func (x *request) missing(ref ProductRef) *Fault {
	why := "You are missing allocations for: " + plugin.Short(ref.ID)
	if v := x.Verdict(); v == nil || v.State != enforcer.StateValid {
		why += " (" + x.reason() + ")"
	}
	f := refuse(http.StatusPaymentRequired, why)
	f.Code = new(ErrorNoCredits)
	return f
}

// reason explains why there is no licence in force.
func (x *request) reason() string {
	if v := x.Verdict(); v != nil && v.Reason != "" {
		return v.Reason
	}
	return "the licence folder has not been read yet"
}

// denied puts a denial of a slot into UCloud's words. what names the licence; it may be empty.
func denied(d *enforcer.Denial, what string) *Fault {
	coded := func(why string) *Fault {
		f := refuse(http.StatusPaymentRequired, why)
		f.Code = new(ErrorNoCredits)
		return f
	}
	switch d.Code {
	case enforcer.NoSlots, enforcer.NotShared, enforcer.PoolUnknown:
		return coded("You do not have enough license credits: " + d.Detail)
	case enforcer.LicenseMissing, enforcer.LicenseInvalid, enforcer.LicenseExpired:
		return refuse(http.StatusBadRequest, what+" is not ready: "+d.Detail)
	case enforcer.Draining:
		return refuse(http.StatusServiceUnavailable, d.Detail)
	case enforcer.RateLimited:
		return refuse(http.StatusTooManyRequests, d.Detail)
	case enforcer.Storage:
		return refuse(http.StatusInsufficientStorage, d.Detail)
	default:
		return refuse(http.StatusForbidden, "You cannot use this license: "+d.Detail)
	}
}

// state returns a licence's state: its own, unless the agent's licence is not good.
func (x *request) state(r *record) string {
	v := x.Verdict()
	switch {
	case v == nil || v.Code == enforcer.Preparing:
		return StatePreparing
	case (v.State != enforcer.StateValid || v.Paused != "") && r.State == StateReady:
		return StateUnavailable
	}
	return r.State
}

func (x *request) retrieveProducts() (any, *Fault) {
	type pair = Support
	by := map[string][]pair{}
	for _, o := range x.offers() {
		by[o.ref.Provider] = append(by[o.ref.Provider], pair{o.product(), o.support()})
	}
	return struct {
		By map[string][]pair `json:"productsByProvider"`
	}{by}, nil
}

func ms(t time.Time) int64 { return t.UnixMilli() }

// resolve returns the product of a reference, also where the licence in force does not have it.
func (s *local) resolve(ref ProductRef) offer {
	for i := range s.dialect.Products {
		if o := s.offerOf(s.dialect.Products[i].Pool); o.ref == ref {
			return o
		}
	}
	return offer{pool: ref.ID, ref: ref}
}
