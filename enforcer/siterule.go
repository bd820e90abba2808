package enforcer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// SiteRule is a rule about hosts, where a pool is shared out among them: how many slots the hosts that it concerns have
// together at most, and how many are kept for them. It is judged where the pool is shared out, by a site server or in a
// fleet, and never by a host alone. A [Policy] says who gets the slots that a host has.
//
// In its patterns * stands for any text and ? for one character.
type SiteRule struct {
	Name   string    `json:"name"`
	Match  SiteMatch `json:"match,omitzero"`   // all that it states must match
	Not    SiteMatch `json:"not,omitzero"`     // nothing that it states may match
	Pools  []string  `json:"pools,omitempty"`  // none: all pools
	Except []string  `json:"except,omitempty"` // and none of these
	// Max is how many slots the hosts have together at most; 0: no such limit. Reserve is how many of the pool's slots
	// no other host gets; 0: none. Of both, slots count that a host has, whether or not they are in use there.
	Max     int64 `json:"max,omitzero"`
	Reserve int64 `json:"reserve,omitzero"`
}

// SiteMatch says which hosts a rule concerns. One that states nothing is of all.
type SiteMatch struct {
	Host   []string          `json:"host,omitempty"`   // one must match the host's name
	Labels map[string]string `json:"labels,omitempty"` // all must match
}

// IsZero reports whether a match states nothing.
func (m SiteMatch) IsZero() bool { return len(m.Host)+len(m.Labels) == 0 }

// SiteHost is a host as rules see it. Whoever shares a pool out says how sure that is.
type SiteHost struct {
	Name   string
	Labels map[string]string
}

// Bounds of a host's labels, and of rules: they travel with each block.
const (
	MaxHostLabels = 8
	maxHostLabel  = 64 // bytes of a key, and of a value
	MaxSiteRules  = 200
	maxPatterns   = 100 // of one list
	maxPattern    = 256 // bytes
)

// CheckHostLabels says what is wrong with the labels of a host; nil: nothing.
func CheckHostLabels(labels map[string]string) error {
	if len(labels) > MaxHostLabels {
		return fmt.Errorf("a host has %d labels, and may have %d", len(labels), MaxHostLabels)
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		for _, s := range []string{key, labels[key]} {
			if s == "" || len(s) > maxHostLabel || strings.ContainsFunc(s, func(r rune) bool {
				return r <= ' ' || r == '='
			}) {
				return fmt.Errorf("label %q of a host is %q; a key and its value are 1 to %d bytes without spaces "+
					"and =", key, labels[key], maxHostLabel)
			}
		}
	}
	return nil
}

// Check says what is wrong with a rule beside its name; nil: nothing.
func (r *SiteRule) Check() error {
	switch {
	case r.Name == "" || len(r.Name) > 64:
		return fmt.Errorf("name is %q, and must be 1 to 64 bytes", r.Name)
	case r.Max == 0 && r.Reserve == 0:
		return errors.New("it does nothing; give max or reserve")
	case r.Max < 0 || r.Reserve < 0 || max(r.Max, r.Reserve) > MaxSlots:
		return fmt.Errorf("max and reserve are numbers of slots, from 1 to %d", int64(MaxSlots))
	case r.Max > 0 && r.Max < r.Reserve:
		return fmt.Errorf("reserve %d is more than max %d, so that some of it could never be used; mend one of them",
			r.Reserve, r.Max)
	case r.Reserve > 0 && r.Match.IsZero() && r.Not.IsZero():
		return errors.New("reserve keeps slots for the hosts that match, and without match and not all do; say for " +
			"which")
	}
	for _, list := range [][]string{r.Pools, r.Except, r.Match.Host, r.Not.Host} {
		for _, p := range list {
			if p == "" || len(p) > maxPattern || len(list) > maxPatterns {
				return fmt.Errorf("a list has the pattern %q; give up to %d of 1 to %d bytes", p, maxPatterns,
					maxPattern)
			}
		}
	}
	return errors.Join(checkPatterns(r.Match.Labels), checkPatterns(r.Not.Labels))
}

func checkPatterns(labels map[string]string) error {
	if err := CheckHostLabels(labels); err != nil {
		return fmt.Errorf("it can match no host: %w", err)
	}
	return nil
}

// Check says what is wrong with rules; nil: nothing.
func (rs SiteRules) Check() error {
	if len(rs) > MaxSiteRules {
		return fmt.Errorf("there are %d rules for hosts, and may be %d", len(rs), MaxSiteRules)
	}
	names := map[string]bool{}
	for i := range rs {
		if err := rs[i].Check(); err != nil {
			return fmt.Errorf("rules[%d] (%s): %w", i, rs[i].Name, err)
		}
		if names[rs[i].Name] {
			return fmt.Errorf("rules[%d] (%s): there is a rule of this name already; give each its own", i, rs[i].Name)
		}
		names[rs[i].Name] = true
	}
	return nil
}

