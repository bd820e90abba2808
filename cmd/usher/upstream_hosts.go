package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/plugin/usher/registry"
)

// admissionNotes tells how a host was admitted, and how often it activated itself again.
func admissionNotes(h registry.Activation, now time.Time) (out []string) {
	if n := len(h.Anew); n > 0 {
		out = append(out, fmt.Sprintf("activated again %d times since %s: set up again, or a copy", n,
			time.Unix(h.Anew[0], 0).UTC().Format(time.DateOnly)))
	}
	if !h.Barred.IsZero() {
		out = append(out, "refused "+away(h.Barred, now)+" for that; `usher upstream forgive` lets it go on")
	}
	if n := len(h.Prints); n > 1 {
		out = append(out, fmt.Sprintf("%d fingerprints", n))
	}
	if len(h.Labels) > 0 {
		out = append(out, "labels "+labelText(h.Labels))
	}
	switch {
	case h.Enrolled != "":
		out = append(out, "enrolled by token "+short(h.Enrolled))
	case h.Shown == 0:
		out = append(out, "has not shown the licence document")
	}
	return out
}

func (c *cli) upstreamForgive(o *upstreamFlags) *cobra.Command {
	var host string
	var all bool
	cmd := &cobra.Command{Use: "forgive ID --host KEY | --all",
		Short: "Admit a host again that is refused as a copy, or for too many activations", Args: cobra.ExactArgs(1),
		Long: `Let a host go on that is refused as a copy of another (CLONED), or because it activated itself again
more often than its licence allows (REACTIVATED_TOO_OFTEN). It keeps its place. The first host that
calls with the key goes on, so remove a copy before.

With --all every host of the licence may go on: use it after you restored the server's folder from an older copy,
which does not know the later answers.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (host == "") != all {
				return usage(
					"give --host, the beginning of the host's key from `usher upstream list --hosts`, or --all")
			}
			done, err := o.order(cmd.Context(), registry.Order{Do: "forgive", ID: args[0], Agent: host})
			if err != nil {
				return err
			}
			if done.Forgiven == 0 {
				return fail(exitFailed, "`usher upstream list --hosts` says which are",
					"licence %s has no such host that is refused: nothing has changed", args[0])
			}
			fprintf(c.out, "%d forgiven; a refused host may go on with its next call\n", done.Forgiven)
			return nil
		}}
	cmd.Flags().StringVar(&host, "host", "", "the beginning of the host's key")
	cmd.Flags().BoolVar(&all, "all", false, "every host of the licence")
	return cmd
}

func (c *cli) upstreamToken(o *upstreamFlags) *cobra.Command {
	order := registry.Order{Do: "token"}
	var lasts string
	var labels []string
	cmd := &cobra.Command{Use: "token ID [--uses N] [--expires D] [--note TEXT] [--label K=V]",
		Short: "Make an enrolment token, which admits new hosts to a licence", Args: cobra.ExactArgs(1),
		Long: `Make an enrolment token and print it. The server admits an agent that has it in the file of
upstream.enrolment_file, without the licence document. With --require-enrolment it admits no new
host without a token. The server keeps only what verifies the token, so it cannot show a lost token
again.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			span, err := spanOf("expires", lasts, time.Second)
			if err != nil {
				return err
			}
			if order.Labels, err = labelsFrom(labels); err != nil {
				return err
			}
			order.ID, order.Seconds = args[0], int64(span/time.Second)
			done, err := o.order(cmd.Context(), order)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]any{"token": done.Token, "id": done.Tokens[0].ID, "license": args[0],
					"uses": order.Uses, "expires": done.Tokens[0].Expires})
			}
			fprintln(c.out, done.Token)
			fprintf(c.errs,
				"it admits %d hosts to licence %s until %s; put it into their agents' file of "+
					"upstream.enrolment_file\n",
				order.Uses, args[0], done.Tokens[0].Expires.UTC().Format(time.RFC3339))
			return nil
		}}
	numberVar(cmd.Flags(), &order.Uses, "uses", 1, 1, registry.MaxTokenUses, "how many hosts it admits, 1 to 1000")
	cmd.Flags().StringVar(&lasts, "expires", "7d", "how long it is valid, at most 400d")
	cmd.Flags().StringVar(&order.Note, "note", "", "a note for `token list`")
	cmd.Flags().StringArrayVar(&labels, "label", nil,
		"a label of the hosts that it admits, such as site=berlin, for the site's rules; may be repeated")
	cmd.AddCommand(
		&cobra.Command{Use: "list [ID]", Short: "List the enrolment tokens of a licence, or of all",
			Args: cobra.MaximumNArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
				order := registry.Order{Do: "tokens"}
				if len(args) > 0 {
					order.ID = args[0]
				}
				done, err := o.order(cmd.Context(), order)
				if err != nil {
					return err
				}
				if c.json {
					if done.Tokens == nil {
						done.Tokens = []registry.Token{}
					}
					return c.printJSON(done.Tokens)
				}
				rows := [][]string{{"LICENCE", "TOKEN", "ADMITTED", "OF", "MADE", "EXPIRES", "NOTE"}}
				for _, t := range done.Tokens {
					rows = append(rows, []string{t.License, short(t.ID), fmt.Sprint(len(t.Keys)),
						fmt.Sprint(t.Uses), t.Made.UTC().Format(time.RFC3339), t.Expires.UTC().Format(time.RFC3339),
						orDash(t.Note)})
				}
				return c.table(rows...)
			}},
		&cobra.Command{Use: "revoke TOKEN", Short: "Revoke an enrolment token; the hosts that it has admitted stay",
			Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
				done, err := o.order(cmd.Context(), registry.Order{Do: "revoke-token", Token: args[0]})
				if err != nil {
					return err
				}
				fprintf(c.out, "token %s of licence %s is revoked\n", short(done.Tokens[0].ID),
					done.Tokens[0].License)
				return nil
			}})
	return cmd
}

// short returns the beginning of a key or an id, by which people name it.
func short(id string) string { return id[:min(12, len(id))] }
