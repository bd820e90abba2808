package options

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/config"
)

// Settings say what an options file cannot.
type Settings struct {
	// Pools are the pools of features that have another name there. The key is a feature as the file names it:
	// "f1", or "f1:VERSION=2.0" for those licences of it. RLM's ids are "f1:id=7".
	Pools map[string]string
	// All are the names of all pools, so that "all but these" can be written. Nil: not known.
	All []string
}

// Degree says how much of a line was carried over.
type Degree string

// The degrees.
const (
	Partly Degree = "in part"
	Not    Degree = "not"
)

// Remark says what of a line was not carried over, why, and what to do.
type Remark struct {
	Line   int    `json:"line"`
	Option string `json:"option"` // the line
	Degree Degree `json:"carried_over"`
	Reason string `json:"reason"`
	Mend   string `json:"mend"`
}

// Import is an options file as policies.
type Import struct {
	File    *File
	Groups  []config.Group
	Rules   []config.Policy
	Remarks []Remark
	Options int // lines of the file that are options

	items []*item // in the order of the file
}

// Count returns how many options were carried over to that degree.
func (m *Import) Count(d Degree) (n int) {
	for _, it := range m.items {
		if it.degree() == d {
			n++
		}
	}
	return n
}

// Summary says in one line what was carried over.
func (m *Import) Summary() string {
	partly, not := m.Count(Partly), m.Count(Not)
	out := fmt.Sprintf("%s: %d carried over", counted(m.Options, "option"), m.Options-partly-not)
	if partly > 0 {
		out += fmt.Sprintf(", %d in part", partly)
	}
	if not > 0 {
		out += fmt.Sprintf(", %d not", not)
	}
	return fmt.Sprintf("%s; %s, %s", out, counted(len(m.Rules), "rule"), counted(len(m.Groups), "group"))
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// item is what became of an option.
type item struct {
	option  *option
	groups  []config.Group
	rules   []config.Policy
	remarks []Remark
	part    string // what the line is a part of
}

// settled reports whether something says what became of the option.
func (i *item) settled() bool { return len(i.groups)+len(i.rules)+len(i.remarks) > 0 || i.part != "" }

// degree returns how much of the option was carried over; empty: all of it.
func (i *item) degree() Degree {
	if len(i.remarks) == 0 {
		return ""
	}
	if len(i.rules) == 0 && len(i.groups) == 0 && i.part == "" &&
		slices.ContainsFunc(i.remarks, func(r Remark) bool { return r.Degree == Not }) {
		return Not
	}
	return Partly
}

// carrier turns the options of a file into policies.
type carrier struct {
	Settings
	file    *File
	items   []*item
	by      map[*line]*item
	refs    map[who][]string        // of each group of the file: its references, as @name
	taken   map[string]bool         // names of groups
	lost    map[who][]string        // members of host groups that are addresses
	members map[who]map[string]bool // of groups, in small letters
	plain   map[who]string          // RLM: the group of a single name, in any case
}

// Carry turns the options of a file into policies. Each option is settled: by a rule, as a part of one, or by a remark.
func Carry(f *File, s Settings) (*Import, error) {
	c := &carrier{Settings: s, file: f, by: map[*line]*item{}, refs: map[who][]string{}, taken: map[string]bool{},
		lost: map[who][]string{}, plain: map[who]string{}, members: map[who]map[string]bool{}}
	for i := range f.options {
		it := &item{option: &f.options[i]}
		c.items = append(c.items, it)
		c.by[it.option.line] = it
	}
	c.defineGroups()
	c.access("EXCLUDE", "EXCLUDEALL", "INCLUDE", "INCLUDEALL", func(p *config.Policy) { p.Deny = true })
	noBorrow := func(p *config.Policy) { p.NoBorrow = true }
	c.access("EXCLUDE_BORROW", "EXCLUDEALL_ROAM", "INCLUDE_BORROW", "INCLUDEALL_ROAM", noBorrow)
	c.reserves()
	c.maxima()
	c.timeouts()
	c.priorities()
	c.numbers()
	c.others()
	out := &Import{File: f, Options: len(f.options), items: c.items}
	for _, it := range c.items {
		if !it.settled() {
			c.no(it.option, "it has no counterpart here", "docs/policies.md has what there is")
		}
		c.hosts(it)
		if most := f.System.maxLine(); len(it.option.text()) > most {
			c.partly(it.option,
				fmt.Sprintf("%s reads %d bytes of a line, and all of it was read here", f.System.Title(), most),
				"see whether the end of the line is meant")
		}
		out.Groups = append(out.Groups, it.groups...)
		out.Rules = append(out.Rules, it.rules...)
		out.Remarks = append(out.Remarks, it.remarks...)
	}
	for _, list := range []struct {
		what string
		n    int
	}{{"groups", len(out.Groups)}, {"rules", len(out.Rules)}} {
		if list.n > maxItems {
			return nil, &Fault{File: f.Name, Cause: fmt.Sprintf("it becomes %d %s, and a configuration has %d at most",
				list.n, list.what, maxItems), Mend: "put names into groups, so that fewer lines do"}
		}
	}
	for _, p := range out.Rules {
		for _, names := range [][]string{p.Match.User, p.Match.Host, p.Not.User, p.Not.Host} {
			if len(names) > maxItems {
				return nil, &Fault{File: f.Name,
					Cause: fmt.Sprintf("the rule %s would name %d callers, and a list has %d "+
						"at most", p.Name, len(names), maxItems), Mend: "put them into a GROUP"}
			}
		}
	}
	return out, nil
}

// hosts says what a number for a host means here.
func (c *carrier) hosts(it *item) {
	o := it.option
	if len(it.rules) > 0 && (o.keyword == "RESERVE" || o.keyword == "MAX") &&
		(o.who.kind == host || o.who.kind == hostGroup) {
		c.partly(o,
			"a rule counts what the agent of its own host hands out: it keeps no slots of a shared pool for another "+
				"host", "give that host a pool, or a site server, of its own")
	}
}

// maxItems is the length of the longest list that a configuration may have.
const maxItems = 1000

// remark adds what is to be said of an option.
func (c *carrier) remark(o *option, d Degree, reason, mend string) {
	it := c.by[o.line]
	r := Remark{Line: o.first, Option: printable(strings.TrimSpace(o.text())), Degree: d, Reason: reason, Mend: mend}
	if !slices.Contains(it.remarks, r) { // the members of one list are looked at once for each feature
		it.remarks = append(it.remarks, r)
	}
}

func (c *carrier) no(o *option, reason, mend string)     { c.remark(o, Not, reason, mend) }
func (c *carrier) partly(o *option, reason, mend string) { c.remark(o, Partly, reason, mend) }

// each returns the options with one of the keywords, in the order of the file.
func (c *carrier) each(keywords ...string) (out []*option) {
	for _, it := range c.items {
		if slices.Contains(keywords, it.option.keyword) {
			out = append(out, it.option)
		}
	}
	return out
}

// add makes a rule for an option. Its name tells the file and the line.
func (c *carrier) add(o *option, p config.Policy) string {
	it := c.by[o.line]
	p.Name = fmt.Sprintf("%s-%d", name(c.file.Name, 40), o.first)
	if n := len(it.rules); n > 0 {
		p.Name = fmt.Sprintf("%s-%d", p.Name, n+1)
	}
	it.rules = append(it.rules, p)
	return p.Name
}

// pool returns the pools of an option's feature: its own, and those that parts of its licences have. Where an option is
// for a part of them, only a pool of its own will do; without one, ok is false and a remark says so.
func (c *carrier) pool(o *option) (pools []string, ok bool) {
	spec := o.feature.spec()
	if o.id != "" {
		spec += ":id=" + o.id
	}
	own, named := "", false
	for _, from := range slices.Sorted(maps.Keys(c.Pools)) {
		same, of := c.file.System.fold(from), c.file.System.fold(spec)
		switch rest, part := strings.CutPrefix(same, of+":"); {
		case same == of:
			own, named = c.Pools[from], true
		case part && strings.Contains(rest, "=") && !strings.Contains(of, "="):
			pools = append(pools, c.Pools[from])
		}
	}
	part := o.feature.qualifier
	if o.id != "" {
		part = "id=" + o.id
	}
	switch {
	case named:
		return append([]string{own}, pools...), true
	case part != "":
		c.no(o, fmt.Sprintf("it is for the licences of %s with %s alone, and a pool has no parts", o.feature.name,
			part),
			fmt.Sprintf("if these have a pool of their own, name it with --pool %q", spec+"=POOL"))
		return nil, false
	case o.feature.name == "" || o.feature.name == "*" && c.file.System == RLM:
		return nil, true
	case len(o.feature.name) > maxPool:
		c.no(o, fmt.Sprintf("a pool's name has %d bytes at most", maxPool),
			fmt.Sprintf("name the pool with --pool %q", "FEATURE=POOL"))
		return nil, false
	}
	return append([]string{o.feature.name}, pools...), true
}

// maxPool is the length of the longest name of a pool, in bytes.
const maxPool = 64

// key tells features apart as the system does.
func (c *carrier) key(o *option) string {
	spec := o.feature.spec() + "\x00" + o.id
	if c.file.System == RLM {
		return strings.ToLower(spec)
	}
	return spec
}

// rest returns the pools that are not among those, as the pools and the exceptions of a rule; some is false where there
// are none.
func (c *carrier) rest(but []string) (pools, except []string, some bool) {
	if len(but) == 0 {
		return nil, nil, true
	}
	if c.All == nil {
		slices.Sort(but)
		return nil, slices.Compact(but), true
	}
	for _, p := range c.All {
		if !slices.Contains(but, p) {
			pools = append(pools, p)
		}
	}
	return pools, nil, len(pools) > 0
}

// numbers carries the options that give a feature one number, of which the last line counts.
func (c *carrier) numbers() {
	kinds := []struct {
		keyword string
		set     func(o *option, p *config.Policy)
	}{
		{"LINGER", c.linger},
		{"MAX_OVERDRAFT", func(o *option, p *config.Policy) { p.OverageMax = &o.n }},
		{"BORROW_LOWWATER", func(o *option, p *config.Policy) { p.BorrowLowWater = o.n }},
		{"MAX_BORROW_HOURS", longest(time.Hour)},
		{"ROAM_MAX_DAYS", longest(24 * time.Hour)},
	}
	for _, k := range kinds {
		last := map[string]*option{}
		for _, o := range c.each(k.keyword) {
			if was := last[c.key(o)]; was != nil {
				c.no(was, fmt.Sprintf("line %d gives the number once more, and the last one counts", o.first),
					"take the line away")
			}
			last[c.key(o)] = o
		}
		for _, o := range c.each(k.keyword) {
			if last[c.key(o)] != o {
				continue
			}
			pools, ok := c.pool(o)
			if !ok {
				continue
			}
			if o.n == 0 && (k.keyword == "LINGER" || k.keyword == "BORROW_LOWWATER") {
				c.no(o, "0 changes nothing", "take the line away")
				continue
			}
			p := config.Policy{Pools: pools}
			k.set(o, &p)
			c.add(o, p)
		}
	}
}

// maxLinger is the longest time for which slots are kept after a release.
const maxLinger = 24 * time.Hour

func (c *carrier) linger(o *option, p *config.Policy) {
	span := time.Duration(o.n) * time.Second
	if span > maxLinger {
		c.partly(o, "slots linger for 24 hours at most", "nothing is to be done: 24h is written")
		span = maxLinger
	}
	p.Linger = config.Duration(span)
}

// longest bounds borrows to so many units.
func longest(unit time.Duration) func(o *option, p *config.Policy) {
	return func(o *option, p *config.Policy) {
		if o.n == 0 {
			p.NoBorrow = true
			return
		}
		p.MaxBorrow = new(config.Duration(time.Duration(min(o.n, maxSpan/int64(unit))) * unit))
	}
}

// maxSpan is the longest span that is written, in nanoseconds: a hundred years.
const maxSpan = int64(100 * 365 * 24 * time.Hour)
