package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth is the number of columns of a line of help, as of a terminal that stands beside another.
const helpWidth = 100

// addTexts gives cobra the functions of the help's templates, which it keeps for all commands of a process.
var addTexts = sync.OnceFunc(func() {
	cobra.AddTemplateFunc("flagTexts", flagTexts)
	cobra.AddTemplateFunc("paragraphs", paragraphs)
	cobra.AddTemplateFunc("hanging", hanging)
})

// helpPage gives a command and all below it help whose lines end at helpWidth.
func helpPage(root *cobra.Command) {
	addTexts()
	usage := strings.NewReplacer(
		".LocalFlags.FlagUsages | trimTrailingWhitespaces", "flagTexts .LocalFlags",
		".InheritedFlags.FlagUsages | trimTrailingWhitespaces", "flagTexts .InheritedFlags",
		"\n  {{rpad .Name .NamePadding }} {{.Short}}", `
{{hanging (printf "  %s " (rpad .Name .NamePadding)) .Short}}`,
		"\n  {{.UseLine}}", `
{{hanging "  " .UseLine}}`).Replace(root.UsageTemplate())
	root.SetUsageTemplate(usage)
	root.SetHelpTemplate(`{{with or .Long .Short}}{{paragraphs .}}

{{end}}{{if or .Runnable .HasSubCommands}}{{.UsageString}}{{end}}`)
}

// flagTexts are the texts of flags.
func flagTexts(f *pflag.FlagSet) string {
	const slop = 5 // by which pflag lets the last word of a text be longer
	return strings.TrimRight(f.FlagUsagesWrapped(helpWidth-slop), " \n")
}

// paragraphs wraps a text of paragraphs. Lines that begin with space stay as they are.
func paragraphs(text string) string {
	var out []string
	for p := range strings.SplitSeq(strings.Trim(text, "\n "), "\n\n") {
		if !strings.ContainsAny(p[:min(1, len(p))], " \t#") && !strings.Contains(p, "\n ") {
			p = hanging("", strings.Join(strings.Fields(p), " "))
		}
		out = append(out, p)
	}
	return strings.Join(out, "\n\n")
}

// hanging wraps a text behind a first column.
func hanging(first, text string) string {
	indent := strings.Repeat(" ", len(first))
	if strings.TrimSpace(first) == "" {
		indent += "  " // what follows of a command line is further in
	}
	if first == "" {
		indent = ""
	}
	var out strings.Builder
	line := first
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
			line += word
		case len([]rune(line))+1+len([]rune(word)) > helpWidth:
			out.WriteString(strings.TrimRight(line, " ") + "\n")
			line = indent + word
		default:
			line += " " + word
		}
	}
	return out.String() + strings.TrimRight(line, " ")
}

// flagLike returns the flag of a command whose name is most like a word; empty: none is.
func flagLike(cmd *cobra.Command, word string) string {
	// The library that suggests commands suggests flags just as well.
	names := &cobra.Command{SuggestionsMinimumDistance: 2}
	add := func(f *pflag.Flag) {
		if !f.Hidden {
			names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
		}
	}
	cmd.Flags().VisitAll(add)
	cmd.InheritedFlags().VisitAll(add)
	best, alike := "", -1
	for _, s := range names.SuggestionsFor(word) {
		n := 0
		for n < min(len(s), len(word)) && s[n] == word[n] {
			n++
		}
		if n > alike {
			best, alike = s, n
		}
	}
	return best
}

// helpCommand is the command that shows the help of another.
func (c *cli) helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{Use: "help [COMMAND]", Short: "Show the help of a command", Args: cobra.ArbitraryArgs,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			of, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, sub := range of.Commands() {
				if sub.IsAvailableCommand() {
					names = append(names, sub.Name()+"\t"+sub.Short)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			of, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				if of == nil {
					of = root
				}
				word := args[len(args)-1]
				if len(rest) > 0 {
					word = rest[0]
				}
				return unknownCommand(of, word)
			}
			of.InitDefaultHelpFlag()
			return of.Help()
		}}
}

// unknownCommand says that there is no such command below another, and which one may be meant.
func unknownCommand(cmd *cobra.Command, word string) error {
	hint := fmt.Sprintf("`%s --help` lists the commands", cmd.CommandPath())
	if s := cmd.SuggestionsFor(word); len(s) > 0 {
		hint = fmt.Sprintf("did you mean `%s %s`?", cmd.CommandPath(), nearest(word, s))
	} else if other := below(cmd.Root(), word); other != nil {
		hint = fmt.Sprintf("did you mean `%s`?", other.CommandPath())
	}
	return fail(exitUsage, hint, "%s has no command %q", cmd.CommandPath(), word)
}

// nearest returns the word of some like ones that has the same letters, else the first.
func nearest(word string, like []string) string {
	letters := func(s string) string {
		b := []byte(s)
		slices.Sort(b)
		return string(b)
	}
	for _, s := range like {
		if letters(s) == letters(word) {
			return s
		}
	}
	return like[0]
}

// below returns the only command of that name that is not of the first level; nil: there is none, or several.
func below(root *cobra.Command, name string) (found *cobra.Command) {
	for _, first := range root.Commands() {
		for _, cmd := range first.Commands() {
			if cmd.Name() != name {
				continue
			}
			if found != nil {
				return nil
			}
			found = cmd
		}
	}
	return found
}
