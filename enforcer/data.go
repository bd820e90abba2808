package enforcer

import "time"

// check denies data that cannot be kept.
func (d *Data) check() *Denial {
	switch {
	case d == nil:
		return nil
	case d.Owner == "" || len(d.Owner) > MaxName:
		return bad("data", "the owner of a lease's data is missing, or longer than %d bytes", MaxName)
	case len(d.Bytes) > MaxData:
		return &Denial{Code: TooLarge, Field: "data", Detail: "the data to be kept on the lease is too large",
			Hint: "keep less, or keep it elsewhere"}
	}
	return nil
}

// owner returns the owner of the lease's data; empty: it has none.
func (l *Lease) owner() string {
	if l.Data == nil {
		return ""
	}
	return l.Data.Owner
}

func (r *SetData) decide(e *Enforcer, now time.Time) Decision {
	if r.Data == nil {
		return Decision{Denial: bad("data", "data is missing")}
	}
	if d := r.Data.check(); d != nil {
		return Decision{Denial: d}
	}
	h, d := e.find(r.ID, &r.Caller, r.Data.Owner, false, now)
	if d != nil {
		return Decision{Denial: d}
	}
	l := *h.Lease
	l.Data = r.Data
	if d := e.denyBytes(h.Holder.Who(), l.bytes()-h.bytes()); d != nil {
		return Decision{Denial: d}
	}
	return Decision{Events: []Event{{Kind: EventNoted, At: now, Lease: &l}}}
}
