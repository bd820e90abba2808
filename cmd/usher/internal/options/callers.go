package options

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/usher-agent/usher/agent/config"
)

// selection is whom an option is for, as a policy says it.
type selection struct {
	match config.PolicyMatch
	none  bool   // nobody that a policy could name
	why   string // then: the reason
	mend  string
	lost  []string // names that a policy cannot name
}

// defineGroups makes the groups of the configuration. Several lines of one name are one group, at the first of them.
func (c *carrier) defineGroups() {
	type definition struct {
		first   *option
		members []string
		seen    map[string]bool
	}
	var order []who
	found := map[who]*definition{}
	for _, o := range c.each("GROUP", "HOST_GROUP", "INTERNET_GROUP") {
		w := who{kind(o.keyword), c.file.System.fold(o.group)}
		if found[w] == nil {
			found[w] = &definition{first: o, seen: map[string]bool{}}
			order = append(order, w)
		}
		g := found[w]
		if c.members[w.folded()] == nil {
			c.members[w.folded()] = map[string]bool{}
		}
		for _, m := range o.members {
			c.members[w.folded()][strings.ToLower(m)] = true
			if !g.seen[m] {
				g.seen[m] = true
				g.members = append(g.members, m)
			}
		}
		if g.first != o {
			c.by[o.line].part = "part of the group " + printable(o.group)
		}
	}
	ignore := c.file.System == RLM
	for _, o := range c.each("GROUPCASEINSENSITIVE") {
		ignore = o.on
		c.by[o.line].part = "part of all groups (ignore_case)"
	}
	for _, w := range order {
		g := found[w]
		members := g.members
		if w.kind != group {
			members = nil
			for _, m := range g.members {
				if w.kind == internetGroup || isAddress(m) {
					c.lost[w] = append(c.lost[w], m)
				} else {
					members = append(members, m)
				}
			}
		}
		switch {
		case len(g.members) == 0:
			c.no(g.first, "the group has no members, so that its lines are for nobody", "add the members")
		case w.kind == internetGroup:
			c.no(g.first, noAddress, "name the hosts in a HOST_GROUP")
		case len(c.lost[w]) > 0:
			c.remark(g.first, degree(len(members)), noAddress, "name these hosts instead of "+names(c.lost[w]))
		}
		for n := 0; len(members) > 0; n++ {
			few := members[:min(len(members), maxItems)]
			members = members[len(few):]
			made := config.Group{Name: c.free(g.first.group), Members: c.texts(g.first, few), IgnoreCase: ignore}
			c.by[g.first.line].groups = append(c.by[g.first.line].groups, made)
			c.refs[w] = append(c.refs[w], "@"+made.Name)
		}
	}
	for _, o := range c.each("GROUPCASEINSENSITIVE") {
		if len(order) == 0 {
			c.by[o.line].part = ""
			c.no(o, "it is for groups, and the file has none", "take the line away")
		}
	}
}

// degree is that of an option of which n parts are left.
func degree(n int) Degree {
	if n == 0 {
		return Not
	}
	return Partly
}

// noAddress is why IP addresses name nobody.
const noAddress = "callers come over a Unix socket, on which they have no IP address"

// isAddress reports whether a host is named by its IP address, in which * may stand for a part.
func isAddress(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	parts := strings.Split(s, ".")
	if len(parts) != 4 {
		return false
	}
	for _, p := range parts {
		if p != "*" && !isNumber(p) {
			return false
		}
	}
	return true
}

// names writes some of many names.
func names(list []string) string {
	const most = 3
	if len(list) > most {
		return fmt.Sprintf("%s and %d more", printable(strings.Join(list[:most], ", ")), len(list)-most)
	}
	return printable(strings.Join(list, ", "))
}

