package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// siteRulesHelp describes a file of rules for hosts.
const siteRulesHelp = `The file is YAML:

  rules:
    - name: berlin
      match: {label: {site: berlin}}
      pools: [streams]
      max: 10
      reserve: 5

match and not state labels of a host, in a fleet also its name (host: [a*]); pools and except name
pools; * stands for any text. The hosts of a rule have max slots together at most, and no other host
gets their reserve. The rules of a file take the place of all former ones; "rules: []" ends them.
Hosts keep what they have.`

// readSiteRules reads a file of rules for hosts.
func (c *cli) readSiteRules(file string) (enforcer.SiteRules, error) {
	b, err := c.readFile(file)
	if err != nil {
		return nil, err
	}
	rules, err := config.SiteRules(file, b)
	if err != nil {
		return nil, fail(exitConfig, "", "%v", err)
	}
	return rules, nil
}

// labelsFrom reads labels such as site=berlin.
func labelsFrom(args []string) (map[string]string, error) {
	out := map[string]string{}
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "=")
		if _, twice := out[key]; !ok || twice {
			return nil, usage("label %q: give each label once, as KEY=VALUE, such as site=berlin", arg)
		}
		out[key] = value
	}
	if err := enforcer.CheckHostLabels(out); err != nil {
		return nil, usage("%w", err)
	}
	return out, nil
}

func labelText(labels map[string]string) string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, key+"="+labels[key])
	}
	return strings.Join(out, ",")
}

func (c *cli) upstreamRules(o *upstreamFlags) *cobra.Command {
	show := func(done registry.Done) error {
		if c.json {
			return c.printJSON(done.Rules)
		}
		rows := siteRuleRows(done.Rules.Rules, func(r *enforcer.SiteRule) string {
			var use []string
			for _, u := range done.Rules.Uses {
				if u.Rule == r.Name {
					use = append(use, fmt.Sprintf("%s/%s=%d", u.License, u.Pool, u.Slots))
				}
			}
			return strings.Join(use, ",")
		})
		return c.table(rows...)
	}
	cmd := &cobra.Command{Use: "rules [set FILE]", Short: "List the site's rules for hosts, and what each has out",
		Args: cobra.NoArgs, Long: "List the rules by which the server shares slots out among hosts, and how many " +
			"slots the hosts of each\nhave of each pool. \"set\" puts others in force.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			done, err := o.order(cmd.Context(), registry.Order{Do: "rules"})
			if err != nil {
				return err
			}
			return show(done)
		}}
	cmd.AddCommand(&cobra.Command{Use: "set FILE", Short: "Put the rules of a file in force", Args: cobra.ExactArgs(1),
		Long: siteRulesHelp, RunE: func(cmd *cobra.Command, args []string) error {
			rules, err := c.readSiteRules(args[0])
			if err != nil {
				return err
			}
			done, err := o.order(cmd.Context(), registry.Order{Do: "set-rules", Rules: rules})
			if err != nil {
				return err
			}
			switch n := len(done.Rules.Rules); n {
			case 0:
				fprintln(c.errs, "no rules are in force")
			case 1:
				fprintln(c.errs, "1 rule is in force")
			default:
				fprintf(c.errs, "%d rules are in force\n", n)
			}
			return show(done)
		}})
	return cmd
}

// siteRuleRows is a table of rules for hosts; use says what the hosts of a rule have.
func siteRuleRows(rules enforcer.SiteRules, use func(*enforcer.SiteRule) string) [][]string {
	rows := [][]string{{"RULE", "HOSTS", "POOLS", "MAX", "RESERVE", "OUT"}}
	number := func(n int64) string {
		if n == 0 {
			return "-"
		}
		return fmt.Sprint(n)
	}
	for i := range rules {
		r := &rules[i]
		pools := strings.Join(r.Pools, ",")
		if pools == "" {
			pools = "all"
		}
		if len(r.Except) > 0 {
			pools += " except " + strings.Join(r.Except, ",")
		}
		rows = append(rows, []string{r.Name, hostsText(r), pools, number(r.Max), number(r.Reserve), orDash(use(r))})
	}
	return rows
}

