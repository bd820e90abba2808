package agent

import (
	"context"
	"errors"
	"time"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/agent/pulse"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// uptime is what the pulse asks of the host's clocks.
func uptime() pulse.Uptime {
	up := clock.Boot()
	return pulse.Uptime{BootID: clock.BootID(), Up: up, Suspended: max(0, up-clock.Awake()).Truncate(time.Millisecond)}
}

// Clock returns the licence time and where it is from.
func (f front) Clock() wire.Clock {
	at := f.desk.Timing()
	out := wire.Clock{Wall: at.Wall, Time: at.Time, From: string(at.From), MarkedAt: api.Instant(at.Mark.Time),
		LearntAt: api.Instant(at.Mark.Learnt), SignedAt: api.Instant(at.Mark.Signed),
		BehindSeconds: at.Behind.Seconds(), BehindSince: api.Instant(at.BehindSince), AheadSeconds: at.Ahead.Seconds()}
	if at.Ahead > 0 {
		out.BelievedAt = api.Instant(at.Time.Add(max(0, enforcer.Leap-at.AheadFor)))
	}
	if at.Unsure > 0 {
		out.FirstClock = &wire.FirstClock{Since: at.Time.Add(at.Unsure - enforcer.Leap),
			ProvedAt: at.Time.Add(at.Unsure)}
	}
	return out
}

// watchClock has everything that waits for a time look again whenever the wall clock is set and after a suspension.
// Elsewhere than on Linux that is noticed within a minute.
func (a *Agent) watchClock(ctx context.Context) error {
	err := clock.Watch(ctx, func() {
		a.log.Debug("the wall clock was set, or the host was suspended")
		a.desk.Look()
		a.court.Look()
		a.duties.Pulse.Look()
	})
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		a.log.Warn("the kernel does not tell when the clock is set; it is looked at every minute", "error", err)
	}
	return nil
}
