// Package manual writes the manual pages: one a command (section 1), and the configuration's (section 5).
//
// The pages are in the roff of man(7). What every command has in common (exit codes, variables, files) is here once.
package manual

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Entry is a term of a list, and what it means.
type Entry [2]string

// Common is what the pages of all commands have, or those of some. A list by a command's path ("upstream list"; empty
// for the program itself) replaces Exit, and adds to Environment and Files of this command and those below it.
type Common struct {
	Date, Source            string // of each page's foot: 2026-11-29, usher v1.2.3
	Exit                    []Entry
	Environment, Files      []Entry
	ExitOf                  map[string][]Entry
	EnvironmentOf, FilesOf  map[string][]Entry
	ConfigurationPage, Text string // the name of the page of section 5, and what it is written from
}

// Write writes the pages into a folder, which it makes if there is none.
func Write(dir string, root *cobra.Command, c Common) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var walk func(*cobra.Command) error
	walk = func(cmd *cobra.Command) error {
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(c.page(cmd)), 0o644); err != nil {
			return err
		}
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				if err := walk(sub); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := walk(root); err != nil {
		return err
	}
	file := filepath.Join(dir, c.ConfigurationPage+".5")
	return os.WriteFile(file, []byte(c.configuration(root.Name())), 0o644)
}

// page is a text of roff.
type page struct {
	strings.Builder
	keys map[string]bool // those of the configuration that it has
}

// escape makes a text fit for roff: what roff would take for its own is said literally.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "'", `\(aq`, "…", "...",
		"×", `\(mu`, "±", `\(+-`, "–", `\(en`, "—", `\(em`, "§", `\(sc`, "→", `\(->`).Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *page) head(name string, section int, c Common) {
	p.line(`.TH %q %d %q %q %q`, escape(strings.ToUpper(name)), section, c.Date, c.Source, "")
	p.line(".ad l")
}

func (p *page) section(name string) { p.line(".SH %s", name) }

// text writes paragraphs. One whose lines begin with space is shown as it is.
func (p *page) text(s string) {
	for i, para := range strings.Split(strings.Trim(s, "\n"), "\n\n") {
		if i > 0 {
			p.line(".PP")
		}
		if strings.ContainsAny(para[:min(1, len(para))], " \t") {
			p.literal(para)
			continue
		}
		p.line("%s", escape(strings.Join(strings.Fields(para), " ")))
	}
}

// literal writes lines as they are.
func (p *page) literal(s string) {
	p.line(".nf")
	p.line(".RS 4")
	for line := range strings.Lines(s) {
		p.line("%s", escape(strings.TrimSpace(line)))
	}
	p.line(".RE")
	p.line(".fi")
}

func (p *page) entries(all []Entry) {
	for _, e := range all {
		p.line(".TP")
		p.line(`\fB%s\fR`, escape(e[0]))
		p.line("%s", escape(e[1]))
	}
}

// of returns the list of a command: the lists of it and of those above it.
func of(lists map[string][]Entry, cmd *cobra.Command) (out []Entry) {
	for ; cmd != nil; cmd = cmd.Parent() {
		if cmd.HasParent() {
			out = append(out, lists[path(cmd)]...)
		}
	}
	return out
}

// path is a command's path without the program's name.
func path(cmd *cobra.Command) string {
	_, p, _ := strings.Cut(cmd.CommandPath(), " ")
	return p
}

// page writes a command's page.
func (c Common) page(cmd *cobra.Command) string {
	var p page
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
	p.head(name, 1, c)
	p.section("NAME")
	p.line(`%s \- %s`, escape(name), escape(cmd.Short))
	p.section("SYNOPSIS")
	p.line(`\fB%s\fR`, escape(cmd.UseLine()))
	p.section("DESCRIPTION")
	long := cmd.Long
	if long == "" {
		long = cmd.Short + "."
	}
	p.text(long)
	p.commands(cmd)
	p.options("OPTIONS", cmd.NonInheritedFlags())
	p.options("OPTIONS OF ALL COMMANDS", cmd.InheritedFlags())
	p.section("EXIT STATUS")
	exit := c.Exit
	if own := c.ExitOf[path(cmd)]; own != nil && cmd.HasParent() {
		exit = own
	}
	p.entries(exit)
	p.section("ENVIRONMENT")
	p.entries(append(of(c.EnvironmentOf, cmd), c.Environment...))
	p.section("FILES")
	p.entries(append(of(c.FilesOf, cmd), c.Files...))
	if cmd.HasExample() {
		p.section("EXAMPLES")
		p.literal(cmd.Example)
	}
	p.section("SEE ALSO")
	p.line("%s", strings.Join(c.also(cmd), ", "))
	return p.String()
}

func (p *page) commands(cmd *cobra.Command) {
	if !cmd.HasAvailableSubCommands() {
		return
	}
	p.section("COMMANDS")
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			p.line(".TP")
			p.line(`\fB%s\fR(1)`, escape(strings.ReplaceAll(sub.CommandPath(), " ", "-")))
			p.line("%s", escape(sub.Short))
		}
	}
}

func (p *page) options(title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	p.section(title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		term := "--" + f.Name
		if f.Shorthand != "" {
			term = "-" + f.Shorthand + ", " + term
		}
		p.line(".TP")
		if value != "" {
			p.line(`\fB%s\fR \fI%s\fR`, escape(term), escape(value))
		} else {
			p.line(`\fB%s\fR`, escape(term))
		}
		switch f.DefValue {
		case "", "0", "false", "[]":
		default:
			if !strings.Contains(usage, "(default") {
				usage += " (default " + f.DefValue + ")"
			}
		}
		p.line("%s", escape(usage))
	})
}

// also lists the pages beside a command's.
func (c Common) also(cmd *cobra.Command) (out []string) {
	add := func(name string, section int) {
		out = append(out, fmt.Sprintf(`\fB%s\fR(%d)`, escape(strings.ReplaceAll(name, " ", "-")), section))
	}
	if cmd.HasParent() {
		add(cmd.Parent().CommandPath(), 1)
	}
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			add(sub.CommandPath(), 1)
		}
	}
	add(c.ConfigurationPage, 5)
	return out
}
