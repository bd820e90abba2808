package main

import (
	"cmp"
	"context"
	"errors"
	"math"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent"
	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// fleetWay is how a command reaches a fleet: through the agent, or, with a configuration or a user of etcd, by itself.
type fleetWay struct {
	c    *cli
	src  source
	user string
	file string
	cert string
	key  string
}

func (c *cli) fleetCommand() *cobra.Command {
	way := &fleetWay{c: c}
	cmd := &cobra.Command{Use: "fleet", Short: "Look at the hosts that share slots through etcd, and put one out",
		Long: `Look at the fleet: the hosts that share a site's pools through etcd. Admins only.

The agent does what is asked, with its own user of etcd. Where that may not put others out, --etcd-user and
--etcd-password-file name an operator's user, or --etcd-cert and --etcd-key an operator's client certificate, whose
common name is the user. Then the command goes to the etcd of the configuration itself, and needs no running agent. With
--config alone it does so as the user of that configuration: where all members are site servers, a file with
"fleet: {endpoints: [https://etcd-1.example.com:2379]}" will do.`}
	cmd.AddCommand(way.statusCommand(), way.drainCommand(), way.evictCommand(), way.rulesCommand())
	f := cmd.PersistentFlags()
	f.StringVar(&way.user, "etcd-user", "", "go to etcd itself, as this user")
	f.StringVar(&way.file, "etcd-password-file", "", "the file with that user's password")
	f.StringVar(&way.cert, "etcd-cert", "", "go to etcd itself, with this client certificate (PEM)")
	f.StringVar(&way.key, "etcd-key", "", "the file with the private key of --etcd-cert")
	f.StringVar(&way.src.file, "config", "",
		"go to etcd itself: the configuration file that names it")
	return cmd
}

// itself reports whether the command goes to etcd itself.
func (w *fleetWay) itself() bool { return w.named() || w.src.file != "" }

// named reports whether the command names the user of etcd.
func (w *fleetWay) named() bool { return w.user != "" || w.cert != "" || w.key != "" }

// flags has a text name the flags of this command where it names keys of the configuration that they stand for.
func (w *fleetWay) flags(text string) string {
	if w.user != "" {
		text = strings.NewReplacer("fleet.user", "--etcd-user",
			"fleet.password_file", "--etcd-password-file").Replace(text)
	}
	if w.cert != "" {
		text = strings.NewReplacer("fleet.cert_file", "--etcd-cert", "fleet.key_file", "--etcd-key").Replace(text)
	}
	return text
}

// operator returns what asks etcd itself; nil: the agent is asked.
func (w *fleetWay) operator() (*fleet.Operator, func(), error) {
	if !w.itself() {
		if w.file != "" {
			return nil, nil, usage("--etcd-password-file is given without --etcd-user")
		}
		return nil, func() {}, nil
	}
	return w.direct()
}

// direct returns what asks etcd itself, as the user that was named, or else as that of the configuration.
func (w *fleetWay) direct() (*fleet.Operator, func(), error) {
	switch {
	case (w.user == "") != (w.file == ""):
		return nil, nil, usage("--etcd-user and --etcd-password-file go together")
	case (w.cert == "") != (w.key == ""):
		return nil, nil, usage("--etcd-cert and --etcd-key go together")
	}
	cfg, err := w.src.load(w.c)
	if err != nil {
		return nil, nil, err
	}
	if len(cfg.Fleet.Endpoints) == 0 {
		return nil, nil, fail(exitConfig, "docs/fleet.md says how a fleet is set up",
			"the configuration names no fleet")
	}
	if w.named() { // else the agent's own user, in the place of the certificate's
		cfg.Fleet.User, cfg.Fleet.PasswordFile = w.user, w.file
	}
	if w.cert != "" {
		if cfg.Fleet.CertFile, cfg.Fleet.KeyFile = w.cert, w.key; !agent.FleetIsSecure(cfg) {
			return nil, nil, usage("--etcd-cert is for an etcd with TLS, and no address of fleet.endpoints begins " +
				"with https://")
		}
	}
	store, err := agent.DialFleet(cfg)
	if err != nil {
		return nil, nil, errors.New(w.flags(err.Error()))
	}
	by, _ := os.Hostname() // for people; it may be empty
	return &fleet.Operator{Store: store, Prefix: cfg.Fleet.Prefix, By: strings.TrimPrefix(w.user+" on "+by, " on "),
		Now:  clock.Fence,
		Time: time.Now,
		Waits: func(name, key string, left time.Duration) {
			fprintf(w.c.errs, "waiting until the fence of %s is over: %s\n", hostText(name, key),
				enforcer.Span(left.Round(time.Second)))
		}}, func() { store.Close() }, nil
}

// ask asks the agent, or etcd itself.
func ask[T any](ctx context.Context, w *fleetWay, agent func() (*T, error),
	direct func(context.Context, *fleet.Operator) (T, error)) (*T, error) {
	o, done, err := w.operator()
	if err != nil {
		return nil, err
	}
	defer done()
	if o == nil {
		return agent()
	}
	out, err := direct(ctx, o)
	var unknown *fleet.UnknownAgentError
	if err != nil && !errors.As(err, &unknown) {
		fault, reason := fleet.Explain(ctx, o.Store, err)
		return nil, fail(exitFailed, w.flags(fault.Mend()), "%s", reason)
	}
	return &out, err
}

func (w *fleetWay) statusCommand() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Show the pools of the fleet, and which host has how many slots",
		Args: cobra.NoArgs,
		Long: `Show how this host's agent stands in the fleet, all agents, and for each pool the limit in force, and
which host has how many slots, since when, and how many it waits for. Where etcd does not answer, it says so and
shows what the agent last knew. IN USE is what the agents answer to a question; "-" where one has not answered.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return w.show(cmd.Context()) }}
}

// show prints the fleet.
func (w *fleetWay) show(ctx context.Context) error {
	out, err := ask(ctx, w, func() (*wire.Fleet, error) { return w.c.client().Fleet(ctx) },
		func(ctx context.Context, o *fleet.Operator) (wire.Fleet, error) {
			ctx, cancel := context.WithTimeout(ctx, w.c.timeout)
			defer cancel()
			return o.Look(ctx, true)
		})
	if err != nil {
		return err
	}
	if w.c.json {
		return w.c.printJSON(out)
	}
	return w.c.printFleet(out)
}

func (w *fleetWay) drainCommand() *cobra.Command {
	var undo bool
	cmd := &cobra.Command{Use: "drain HOST [--undo]", Args: cobra.ExactArgs(1),
		Short: "Have a host give its idle slots back to the fleet, and take none",
		Long: `Have a host's agent give its idle slots back to the fleet, and take none from now on, also after a
restart. The leases that are held there go on; what they release goes back. The order stays until --undo, also where
the host is replaced: --undo KEY takes it away. HOST is the host's name in the fleet, or the first four or more letters
of its agent's key.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			done, err := ask(ctx, w, func() (*wire.FleetDone, error) {
				return w.c.client().DrainHost(ctx, args[0], undo)
			},
				func(ctx context.Context, o *fleet.Operator) (wire.FleetDone, error) {
					return o.Drain(ctx, args[0], undo)
				})
			if err != nil || w.c.json {
				return errors.Join(err, w.printed(done, err))
			}
			fprintln(w.c.out, drainedText(done, undo))
			return nil
		}}
	cmd.Flags().BoolVar(&undo, "undo", false, "let the host take slots again")
	return cmd
}

