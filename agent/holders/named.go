package holders

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/liveness"
	"github.com/usher-agent/usher/enforcer"
)

// AcquireFor asks the desk for a lease that another process than the caller is to hold: that of a pidfd which the
// caller sent, else that which has the number pid. It makes r.Caller that process. The lease counts as the process's,
// and ends when it dies. AcquireFor takes sent, which [TakeSent] made; nil: nothing was sent.
//
// The kernel says whose the process is, and a caller that is not root may name those of its own user alone.
func (o *Sessions) AcquireFor(ctx context.Context, r *enforcer.Acquire, pid int32, sent io.Closer) (api.Grant,
	*enforcer.Denial) {
	handle, d := named(&r.Caller, pid, sent)
	if d != nil {
		return api.Grant{}, d
	}
	defer handle.Close()
	r.Named, r.Lifetime = true, lifetimeOf(r)
	died, die := context.WithCancel(context.Background())
	defer die()
	if r.Wait > 0 { // a dead one waits for nothing
		var leave context.CancelFunc
		ctx, leave = context.WithCancel(ctx)
		defer leave()
		defer context.AfterFunc(died, leave)()
		stop, err := o.Registry.onDeath(handle, die)
		if err != nil {
			return api.Grant{}, notWatched(err)
		}
		defer stop()
	}
	g, d := o.Slots.Acquire(ctx, r)
	if d == nil && g.Replayed && g.Unconfirmed {
		g, d = o.Slots.Give(&enforcer.Attach{ID: g.ID, Caller: r.Caller})
	}
	switch {
	case d != nil && died.Err() != nil:
		return api.Grant{}, notNamed("name a process that runs", "process %d died while it waited", pid)
	case d != nil:
		return api.Grant{}, d
	case o.Registry.holds(g.ID, handle): // a retry's
		return g, nil
	}
	if err := o.Registry.Hold(g.ID, r.Caller, handle); err != nil {
		o.Slots.Do(&enforcer.Release{ID: g.ID, Caller: r.Caller, Cause: enforcer.CauseUndelivered})
		return api.Grant{}, notWatched(err)
	}
	if _, held := o.Slots.Lease(g.ID); !held { // it ended before the registry knew of it
		o.Registry.Ended(g.Lease, enforcer.CauseReleased)
	}
	return g, nil
}

// lifetimeOf is the lifetime of a lease for another process, unless the request names one, which the enforcer judges.
func lifetimeOf(r *enforcer.Acquire) enforcer.Lifetime {
	switch {
	case r.Lifetime != "":
		return r.Lifetime
	case r.TTL != 0:
		return enforcer.LifetimeTTL
	}
	return enforcer.LifetimeProcess
}

// named returns a handle of the process that a caller names, and makes the caller that process.
func named(c *enforcer.Caller, pid int32, sent io.Closer) (*liveness.Handle, *enforcer.Denial) {
	s, ok := sent.(*liveness.Sent)
	if ok {
		defer s.Close()
	}
	var handle *liveness.Handle
	var err error
	switch {
	case ok && s != nil:
		handle, err = s.Handle()
	default:
		handle, err = liveness.FromPID(pid, 0)
		if (err == nil || errors.Is(err, liveness.ErrDead)) && !besides(c) {
			if handle != nil {
				handle.Close()
			}
			return nil, notNamed(
				"send a pidfd of the process beside the request's first byte, as `usher acquire --pid` does",
				"the agent does not see the caller in its own PID namespace, and the number %d may be another "+
					"process's here",
				pid)
		}
	}
	if err != nil {
		return nil, unwatchable(pid, err)
	}
	d := speaksFor(c, pid, handle)
	if d != nil {
		handle.Close()
		return nil, d
	}
	return handle, nil
}

// besides reports whether a caller is known to be in the agent's own PID namespace, so that a number which it names is
// the same process's for both.
func besides(c *enforcer.Caller) bool { return len(liveness.Numbers(c.PID, c.Start)) == 1 }

// speaksFor makes the caller the process that it names by a number, or says why it may not speak for it.
//
// Of a process that is not visible the kernel tells the agent nothing but that it lives. Only a caller that is not
// visible either can have got a pidfd of it by itself. The lease then counts as that caller's, whoever's the process
// is, and lasts no longer than it: the caller gains no more than by a lease that is held until it is released.
func speaksFor(c *enforcer.Caller, pid int32, handle *liveness.Handle) *enforcer.Denial {
	p := handle.Process()
	if visible := p.PID != 0; visible != (c.PID != 0) {
		return notNamed("run the command in the PID namespace of the process, as its user",
			"the agent sees one of the caller and process %d, and not the other, so that nothing shows whose that is",
			pid)
	} else if !visible {
		c.Exe, c.Start, c.Inode, c.Pod = "", 0, p.Inode, ""
		c.Admin = false
		return nil
	}
	owner, err := handle.Owner()
	switch {
	case err != nil:
		return unwatchable(pid, err)
	case !slices.Contains(owner.Numbers, pid):
		return notNamed("send a pidfd of the process that pid names, with the request that names it",
			"pid is %d, and the pidfd that was sent is process %d's", pid, p.PID)
	case c.UID == enforcer.Nobody, c.UID != 0 && !owner.Only(c.UID), owner.UIDs[1] == enforcer.Nobody:
		return &enforcer.Denial{Code: enforcer.Forbidden, Field: "pid",
			Detail: fmt.Sprintf("process %d is not one of uid %d alone, and a user may name its own processes only",
				pid,
				c.UID),
			Hint: "ask as the user of the process, or as root"}
	}
	profile := c.Profile // a user's groups are the same in its processes, but for what newgrp(1) and its like do
	if owner.UIDs[1] != c.UID {
		profile = enforcer.ProfileRef{}
	}
	*c = enforcer.Caller{UID: owner.UIDs[1], GID: owner.GID, PID: p.PID, Exe: owner.Exe, Start: p.Start, Inode: p.Inode,
		Profile: profile}
	return nil
}

func notNamed(hint, format string, args ...any) *enforcer.Denial {
	return &enforcer.Denial{Code: enforcer.BadRequest, Field: "pid", Detail: fmt.Sprintf(format, args...), Hint: hint}
}

// unwatchable says why there is no handle of a process.
func unwatchable(pid int32, err error) *enforcer.Denial {
	switch {
	case errors.Is(err, liveness.ErrDead):
		return notNamed("name a process that runs", "there is no process %d, or it is dead", pid)
	case errors.Is(err, liveness.ErrUnsupported):
		return notNamed("give a time to live instead (ttl_seconds), and renew it",
			"process %d cannot hold a lease: %v", pid, err)
	}
	return notWatched(err)
}

func notWatched(err error) *enforcer.Denial {
	return &enforcer.Denial{Code: enforcer.RateLimited, Field: "pid",
		Detail: fmt.Sprintf("the agent cannot watch one more process: %v", err),
		Hint:   "try again later, or raise the agent's limit on open files"}
}
