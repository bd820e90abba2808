package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// Every line of every command's help ends at the width of help, and nothing of it is lost.
func TestHelpWraps(t *testing.T) {
	t.Parallel()
	n := 0
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		n++
		args := strings.Fields(cmd.CommandPath())[1:]
		for _, how := range [][]string{append(args, "--help"), append([]string{"help"}, args...)} {
			var out, errs bytes.Buffer
			if code := run(how, strings.NewReader(""), &out, &errs); code != 0 {
				t.Errorf("%v: exit %d: %s", how, code, errs.String())
			}
			for line := range strings.Lines(out.String()) {
				if w := utf8.RuneCountInString(strings.TrimRight(line, "\n")); w > helpWidth {
					t.Errorf("%v: a line has %d columns: %s", how, w, line)
				}
			}
			words := strings.Join(strings.Fields(out.String()), " ")
			for _, text := range []string{cmd.Long, cmd.UseLine()} {
				if text = strings.Join(strings.Fields(text), " "); !strings.Contains(words, text) {
					t.Errorf("%v lacks %s", how, text)
				}
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	root := (&cli{}).root()
	root.InitDefaultCompletionCmd()
	walk(root)
	if n < 50 {
		t.Errorf("only %d commands were looked at", n)
	}
}

// A wrong command or flag is refused with the one that may be meant, on every level.
func TestWrongWordsSuggest(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"stauts": "did you mean `usher status`?", "license insall x": "did you mean `usher license install`?",
		"help stauts":          "did you mean `usher status`?",
		"help license remvoe":  "did you mean `usher license remove`?",
		"upstream tokn":        "did you mean `usher upstream token`?",
		"vendor sing":          "did you mean `usher vendor sign`?",
		"install x.lic":        "did you mean `usher license install`?",
		"help nonsense":        "`usher --help` lists the commands",
		"status --jsn":         "did you mean --json?",
		"acquire --pol x":      "did you mean --pool?",
		"vendor sign --limt a": "did you mean --limit?",
		"status --sokcet=x":    "did you mean --socket?",
		"status --nonsense":    "`usher status --help` lists the flags",
	} {
		var out, errs bytes.Buffer
		code := run(strings.Fields(args), strings.NewReader(""), &out, &errs)
		if code != exitUsage || !strings.Contains(errs.String(), "hint: "+want) || out.Len() > 0 {
			t.Errorf("%s: exit %d: %s%s", args, code, out.String(), errs.String())
		}
	}
}
