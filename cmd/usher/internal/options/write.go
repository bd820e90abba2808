package options

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/plugin/textual"
)

// printable returns a text of the file fit for a comment and for a message.
func printable(s string) string { return textual.Printable(strings.ReplaceAll(s, "\t", " ")) }

// Write returns the policies as a part of the configuration of a program. Each line of the options file stands there
// once, as a comment above what became of it.
func (m *Import) Write(program string) string {
	w := &writer{file: printable(filepath.Base(m.File.Name))}
	w.line("# Groups and policies of the %s options file %s, by %s import-options.", m.File.System.Title(), w.file,
		program)
	w.line("# Each line of the file stands here above what became of it; => says what was not carried over.")
	w.line("# A rule counts what the agent of its own host hands out. It knows users by /etc/passwd, and not by a")
	w.line("# directory service: name uid or group in the place of such users.")
	w.line("# Put this into %s.yaml, and look at it with: %[1]s agent --check", program)
	var groups, rules []func()
	var before []*line // comments and blank lines, which belong to what follows
	i := 0
	for n := range m.File.lines {
		l := &m.File.lines[n]
		if len(l.words) == 0 {
			before = append(before, l)
			continue
		}
		it, above := m.items[i], before
		i, before = i+1, nil
		if len(m.Groups) > 0 && isGroupLine(it) {
			groups = append(groups, func() { w.item(above, it, it.groups, it.rules) })
			continue
		}
		if len(it.groups) > 0 {
			groups = append(groups, func() {
				w.comment(2, fmt.Sprintf("for line %d", it.option.first))
				w.groups(it.groups)
			})
		}
		rules = append(rules, func() { w.item(above, it, nil, it.rules) })
	}
	rules = append(rules, func() { w.source(before) })
	if len(m.Groups) > 0 {
		w.line("groups:")
		for _, f := range groups {
			f()
		}
	}
	if len(m.Rules) == 0 {
		for _, f := range rules {
			f()
		}
		w.line("policies: []")
		return w.String()
	}
	w.line("policies:")
	for _, f := range rules {
		f()
	}
	return w.String()
}

func isGroupLine(it *item) bool {
	return it.option.group != "" || it.option.keyword == "GROUPCASEINSENSITIVE"
}

// writer writes YAML.
type writer struct {
	strings.Builder
	file string
}

func (w *writer) line(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }

// source writes lines of the options file as comments.
func (w *writer) source(lines []*line) {
	for _, l := range lines {
		for i, s := range l.source {
			if s = strings.TrimRight(printable(s), " "); s == "" {
				w.line("")
				continue
			}
			w.line("  # %s:%d: %s", w.file, l.first+i, s)
		}
	}
}

// comment writes a sentence as a comment of several lines.
func (w *writer) comment(indent int, s string) {
	const columns = 116
	begin := strings.Repeat(" ", indent) + "#"
	row := begin
	for word := range strings.FieldsSeq(s) {
		if len(row)+1+len(word) > columns && row != begin {
			w.line("%s", row)
			row = begin + "  "
		}
		row += " " + word
	}
	w.line("%s", row)
}

// item writes what became of an option.
func (w *writer) item(before []*line, it *item, groups []config.Group, rules []config.Policy) {
	w.source(append(before, it.option.line))
	if it.part != "" {
		w.comment(2, "=> "+it.part)
	}
	for _, r := range it.remarks {
		w.comment(2, "=> "+r.why())
	}
	w.groups(groups)
	for _, p := range rules {
		w.rule(p)
	}
}

// Text returns the option and what is to be said of it.
func (r Remark) Text() string { return fmt.Sprintf("%s: %s", r.Option, r.why()) }

func (r Remark) why() string {
	return fmt.Sprintf("%s: %s; %s",
		map[Degree]string{Partly: "carried over in part", Not: "not carried over"}[r.Degree],
		r.Reason, r.Mend)
}

func (w *writer) groups(groups []config.Group) {
	for _, g := range groups {
		w.line("  - name: %s", scalar(g.Name))
		w.line("    members: %s", sequence(g.Members))
		if g.IgnoreCase {
			w.line("    ignore_case: true")
		}
	}
}

func (w *writer) rule(p config.Policy) {
	w.line("  - name: %s", scalar(p.Name))
	w.match("match", p.Match)
	w.match("not", p.Not)
	if len(p.Pools) > 0 {
		w.line("    pools: %s", sequence(p.Pools))
	}
	if len(p.Except) > 0 {
		w.line("    except: %s", sequence(p.Except))
	}
	number := func(key string, n int64) {
		if n != 0 {
			w.line("    %s: %d", key, n)
		}
	}
	span := func(key string, d config.Duration) {
		if d != 0 {
			w.line("    %s: %s", key, d)
		}
	}
	if p.Deny {
		w.line("    deny: true")
	}
	number("reserve", p.Reserve)
	number("max", p.Max)
	if p.Per != "" {
		w.line("    per: %s", p.Per)
	}
	number("priority", int64(p.Priority))
	span("linger", p.Linger)
	span("idle_timeout", p.IdleTimeout)
	if p.OverageMax != nil {
		w.line("    overage_max: %d", *p.OverageMax)
	}
	if p.NoBorrow {
		w.line("    no_borrow: true")
	}
	if p.MaxBorrow != nil {
		span("max_borrow", *p.MaxBorrow)
	}
	number("borrow_low_water", p.BorrowLowWater)
	if p.Text != "" {
		w.line("    text: %s", scalar(p.Text))
	}
}

func (w *writer) match(key string, m config.PolicyMatch) {
	if m.Empty() {
		return
	}
	w.line("    %s:", key)
	if len(m.User) > 0 {
		w.line("      user: %s", sequence(m.User))
	}
	if len(m.Host) > 0 {
		w.line("      host: %s", sequence(m.Host))
	}
	if len(m.Label) > 0 {
		var parts []string
		for _, k := range slices.Sorted(maps.Keys(m.Label)) {
			parts = append(parts, scalar(k)+": "+scalar(m.Label[k]))
		}
		w.line("      label: {%s}", strings.Join(parts, ", "))
	}
}

// plainScalar is a text that YAML takes as it stands: no number, truth value or null.
var plainScalar = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]*$`)

var reserved = []string{"true", "false", "yes", "no", "on", "off", "null", "y", "n"}

// scalar returns a text as YAML has it.
func scalar(s string) string {
	if plainScalar.MatchString(s) && !slices.Contains(reserved, strings.ToLower(s)) {
		return s
	}
	return strconv.Quote(s)
}

func sequence(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = scalar(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}
