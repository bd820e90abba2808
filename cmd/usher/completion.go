package main

import (
	"context"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/textual"
	"github.com/usher-agent/usher/plugin/usher"
)

// completeWithin is how long the agent may take to tell what a shell completes with; a person waits at the prompt.
const completeWithin = time.Second

// completes returns what may follow at a place of the command line.
type completes func(context.Context) []string

// flagValues are the values of the flags that take one of a few, whatever the command.
func flagValues() map[string][]string {
	return map[string][]string{
		"log-level": {"debug", "info", "warn", "error"}, "log-format": {"text", "json"},
		"alg": usher.Algorithms(), "scope": {"host", "site"}, "from": {"flexnet", "rlm"},
		"on-expiry":   {"drain", "revoke", "keep"},
		"environment": {"production", "test"}, "role": {"base", "add-on", "free-tier"},
		"clock": {"lenient", "strict"}, "armour": {"auto", "yes", "no"}, "strategy": {"any", "two", "most", "all"},
	}
}

// complete has a shell complete what the commands take: the agent's pools, meters, leases and documents, instances, and
// the values of flags that take one of a few. The agent is not asked for anything that changes something, and where it
// does not answer nothing is offered.
func (c *cli) complete(root *cobra.Command) {
	arguments := map[string]completes{
		"renew": c.leaseIDs, "release": c.leaseIDs, "draw": c.poolsOf("meter"), "adjust": c.poolsOf("meter"),
		"license remove": c.documents, "license rollback": c.documents, "license return": c.licenceIDs,
		"license release-host": c.licenceIDs,
	}
	values := flagValues()
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		_, path, _ := strings.Cut(cmd.CommandPath(), " ")
		switch of := arguments[path]; {
		case of != nil:
			cmd.ValidArgsFunction = c.offers(of, true)
		case cmd.ValidArgsFunction == nil && cmd.Args != nil && cmd.Args(cmd, []string{"FILE"}) != nil:
			cmd.ValidArgsFunction = cobra.NoFileCompletions
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			var of completes
			switch {
			case f.Name == "pool":
				of = c.poolsOf("")
			case values[f.Name] != nil:
				of = func(context.Context) []string { return values[f.Name] }
			case f.Value.Type() != "string" && f.Value.Type() != "stringArray":
				of = func(context.Context) []string { return nil } // a number or a span is no file
			default:
				return
			}
			_ = cmd.RegisterFlagCompletionFunc(f.Name, c.offers(of, false))
		})
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
	_ = root.RegisterFlagCompletionFunc("instance", c.offers(func(context.Context) []string {
		return c.units.Names()
	}, false))
	_ = root.RegisterFlagCompletionFunc("timeout", cobra.NoFileCompletions)
}

// offers makes a completion function. one: of the place for a single argument, which is taken when there is one.
func (c *cli) offers(of completes, one bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if one && len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		if c.findInstance(cmd) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
		defer cancel()
		var out []string
		for _, s := range of(ctx) {
			if word, _, _ := strings.Cut(s, "\t"); strings.HasPrefix(word, typed) && plain.MatchString(word) {
				out = append(out, s)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// plain are the words that mean themselves to every shell. Others are not offered: a shell would run what it completes.
var plain = regexp.MustCompile(`^[A-Za-z0-9_.:@+][A-Za-z0-9_.:@+-]*$`)

// offer is a word with what it means, on one line.
func offer(word, meaning string) string {
	return word + "\t" + textual.Screen(strings.Join(strings.Fields(meaning), " "))
}

// poolsOf returns the names of pools of a kind; empty: of all.
func (c *cli) poolsOf(kind string) completes {
	return func(ctx context.Context) (out []string) {
		pools, err := c.client().Pools(ctx)
		if err != nil {
			return nil
		}
		for _, p := range pools {
			if kind == "" || p.Kind == kind {
				out = append(out, offer(p.Name, limitText(p.Available)+" of "+limitText(p.Limit)+" free"))
			}
		}
		return out
	}
}

// mostOffered bounds the leases that a shell is offered: nobody reads more.
const mostOffered = 1000

func (c *cli) leaseIDs(ctx context.Context) (out []string) {
	for l, err := range c.client().EachLease(ctx, client.LeaseFilter{}) {
		if err != nil || len(out) == mostOffered {
			break
		}
		out = append(out, offer(l.ID, itemsText(l.Items)+" "+holderText(l.Holder)))
	}
	return out
}

// licences returns what the agent says of each licence; name says which word it is called by.
func (c *cli) licences(ctx context.Context, name func(wire.Document) string) (out []string) {
	l, err := c.client().License(ctx)
	if err != nil {
		return nil
	}
	for _, d := range l.Licenses {
		if word := name(d); word != "" {
			out = append(out, offer(word, d.Code+" "+d.Licensee))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (c *cli) documents(ctx context.Context) []string {
	return c.licences(ctx, func(d wire.Document) string { return filepath.Base(d.Document) })
}

func (c *cli) licenceIDs(ctx context.Context) []string {
	return c.licences(ctx, func(d wire.Document) string { return d.ID })
}