// asserts yields each thing that a match states, and whether it is so of a host.
func (m *SiteMatch) asserts(h *SiteHost, yield func(bool) bool) bool {
	if len(m.Host) > 0 && !yield(h.Name != "" && anyIs(m.Host, h.Name)) {
		return false
	}
	if len(m.Labels) == 0 {
		return true
	}
	all := true
	for key, pattern := range m.Labels {
		v, has := h.Labels[key]
		all = all && has && Glob{Text: pattern}.Matches(v)
	}
	return yield(all)
}

func anyIs(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return Glob{Text: p}.Matches(s) })
}

// Concerns reports whether the rule is about a host.
func (r *SiteRule) Concerns(h *SiteHost) bool {
	return r.Match.asserts(h, func(so bool) bool { return so }) && r.Not.asserts(h, func(so bool) bool { return !so })
}

// Of reports whether the rule is about a pool.
func (r *SiteRule) Of(pool string) bool {
	return (len(r.Pools) == 0 || anyIs(r.Pools, pool)) && !anyIs(r.Except, pool)
}

// SiteRules are the rules of a pool that is shared out, in their order. Of limits all hold, and of reserves the first
// that concerns a host is its own. The nil value has no rules.
type SiteRules []SiteRule

// On returns the rules about a pool.
func (rs SiteRules) On(pool string) (out SiteRules) {
	for i := range rs {
		if rs[i].Of(pool) {
			out = append(out, rs[i])
		}
	}
	return out
}

// SiteClass is what the rules about a pool say of one host. Hosts of one class are alike to them.
type SiteClass struct {
	Max     []string // names of the rules whose limit the host's slots count in
	Reserve string   // name of the rule whose reserve they count in; empty: of none
}

// Class returns what the rules, which must be those about one pool, say of a host.
func (rs SiteRules) Class(h *SiteHost) (c SiteClass) {
	for i := range rs {
		r := &rs[i]
		if !r.Concerns(h) {
			continue
		}
		if r.Max > 0 {
			c.Max = append(c.Max, r.Name)
		}
		if r.Reserve > 0 && c.Reserve == "" {
			c.Reserve = r.Name
		}
	}
	return c
}

// SiteUse is what hosts have of a pool.
type SiteUse struct {
	Out  int64            `json:"out"`            // slots of all hosts
	Max  map[string]int64 `json:"max,omitempty"`  // of those whose slots count in a rule's limit, by its name
	Kept map[string]int64 `json:"kept,omitempty"` // of those whose slots count in its reserve
}

// Add counts n slots of a host in, or with a negative n out.
func (u *SiteUse) Add(c SiteClass, n int64) {
	u.Out += n
	for _, name := range c.Max {
		u.Max = added(u.Max, name, n)
	}
	if c.Reserve != "" {
		u.Kept = added(u.Kept, c.Reserve, n)
	}
}

func added(m map[string]int64, name string, n int64) map[string]int64 {
	if m == nil {
		m = map[string]int64{}
	}
	if m[name] += n; m[name] == 0 {
		delete(m, name)
	}
	return m
}

// Clone returns a copy.
func (u *SiteUse) Clone() SiteUse { return SiteUse{u.Out, maps.Clone(u.Max), maps.Clone(u.Kept)} }

// Room returns how many more slots a host of a class may get of a pool with total slots, of which hosts have what u
// says, and the name of the rule that leaves it the least; empty: no rule leaves it less than is free. Where none are
// free, a max that leaves it none is named all the same: slots that come free are not for it. Reserves never add up to
// more than the total: the first rule comes first.
func (rs SiteRules) Room(total Limit, u *SiteUse, c SiteClass) (room int64, rule string) {
	room = MaxN
	left := int64(MaxSlots)
	if total != Unlimited {
		left = int64(total)
		room = min(room, left-u.Out)
	}
	for i := range rs {
		r := &rs[i]
		if r.Reserve > 0 {
			kept := min(r.Reserve, left)
			left -= kept
			if unused := kept - u.Kept[r.Name]; total != Unlimited && r.Name != c.Reserve && unused > 0 {
				room, rule = room-unused, r.Name
			}
		}
	}
	for i := range rs {
		r := &rs[i]
		more := r.Max - u.Max[r.Name]
		less := more < room || more <= 0 && rule == "" || more == room && rule != ""
		if r.Max > 0 && less && slices.Contains(c.Max, r.Name) {
			room, rule = min(room, more), r.Name
		}
	}
	return max(0, room), rule
}

// Helps reports whether a host of class to may get more once one of class from gives a slot back.
func (rs SiteRules) Helps(total Limit, u *SiteUse, from, to SiteClass) bool {
	before, _ := rs.Room(total, u, to)
	after := u.Clone()
	after.Add(from, -1)
	then, _ := rs.Room(total, &after, to)
	return then > before
}

// SiteWant is a host that waits for slots.
type SiteWant struct {
	Class SiteClass
	Slots int64
}

// After returns what hosts have once those that wait have got what the rules let them have, one after the other.
func (rs SiteRules) After(total Limit, u *SiteUse, before []SiteWant) SiteUse {
	then := u.Clone()
	for _, w := range before {
		n, _ := rs.Room(total, &then, w.Class)
		then.Add(w.Class, min(n, max(0, w.Slots)))
	}
	return then
}
