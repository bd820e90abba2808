package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// Policy is one rule of the site about who gets slots. It narrows what the licence grants, and never widens it. It
// concerns the holders that match, in the pools that it names. At least one of the keys below Pools is set.
type Policy struct {
	Name  string      `yaml:"name"`
	Match PolicyMatch `yaml:"match"` // all fields that are given must match; none: everybody matches
	Not   PolicyMatch `yaml:"not"`   // no field that is given may match
	Pools []string    `yaml:"pools"` // globs; none: all pools
	// Except are globs of pools that the rule is not of, though pools names them, or all.
	Except []string `yaml:"except"`

	Deny    bool   `yaml:"deny"`
	Text    string `yaml:"text"` // told to people whom the rule denies something
	Reserve int64  `yaml:"reserve"`
	Max     int64  `yaml:"max"`
	// Per makes Max the limit of each user, host or pod that matches; empty: of all that match together.
	Per            string    `yaml:"per"`
	Priority       int       `yaml:"priority"`
	Linger         Duration  `yaml:"linger"`
	MaxHold        Duration  `yaml:"max_hold"`
	IdleTimeout    Duration  `yaml:"idle_timeout"`
	OverageMax     *int64    `yaml:"overage_max"` // nil: as the licence has it
	NoBorrow       bool      `yaml:"no_borrow"`
	MaxBorrow      *Duration `yaml:"max_borrow"`
	BorrowLowWater int64     `yaml:"borrow_low_water"`
}

// PolicyMatch says whom a rule concerns. Each list holds globs, in which * stands for any text and ? for one character;
// an entry @NAME stands for the members of a group of the configuration. One entry of a list must match.
type PolicyMatch struct {
	User   []string          `yaml:"user"`   // names, as the host knows the caller's uid
	UID    []string          `yaml:"uid"`    // numbers, and ranges such as 1000-1999
	Group  []string          `yaml:"group"`  // names or numbers of any group that the caller is in
	Exe    []string          `yaml:"exe"`    // paths of executables
	Cgroup []string          `yaml:"cgroup"` // paths of control groups
	Pod    []string          `yaml:"pod"`
	Host   []string          `yaml:"host"`
	Label  map[string]string `yaml:"label"` // a claim of the caller; all that are given must match
}

// Group is a list of names that policies state as @NAME.
type Group struct {
	Name       string   `yaml:"name"`
	Members    []string `yaml:"members"` // globs
	IgnoreCase bool     `yaml:"ignore_case"`
}

// Bounds of policies.
const (
	maxPriority = 100
	maxLinger   = 24 * time.Hour
	minHold     = time.Second
	maxSlots    = 1 << 48
)

// lists returns the lists of a match by their keys.
func (m PolicyMatch) lists() []struct {
	Key  string
	List []string
} {
	return []struct {
		Key  string
		List []string
	}{{"user", m.User}, {"uid", m.UID}, {"group", m.Group}, {"exe", m.Exe}, {"cgroup", m.Cgroup}, {"pod", m.Pod},
		{"host", m.Host}}
}

// Empty reports whether a match states nothing.
func (m PolicyMatch) Empty() bool {
	for _, l := range m.lists() {
		if len(l.List) > 0 {
			return false
		}
	}
	return len(m.Label) == 0
}

// policyName is what groups and rules may be called: their names stand in errors, logs and lists.
var policyName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func (k *checker) groups() {
	seen := map[string]bool{}
	for i, g := range k.config.Groups {
		key := fmt.Sprintf("groups[%d]", i)
		switch {
		case !policyName.MatchString(g.Name):
			k.bad(key, "%s: name is %q, and must be 1 to 64 letters, digits, dots, dashes and underscores", key,
				clip(g.Name))
		case seen[g.Name]:
			k.bad(key, "%s: there is a group %s already; put the members into one", key, g.Name)
		case len(g.Members) == 0:
			k.bad(key, "%s (%s): members is missing; name those who are in the group", key, g.Name)
		case slices.Contains(g.Members, ""):
			k.bad(key+".members", "%s (%s): members has an empty name; leave it out", key, g.Name)
		}
		for _, m := range g.Members {
			if strings.HasPrefix(m, "@") {
				k.bad(key+".members", "%s (%s): members has %q; a group names its members, and no other group", key,
					g.Name, clip(m))
			}
		}
		seen[g.Name] = true
	}
}

