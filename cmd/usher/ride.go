package main

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// agentWait is how long the commands that take and give back slots wait for an agent that restarts: a service manager
// starts it again after a second, and then it needs a moment.
const agentWait = 5 * time.Second

// patience defines the flag that says for how long a command rides out the restart of an agent.
func patience(cmd *cobra.Command) *time.Duration {
	within := new(time.Duration)
	spanVar(cmd.Flags(), within, "agent-wait", agentWait, 0,
		"how long to wait for an agent that is away, as over a restart; 0: not at all")
	return within
}

// again reports whether an agent that restarts gives this error, and another try may go well: nobody listens, or the
// agent takes no more requests. Nothing was asked for then. lost: an answer may have been lost, too.
func again(err error) (yes, lost bool) {
	switch {
	case errors.Is(err, os.ErrPermission), errors.Is(err, context.DeadlineExceeded): // it is there, and silent
		return false, false
	case errors.Is(err, client.ErrDraining), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		return true, false
	default:
		return errors.Is(err, client.ErrAgentAway), true
	}
}

// ride tries f again while the agent is away, for as long as within says. lost says whether f may be tried again where
// an earlier try may have been granted.
func (c *cli) ride(ctx context.Context, within time.Duration, lost bool, f func() error) error {
	began := time.Now()
	told := false
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		err := f()
		if err == nil {
			return nil
		}
		yes, maybe := again(err)
		if !yes || maybe && !lost || time.Since(began)+pause > within {
			return err
		}
		if !told && time.Since(began) > time.Second {
			fprintf(c.errs, "the agent is away; waiting for it, up to %s (--agent-wait)\n", enforcer.Span(within))
			told = true
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// take opens a session and takes slots for this process, and rides out a restart of the agent meanwhile. Where an
// answer was lost, the agent may have granted them: what it has granted to this process goes back first, so that
// nothing is held twice.
func (c *cli) take(ctx context.Context, r wire.AcquireRequest, within time.Duration) (s *client.Session,
	l *client.Lease, err error) {
	began, asked := time.Now(), false
	err = c.ride(ctx, within, true, func() (err error) {
		agent := c.client()
		err = agent.WhileAnswering(ctx, c.timeout, func(ctx context.Context) (err error) {
			s, err = client.Open(ctx, client.WithSocket(c.socketPath()))
			return err
		})
		if err != nil {
			return err
		}
		if asked {
			err = c.giveBack(ctx, s.Agent().You, began)
		}
		if err == nil {
			wait := c.timeout + time.Duration(r.WaitSeconds*float64(time.Second))
			err = agent.WhileAnswering(ctx, wait, func(ctx context.Context) (err error) {
				l, err = s.AcquireTold(ctx, r, c.tellPlace)
				return err
			})
			_, lost := again(err)
			asked = asked || lost
		}
		if err != nil {
			s.Close()
		}
		return err
	})
	return s, l, err
}

// giveBack releases what a process of this user was granted since a time. What it has held before stays: another
// command may have become this one.
func (c *cli) giveBack(ctx context.Context, process wire.Holder, since time.Time) error {
	if process.PID == 0 { // the agent does not see it: its leases end with their connections
		return nil
	}
	clock, err := c.client().Clock(ctx) // leases have licence time
	if err != nil {
		return err
	}
	since = clock.Time.Add(-time.Since(since))
	for l, err := range c.client().EachLease(ctx, client.LeaseFilter{}) {
		if err != nil {
			return err
		}
		if l.Lifetime != "process" || l.AcquiredAt.Before(since) || l.Holder == nil || l.Holder.PID != process.PID ||
			l.Holder.UID != process.UID {
			continue
		}
		if err := c.client().Release(ctx, l.ID, false); err != nil && !errors.Is(err, client.ErrLeaseUnknown) {
			return err
		}
	}
	return nil
}
