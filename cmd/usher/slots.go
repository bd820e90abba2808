package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// acquireFlags are the flags of a request for slots.
type acquireFlags struct {
	pool, ttl, wait, token, version string
	n, of, minN                     int64
	labels                          []string
}

func (o *acquireFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.pool, "pool", "", "the pool to take slots from; several as a=1,b=2")
	numberVar(f, &o.n, "n", 1, 1, enforcer.MaxSlots, "how many slots")
	numberVar(f, &o.of, "of", 0, 1, enforcer.MaxN,
		"how many parts make a slot, where --n counts parts (default: it counts slots)")
	numberVar(f, &o.minN, "min-n", 0, 1, enforcer.MaxSlots, "accept as few as this")
	f.StringVar(&o.wait, "wait", "", "how long to wait for slots that are in use: 30s (default: not at all)")
	f.StringArrayVar(&o.labels, "label", nil, "a label of the lease: job=42; may be repeated")
	f.StringVar(&o.version, "product-version", "", "the product's version, which the licence must cover")
}

func (o *acquireFlags) request() (wire.AcquireRequest, error) {
	r := wire.AcquireRequest{MinN: o.minN, ClientToken: o.token, Version: o.version}
	if o.pool == "" {
		return r, fail(exitUsage, "`usher pools` lists them",
			"--pool is missing: name the pool of the slots")
	}
	if strings.Contains(o.pool, "=") {
		for part := range strings.SplitSeq(o.pool, ",") {
			name, n, ok := strings.Cut(part, "=")
			it := wire.Item{Pool: name}
			n, of, inParts := strings.Cut(n, "/")
			_, err := fmt.Sscan(n, &it.N)
			if err == nil && inParts {
				_, err = fmt.Sscan(of, &it.Of)
			}
			if err != nil || !ok {
				return r, usage("--pool: %q is not a pool, nor a list of pools such as a=1,b=2", o.pool)
			}
			r.Items = append(r.Items, it)
		}
	} else {
		r.Pool, r.N, r.Of = o.pool, &o.n, o.of
	}
	if o.ttl != "" {
		d, err := spanOf("ttl", o.ttl, time.Second)
		if err != nil {
			return r, err
		}
		r.TTLSeconds = d.Seconds()
	}
	if o.wait != "" {
		d, err := spanOf("wait", o.wait, 0)
		if err != nil {
			return r, err
		}
		r.WaitSeconds = d.Seconds()
	}
	for _, l := range o.labels {
		k, v, ok := strings.Cut(l, "=")
		if !ok {
			return r, usage("--label: %q is not NAME=VALUE", l)
		}
		if r.Labels == nil {
			r.Labels = map[string]string{}
		}
		r.Labels[k] = v
	}
	return r, nil
}

func (c *cli) acquireCommand() *cobra.Command {
	var o acquireFlags
	var wait *time.Duration
	var held bool
	var until, borrow string
	var pid int
	cmd := &cobra.Command{Use: "acquire --pool P [--n N] [--ttl D | --pid PID | --held | --until T | --borrow D]",
		Short: "Take slots, and print the lease's id", Args: cobra.NoArgs,
		Long: `Take slots and print the lease's id, or the lease with --json. The lease ends when its time is over
unless it is renewed ("usher renew"), and when it is released ("usher release"). With --until or
--borrow the slots are borrowed: they stay held until then, whatever becomes of agent and host, and
come back sooner only where the licence allows it.

With --pid a process that runs already holds the slots until it ends, however it ends: nobody has
to renew them. It must be a process of yours, unless you are root, and the slots count as that
process's. To start a program that holds slots, use "usher run".`,
		Example: "  usher acquire --pool streams --ttl 10m\n" +
			"  usher acquire --pool streams --pid \"$(cat /run/app.pid)\"",
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := o.request()
			if err != nil {
				return err
			}
			if held {
				r.Lifetime = "held"
			}
			if cmp.Or(until, borrow) != "" {
				flag, now := map[bool]string{true: "until", false: "borrow"}[until != ""], time.Now()
				at, err := parseTime(cmp.Or(until, borrow), now, true)
				switch {
				case err != nil:
					return usage("--%s: %w", flag, err)
				case !at.After(now):
					return usage("--%s: %q is over already; give a later time", flag, cmp.Or(until, borrow))
				}
				r.Lifetime, r.Until = "borrow", &at
			}
			take := func() (*wire.Lease, error) { return c.client().Acquire(cmd.Context(), r) }
			if pid != 0 {
				p, err := client.OpenProcess(pid) // the very process, also when its number is another's at a later try
				if err != nil {
					return err
				}
				defer p.Close()
				take = func() (*wire.Lease, error) { return c.client().AcquireFor(cmd.Context(), p, r) }
			}
			if r.WaitSeconds > 0 {
				defer c.tellPlaces(cmd.Context(), &r, pid)()
			}
			var l *wire.Lease
			if err := c.ride(cmd.Context(), *wait, r.ClientToken != "", func() (err error) {
				l, err = take()
				return err
			}); err != nil {
				return err
			}
			show := func() error { return fprintln(c.out, l.ID) }
			if c.json {
				show = func() error { return c.printJSON(l) }
			}
			if err := show(); err != nil { // nobody knows the lease
				return errors.Join(fmt.Errorf("standard output: %w", err), c.giveUp(cmd.Context(), l.ID))
			}
			return nil
		}}
	o.add(cmd)
	wait = patience(cmd)
	cmd.Flags().StringVar(&o.ttl, "ttl", "", "how long it lasts unless renewed: 1s to 24h (default 60s)")
	cmd.Flags().StringVar(&o.token, "client-token", "",
		"makes the acquire repeatable: the same token gets the same lease")
	numberVar(cmd.Flags(), &pid, "pid", 0, 1, math.MaxInt32,
		"have this process, which runs already, hold it until it ends")
	cmd.Flags().BoolVar(&held, "held", false, "hold it until it is released")
	cmd.Flags().StringVar(&until, "until", "", "borrow it until this time: 2027-01-31, or 2027-01-31T18:00:00Z")
	cmd.Flags().StringVar(&borrow, "borrow", "", "borrow it for this long: 3d, 12h")
	cmd.MarkFlagsMutuallyExclusive("ttl", "pid", "held", "until", "borrow")
	return cmd
}