func (k *checker) policies() {
	seen := map[string]bool{}
	for i, p := range k.config.Policies {
		key := fmt.Sprintf("policies[%d]", i)
		if !policyName.MatchString(p.Name) {
			k.bad(key, "%s: name is %q, and must be 1 to 64 letters, digits, dots, dashes and underscores; denials "+
				"name the rule by it", key, clip(p.Name))
			continue
		}
		key += " (" + p.Name + ")"
		if seen[p.Name] {
			k.policyBad(i, "", "%s: there is a rule %s already; give each a name of its own", key, p.Name)
		}
		seen[p.Name] = true
		k.match(i, "match", p.Match)
		k.match(i, "not", p.Not)
		for field, list := range map[string][]string{"pools": p.Pools, "except": p.Except} {
			if list != nil && len(list) == 0 {
				k.policyBad(i, field, "%s: %s is an empty list, and would be as none: name pools, or leave it out", key,
					field)
			}
			for _, pool := range list {
				if pool == "" || len(pool) > 64 {
					k.policyBad(i, field, "%s: %s has %q, and needs names of pools, of at most 64 bytes", key, field,
						clip(pool))
				}
			}
		}
		k.verbs(i, key, p)
	}
}

// policyBad adds a fault of one rule, at one of its keys.
func (k *checker) policyBad(i int, field, format string, args ...any) {
	at := fmt.Sprintf("policies[%d]", i)
	if field != "" {
		at += "." + field
	}
	k.bad(at, format, args...)
}

func (k *checker) match(i int, field string, m PolicyMatch) {
	where := fmt.Sprintf("policies[%d] (%s): %s", i, k.config.Policies[i].Name, field)
	for _, l := range m.lists() {
		at := field + "." + l.Key
		if l.List != nil && len(l.List) == 0 {
			k.policyBad(i, at, "%s.%s is an empty list, and would be as none: name those it means, or leave it out",
				where, l.Key)
		}
		for _, entry := range l.List {
			name, isGroup := strings.CutPrefix(entry, "@")
			switch {
			case entry == "":
				k.policyBad(i, at, "%s.%s has an empty text; leave it out", where, l.Key)
			case isGroup && !slices.ContainsFunc(k.config.Groups, func(g Group) bool { return g.Name == name }):
				var names []string
				for _, g := range k.config.Groups {
					names = append(names, g.Name)
				}
				hint := "; state it under groups"
				if near := Nearest(name, names); near != "" {
					hint = fmt.Sprintf("; did you mean %q?", "@"+near)
				}
				k.policyBad(i, at, "%s.%s names the group %q, which there is not%s", where, l.Key, clip(entry), hint)
			case l.Key == "uid" && isGroup:
				k.policyBad(i, at, "%s.uid has %q; groups hold names, so use user", where, clip(entry))
			case l.Key == "uid":
				if _, _, err := ParseUIDs(entry); err != nil {
					k.policyBad(i, at, "%s.uid: %v", where, err)
				}
			}
		}
	}
	if m.Label != nil && len(m.Label) == 0 {
		k.policyBad(i, field+".label", "%s.label is empty, and would be as none: name labels, or leave it out", where)
	}
	for name := range m.Label {
		if name == "" {
			k.policyBad(i, field+".label", "%s.label has an empty name; leave it out", where)
		}
	}
}

// ParseUIDs reads a uid, or a range of them such as 1000-1999.
func ParseUIDs(s string) (first, last uint32, err error) {
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	a, errA := strconv.ParseUint(from, 10, 32)
	b, errB := strconv.ParseUint(to, 10, 32)
	if errA != nil || errB != nil || a > b {
		return 0, 0, fmt.Errorf("%q is no uid and no range of them, such as 1000-1999", clip(s))
	}
	return uint32(a), uint32(b), nil
}

// Verbs returns the keys of what the rule does, in their order.
func (p Policy) Verbs() (out []string) {
	for _, v := range []struct {
		key string
		set bool
	}{{"deny", p.Deny}, {"reserve", p.Reserve != 0}, {"max", p.Max != 0}, {"priority", p.Priority != 0},
		{"linger", p.Linger != 0}, {"max_hold", p.MaxHold != 0}, {"idle_timeout", p.IdleTimeout != 0},
		{"overage_max", p.OverageMax != nil}, {"no_borrow", p.NoBorrow}, {"max_borrow", p.MaxBorrow != nil},
		{"borrow_low_water", p.BorrowLowWater != 0}} {
		if v.set {
			out = append(out, v.key)
		}
	}
	return out
}

