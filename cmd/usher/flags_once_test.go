package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A flag of one value refuses a second one that differs, whatever the command, and takes the same one again. Lists, and
// the flags of all commands, take several.
func TestFlagsAreStatedOnce(t *testing.T) {
	values := map[string][2]string{"string": {"a", "b"}, "bool": {"true", "false"}, "int": {"1", "2"},
		"duration": {"10s", "20s"}, "hosts": {"1", "any"}}
	seen := 0
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		flags.AddFlagSet(cmd.LocalFlags())
		flags.VisitAll(func(f *pflag.Flag) {
			if _, list := f.Value.(pflag.SliceValue); list || !cmd.HasParent() || f.Name == "help" {
				return
			}
			of, ok := values[f.Value.Type()]
			if !ok {
				t.Errorf("%s --%s is of the type %s, of which this test has no values", cmd.CommandPath(), f.Name,
					f.Value.Type())
				return
			}
			seen++
			for _, v := range []string{of[0], of[0]} {
				if err := f.Value.Set(v); err != nil {
					t.Errorf("%s --%s %s: %v", cmd.CommandPath(), f.Name, v, err)
				}
			}
			if err := f.Value.Set(of[1]); err == nil || !strings.Contains(err.Error(), of[0]) {
				t.Errorf("%s --%s %s after %s: %v", cmd.CommandPath(), f.Name, of[1], of[0], err)
			}
		})
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk((&cli{}).root())
	if seen < 100 {
		t.Errorf("%d flags are seen", seen)
	}
	for args, want := range map[string]string{
		"acquire --pool a --pool b": `--pool: "b" is a second value, beside "a": state the flag once, ` +
			"several as a=1,b=2",
		"run --pool a --n 1 --n 2 -- true":              `--n: "2" is a second value, beside "1": state the flag once`,
		"pools --timeout 1s --timeout 1ms --socket x/y": "x/y",
	} {
		var errs strings.Builder
		if code := run(strings.Fields(args), strings.NewReader(""), &strings.Builder{}, &errs); code == 0 ||
			!strings.Contains(errs.String(), want) {
			t.Errorf("usher %s: exit %d: %s", args, code, errs.String())
		}
	}
}

// over returns arguments with more behind them. A flag of one value that more states, too, is left out of the former.
func over(args []string, more ...string) (out []string) {
	for i := 0; i < len(args); i++ {
		again := strings.HasPrefix(args[i], "--") && args[i] != "--limit" && args[i] != "--meter" &&
			slices.ContainsFunc(more, func(s string) bool {
				return s == args[i] || strings.HasPrefix(s, args[i]+"=")
			})
		if again {
			i++
			continue
		}
		out = append(out, args[i])
	}
	return append(out, more...)
}
