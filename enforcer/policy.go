package enforcer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unique"
)

// Policy is one rule of the site about who gets slots. It narrows what the licence grants, and never widens it. It
// concerns the holders that Match and that do not match Not, in the pools that it names. Of several rules that concern
// a holder all hold: of limits the strictest, of Reserve, Linger and Priority the first.
type Policy struct {
	Name  string
	Text  string // told to people whom the rule denies something; may be empty
	Match Match  // all that it states must match
	Not   Match  // nothing that it states may match
	Pools []Glob // none: all pools, and of Deny and Priority all meters, too
	// Except are pools that the rule is not about, though Pools names them.
	Except []Glob
	// Elsewhere says that the rule is of other hosts, and concerns nobody here. See On.
	Elsewhere bool

	Deny    bool
	Reserve int64   // slots that nobody else gets; 0: none
	Max     int64   // slots in use at most; 0: no such limit
	Per     CountBy // of whom Max is the limit: CountUser, CountHost or CountPod; empty: of all that match together
	// Priority puts an acquire that waits before others, as though it had waited a PriorityStep longer for each.
	Priority    int
	Linger      time.Duration // how long slots are kept for their user after a release; 0: not at all
	MaxHold     time.Duration // after which a lease ends; 0: never
	IdleTimeout time.Duration // after which a lease ends that its holder has not renewed; 0: never
	OverageMax  *int64        // slots in use above the budget at most; nil: as the licence has it
	MaxBorrow   *time.Duration
	LowWater    int64 // slots of a pool that are never borrowed
}

// Match says whom a rule concerns. Of a list one entry must match; an empty one is not stated.
type Match struct {
	User   []Glob // the login, or the name of a credential
	UID    []UIDs
	Group  []Glob // of the caller's groups, by name or number
	Exe    []Glob
	Cgroup []Glob
	Pod    []Glob
	Host   []Glob
	Labels map[string]Glob // all of these labels must match
}

// UIDs is a range of uids, both ends included.
type UIDs struct{ First, Last uint32 }

// Glob is a pattern: * stands for any text, ? for one character (or, in a text that is not UTF-8, one byte).
type Glob struct {
	Text string
	Fold bool // capital and small letters are the same
}

// Matches reports whether a text is as the pattern says. It takes time linear in the pattern for each byte of the text.
func (g Glob) Matches(s string) bool {
	if g.Fold {
		return globbed([]rune(strings.ToLower(g.Text)), []rune(strings.ToLower(s)))
	}
	plain := 0
	for plain < len(g.Text) && g.Text[plain] != '*' && g.Text[plain] != '?' {
		plain++
	}
	switch {
	case plain == len(g.Text):
		return g.Text == s
	case !strings.HasPrefix(s, g.Text[:plain]): // most texts
		return false
	}
	return globbed([]rune(g.Text[plain:]), []rune(s[plain:]))
}

