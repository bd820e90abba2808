package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/cmd/usher/internal/doctor"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// placeOf asks a running site server how it stands in its fleet.
func (o *upstreamFlags) placeOf(ctx context.Context) (*wire.Fleet, error) {
	done, err := o.order(ctx, registry.Order{Do: "fleet"})
	if err != nil {
		return nil, err
	}
	f := &wire.Fleet{}
	if err := json.Unmarshal(done.Fleet, f); err != nil {
		return nil, fmt.Errorf("the upstream's answer cannot be read: %w", err)
	}
	return f, nil
}

func (c *cli) upstreamFleet(o *upstreamFlags) *cobra.Command {
	return &cobra.Command{Use: "fleet", Args: cobra.NoArgs,
		Short: "Show how this site server stands in its fleet, and which host has how many slots",
		Long: `Show how a site server that was started with --fleet-endpoint stands in its fleet, all members, and for
each pool the limit in force, and which member has how many slots. IN USE of a site server is what its agents have
from it; "usher upstream list --blocks" has those agents.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := o.placeOf(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(f)
			}
			return c.printFleet(f)
		}}
}

func (c *cli) upstreamDoctor(o *upstreamFlags) *cobra.Command {
	return &cobra.Command{Use: "doctor", Args: cobra.NoArgs,
		Short: "Find what keeps this site server from its fleet, and say how to mend it",
		Long: `Ask a running site server that was started with --fleet-endpoint what is wrong with its way to etcd and
with its place in the fleet. The findings are those of "usher doctor", the worst first; docs/doctor.md has them all.
Exits 1 when something is bad.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := o.placeOf(cmd.Context())
			if err != nil {
				return err
			}
			found := doctor.OfServer(f)
			if c.json {
				err = c.printJSON(found)
			} else {
				for _, x := range found {
					fprintln(c.out, x)
				}
			}
			if err == nil && doctor.HasBad(found) {
				err = &exit{code: exitFailed}
			}
			return err
		}}
}