func (w *fleetWay) evictCommand() *cobra.Command {
	var undo bool
	var wait time.Duration
	cmd := &cobra.Command{Use: "evict HOST [--wait D] | --undo HOST", Args: cobra.ExactArgs(1),
		Short: "Put a host out of the fleet, and free its slots once its fence is over",
		Long: `Put a host out of the fleet. Its agent gets no more slots, and cannot join again, also after a
restart, until "usher fleet evict --undo HOST". The command waits until the agent's fence is over, so that it hands
out nothing any more, frees its slots, and says so. Leases that are held there may still run; their slots count no
longer. Exits 1 when the fence is not over after --wait; run it again to wait on. A command that goes to etcd itself
remembers nothing of when the fence began to count: each run counts it from the beginning, and without --wait it waits
until the fence is over. HOST is the host's name in the fleet, or the first four or more letters of its agent's key.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if undo && cmd.Flags().Changed("wait") {
				return usage("--undo goes without --wait: there is nothing to wait for")
			}
			if !w.itself() && wait > api.EvictWithin {
				return usage("--wait is %s, and may be %s at most; the same command waits on", enforcer.Span(wait),
					enforcer.Span(api.EvictWithin))
			}
			if w.itself() && !cmd.Flags().Changed("wait") {
				wait = math.MaxInt64
			}
			done, err := ask(ctx, w, func() (*wire.FleetDone, error) {
				if undo {
					return w.c.client().ReadmitHost(ctx, args[0])
				}
				return w.c.client().EvictHost(ctx, args[0], wait)
			}, func(ctx context.Context, o *fleet.Operator) (wire.FleetDone, error) {
				if undo {
					return o.Readmit(ctx, args[0])
				}
				return o.Evict(ctx, args[0], wait)
			})
			if err != nil || w.c.json {
				err = errors.Join(err, w.printed(done, err))
			} else {
				w.c.sayEvicted(done, undo, w.itself())
			}
			if err == nil && !done.Done {
				err = &exit{code: exitFailed}
			}
			return err
		}}
	cmd.Flags().BoolVar(&undo, "undo", false, "let the host join again")
	spanVar(cmd.Flags(), &wait, "wait", 2*time.Minute, 0,
		"how long to wait for the fence, up to 15m; from etcd itself the default is until it is over")
	return cmd
}

// printed prints what came of an order as JSON, if it came to something.
func (w *fleetWay) printed(done *wire.FleetDone, err error) error {
	if err != nil {
		return nil
	}
	return w.c.printJSON(done)
}

func (c *cli) sayEvicted(done *wire.FleetDone, undo, direct bool) {
	host := hostText(done.Name, done.Agent)
	switch {
	case undo && done.Draining:
		fprintf(c.out, "%s may join the fleet again; an operator drains it still: `usher fleet drain --undo %s` "+
			"has it take slots\n", host, fleet.Argument(done.Agent))
	case undo:
		fprintf(c.out, "%s may join the fleet again\n", host)
	case done.Done && done.Slots == 0:
		fprintf(c.out, "%s is out of the fleet, its fence is over, and it has no slots\n", host)
	case done.Done && done.Slots == 1:
		fprintf(c.out, "%s is out of the fleet, its fence is over, and its slot is free\n", host)
	case done.Done:
		fprintf(c.out, "%s is out of the fleet, its fence is over, and its %d slots are free\n", host, done.Slots)
	default:
		on := "the same command waits on"
		if direct { // nothing remembers when the fence began to count
			on = "the next run counts it from the beginning; without --wait it waits until the fence is over"
		}
		fprintf(c.out, "%s is out of the fleet; its slots are not free yet: %s; %s are left, and %s\n",
			host, cmp.Or(done.Reason, "its fence is not over"), fenceText(&done.LeftSeconds), on)
	}
}

// drainedText says what came of an order to drain, or of its undoing.
func drainedText(done *wire.FleetDone, undo bool) string {
	host := hostText(done.Name, done.Agent)
	switch {
	case undo && done.Evicted:
		return host + " drains no more; an operator has put it out still: `usher fleet evict --undo " +
			fleet.Argument(done.Agent) + "` lets it join again"
	case undo && done.Gone:
		return host + " drains no more; it is not in the fleet now"
	case undo:
		return host + " takes slots of the fleet again"
	case done.Gone:
		return host + " is not in the fleet now; it takes no slots when it joins again, until " +
			"`usher fleet drain --undo " + fleet.Argument(done.Agent) + "`"
	}
	return host + " gives its idle slots back and takes none; `usher fleet status` shows what it has left"
}

// hostText names an agent.
func hostText(name, key string) string {
	if name == "" {
		return short(key)
	}
	return name + " (" + short(key) + ")"
}

// fenceText is a time that is left.
func fenceText(seconds *float64) string {
	if seconds == nil {
		return "-"
	}
	return enforcer.Span(time.Duration(*seconds * float64(time.Second)).Truncate(time.Second))
}
