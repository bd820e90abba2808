package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent/naming"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/cmd/usher/internal/doctor"
	"github.com/usher-agent/usher/enforcer"
)

func (c *cli) statusCommand() *cobra.Command {
	var ofFleet bool
	cmd := &cobra.Command{Use: "status [--fleet]", Short: "Show whether the licence is valid, and its grants",
		Args: cobra.NoArgs,
		Long: `Show whether the licence is valid, its grants, and any faults. Exits 3 when it is not valid.
With --fleet, show what "usher fleet status" shows instead.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ofFleet {
				return (&fleetWay{c: c}).show(cmd.Context())
			}
			l, err := c.client().License(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				err = c.printJSON(l)
			} else {
				var pools []wire.Pool
				if pools, err = c.client().Pools(cmd.Context()); err == nil {
					err = c.printStatus(l, pools, time.Now())
				}
				if k, noClock := c.client().Clock(cmd.Context()); err == nil && noClock == nil && k.FirstClock != nil {
					fprintf(c.out, "\nclock: %s\n", doctor.FirstClock(k))
				}
				if h, away := c.client().Health(cmd.Context()); err == nil && away == nil {
					for _, u := range h.Unready {
						fprintf(c.out, "\nnot ready: the agent's %s, since %s: %s\n", u.Part, timeText(&u.Since),
							u.Reason)
					}
				}
			}
			if err == nil && l.State != "valid" {
				err = &exit{code: exitNotValid}
			}
			return err
		}}
	cmd.Flags().BoolVar(&ofFleet, "fleet", false, "show the fleet: which host has how many slots")
	return cmd
}

func (c *cli) poolsCommand() *cobra.Command {
	return &cobra.Command{Use: "pools", Short: "List the pools of slots, and how full they are", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			pools, err := c.client().Pools(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(wire.Pools{Pools: pools})
			}
			if len(pools) == 0 {
				fprintln(c.out, "the licence in force grants no pools; `usher status` says more")
				return nil
			}
			return c.printPools(pools)
		}}
}

func itemsText(items []wire.Item) string {
	parts := make([]string, len(items))
	for i, it := range items {
		parts[i] = fmt.Sprintf("%s=%d", it.Pool, it.N)
		if it.Of > 1 {
			parts[i] += fmt.Sprintf("/%d", it.Of)
		}
	}
	return strings.Join(parts, " ")
}

func (c *cli) healthCommand() *cobra.Command {
	var ready bool
	var wait time.Duration
	cmd := &cobra.Command{Use: "health [--ready [--wait D]]",
		Short: "Check whether the agent is up, for HEALTHCHECK and probes", Args: cobra.NoArgs,
		Long: "Exit 0 when the agent answers; with --ready only when it listens and has judged the licence. A bad " +
			"licence makes no agent unhealthy.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := c.waitHealth(cmd.Context(), ready, wait)
			if err != nil {
				return err
			}
			if c.json {
				if err := c.printJSON(h); err != nil {
					return err
				}
			} else {
				fprintln(c.out, h.Status)
				for _, u := range h.Unready {
					fprintf(c.errs, "%s: %s\n", u.Part, u.Reason)
				}
			}
			if ready && h.Status != "ok" {
				return &exit{code: exitFailed}
			}
			return nil
		}}
	cmd.Flags().BoolVar(&ready, "ready", false, "ask whether it is ready")
	spanVar(cmd.Flags(), &wait, "wait", 0, 0, "how long to wait for it")
	return cmd
}

// lookAt asks the agent what a check looks at.
func (c *cli) lookAt(ctx context.Context) (l *wire.License, pools []wire.Pool, h *wire.Health, err error) {
	if l, err = c.client().License(ctx); err == nil {
		pools, err = c.client().Pools(ctx)
	}
	if err == nil {
		h, err = c.client().Health(ctx)
	}
	return l, pools, h, err
}

// answerWithin is how long the agent may take to answer, unless --timeout says otherwise.
const answerWithin = 5 * time.Second

// waitHealth asks for the agent's health until it is good or the wait is over.
func (c *cli) waitHealth(ctx context.Context, ready bool, wait time.Duration) (*wire.Health, error) {
	end := time.Now().Add(wait)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		left := time.Until(end)
		if wait == 0 || left > c.timeout {
			left = c.timeout
		}
		h, err := client.New(c.socketPath()).AnswerWithin(max(left, time.Millisecond)).Health(ctx)
		switch {
		case wait == 0, err == nil && (!ready || h.Status == "ok"), ctx.Err() != nil:
			return h, err
		case time.Until(end) > 0:
		case errors.Is(err, context.DeadlineExceeded):
			return nil, fail(exitAgentAway,
				"its process may be stopped, hang or lack descriptors: look at it, and start "+
					"it again", "the agent on %s does not answer within %s", c.client().Socket(), enforcer.Span(wait))
		default:
			return h, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-again.C:
		}
	}
}

// The exit codes of the Monitoring Plugins' guidelines.
const (
	nagiosOK = iota
	nagiosWarning
	nagiosCritical
	nagiosUnknown
)

// nagiosWord is how the line of a plugin begins: the service, and its state.
func nagiosWord(code int) string {
	return strings.ToUpper(naming.Program()) + " " + []string{"OK", "WARNING", "CRITICAL", "UNKNOWN"}[code]
}

func (c *cli) checkCommand() *cobra.Command {
	var warnAt, critAt int
	var days int
	cmd := &cobra.Command{Use: "check",
		Short: "Check agent and licence as a Nagios plugin: one line, performance data, exit 0 to 3",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, pools, h, err := c.lookAt(cmd.Context())
			if err != nil {
				code := nagiosUnknown
				if e := (*exit)(nil); errors.Is(err, client.ErrAgentAway) || errors.As(err, &e) {
					code = nagiosCritical
				}
				fprintf(c.out, "%s - %v\n", nagiosWord(code), err)
				return &exit{code: code}
			}
			code, text, perf := nagiosOK, l.Reason, []string{}
			worse := func(to int, why string) {
				if to > code {
					code, text = to, why
				}
			}
			for _, u := range h.Unready {
				worse(nagiosCritical, "the agent's "+u.Part+": "+u.Reason)
			}
			if l.State != "valid" {
				worse(nagiosCritical, l.Code+": "+l.Reason)
			}
			if l.CoveredUntil != nil {
				left := time.Until(*l.CoveredUntil)
				perf = append(perf, fmt.Sprintf("days_left=%.1f;%d;0", left.Hours()/24, days))
				if left < time.Duration(days)*24*time.Hour {
					worse(nagiosWarning, "the licence is good until "+timeText(l.CoveredUntil)+" only")
				}
			}
			if l.Code == "VALID_IN_GRACE" {
				worse(nagiosWarning, l.Reason)
			}
			perf = append(perf, contactsLeft(l)...)
			for _, why := range troubles(l) {
				worse(nagiosWarning, why)
			}
			for _, p := range pools {
				if p.Budget == nil {
					perf = append(perf, fmt.Sprintf("%s=%d", p.Name, p.InUse))
					continue
				}
				perf = append(perf, fmt.Sprintf("%s=%d;%d;%d;0;%d", p.Name, p.InUse, share(*p.Budget, warnAt),
					share(*p.Budget, critAt), *p.Budget))
				if *p.Budget == 0 {
					continue
				}
				switch used := float64(p.InUse) * 100 / float64(*p.Budget); {
				case used >= float64(critAt):
					worse(nagiosCritical, fmt.Sprintf("pool %s: %d of %d slots are in use", p.Name, p.InUse, *p.Budget))
				case used >= float64(warnAt):
					worse(nagiosWarning, fmt.Sprintf("pool %s: %d of %d slots are in use", p.Name, p.InUse, *p.Budget))
				}
			}
			line := fmt.Sprintf("%s - %s", nagiosWord(code),
				strings.ReplaceAll(text, "|", "/"))
			if len(perf) > 0 {
				line += " | " + strings.Join(perf, " ")
			}
			fprintln(c.out, line)
			if code == nagiosOK {
				return nil
			}
			return &exit{code: code}
		}}
	numberVar(cmd.Flags(), &warnAt, "warn", 90, 0, 1000, "warn when a pool is this full, in percent")
	numberVar(cmd.Flags(), &critAt, "crit", 101, 0, 1000, "be critical when a pool is this full, in percent")
	numberVar(cmd.Flags(), &days, "days", 14, 0, 36600, "warn when the licence is good for fewer days than this")
	return cmd
}

// share returns a percentage of a limit without overflow.
func share(n int64, percent int) int64 {
	return n/100*int64(percent) + n%100*int64(percent)/100
}

func (c *cli) reloadCommand() *cobra.Command {
	return &cobra.Command{Use: "reload", Short: "Have the agent read its configuration again", Args: cobra.NoArgs,
		Long: `Have the agent read its configuration again, and the files that it names. The command prints what is
in force now, what needs a restart, and what the verdict has turned to. A configuration or a file with a
fault changes nothing; "usher status" warns of it until a good one is read.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := c.client().Reload(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(r)
			}
			switch {
			case r.Last != nil: // the agent has taken the change over by itself, as a rule
				fprintf(c.out, "nothing has changed since the reload of %s, which put in force:\n",
					r.Last.At.UTC().Format("2006-01-02 15:04:05 MST"))
				r.Changed = r.Last.Changed
			case len(r.Changed)+len(r.Restart) == 0:
				fprintln(c.out, "nothing has changed")
			}
			renewed := map[string]string{}
			for _, f := range r.Files {
				renewed[f.Key] = " (" + f.File + " has changed)"
			}
			for _, k := range r.Changed {
				fprintf(c.out, "%s  in force%s\n", k, renewed[k])
			}
			for _, k := range r.Restart {
				fprintf(c.out, "%s  needs a restart%s\n", k, renewed[k])
			}
			if v := r.Verdict; v != nil {
				fprintf(c.out, "verdict %s -> %s: %s\n", v.From, v.To, v.Reason)
			}
			return nil
		}}
}

