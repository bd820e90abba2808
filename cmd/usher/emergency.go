package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

func (c *cli) emergencyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "emergency", Short: "Bridge a lapsed licence without the vendor, where it allows that"}
	cmd.AddCommand(c.emergencyStart(), c.emergencyList())
	return cmd
}

func (c *cli) emergencyStart() *cobra.Command {
	var reason string
	cmd := &cobra.Command{Use: "start --reason TEXT", Short: "Begin an emergency; the upstream hears of it",
		Args: cobra.NoArgs,
		Long: `Begin an emergency on a licence that has lapsed, or that is in its grace. For as long as the licence
says, an expiry or a missed heartbeat or check-in does not stop it. A licence allows only so many a year. The
agent logs and counts it, and tells the vendor's upstream. Admins only.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if reason == "" {
				return usage("--reason is missing: give a sentence; the vendor gets it")
			}
			e, err := c.client().BeginEmergency(cmd.Context(), reason)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(e)
			}
			fprintf(c.out, "licence %s: the emergency holds until %s; mend the cause by then\n", e.License,
				e.EndsAt.UTC().Format(time.RFC3339))
			return nil
		}}
	cmd.Flags().StringVar(&reason, "reason", "", "why, in a sentence")
	return cmd
}

func (c *cli) emergencyList() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the emergencies, and what the licences still allow",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.client().Emergencies(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(all)
			}
			if len(all.Emergencies)+len(all.Grants) == 0 {
				fprintln(c.out, "no licence here grants emergencies, and none has begun")
				return nil
			}
			now := time.Now()
			if k, err := c.client().Clock(cmd.Context()); err == nil {
				now = k.Time // by which the agent decides
			}
			for _, g := range all.Grants {
				next := "no more may begin"
				if g.Next != nil {
					next = "one may begin when it is in its grace, or has lapsed"
					if g.Next.After(now) {
						next = "none is left; the next may begin " + away(*g.Next, now)
					}
				}
				fprintf(c.out, "licence %s grants %s, at most %d within a year; %s\n", g.License,
					enforcer.Span(time.Duration(g.LengthSeconds*float64(time.Second))), g.PerYear, next)
			}
			if len(all.Emergencies) == 0 {
				return nil
			}
			rows := [][]string{{"LICENCE", "BEGAN", "ENDS", "STATE", "REASON"}}
			for _, e := range all.Emergencies {
				state := "over"
				if e.Running {
					state = "running"
				}
				rows = append(rows, []string{e.License, e.BeganAt.UTC().Format(time.RFC3339),
					e.EndsAt.UTC().Format(time.RFC3339), state, e.Reason})
			}
			return c.table(rows...)
		}}
}

func (c *cli) returnCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{Use: "return ID --out FILE",
		Short: "Stop a licence on this host permanently, and write a receipt for the vendor", Args: cobra.ExactArgs(1),
		Long: `Give a licence back, for example to move it to another host. The agent stops it here for good, ends
its slots as its terms say, and signs a receipt with its key, which proves this to the vendor. A
second run writes the same receipt. Where the agent can reach the licence's upstream, it also gives
this host's place back there. Admins only.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usage("--out is missing: the file to write the receipt to; - is standard output")
			}
			f := os.Stdout
			if out != "-" {
				var err error
				// Opened before the licence stops, so that the receipt has a place.
				if f, err = os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644); err != nil {
					if errors.Is(err, fs.ErrExist) {
						return fail(exitFailed, "choose another name for --out", "%s exists already", out)
					}
					return unwritten("--out", out, err)
				}
			}
			r, err := c.client().Return(cmd.Context(), args[0])
			if out == "-" {
				if err == nil {
					err = fprintln(c.out, r.Receipt)
				}
				return err
			}
			if err != nil {
				return errors.Join(err, f.Close(), os.Remove(out))
			}
			err = fprintln(f, r.Receipt)
			if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
				return fmt.Errorf("receipt: %w; the licence is returned: run this again with another --out", err)
			}
			if c.json {
				return c.printJSON(r)
			}
			fprintf(c.out,
				"%s  licence %s was returned on %s and no longer counts here; send the file to the vendor\n", out,
				r.License, r.ReturnedAt.UTC().Format(time.DateOnly))
			if r.Place != nil {
				c.sayReleased(*r.Place, "the vendor frees it on the receipt")
			}
			return nil
		}}
	cmd.Flags().StringVar(&out, "out", "", "the receipt's file; - is standard output")
	return cmd
}

func (c *cli) acceptReturnCommand() *cobra.Command {
	var ledger, request string
	cmd := &cobra.Command{Use: "accept-return RECEIPT [--ledger F] [--request F]",
		Short: "Check a receipt of a returned licence, and record it", Args: cobra.ExactArgs(1),
		Long: `Check the receipt that "license return" wrote: the licence must be in the ledger, byte for byte, and
the agent that it was bound to must have signed. Where the licence names no agent key, --request is
the request of the host that it was on. The ledger records the return.`,
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := c.readFile(args[0])
			if err != nil {
				return err
			}
			if ledger == "" {
				ledger = filepath.Join("keys", "issued.jsonl")
			}
			var req []byte
			if request != "" {
				if req, err = c.readFile(request); err != nil {
					return err
				}
			}
			r, err := issue.AcceptReturn(b, ledger, req, time.Now())
			if err != nil {
				return fmt.Errorf("receipt %s: %w", args[0], err)
			}
			if c.json {
				return c.printJSON(r)
			}
			also := ""
			if r.Again {
				also = "; the ledger has it already"
			}
			fprintf(c.out, "licence %s (%s, %s) was returned on %s by the host with agent key %s%s\n", r.License,
				r.Product, dash(r.Licensee), r.At.Format(time.DateOnly), r.AgentKey, also)
			return nil
		}}
	cmd.Flags().StringVar(&ledger, "ledger", "", "the ledger (default keys/issued.jsonl)")
	cmd.Flags().StringVar(&request, "request", "",
		"the host's request, which usher fingerprint wrote")
	return cmd
}

func (c *cli) revokeCommand() *cobra.Command {
	var o signFlags
	cmd := &cobra.Command{Use: "revoke --key K.key --product P ID… --out F",
		Short: "Sign a notice that revokes licences, to be dropped beside them", Args: cobra.MinimumNArgs(1),
		Long: `Sign a notice: a document that grants nothing, and says which licences of the product are revoked.
It counts on every host that has it in the licence folder. A later notice does not undo an earlier
one that is still there.`,
		Example: "  usher vendor revoke --key keys/2026-a.key --product transcoder transcoder-7f3a --out revoked.lic",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.revokes = args
			now := time.Now().UTC().Truncate(time.Second)
			s, keyFile, err := c.loadSigner(cmd, &o)
			if err != nil {
				return err
			}
			claims, err := c.claims(&o, now)
			if err != nil {
				return err
			}
			return c.issue(&o, s, keyFile, claims, now)
		}}
	o.addSigner(cmd)
	cmd.Flags().StringVar(&o.id, "id", "", "the notice's id (default: made up)")
	cmd.Flags().StringVar(&o.product, "product", "", "the product")
	cmd.Flags().StringVar(&o.issuer, "issuer", "", "who issues it")
	return cmd
}