var notInNames = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// name makes the name of a rule or group of a text.
func name(s string, most int) string {
	s = strings.Trim(notInNames.ReplaceAllString(s[strings.LastIndexAny(s, `/\`)+1:], "-"), ".-_")
	if s = s[:min(len(s), most)]; s == "" {
		return "options"
	}
	return s
}

// free returns a name for a group that none has yet.
func (c *carrier) free(of string) string {
	base := name(of, 50)
	out := base
	for n := 2; c.taken[out]; n++ {
		out = fmt.Sprintf("%s-%d", base, n)
	}
	c.taken[out] = true
	return out
}

// texts returns names as entries of a policy, where * and ? are wild and a leading @ names a group.
func (c *carrier) texts(o *option, list []string) []string {
	out := make([]string, len(list))
	var wild []string
	for i, n := range list {
		if strings.HasPrefix(n, "@") {
			n = "?" + n[1:]
		}
		if strings.ContainsAny(n, "*?") {
			wild = append(wild, list[i])
		}
		out[i] = n
	}
	if len(wild) > 0 {
		c.partly(o, fmt.Sprintf("in %s, * stands for any text and ? for one character here", names(wild)),
			"write the names out if that is not meant")
	}
	return out
}

// selected returns whom an option is for.
func (c *carrier) selected(o *option) selection { return c.selection(o, o.who) }

func (c *carrier) selection(o *option, w who) selection {
	nobody := func(why, mend string) selection { return selection{none: true, why: why, mend: mend} }
	switch w.kind {
	case user:
		return selection{match: config.PolicyMatch{User: c.single(o, w)}}
	case host:
		if isAddress(w.name) {
			return nobody(noAddress, "name the host")
		}
		return selection{match: config.PolicyMatch{Host: c.single(o, w)}}
	case internet, internetGroup:
		return nobody(noAddress, "name the host, or a HOST_GROUP")
	case display, project, noProject:
		return c.label(o, w)
	}
	w.name = c.file.System.fold(w.name)
	refs := c.refs[w]
	if len(refs) == 0 {
		if len(c.lost[w]) > 0 {
			return nobody(noAddress, "name the hosts of the group")
		}
		return nobody("its group has no members", "add them")
	}
	if w.kind == group {
		return selection{match: config.PolicyMatch{User: refs}}
	}
	return selection{match: config.PolicyMatch{Host: refs}, lost: c.lost[w]}
}

// single is one name. RLM compares names in any case, for which only groups have a switch.
func (c *carrier) single(o *option, w who) []string {
	if c.file.System != RLM || strings.ToLower(w.name) == strings.ToUpper(w.name) {
		return c.texts(o, []string{w.name})
	}
	w.name = strings.ToLower(w.name)
	if c.plain[w] == "" {
		g := config.Group{Name: c.free(w.name), Members: c.texts(o, []string{w.name}), IgnoreCase: true}
		c.by[o.line].groups = append(c.by[o.line].groups, g)
		c.plain[w] = "@" + g.Name
	}
	return []string{c.plain[w]}
}

// label says by a label of the acquire what the kernel does not vouch for. In the other systems, too, it is the client
// that states it.
func (c *carrier) label(o *option, w who) selection {
	key := "project"
	if w.kind == display {
		key = "display"
	}
	if w.kind == noProject {
		c.partly(o, "a project is a label of the acquire here", projectMend)
		return selection{match: config.PolicyMatch{Label: map[string]string{key: "*"}}}
	}
	c.partly(o, fmt.Sprintf("a %s is a label of the acquire here, which the caller states", key),
		strings.ReplaceAll(projectMend, "project", key))
	return selection{match: config.PolicyMatch{Label: map[string]string{key: c.texts(o, []string{w.name})[0]}}}
}

const projectMend = "have the product set the label project, or start it with usher run --label project=NAME"

// few names are looked up one by one.
const few = 8

// copied returns a match that may be changed without the other.
func copied(m config.PolicyMatch) config.PolicyMatch {
	m.User, m.Host = slices.Clone(m.User), slices.Clone(m.Host)
	return m
}

// union adds those of another match, in which no name is there twice; false: a policy cannot say both at once.
func union(to *config.PolicyMatch, from config.PolicyMatch) bool {
	for key, value := range from.Label {
		if len(to.Label) > 0 && to.Label[key] != value {
			return false
		}
		to.Label = map[string]string{key: value}
	}
	for _, l := range []struct {
		to   *[]string
		from []string
	}{{&to.User, from.User}, {&to.Host, from.Host}} {
		has := func(name string) bool { return slices.Contains(*l.to, name) }
		if len(l.from) > few {
			there := map[string]bool{}
			for _, name := range *l.to {
				there[name] = true
			}
			has = func(name string) bool { return there[name] }
		}
		for _, name := range l.from {
			if !has(name) {
				*l.to = append(*l.to, name)
			}
		}
	}
	return true
}
