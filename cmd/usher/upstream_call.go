package main

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/client/wire"
)

func (c *cli) upstreamCall() *cobra.Command {
	return &cobra.Command{Use: "call", Short: "Have this host's agent call its upstream at once", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			calls, err := c.client().CallUpstream(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				err = c.printJSON(wire.UpstreamCalls{Calls: calls})
			}
			lender, noLender := c.sayLender(cmd.Context())
			if len(calls) == 0 && !lender {
				return errors.Join(err, fail(exitFailed, "`usher upstream preview` says what would be sent",
					"no upstream was called: no licence here demands one, or none is configured for its system"))
			}
			err = errors.Join(err, noLender)
			for _, o := range calls {
				if !c.json {
					c.printOutcome(o)
				}
				if !o.OK {
					err = errors.Join(err, &exit{code: exitFailed})
				}
			}
			return err
		}}
}

// sayLender says how the site server is, which the agent asks by itself as slots are needed, and reports whether there
// is one. Its error says that it does not answer.
func (c *cli) sayLender(ctx context.Context) (lends bool, err error) {
	l, err := c.client().License(ctx)
	if err != nil || l.SiteServer == nil {
		return false, err
	}
	if !c.json {
		fprintf(c.out, "site server: %s\n", remoteText(l.SiteServer, time.Now()))
	}
	if l.SiteServer.State != "ok" {
		err = &exit{code: exitFailed}
	}
	return true, err
}

// printOutcome says what came of one call.
func (c *cli) printOutcome(o wire.UpstreamOutcome) {
	what := strings.ReplaceAll(cmp.Or(o.Call, "call"), "_", "-")
	if o.Call == "extend" {
		what = "extension"
	}
	of := "licence " + o.License
	if o.Pool != "" {
		of += ", pool " + o.Pool
	}
	switch {
	case o.OK && o.Reason != "":
		fprintf(c.out, "%s: the %s was answered: %s\n", of, what, o.Reason)
	case o.OK && o.Slots != nil:
		fprintf(c.out, "%s: the %s succeeded; this agent may hand out %d slots\n", of, what, *o.Slots)
	case o.OK:
		fprintf(c.out, "%s: the %s succeeded\n", of, what)
	default:
		fprintf(c.out, "%s: the %s failed (%s): %s\n", of, what, o.Class, o.Reason)
	}
	if o.Hint != "" {
		fprintf(c.out, "  hint: %s\n", o.Hint)
	}
}
