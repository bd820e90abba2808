package main

import (
	"context"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// The measure of top.
const (
	topEvery     = time.Second            // between two looks at the agent
	topLook      = 200 * time.Millisecond // between two looks at the terminal's size
	topDenied    = time.Minute            // between two looks at the last day's denials
	mostTop      = 1000                   // leases that are shown
	mostTopEvent = 50                     // denials that are remembered
)

func (c *cli) topCommand() *cobra.Command {
	p := &picture{}
	var once bool
	cmd := &cobra.Command{Use: "top [--pool P] [--once]", Short: "Watch pools, holders, waiters and denials",
		Args: cobra.NoArgs,
		Long: `Watch the pools, those who hold slots or wait for them, and denials. An admin sees those of all users,
others their own. q ends it, s changes the order of the holders, p shows one pool after the other, j and k
scroll. It goes on when the agent restarts. With --once it prints one picture as text, and ends.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if once {
				if err := c.ask(cmd.Context(), p); err != nil {
					return err
				}
				if p.pool != "" && !slices.ContainsFunc(p.pools, func(x wire.Pool) bool { return x.Name == p.pool }) {
					return fail(exitFailed, "`usher pools` lists them", "there is no pool %s", p.pool)
				}
				return lines(c.out, joined(p.frame(onceWidth, 0, p.at)))
			}
			in, out := terminals(c.in, c.childOut)
			if in < 0 || out < 0 || os.Getenv("TERM") == "dumb" {
				return fail(exitUsage, "`usher top --once` prints one picture as text",
					"standard input and output are no terminal that top can draw on")
			}
			c.takesTime.Store(true) // the terminal becomes again what it was
			return c.watch(cmd.Context(), p, in, out)
		}}
	cmd.Flags().StringVar(&p.pool, "pool", "", "show this pool only")
	cmd.Flags().BoolVar(&once, "once", false, "print one picture as text, and end")
	return cmd
}

// onceWidth is the number of columns of a picture that is printed as text.
const onceWidth = 100

func joined(all []string) (s string) {
	for _, line := range all {
		s += line + "\n"
	}
	return s
}

// terminals returns the descriptors of terminals; negative: it is none.
func terminals(in io.Reader, out io.Writer) (int, int) {
	fd := func(v any) int {
		if f, ok := v.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return int(f.Fd())
		}
		return -1
	}
	if k, ok := out.(*checked); ok {
		out = k.Writer
	}
	return fd(in), fd(out)
}

// ask takes a picture of the agent.
func (c *cli) ask(ctx context.Context, p *picture) error {
	l, err := c.client().License(ctx)
	if err != nil {
		return err
	}
	pools, err := c.client().Pools(ctx)
	if err != nil {
		return err
	}
	h, err := c.client().Health(ctx)
	if err != nil {
		return err
	}
	leases, more := []wire.Lease{}, false
	for x, err := range c.client().EachLease(ctx, client.LeaseFilter{Pool: p.pool}) {
		if err != nil {
			return err
		}
		if len(leases) == mostTop {
			more = true
			break
		}
		leases = append(leases, *x)
	}
	waiting, behind, err := c.client().Waiting(ctx)
	if err != nil { // an agent of before does not list them
		waiting, behind = nil, false
	}
	if p.at.IsZero() || time.Since(p.deniedAt) > topDenied {
		p.denied, p.deniedAt = c.deniedLately(ctx), time.Now()
	}
	p.license, p.pools, p.product, p.leases, p.more = l, pools, h.Product, leases, more
	p.waiting, p.behind = waiting, behind
	p.away, p.at = "", time.Now()
	return nil
}

// deniedLately counts the last day's denials by pool; nil: that is for admins, or the agent counts none.
func (c *cli) deniedLately(ctx context.Context) map[string]int64 {
	u, err := c.client().Usage(ctx, client.UsageFilter{})
	if err != nil {
		return nil
	}
	out := map[string]int64{}
	for _, h := range u.Hours {
		for name, x := range h.Pools {
			for _, n := range x.Denials {
				out[name] += n
			}
		}
	}
	return out
}

// watch shows the agent until a key, or ctx, ends it.
func (c *cli) watch(ctx context.Context, p *picture, in, out int) error {
	was, err := term.MakeRaw(in)
	if err != nil {
		return err
	}
	defer func() { _ = term.Restore(in, was) }()
	canvas := &canvas{to: c.out}
	canvas.begin()
	defer canvas.end()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	keys := make(chan byte)
	go readKeys(ctx, c.in, keys)
	denials := make(chan wire.Event)
	go c.hearDenials(ctx, denials)
	pictures := make(chan picture, 1)
	looking := false
	look := func() {
		if looking {
			return
		}
		looking = true
		q := *p
		go func() { // an agent that is slow keeps no key waiting
			if err := c.ask(ctx, &q); err != nil {
				q.away = err.Error()
			}
			pictures <- q
		}()
	}
	look()
	again, size := time.NewTicker(topEvery), time.NewTicker(topLook)
	defer again.Stop()
	defer size.Stop()
	for {
		width, height, err := term.GetSize(out)
		if err != nil {
			return err
		}
		if err := canvas.paint(p.frame(width, height, time.Now()), width, height); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again.C:
			look()
		case <-size.C:
		case q := <-pictures:
			looking = false
			p.take(&q)
		case ev := <-denials:
			p.denials = slices.Insert(p.denials, 0, ev)
			p.denials = p.denials[:min(len(p.denials), mostTopEvent)]
		case key, ok := <-keys:
			if !ok || p.key(key) {
				return nil
			}
			if key == 'p' {
				look()
			}
		}
	}
}

// take takes over what was asked, unless it is of a pool that is no longer looked at.
func (p *picture) take(q *picture) {
	if q.away != "" {
		p.away = q.away
		return
	}
	p.license, p.product, p.pools, p.denied, p.deniedAt = q.license, q.product, q.pools, q.denied, q.deniedAt
	p.waiting, p.behind = q.waiting, q.behind
	p.away, p.at = "", q.at
	if q.pool == p.pool {
		p.leases, p.more = q.leases, q.more
	}
}

// key does what a key says; it reports whether that is to end.
func (p *picture) key(k byte) (end bool) {
	switch k {
	case 'q', 'Q', 3, 4: // also Ctrl-C and Ctrl-D
		return true
	case 's':
		p.sort, p.first = (p.sort+1)%len(topSorts), 0
	case 'p':
		names := []string{""}
		for _, x := range p.pools {
			names = append(names, x.Name)
		}
		p.pool, p.first = names[(slices.Index(names, p.pool)+1)%len(names)], 0
	case 'j':
		p.first = min(p.first+1, max(0, len(p.leases)-1))
	case 'k':
		p.first = max(0, p.first-1)
	}
	return false
}

// readKeys passes keys on until there are no more. A read that nobody waits for ends with the program.
func readKeys(ctx context.Context, in io.Reader, keys chan<- byte) {
	defer close(keys)
	b := make([]byte, 1)
	for {
		if n, err := in.Read(b); n == 0 || err != nil {
			return
		}
		select {
		case keys <- b[0]:
		case <-ctx.Done():
			return
		}
	}
}

// hearDenials passes denials on, and asks the agent again when it has gone.
func (c *cli) hearDenials(ctx context.Context, denials chan<- wire.Event) {
	for ctx.Err() == nil {
		for ev, err := range c.client().Events(ctx) {
			if err != nil {
				break
			}
			if ev.Type != audit.LeaseDenied {
				continue
			}
			select {
			case denials <- ev:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(topEvery):
		}
	}
}