func (c *cli) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Show the agent's configuration"}
	var origin bool
	var src *source
	var local bool
	show := &cobra.Command{Use: "show [--origin]",
		Short: "Show every key and its value; with --origin also the value's origin", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var settings []wire.Setting
			if local || src.file != "" {
				cfg, err := src.load(c)
				if err != nil {
					return err
				}
				c.printNotes(cfg)
				for _, s := range cfg.Show() {
					settings = append(settings, wire.Setting{Key: s.Key, Value: s.Value, Origin: s.Origin})
				}
			} else {
				var err error
				if settings, err = c.client().Config(cmd.Context()); err != nil {
					return err
				}
			}
			if c.json {
				return c.printJSON(wire.Settings{Settings: settings})
			}
			rows := [][]string{{"KEY", "VALUE", "ORIGIN"}}
			for _, s := range settings {
				rows = append(rows, []string{s.Key, dash(s.Value), s.Origin})
			}
			if !origin {
				for i := range rows {
					rows[i] = rows[i][:2]
				}
			}
			return c.table(rows...)
		}}
	src = c.configSource(show)
	show.Flags().BoolVar(&origin, "origin", false, "show the origin of each value")
	show.Flags().BoolVar(&local, "local", false, "what an agent would read here, instead of the running agent's values")
	cmd.AddCommand(show)
	return cmd
}

