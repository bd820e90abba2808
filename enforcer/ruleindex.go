package enforcer

import (
	"slices"
	"strings"
)

// ruleIndex finds the rules that may concern a holder by the names that they state, so that a caller that comes first
// is not compared with every rule. A rule that states names with patterns, or none, is compared with all.
type ruleIndex struct {
	user, group, exe map[string][]int
	rest             []int
}

// literal returns the texts of patterns that match themselves alone; ok is false where one is another.
func literal(list []Glob) (texts []string, ok bool) {
	for _, g := range list {
		if g.Fold || strings.ContainsAny(g.Text, "*?") {
			return nil, false
		}
		texts = append(texts, g.Text)
	}
	return texts, len(list) > 0
}

// add puts a rule in by the first of these that it states literally.
func (x *ruleIndex) add(at int, p *Policy) {
	for _, by := range []struct {
		list []Glob
		in   *map[string][]int
	}{{p.Match.User, &x.user}, {p.Match.Group, &x.group}, {p.Match.Exe, &x.exe}} {
		texts, ok := literal(by.list)
		if !ok {
			continue
		}
		if *by.in == nil {
			*by.in = map[string][]int{}
		}
		for _, s := range texts {
			(*by.in)[s] = append((*by.in)[s], at)
		}
		return
	}
	x.rest = append(x.rest, at)
}

// about returns the places of the rules that may concern a holder, in order.
func (x *ruleIndex) about(h *Holder) []int {
	k := h.Profile.Profile()
	name := k.Login
	if h.Credential != "" {
		name = h.Credential
	}
	out := append(slices.Clone(x.rest), x.user[name]...)
	out = append(out, x.exe[h.Exe]...)
	if len(x.group) > 0 {
		for g := range strings.SplitSeq(k.Groups, "\n") {
			out = append(out, x.group[g]...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
