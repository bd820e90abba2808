package enforcer

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// at returns the verdict at the instant now: the one in force, or what it has turned into by itself since.
func (e *Enforcer) at(now time.Time) *Verdict {
	v := e.verdict
	if v == nil || v.Until.IsZero() || now.Before(v.Until) {
		return v
	}
	for _, next := range e.verdict.Next {
		if now.Before(next.JudgedAt) {
			break
		}
		v = next
	}
	return v
}

// termsOf returns the terms of leases that are granted under a verdict that holds now.
func (e *Enforcer) termsOf(v *Verdict) *Terms {
	if v == e.verdict {
		return e.tenures[e.current].Terms
	}
	return v.terms()
}

// open returns a pool whose slots may be granted under the verdict, or says why none may.
func (e *Enforcer) open(v *Verdict, name string) (*pool, *Denial) {
	p := e.pool(name)
	if p == nil || !p.named {
		if _, ok := v.Meters[name]; ok {
			return nil, bad("items",
				"one lease cannot hold meter %s and pools: slots come back, draws do not; acquire them one "+
					"after the other", name)
		}
		return nil, v.unknownPool(name)
	}
	if v != e.verdict {
		g, ok := v.Pools[name]
		switch {
		case !ok:
			return nil, v.unknownPool(name)
		case g.CountBy != p.grant.CountBy || g.HoldersBy != p.grant.HoldersBy || g.per() != p.grant.per():
			return nil, &Denial{Code: NoSlots, Pool: name, Hint: "try again in a moment",
				Detail: fmt.Sprintf(
					"pool %s: the licence has just changed, and what is in use is counted by %s from now on", name,
					g.CountBy)}
		}
		p = p.under(g)
	}
	if why := v.Withheld.Slots; why != "" {
		return nil, withheld("pool", name, why)
	}
	if v.Paused != "" {
		return nil, paused("pool", name, v.Paused)
	}
	if p.grant.NotShared != "" && p.grant.Budget == 0 {
		return nil, notShared("pool", name, p.grant.NotShared, p.grant.Cut)
	}
	return p, nil
}

// paused denies a grant while the licence is not available. One that may wait waits until it is again.
func paused(kind, name, why string) *Denial {
	return &Denial{Code: NoSlots, Pool: name, Detail: fmt.Sprintf("%s %s: %s", kind, name, why),
		Hint: "try again later, or wait for it; `usher status` says more"}
}

func (v *Verdict) unknownPool(name string) *Denial {
	return &Denial{Code: PoolUnknown, Field: "pool", Pool: name, Hint: v.knownPools(),
		Detail: fmt.Sprintf("pool %q is not in the licence", name)}
}

func (v *Verdict) knownPools() string {
	names := slices.Sorted(maps.Keys(v.Pools))
	if len(names) == 0 {
		return "the licence in force grants no pools"
	}
	if len(names) > 10 {
		names = append(names[:10], "…")
	}
	return "the licence has: " + strings.Join(names, ", ")
}

// deny says why the licence permits no new lease (to the given version of the product); nil: it permits one.
func (v *Verdict) deny(version string) *Denial {
	if v == nil {
		return &Denial{Code: LicenseMissing, Detail: "no licence has been judged yet", Hint: "try again in a moment"}
	}
	if !v.Good() {
		code := LicenseInvalid
		switch v.State {
		case StateExpired:
			code = LicenseExpired
		case StateMissing:
			code = LicenseMissing
		}
		return &Denial{Code: code, Detail: v.Reason, Verdict: v, Hint: "`usher status` says more"}
	}
	if version == "" {
		return nil
	}
	for _, c := range v.Versions {
		covered, err := coversVersion(c.Versions, version)
		if err != nil {
			return bad("version", "version %q cannot be read: %v", version, err)
		}
		if !covered {
			return &Denial{Code: LicenseInvalid, Field: "version", Verdict: v,
				Detail: fmt.Sprintf("licence %s covers versions %s, and this is %s", c.LicenseID, c.Versions, version),
				Hint:   "have the licence extended to this version"}
		}
	}
	return nil
}
