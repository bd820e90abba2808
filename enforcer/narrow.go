package enforcer

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// expiryStrictness ranks the values of on_expiry; the greater, the stricter.
var expiryStrictness = map[OnExpiry]int{Keep: 1, Drain: 2, Revoke: 3}

// Narrow returns the licence with what the configuration makes stricter. For each configured value that would widen a
// signed term it returns a sentence, and there the licence holds. It does not change the licence given.
func Narrow(l *License, n Narrowing) (*License, []string) {
	out := *l
	var ignored []string
	widens := func(key string, config, signed any) {
		ignored = append(ignored, fmt.Sprintf("license.%s: %v would widen licence %s, which says %v; the licence holds",
			key, config, l.ID, signed))
	}
	shorter := func(key string, config *time.Duration, signed *time.Duration) {
		if config == nil {
			return
		}
		if *config > *signed {
			widens(key, Span(*config), Span(*signed))
			return
		}
		*signed = *config
	}
	shorter("grace", n.Grace, &out.Grace)
	shorter("max_borrow", n.MaxBorrow, &out.MaxBorrow)
	if n.OnExpiry != "" {
		if signed := orDefault(l.OnExpiry, Drain); expiryStrictness[n.OnExpiry] < expiryStrictness[signed] {
			widens("on_expiry", n.OnExpiry, signed)
		} else {
			out.OnExpiry = n.OnExpiry
		}
	}
	if n.Clock != "" {
		if n.Clock == ClockLenient && l.Clock == ClockStrict {
			widens("clock", n.Clock, l.Clock)
		} else {
			out.Clock = n.Clock
		}
	}
	if n.Strategy != "" && len(l.Hosts) > 0 {
		// The stricter one holds for each host: see MatchHost.
		for _, b := range l.Hosts {
			if signed := orDefault(b.Strategy, MatchMost); strictness[n.Strategy] < strictness[signed] {
				widens("strategy", n.Strategy, signed)
				break
			}
		}
	}
	if n.NoOverage || n.CountBy != "" {
		out.Pools, out.Meters = maps.Clone(l.Pools), maps.Clone(l.Meters)
	}
	for _, name := range slices.Sorted(maps.Keys(out.Pools)) {
		p := out.Pools[name]
		if n.NoOverage {
			p.Overage = 0
		}
		if n.CountBy != "" {
			if signed := orDefault(p.CountBy, CountLease); !n.CountBy.Narrows(signed) {
				widens("count_by", n.CountBy, fmt.Sprintf("%s for %s", signed, name))
			} else {
				p.CountBy = n.CountBy
			}
		}
		if n.NoOverage || n.CountBy != "" {
			out.Pools[name] = p
		}
	}
	if n.NoOverage {
		for name, m := range out.Meters {
			m.Overage = 0
			out.Meters[name] = m
		}
	}
	return &out, ignored
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