func globbed(pattern, text []rune) bool {
	star, mark := -1, 0
	p := 0
	for t := 0; t < len(text); {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// PriorityStep is what one step of priority is worth: an acquire goes before those that have waited less than that much
// longer. So no acquire goes before one that has waited for MaxPriority steps, and nobody starves.
const PriorityStep = time.Minute

// MaxPriority is the highest priority.
const MaxPriority = 100

// Profile is what the host knows of a caller besides its uid and executable.
type Profile struct {
	Login  string // the name of the uid, as the host's own files have it; empty: it has none
	Groups string // every group that the process is in, by number and by name, one a line
	Cgroup string // path of the control group; empty: not known
}

// ProfileRef refers to a Profile. Two are the same if and only if what they refer to is. The zero value knows nothing.
type ProfileRef struct{ handle unique.Handle[Profile] }

// ProfileOf returns a reference to a Profile.
func ProfileOf(k Profile) ProfileRef {
	if k == (Profile{}) {
		return ProfileRef{}
	}
	return ProfileRef{unique.Make(k)}
}

// Profile returns what is referred to.
func (f ProfileRef) Profile() Profile {
	if f == (ProfileRef{}) {
		return Profile{}
	}
	return f.handle.Value()
}

// String writes the profile for people.
func (f ProfileRef) String() string { return fmt.Sprintf("%q", f.Profile()) }

func anyMatches(list []Glob, s string) bool {
	return s != "" && slices.ContainsFunc(list, func(g Glob) bool { return g.Matches(s) })
}

// asserts yields each thing that a match states, and whether it is so of a holder.
func (m *Match) asserts(h *Holder, k Profile, yield func(bool) bool) bool {
	name := k.Login
	if h.Credential != "" {
		name = h.Credential
	}
	if len(m.UID) > 0 && !yield(h.Credential == "" && h.UID != Nobody &&
		slices.ContainsFunc(m.UID, func(u UIDs) bool { return u.First <= h.UID && h.UID <= u.Last })) {
		return false
	}
	if len(m.Group) > 0 {
		in := false
		for g := range strings.SplitSeq(k.Groups, "\n") {
			in = in || anyMatches(m.Group, g)
		}
		if !yield(in) {
			return false
		}
	}
	for _, x := range []struct {
		list []Glob
		of   string
	}{{m.User, name}, {m.Exe, h.Exe}, {m.Cgroup, k.Cgroup}, {m.Pod, h.Pod}, {m.Host, h.Host}} {
		if len(x.list) > 0 && !yield(anyMatches(x.list, x.of)) {
			return false
		}
	}
	if len(m.Labels) > 0 {
		all := true
		for key, g := range m.Labels {
			v, has := h.Labels[key]
			all = all && has && g.Matches(v)
		}
		return yield(all)
	}
	return true
}

// Concerns reports whether the rule is about a holder.
func (p *Policy) Concerns(h *Holder) bool {
	if p.Elsewhere {
		return false
	}
	k := h.Profile.Profile()
	return p.Match.asserts(h, k, func(so bool) bool {
		return so
	}) && p.Not.asserts(h, k, func(so bool) bool { return !so })
}

// Of reports whether the rule is about a pool.
func (p *Policy) Of(pool string) bool {
	return (len(p.Pools) == 0 || anyMatches(p.Pools, pool)) && !anyMatches(p.Except, pool)
}

// On returns the rule as it is on the host of a name, where it looks at no host any more.
func (p Policy) On(host string) Policy {
	if len(p.Match.Host) > 0 && !anyMatches(p.Match.Host, host) || anyMatches(p.Not.Host, host) {
		p.Elsewhere = true
	}
	p.Match.Host, p.Not.Host = nil, nil
	return p
}

// Policies are the rules in force, in their order. They never change once made.
type Policies struct {
	Rules  []Policy
	labels []string // that rules look at, sorted
	keys   []string // of each rule: whom it concerns, written out
}

// NewPolicies prepares rules. Rules of no effect, such as a negative number, are as though they did not state it.
func NewPolicies(rules []Policy) *Policies {
	ps := &Policies{Rules: slices.Clone(rules)}
	for i := range ps.Rules {
		p := &ps.Rules[i]
		for _, n := range []*int64{&p.Reserve, &p.Max, &p.LowWater} {
			*n = min(max(0, *n), MaxSlots)
		}
		if p.OverageMax != nil {
			p.OverageMax = new(min(max(0, *p.OverageMax), MaxSlots))
		}
		if p.MaxBorrow != nil {
			p.MaxBorrow = new(max(0, *p.MaxBorrow))
		}
		p.Priority = min(max(0, p.Priority), MaxPriority)
		p.Linger, p.MaxHold, p.IdleTimeout = max(0, p.Linger), max(0, p.MaxHold), max(0, p.IdleTimeout)
		for _, m := range []Match{p.Match, p.Not} {
			for key := range m.Labels {
				ps.labels = append(ps.labels, key)
			}
		}
		ps.keys = append(ps.keys, fmt.Sprintf("%q %q %q", p.Match.sorted(), p.Not.sorted(), p.Per))
	}
	slices.Sort(ps.labels)
	ps.labels = slices.Compact(ps.labels)
	return ps
}

// sorted writes a match out in one form.
func (m *Match) sorted() (out []string) {
	for i, list := range [][]Glob{m.User, m.Group, m.Exe, m.Cgroup, m.Pod, m.Host} {
		for _, g := range list {
			out = append(out, fmt.Sprint(i, " ", g.Fold, " ", g.Text))
		}
	}
	for _, u := range m.UID {
		out = append(out, "uid "+strconv.FormatUint(uint64(u.First), 10)+"-"+strconv.FormatUint(uint64(u.Last), 10))
	}
	for key, g := range m.Labels {
		out = append(out, fmt.Sprintf("label %q %v %q", key, g.Fold, g.Text))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// LooksAt reports whether a rule looks at a caller's control group, or its pod.
func (ps *Policies) LooksAt() (cgroup, pod bool) {
	if ps == nil {
		return false, false
	}
	for _, p := range ps.Rules {
		for _, m := range []Match{p.Match, p.Not} {
			cgroup = cgroup || len(m.Cgroup) > 0
			pod = pod || len(m.Pod) > 0 || p.Per == CountPod
		}
	}
	return cgroup, pod
}

// SetPolicies puts rules in force in the place of the former ones; nil: there are none. What is held stays held, and
// counts by the new rules.
type SetPolicies struct{ Policies *Policies }

func (r *SetPolicies) decide(e *Enforcer, now time.Time) Decision {
	return Decision{Events: append(e.reviewLingers(r.Policies, now),
		Event{Kind: EventPolicies, At: now, Policies: r.Policies})}
}
