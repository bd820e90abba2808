package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/client/wire"
)

func (c *cli) drainCommand() *cobra.Command {
	var wait time.Duration
	var release, undo bool
	cmd := &cobra.Command{Use: "drain [--wait D] [--deactivate] | --undo",
		Short: "Grant no new leases, and wait until those held are over", Args: cobra.NoArgs,
		Long: `Have the agent grant no new leases from now on, until "usher drain --undo" or its next start, and
wait until the held leases are over. It does not wait for borrowed slots, which end at their date.
The agent is unready meanwhile. Exits 1 when leases are still held after --wait; run it again to
wait on.

With --deactivate, once nothing is held, it also gives back this host's places on licences with an upstream, as
"usher license release-host" does: for a host that is going out of service. Admins only.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var d *wire.Drain
			var err error
			if undo {
				if release || cmd.Flags().Changed("wait") {
					return usage(
						"--undo goes with nothing else: `usher upstream call` takes places again that were given back")
				}
				d, err = c.client().Undrain(cmd.Context())
			} else {
				d, err = c.client().Drain(cmd.Context(),
					wire.DrainRequest{WaitSeconds: wait.Seconds(), Release: release})
			}
			if err != nil {
				return err
			}
			kept := 0
			for _, r := range d.Licenses {
				if !r.Released {
					kept++
				}
			}
			if c.json {
				if err := c.printJSON(d); err != nil {
					return err
				}
			} else {
				c.sayDrained(d)
			}
			if d.Draining && d.Leases > 0 || kept > 0 {
				return &exit{code: exitFailed}
			}
			return nil
		}}
	f := cmd.Flags()
	spanVar(f, &wait, "wait", time.Minute, 0, "how long to wait for the held leases to end, up to 24h")
	f.BoolVar(&release, "deactivate", false, "then give this host's places back to the upstream")
	f.BoolVar(&undo, "undo", false, "grant leases again")
	return cmd
}

func (c *cli) sayDrained(d *wire.Drain) {
	borrowed := ""
	if d.Borrowed > 0 {
		borrowed = fmt.Sprintf("; %d borrowed ones end at their date", d.Borrowed)
	}
	switch {
	case !d.Draining:
		fprintln(c.out, "the agent grants leases again")
	case d.Leases > 0:
		fprintf(c.out,
			"no new leases are granted, and %d are still held%s; `usher leases` says by whom, and `usher drain` "+
				"waits on\n", d.Leases, borrowed)
	default:
		fprintf(c.out, "no new leases are granted, and none is held%s\n", borrowed)
	}
	for _, r := range d.Licenses {
		c.sayReleased(r, "try again when the upstream can be reached")
	}
}

func (c *cli) sayReleased(r wire.Released, mend string) {
	if r.Released {
		fprintf(c.out, "licence %s: this host's place was given back to the upstream\n", r.License)
		return
	}
	fprintf(c.out, "licence %s: this host's place could not be given back to the upstream: %s; %s\n", r.License,
		r.Reason, mend)
}

func (c *cli) releaseHostCommand() *cobra.Command {
	return &cobra.Command{Use: "release-host [ID]", Short: "Give this host's place on a licence back to its upstream",
		Args: cobra.MaximumNArgs(1),
		Long: `Give this host's place back to the upstream, on one licence or on all, so that another host may have
it. The licence does not count here from then on, until "usher upstream call" takes a place again. A
mere shutdown gives nothing back. Admins only.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			id := ""
			if len(args) > 0 {
				id = args[0]
			}
			all, err := c.client().ReleaseHost(cmd.Context(), id)
			if err != nil {
				return err
			}
			if c.json {
				if err := c.printJSON(all); err != nil {
					return err
				}
			} else if len(all) == 0 {
				fprintln(c.out, "this host has no place to give back: no licence here was activated by an upstream")
			}
			failed := false
			for _, r := range all {
				failed = failed || !r.Released
				if !c.json {
					c.sayReleased(r, "try again when it can be reached")
				}
			}
			if failed {
				return &exit{code: exitFailed}
			}
			return nil
		}}
}
