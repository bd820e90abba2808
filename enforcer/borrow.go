package enforcer

import (
	"fmt"
	"time"
)

// denyBorrow denies a borrow until an instant that the verdict does not permit. It returns nil where the verdict
// permits it, and for a request that borrows nothing.
func (r *Acquire) denyBorrow(e *Enforcer, v *Verdict, now time.Time) *Denial {
	if r.Lifetime != LifetimeBorrow {
		return nil
	}
	refuse := func(field, hint, format string, args ...any) *Denial {
		return &Denial{Code: LicenseInvalid, Field: field, Verdict: v, Detail: fmt.Sprintf(format, args...), Hint: hint}
	}
	longest := v.MaxBorrow
	ends := v.borrowEnds()
	switch {
	case !e.options.Durable:
		return &Denial{Code: Storage, Hint: "use an agent with a durable journal",
			Detail: "a borrow must be durable before it is acknowledged, and this agent keeps no durable journal"}
	case !r.Until.After(now):
		return bad("until", "until is %s, and it is %s already", stamp(r.Until), stamp(now))
	case longest <= 0:
		return refuse("lifetime", "ask the vendor for a licence that permits borrowing, or raise license.max_borrow",
			"nothing can be borrowed: the licence, or the configuration, does not allow it")
	case r.Until.Sub(now) > longest:
		return refuse("until", fmt.Sprintf("borrow until %s at most", stamp(sooner(now.Add(longest), ends))),
			"until is %s, and slots can be borrowed for %s at most", stamp(r.Until), Span(longest))
	case !ends.IsZero() && r.Until.After(ends):
		return refuse("until", fmt.Sprintf("borrow until %s at most, or renew the licence first", stamp(ends)),
			"until is %s, and the licence ends at %s: a borrow does not outlive it", stamp(r.Until), stamp(ends))
	}
	return nil
}

// borrowEnds returns the end that no borrow outlives; zero: never. A document that waits for its start may put that end
// off.
func (v *Verdict) borrowEnds() time.Time {
	if v.TerminatesAt.IsZero() || v.CoveredUntil.IsZero() {
		return zeroTime
	}
	return later(v.TerminatesAt, v.CoveredUntil)
}

// returnsEarly reports whether borrowed slots may be released before their date.
func (v *Verdict) returnsEarly() bool { return v != nil && v.EarlyReturn }

func notEarly(l *Lease) *Denial {
	return &Denial{Code: Forbidden,
		Detail: fmt.Sprintf("lease %s is borrowed until %s, and the licence does not permit an early return", l.ID,
			stamp(l.ExpiresAt)),
		Hint: "wait until then, or have an admin release it by force"}
}