func (c *cli) eventsCommand() *cobra.Command {
	var follow bool
	var since string
	var src *source
	cmd := &cobra.Command{Use: "events [-f] [--since T [--config FILE]]",
		Short: "Show events: licence changes, leases, denials",
		Args:  cobra.NoArgs,
		Long: "Print the licence in force and, with -f, the events from now on: licence changes, and your leases and " +
			"denials, or all of them for an admin. Denials of a pool, code and user are counted for ten seconds " +
			"after the first. With --since it begins with what the event log in the agent's state folder has since " +
			"then, as \"usher events history\" shows it, denials too, and each grant and end of a lease where " +
			"events.leases is set; without -f it ends there.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if since != "" {
				if err := c.showHistory(src, "", since, mostHistory); err != nil || !follow {
					return err
				}
			}
			for ev, err := range c.client().Events(cmd.Context()) {
				if err != nil {
					if cmd.Context().Err() != nil {
						return nil
					}
					return err
				}
				if c.json {
					if err := c.printLine(ev); err != nil {
						return err
					}
				} else {
					fprintln(c.out, eventText(ev))
				}
				if !follow {
					return nil
				}
			}
			return nil
		}}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until interrupted")
	cmd.Flags().StringVar(&since, "since", "",
		"begin with the event log since then: 1h and 3d ago, 2027-01-31, or 2027-01-31T18:00:00Z")
	src = c.configSource(cmd)
	cmd.AddCommand(c.historyCommand(), c.verifyEventsCommand())
	return cmd
}

func eventText(ev wire.Event) string {
	s := ev.At.UTC().Format(time.RFC3339) + " " + ev.Type
	if ev.Code != "" {
		s += " " + ev.Code
	}
	if ev.LeaseID != "" {
		s += " " + ev.LeaseID + " " + itemsText(ev.Items)
	}
	if ev.Cause != "" {
		s += " " + ev.Cause
	}
	if ev.Pool != "" {
		s += " " + ev.Pool
	}
	if ev.Position > 0 {
		s += " " + placeText(ev)
	}
	if ev.Since != nil {
		s += fmt.Sprintf(" %d more since %s", ev.Count, ev.Since.UTC().Format(time.RFC3339))
	} else if ev.Count > 1 {
		s += fmt.Sprintf(" %d times", ev.Count)
	}
	if h := ev.Holder; h != nil {
		s += ", " + holderText(h)
	}
	if ev.Reason != "" {
		s += ": " + ev.Reason
	}
	return s
}
