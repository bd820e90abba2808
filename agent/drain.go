package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/desk"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// ReleaseHost gives this host's place on a licence back to its upstream, or on all where id is empty: a host that is
// given up. It is not done on a mere shutdown, after which the host goes on.
func (f front) ReleaseHost(ctx context.Context, by enforcer.Caller, id string) (wire.Releases, *enforcer.Denial) {
	var ids []string
	if id != "" {
		ids = append(ids, id)
	}
	placed := f.duties.Pulse.Placed(ids...)
	if len(placed) == 0 && id != "" {
		return wire.Releases{}, &enforcer.Denial{Code: enforcer.DocumentUnknown, Field: "license",
			Detail: fmt.Sprintf("this host has no place on a licence %q to give back", id),
			Hint:   "`usher license list` shows the licences; a place has what was activated by an upstream"}
	}
	out := wire.Releases{Licenses: []wire.Released{}}
	for _, l := range placed {
		r := wire.Released{License: l.ID, Released: true}
		if err := f.duties.Pulse.Deactivate(ctx, l); err != nil {
			r.Released, r.Reason = false, err.Error()
		} else {
			f.vouched(l.ID, "")
			f.audit.NoteBy(by, eventlog.Event{Type: audit.LicenseReleased, Subject: l.ID})
			f.log.Warn("this host gave its place on a licence back", "licence", l.ID, "uid", by.UID, "pid", by.PID,
				"exe", by.Exe)
		}
		out.Licenses = append(out.Licenses, r)
	}
	return out, nil
}

// Drain has no new leases granted until Undrain or the next start, and waits until those that are held are over.
// Borrows are not waited for. Only when nothing is held any more are places given back.
func (f front) Drain(ctx context.Context, by enforcer.Caller, wait time.Duration,
	release bool) (wire.Drain, *enforcer.Denial) {
	if !f.desk.Draining() {
		f.desk.Drain()
		f.shares.Nudge() // what is not in use goes back to the site
		f.audit.NoteBy(by, eventlog.Event{Type: audit.AgentDrained})
		f.log.Warn("the agent grants no new leases from now on", "uid", by.UID, "pid", by.PID, "exe", by.Exe)
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	f.desk.Idle(waiting, f.running.life.Done())
	out := f.Drained()
	if release && out.Leases == 0 && ctx.Err() == nil {
		all, d := f.ReleaseHost(ctx, by, "")
		if d != nil {
			return out, d
		}
		out.Licenses = all.Licenses
	}
	return out, nil
}

// Drained says how far it is.
func (f front) Drained() wire.Drain {
	held, borrowed := f.desk.Holding()
	return wire.Drain{Draining: f.desk.Draining(), Leases: held, Borrowed: borrowed}
}

// Undrain has leases granted again.
func (f front) Undrain(by enforcer.Caller) *enforcer.Denial {
	select {
	case <-f.running.life.Done():
		return desk.RefuseDrained()
	default:
	}
	if f.desk.Undrain() {
		f.shares.Nudge()
		f.audit.NoteBy(by, eventlog.Event{Type: audit.AgentUndrained})
		f.log.Info("the agent grants leases again", "uid", by.UID, "pid", by.PID, "exe", by.Exe)
	}
	return nil
}
