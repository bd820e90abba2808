package main

import (
	"context"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

func (c *cli) policiesCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "policies", Short: "Show the site's rules about who gets slots (for an admin)"}
	cmd.AddCommand(c.policiesListCommand(), c.policiesExplainCommand())
	return cmd
}

func (c *cli) policiesListCommand() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the rules in force, and what each has in use", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rules, err := c.client().Policies(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(wire.Policies{Policies: rules})
			}
			if len(rules) == 0 {
				return fprintln(c.out, "no rules are in force; policies in the configuration states them")
			}
			rows := [][]string{{"RULE", "DOES", "POOL", "IN USE", "KEPT"}}
			for _, r := range rules {
				if r.Elsewhere || len(r.Uses) == 0 {
					why := "none of the licence"
					if r.Elsewhere {
						why = "of other hosts"
					}
					rows = append(rows, []string{r.Name, r.Does, why, "-", "-"})
				}
				for _, u := range r.Uses {
					if !r.Elsewhere {
						rows = append(rows,
							[]string{r.Name, r.Does, u.Pool, ruleUse(u), strconv.FormatInt(u.Unused, 10)})
					}
				}
			}
			return c.table(rows...)
		}}
}

// ruleUse writes what a rule has in use of its limit.
func ruleUse(u wire.PolicyUse) string {
	switch {
	case u.Limit == 0:
		return "-"
	case u.Most > 0 && u.Most < u.InUse:
		return fmt.Sprintf("%d of %d at most, %d in all", u.Most, u.Limit, u.InUse)
	default:
		return fmt.Sprintf("%d of %d", u.InUse, u.Limit)
	}
}

func (c *cli) policiesExplainCommand() *cobra.Command {
	var pool, user, exe, cgroup, pod string
	var uid int64
	var groups, labels []string
	cmd := &cobra.Command{Use: "explain --pool POOL", Args: cobra.NoArgs,
		Short: "Say which rules concern a caller in a pool, why, and how many slots it could have now",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if pool == "" {
				return usage("--pool is missing: name the pool, as `usher pools` lists it")
			}
			q := url.Values{"group": groups, "label": labels}
			for key, v := range map[string]string{"pool": pool, "user": user, "exe": exe, "cgroup": cgroup,
				"pod": pod} {
				if v != "" {
					q.Set(key, v)
				}
			}
			if cmd.Flags().Changed("uid") {
				q.Set("uid", strconv.FormatInt(uid, 10))
			}
			x, err := c.client().ExplainPolicies(cmd.Context(), q)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(x)
			}
			return c.printExplanation(x)
		}}
	f := cmd.Flags()
	f.StringVar(&pool, "pool", "", "the pool")
	f.StringVar(&user, "user", "", "the user's name; of a user that the agent's host knows it tells the uid")
	numberVar(f, &uid, "uid", 0, 0, math.MaxUint32, "the user's number")
	f.StringArrayVar(&groups, "group", nil, "a group that the caller is in, by name or number; may be given again")
	f.StringVar(&exe, "exe", "", "the path of the caller's program")
	f.StringVar(&cgroup, "cgroup", "", "the path of the caller's control group")
	f.StringVar(&pod, "pod", "", "the caller's pod")
	f.StringArrayVar(&labels, "label", nil, "a label of the acquire, as NAME=VALUE; may be given again")
	return cmd
}

func (c *cli) printExplanation(x *wire.PolicyExplanation) error {
	rows := [][]string{{"RULE", "CONCERNS IT", "WHY"}}
	for _, r := range x.Rules {
		concerns := "no"
		if r.Concerns {
			concerns = "yes"
		}
		rows = append(rows, []string{r.Name, concerns, r.Why})
	}
	if len(x.Rules) > 0 {
		if err := c.table(rows...); err != nil {
			return err
		}
	}
	unknown := x.Code == string(client.ErrPoolUnknown) || x.Code == "" // an agent of a former version gives no code
	switch {
	case !x.Known && unknown:
		return fprintln(c.out, "the licence has no pool "+x.Pool)
	case x.DeniedBy != "" && x.Known:
		return fprintln(c.out, "rule "+x.DeniedBy+" gives it nothing of "+x.Pool)
	case x.Code != "":
		return fprintln(c.out, "it could have nothing of "+x.Pool+" now: "+x.Detail)
	case x.Room == nil:
		return fprintln(c.out, "it could have any number of slots of "+x.Pool+" now")
	default:
		return fprintln(c.out, fmt.Sprintf("it could have %d slots of %s now, were nobody waiting", *x.Room, x.Pool))
	}
}

// listWaiting prints the acquires that wait.
func (c *cli) listWaiting(ctx context.Context) error {
	waiting, more, err := c.client().Waiting(ctx)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(wire.Waiting{Waiting: waiting, More: more})
	}
	if err := c.printWaiting(waiting); err != nil || !more {
		return err
	}
	return fprintln(c.out, "others wait behind these")
}

// printWaiting prints the acquires that wait as a table.
func (c *cli) printWaiting(waiting []wire.Waiter) error {
	if len(waiting) == 0 {
		return fprintln(c.out, "nobody waits")
	}
	now := time.Now()
	rows := [][]string{{"POSITION", "SLOTS", "PRIORITY", "WAITS FOR", "MAY WAIT", "GIVES UP", "NEXT LEASE ENDS", "WHY",
		"USER"}}
	for i := range waiting {
		w := &waiting[i]
		next, why := "not known", "the slots are in use"
		if w.NextEndsAt != nil {
			next = away(*w.NextEndsAt, now)
		}
		if w.Rule != "" {
			why = "rule " + w.Rule
		}
		rows = append(rows, []string{strconv.Itoa(w.Position), strings.TrimSpace(itemsText(w.Items)),
			strconv.Itoa(w.Priority), span(now.Sub(w.Since)), estimateText(w.EstimateSeconds), away(w.Until, now), next,
			why, holderText(waiterHolder(w))})
	}
	return c.table(rows...)
}

// estimateText says how long a wait may still last.
func estimateText(seconds float64) string {
	if seconds <= 0 {
		return "not known"
	}
	return "about " + span(time.Duration(seconds*float64(time.Second)))
}

// waiterHolder is who waits. Agents of before tell the user and process alone.
func waiterHolder(w *wire.Waiter) *wire.Holder {
	if w.Holder != nil {
		return w.Holder
	}
	return &wire.Holder{UID: w.UID, PID: w.PID}
}