// giveUp gives back a lease that nobody knows. Root may have acquired it for a process of another user.
func (c *cli) giveUp(ctx context.Context, id string) error {
	c.takesTime.Store(true)
	ctx = context.WithoutCancel(ctx)
	err := c.client().Release(ctx, id, false)
	if errors.Is(err, client.ErrNotHolder) {
		err = c.client().Release(ctx, id, true)
	}
	return err
}

func (c *cli) renewCommand() *cobra.Command {
	var ttl string
	var wait *time.Duration
	cmd := &cobra.Command{Use: "renew ID [--ttl D]", Short: "Extend a lease from now", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var d time.Duration
			if ttl != "" {
				var err error
				if d, err = spanOf("ttl", ttl, time.Second); err != nil {
					return err
				}
			}
			var l *wire.Lease
			if err := c.ride(cmd.Context(), *wait, true, func() (err error) {
				l, err = c.client().Renew(cmd.Context(), args[0], d)
				return err
			}); err != nil {
				return err
			}
			if c.json {
				return c.printJSON(l)
			}
			fprintf(c.out, "held until %s\n", timeText(l.ExpiresAt))
			return nil
		}}
	wait = patience(cmd)
	cmd.Flags().StringVar(&ttl, "ttl", "", "for how long (default: as long as it was acquired for)")
	return cmd
}