// hostsText says which hosts a rule concerns.
func hostsText(r *enforcer.SiteRule) string {
	text := func(m enforcer.SiteMatch) string {
		return strings.Trim(strings.Join(m.Host, ",")+" "+labelText(m.Labels), " ")
	}
	switch {
	case r.Match.IsZero() && r.Not.IsZero():
		return "all"
	case r.Not.IsZero():
		return text(r.Match)
	case r.Match.IsZero():
		return "not " + text(r.Not)
	}
	return text(r.Match) + " not " + text(r.Not)
}

func (w *fleetWay) rulesCommand() *cobra.Command {
	c := w.c
	run := func(cmd *cobra.Command, do func(context.Context, *fleet.Operator) (fleet.Ruled, error)) error {
		o, done, err := w.direct()
		if err != nil {
			return err
		}
		defer done()
		ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
		defer cancel()
		out, err := do(ctx, o)
		if err != nil {
			fault, reason := fleet.FaultOf(err)
			return fail(exitFailed, fault.Mend(), "%s", reason)
		}
		if c.json {
			return c.printJSON(out)
		}
		if out.Digest != "" {
			fprintf(c.errs, "rules %s, set at %s by %s\n", out.Digest, out.At.Format(time.RFC3339), orDash(out.By))
		}
		return c.table(siteRuleRows(out.Rules, func(r *enforcer.SiteRule) string {
			var use []string
			for _, u := range out.Uses {
				if u.Rule == r.Name {
					use = append(use, fmt.Sprintf("%s=%d", u.Pool, u.Slots))
				}
			}
			return strings.Join(use, ",")
		})...)
	}
	cmd := &cobra.Command{Use: "rules [set FILE]", Short: "List the fleet's rules for hosts, and what each has out",
		Args: cobra.NoArgs,
		Long: `List the rules by which hosts take slots of the fleet, and how many slots the hosts of
each have of each pool. "set" puts others in force. The command goes to the etcd of the configuration itself.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run(cmd, func(ctx context.Context, o *fleet.Operator) (fleet.Ruled, error) { return o.Rules(ctx) })
		}}
	cmd.AddCommand(&cobra.Command{Use: "set FILE", Short: "Put the rules of a file in force", Args: cobra.ExactArgs(1),
		Long: siteRulesHelp, RunE: func(cmd *cobra.Command, args []string) error {
			rules, err := c.readSiteRules(args[0])
			if err != nil {
				return err
			}
			return run(cmd, func(ctx context.Context, o *fleet.Operator) (fleet.Ruled, error) {
				return o.SetRules(ctx, rules)
			})
		}})
	return cmd
}

func (c *cli) upstreamLabel(o *upstreamFlags) *cobra.Command {
	var host string
	cmd := &cobra.Command{Use: "label ID --host KEY [LABEL=VALUE...]",
		Short: "Bind labels to a host's key, by which the site's rules concern it", Args: cobra.MinimumNArgs(1),
		Long: `Bind labels to the key of a host, in the place of its former ones; without any it has none. The
site's rules for hosts ("usher upstream rules") see them at once. An enrolment token made with
--label binds them when it admits a host.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if host == "" {
				return usage("--host is missing: the beginning of the host's key from `usher upstream list --hosts`")
			}
			labels, err := labelsFrom(args[1:])
			if err != nil {
				return err
			}
			done, err := o.order(cmd.Context(), registry.Order{Do: "label", ID: args[0], Agent: host, Labels: labels})
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]any{"labelled": done.Labelled, "labels": labels})
			}
			who := "1 host has"
			if done.Labelled != 1 {
				who = fmt.Sprintf("%d hosts have", done.Labelled)
			}
			fprintf(c.out, "licence %s: %s %s\n", args[0], who, cmp.Or(labelText(labels), "no labels"))
			return nil
		}}
	cmd.Flags().StringVar(&host, "host", "", "the beginning of the host's key")
	return cmd
}
