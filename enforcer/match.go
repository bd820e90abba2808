package enforcer

import (
	"fmt"
	"maps"
	"slices"
)

// strictness orders the strategies, the loosest first.
var strictness = map[Strategy]int{MatchAny: 1, MatchTwo: 2, MatchMost: 3, MatchAll: 4}

// measured are the components that the agent measures on a host, whether or not a host has them; see
// docs/fingerprint.md.
var measured = []string{"machine-id", "product-uuid", "board-serial", "disk-serial", "mac", "cpu", "tpm-ek"}

// IsMeasured reports whether a component is a measured one, which no configuration can state. It leaves out the
// components by which single systems name a host: facts about a host have each of them in Components or in Absent,
// which serves as well.
func IsMeasured(name string) bool { return slices.Contains(measured, name) }

// isMeasured reports whether a component of a binding is compared with what was measured on a host.
func (h Host) isMeasured(name string) bool {
	_, here := h.Components[name]
	_, absent := h.Absent[name]
	return here || absent || IsMeasured(name)
}

// MatchHost says how well a host fits a binding. strategy holds where it is stricter than the binding's own. A
// component matches when one of its values is among the host's; a binding without components matches nothing.
// Components that the configuration states make no match alone, unless the binding says so or names no others: the
// strategy must hold for the measured ones too.
func MatchHost(b HostBinding, strategy Strategy, h Host) HostMatch {
	want := b.Strategy
	if strictness[want] == 0 {
		want = MatchMost
	}
	if strictness[strategy] > strictness[want] {
		want = strategy
	}
	m := HostMatch{Bound: true, Of: len(b.Components)}
	measured, matched := 0, 0
	var stated []string // those that match only by the configuration
	for _, name := range slices.Sorted(maps.Keys(b.Components)) {
		have, byConfig := h.Components[name], !h.isMeasured(name)
		if byConfig {
			have = h.Configured[name]
		} else {
			measured++
		}
		switch {
		case slices.ContainsFunc(b.Components[name], func(v string) bool {
			return v != "" && slices.Contains(have, v)
		}):
			if m.Matched++; byConfig {
				stated = append(stated, name+": only the configuration states it, which does not count")
			} else {
				matched++
			}
		case len(have) > 0:
			m.Misses = append(m.Misses, name+": differs from the licensed host's")
		case h.Absent[name] != "":
			m.Misses = append(m.Misses, fmt.Sprintf("%s: absent here: %s", name, h.Absent[name]))
		default:
			m.Misses = append(m.Misses, name+": absent here")
		}
	}
	m.OK = want.holds(m.Matched, m.Of)
	strict := !b.CountConfigured && measured > 0
	if m.OK && strict && !want.holds(matched, measured) {
		m.OK, m.Matched, m.Misses = false, matched, append(m.Misses, stated...)
	}
	for m.OK && want.holds(m.Matched-m.Spare-1, m.Of) && (!strict || want.holds(matched-m.Spare-1, measured)) {
		m.Spare++
	}
	return m
}

// holds reports whether enough of the components match.
func (s Strategy) holds(matched, of int) bool {
	switch s {
	case MatchAny:
		return matched >= 1
	case MatchTwo:
		return of > 0 && matched >= min(2, of)
	case MatchAll:
		return of > 0 && matched == of
	default:
		return matched*2 > of
	}
}

// matchHosts returns the best match among the hosts that a licence names.
func matchHosts(l *License, strategy Strategy, h Host) HostMatch {
	var best HostMatch
	for _, b := range l.Hosts {
		m := MatchHost(b, strategy, h)
		if !best.Bound || m.OK && !best.OK || m.OK == best.OK && m.Score() > best.Score() {
			best = m
		}
	}
	return best
}
