package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin"
)

func (c *cli) drawCommand() *cobra.Command {
	o := acquireFlags{n: 1}
	var wait *time.Duration
	cmd := &cobra.Command{Use: "draw METER [N]", Short: "Take draws from a meter, for good",
		Args: cobra.RangeArgs(1, 2),
		Long: `Take N draws from a meter, or one. Draws never come back; the meter starts again with its next period,
where it has one. The draw is on the disk before this command ends. With --client-token it can be
repeated: the same token draws once. Exits 75 when the meter has fewer left.`,
		Example: "  usher draw renders 5 --client-token job-4711",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.pool = args[0]
			if len(args) == 2 {
				n, err := strconv.ParseInt(args[1], 10, 64)
				if err != nil || n < 1 {
					return usage("%q is not a number of draws, of at least 1", plugin.Short(args[1]))
				}
				o.n = n
			}
			r, err := o.request()
			if err != nil {
				return err
			}
			r.Lifetime = "draw"
			var l *wire.Lease
			if err := c.ride(cmd.Context(), *wait, r.ClientToken != "", func() (err error) {
				l, err = c.client().Acquire(cmd.Context(), r)
				return err
			}); err != nil {
				return err
			}
			if c.json {
				return c.printJSON(l)
			}
			left := ""
			if p, err := c.client().Pool(cmd.Context(), o.pool); err == nil && p.Available != nil {
				left = fmt.Sprintf("; %d left", *p.Available)
				if p.Budget != nil && (p.Limit == nil || *p.Budget < *p.Limit) {
					left += " of this agent's share of the site's, which grows on demand"
				}
			}
			fprintf(c.out, "drew %d from %s%s\n", l.N, l.Pool, left)
			return nil
		}}
	wait = patience(cmd)
	f := cmd.Flags()
	f.StringVar(&o.wait, "wait", "", "how long to wait for draws that are lacking: 30s (default: not at all)")
	f.StringVar(&o.token, "client-token", "", "makes the draw repeatable: the same token draws once")
	f.StringArrayVar(&o.labels, "label", nil, "a label of the draw: job=42; may be repeated")
	f.StringVar(&o.version, "product-version", "", "the product's version, which the licence must cover")
	return cmd
}