func (c *cli) releaseCommand() *cobra.Command {
	var force bool
	var wait *time.Duration
	var holdOff time.Duration
	cmd := &cobra.Command{Use: "release ID [--force [--hold-off D]]", Short: "Give a lease back",
		Args: cobra.ExactArgs(1),
		Long: `Give a lease back. As an admin, end anybody's with --force. With --hold-off its holder cannot just take
the slots again: until the time is over, its user gets none of the lease's pools, and its waiters are turned away.
What the user holds besides stays. "usher pools" lists the users that are held off. With the id of a lease that
was ended so, --hold-off sets how much longer it lasts, and --hold-off 0 lifts it.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			holds := cmd.Flags().Changed("hold-off")
			switch {
			case holds && holdOff != 0 && (holdOff < enforcer.MinHoldOff || holdOff > enforcer.MaxHoldOff):
				return usage("--hold-off: %s is out of range: give from %s to %s, or 0 to lift it",
					enforcer.Span(holdOff), enforcer.Span(enforcer.MinHoldOff), enforcer.Span(enforcer.MaxHoldOff))
			case holds && !force:
				return usage("--hold-off goes with --force: a holder that gives its lease back is not held off")
			}
			asked := false
			return c.ride(cmd.Context(), *wait, true, func() error {
				var err error
				if holds {
					err = c.client().HoldOff(cmd.Context(), args[0], holdOff)
				} else {
					err = c.client().Release(cmd.Context(), args[0], force)
				}
				if asked && errors.Is(err, client.ErrLeaseUnknown) {
					return nil // the try before has done it
				}
				_, lost := again(err)
				asked = asked || lost
				return err
			})
		}}
	wait = patience(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "end anybody's lease (admins)")
	spanVar(cmd.Flags(), &holdOff, "hold-off", 0, 0,
		"with --force: for how long its user gets no slots of the lease's pools, up to 7d; 0 lifts it")
	return cmd
}

func (c *cli) adjustCommand() *cobra.Command {
	var drawn int64
	cmd := &cobra.Command{Use: "adjust METER --drawn N",
		Short: "Set the number of draws from a meter (admins); it is logged", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("drawn") {
				return usage("--drawn is missing: the number of draws in the present period")
			}
			p, err := c.client().Adjust(cmd.Context(), args[0], drawn)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(p)
			}
			return c.printPools([]wire.Pool{*p})
		}}
	numberVar(cmd.Flags(), &drawn, "drawn", 0, 0, enforcer.MaxN, "the number of draws in the present period")
	return cmd
}

// Exit codes of `usher run` before the child starts: those of env(1) and timeout(1).
const (
	runFailed    = 125
	runCannot    = 126
	runNotFound  = 127
	runSignalled = 128 // plus the signal
)

func (c *cli) runCommand() *cobra.Command {
	var o acquireFlags
	var wait *time.Duration
	var noSlot int
	cmd := &cobra.Command{Use: "run --pool P [--n N] [--wait D] -- CMD …",
		Short: "Run a program that holds slots for as long as it lives", Args: cobra.MinimumNArgs(1),
		Long: `Take slots and become the program, which then holds them: they come back when it ends, however it
ends. It finds USHER_SOCKET and USHER_LEASE in its environment, and keeps its process number,
signals and exit code. (Where a program cannot become another, it runs as a child; this command
passes its signals and exit code on, and the slots come back when this command ends.)

When no slot is free the program is not started, and the exit code is 75 (or what -E says); 3 when the licence is
not valid; 69 when no agent answers; 126 when the program cannot be run, 127 when there is none; 125 for any other
failure.`,
		Example: "  usher run --pool streams -- ffmpeg -i in.mkv out.mp4",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := o.request()
			if err != nil {
				return err
			}
			return c.runChild(cmd.Context(), r, args, noSlot, *wait)
		}}
	o.add(cmd)
	wait = patience(cmd)
	noSlot = exitNoSlot
	cmd.Flags().VarP(&numberFlag[int]{&noSlot, 0, 255}, "no-slot-exit-code", "E", "the exit code when no slot is free")
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// runChild takes the slots and becomes the program. Without exec, the program runs as a child.
func (c *cli) runChild(ctx context.Context, r wire.AcquireRequest, args []string, noSlot int,
	within time.Duration) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		code := runNotFound
		if errors.Is(err, os.ErrPermission) {
			code = runCannot
		}
		return fail(code, "", "run %s: %w", args[0], err)
	}
	refused := func(err error) error {
		var p *client.Error
		if ctx.Err() != nil {
			return ctx.Err() // a signal has ended it
		}
		if !errors.As(err, &p) {
			return &exit{code: runFailed, cause: err}
		}
		code := codeOf(p)
		switch code {
		case exitNoSlot:
			code = noSlot
		case exitNotValid, exitAgentAway:
		default:
			code = runFailed
		}
		return &exit{code, err, p.Hint}
	}
	env := func(lease string) []string {
		return append(os.Environ(), "USHER_SOCKET="+c.client().Socket(), "USHER_LEASE="+lease)
	}
	session, lease, err := c.take(ctx, r, within)
	if err != nil {
		return refused(err)
	}
	defer session.Close()
	if canBecome {
		if err := become(session, lease, path, args, env(lease.ID())); err != nil {
			return fail(runCannot, "", "run %s: %w", path, err)
		}
		return nil
	}
	c.takesTime.Store(true)
	child := exec.Command(path, args[1:]...)
	child.Stdin, child.Stdout, child.Stderr = c.in, c.childOut, c.childErrs
	child.Env = env(lease.ID())
	// From here on the child gets the signals.
	signals := make(chan os.Signal, 16)
	if heeded := forwarded(); len(heeded) > 0 { // with none, Notify would mean all
		signal.Notify(signals, heeded...)
	}
	defer signal.Stop(signals)
	c.stopSignals()
	if err := child.Start(); err != nil {
		return fail(runCannot, "", "run %s: %w", path, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	lost := lease.Done()
	for {
		select {
		case s := <-signals:
			child.Process.Signal(s)
		case <-lost:
			lost = nil
			fprintf(c.errs, "warning: the lease is lost: %v\n", lease.Err())
		case err := <-ended:
			return childResult(path, err)
		}
	}
}

func childResult(path string, err error) error {
	var e *exec.ExitError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &e):
		return fail(runFailed, "", "run %s: %w", path, err)
	}
	if s := signalOf(e); s > 0 {
		return &exit{code: runSignalled + s}
	}
	return &exit{code: e.ExitCode()}
}
