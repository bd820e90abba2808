package enforcer

import (
	"fmt"
	"maps"
	"slices"
)

// strictness orders the strategies, the loosest first.
var strictness = map[Strategy]int{MatchAny: 1, MatchTwo: 2, MatchMost: 3, MatchAll: 4}

// MatchHost says how well a host fits a binding. Where strategy is stricter than the binding's own, it holds. A component
// matches when one of its values is among the host's; a binding without components matches nothing.
func MatchHost(b HostBinding, strategy Strategy, h Host) HostMatch {
	want := b.Strategy
	if strictness[want] == 0 {
		want = MatchMost
	}
	if strictness[strategy] > strictness[want] {
		want = strategy
	}
	m := HostMatch{Bound: true, Of: len(b.Components)}
	for _, name := range slices.Sorted(maps.Keys(b.Components)) {
		have, ok := h.Components[name]
		switch {
		case slices.ContainsFunc(b.Components[name], func(v string) bool { return v != "" && slices.Contains(have, v) }):
			m.Matched++
		case ok && len(have) > 0:
			m.Misses = append(m.Misses, name+": differs from the licensed host's")
		case h.Absent[name] != "":
			m.Misses = append(m.Misses, fmt.Sprintf("%s: absent here: %s", name, h.Absent[name]))
		default:
			m.Misses = append(m.Misses, name+": absent here")
		}
	}
	switch want {
	case MatchAny:
		m.OK = m.Matched >= 1
	case MatchTwo:
		m.OK = m.Of > 0 && m.Matched >= min(2, m.Of)
	case MatchAll:
		m.OK = m.Of > 0 && m.Matched == m.Of
	default:
		m.OK = m.Matched*2 > m.Of
	}
	return m
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
