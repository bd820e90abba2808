package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A name that a shell would run, or that moves the terminal, is not offered; what is said of a name moves no terminal.
func TestCompletionOffersPlainWords(t *testing.T) {
	t.Parallel()
	limit := int64(1)
	pool := func(name string) map[string]any {
		return map[string]any{"name": name, "kind": "pool", "limit": limit, "available": limit}
	}
	socket := answering(t, map[string]any{"/v1/pools": map[string]any{"pools": []any{pool("streams"),
		pool("$(reboot)"), pool("a;b"), pool("`x`"), pool("a b"), pool("\x1b[2J"), pool("-rf"), pool("~"),
		pool("a\nb")}}})
	var out, errs bytes.Buffer
	if code := run([]string{"--socket", socket, "__complete", "acquire", "--pool", ""}, strings.NewReader(""), &out,
		&errs); code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	if got := out.String(); got != "streams\t1 of 1 free\n:4\n" {
		t.Errorf("a shell is offered %q", got)
	}
}

// The values that are offered of a flag are those that its help names.
func TestCompletionKnowsTheValues(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			for _, v := range flagValues()[f.Name] {
				if seen[f.Name] = true; f.Name != "alg" && !strings.Contains(f.Usage, v) {
					t.Errorf("%s --%s: %q is offered, and its help says %q", cmd.CommandPath(), f.Name, v, f.Usage)
				}
			}
		})
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk((&cli{}).root())
	if len(seen) != len(flagValues()) {
		t.Errorf("values of %d flags are offered, and %d are seen", len(flagValues()), len(seen))
	}
}