// zero tells of a number that is stated as 0, and reports whether there is one.
func (k *checker) zero(i int, key string) bool {
	p := k.config.Policies[i]
	for _, v := range []struct {
		field string
		n     int64
		hint  string
	}{{"max", p.Max, "to give nothing, use deny: true"}, {"reserve", p.Reserve, ""},
		{"priority", int64(p.Priority), ""}, {"linger", int64(p.Linger), ""}, {"max_hold", int64(p.MaxHold), ""},
		{"idle_timeout", int64(p.IdleTimeout), ""}, {"borrow_low_water", p.BorrowLowWater, ""}} {
		if v.n == 0 && k.config.origins[fmt.Sprintf("policies[%d].%s", i, v.field)] != "" {
			k.policyBad(i, v.field, "%s: %s is 0; %s", key, v.field, cmp.Or(v.hint, "leave it out, or give more"))
			return true
		}
	}
	return false
}

func (k *checker) verbs(i int, key string, p Policy) {
	verbs := p.Verbs()
	other := slices.DeleteFunc(slices.Clone(verbs), func(v string) bool { return v == "deny" })
	silent := func(v string) bool {
		return v == "priority" || v == "linger" || v == "max_hold" || v == "idle_timeout"
	}
	span := func(field string, d Duration, least, most time.Duration) {
		if d != 0 && (d.Duration() < least || d.Duration() > most) {
			k.policyBad(i, field, "%s: %s is %s, and must be from %s to %s", key, field,
				enforcer.Span(d.Duration()), enforcer.Span(least), enforcer.Span(most))
		}
	}
	switch {
	case k.zero(i, key):
	case len(verbs) == 0:
		k.policyBad(i, "", "%s: it does nothing; give deny, reserve, max, priority, linger, max_hold, idle_timeout, "+
			"overage_max, no_borrow, max_borrow or borrow_low_water", key)
	case p.Deny && len(other) > 0:
		k.policyBad(i, other[0], "%s: deny gives nothing, so that %s has no effect; make two rules of it", key,
			other[0])
	case p.Text != "" && !slices.ContainsFunc(verbs, func(v string) bool { return !silent(v) }):
		k.policyBad(i, "text", "%s: text is told where the rule denies something, and %s denies nothing; leave it out",
			key, verbs[0])
	}
	switch {
	case p.Reserve != 0 && p.Match.Empty() && p.Not.Empty():
		k.policyBad(i, "reserve", "%s: reserve keeps slots for those who match, and without match and not everybody "+
			"does; say for whom", key)
	case p.Per != "" && p.Max == 0:
		k.policyBad(i, "per", "%s: per goes with max; set that, or leave per out", key)
	case p.Reserve != 0 && p.Max != 0 && p.Per == "" && p.Max < p.Reserve:
		k.policyBad(i, "reserve", "%s: reserve %d is more than max %d, so that some of it could never be used; mend "+
			"one of them", key, p.Reserve, p.Max)
	}
	switch {
	case p.NoBorrow && p.MaxBorrow != nil:
		k.policyBad(i, "no_borrow", "%s: no_borrow and max_borrow are both given; keep one", key)
	case p.NoBorrow && p.BorrowLowWater != 0:
		k.policyBad(i, "no_borrow", "%s: no_borrow and borrow_low_water are both given; keep one", key)
	case p.MaxBorrow != nil && *p.MaxBorrow <= 0:
		k.policyBad(i, "max_borrow", "%s: max_borrow is 0; to let nobody borrow, use no_borrow: true", key)
	}
	if len(p.Text) > 256 || strings.ContainsFunc(p.Text, func(r rune) bool { return r < ' ' }) {
		k.policyBad(i, "text", "%s: text must be one line of at most 256 bytes", key)
	}
	if p.Priority > maxPriority {
		k.policyBad(i, "priority", "%s: priority is %d, and must be from 1 to %d", key, p.Priority, maxPriority)
	}
	overage := int64(0)
	if p.OverageMax != nil {
		overage = *p.OverageMax
	}
	if max(p.Reserve, p.Max, p.BorrowLowWater, overage) > maxSlots {
		k.policyBad(i, "", "%s: a number of slots is more than %d, the most that there can be", key, int64(maxSlots))
	}
	k.oneOf(fmt.Sprintf("policies[%d].per", i), p.Per, "user", "host", "pod")
	span("linger", p.Linger, time.Second, maxLinger)
	span("max_hold", p.MaxHold, minHold, 10*365*24*time.Hour)
	span("idle_timeout", p.IdleTimeout, minHold, 10*365*24*time.Hour)
}
