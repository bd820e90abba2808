package agent

import (
	"time"

	"github.com/usher-agent/usher/agent/liveness"
	"github.com/usher-agent/usher/agent/systemd"
	"github.com/usher-agent/usher/enforcer"
)

// recoverWithin is how long a holder whose life is not known has to show itself after a restart, and after further restarts in
// all: only the time counts in which there was an agent. A lease of a time to live
// gets that long at least.
const recoverWithin = 15 * time.Second

// recover looks, for each lease that the journals told of, whether its holder lives: the dead one's ends, the living one's
// goes on, and one that is not known has a while to show itself. was is where the leases were granted.
func (a *Agent) recover(was meta) {
	inherited := a.handover.Holders()
	defer func() {
		for _, h := range inherited {
			if h != nil {
				h.Close() //nolint:errcheck // the watches have their own
			}
		}
	}()
	now := a.desk.time()
	is := presentMeta()
	if was.TimeNS == "" {
		was.TimeNS, was.TimeOffset = is.TimeNS, is.TimeOffset
	}
	found, ended, doubted := 0, 0, 0
	sameBoot := was.Boot == "" || is.Boot == "" || was.Boot == is.Boot
	a.desk.mu.Lock()
	leases := a.desk.core.Leases(func(l *enforcer.Lease) bool {
		found++
		a.desk.countIn(l)
		return l.Lifetime != enforcer.LifetimeTTL && !durable(enforcer.Event{Lease: l}) || !sameBoot && l.Lifetime == enforcer.LifetimeTTL
	})
	a.desk.mu.Unlock()
	for _, l := range leases {
		if !sameBoot {
			a.desk.do(&enforcer.End{ID: l.ID, Cause: enforcer.CauseHolderGone})
			ended++
			continue
		}
		switch l.Lifetime {
		case enforcer.LifetimeProcess:
			switch a.findHolders(l, was, is, inherited) {
			case holderAlive:
				if l.Unconfirmed {
					a.desk.do(&enforcer.Attach{ID: l.ID, Caller: l.Holder.Caller})
				}
			case holderDead:
				ended++
			case holderUnknown:
				doubted++
				a.desk.do(&enforcer.Doubt{ID: l.ID, Until: now.Add(a.desk.store.showWithin(l))})
			}
		default:
			doubted++
			a.desk.do(&enforcer.Doubt{ID: l.ID, Until: now.Add(a.desk.store.showWithin(l))})
		}
	}
	if found > 0 {
		a.log.Info("leases found again", "leases", found, "of_dead_holders", ended, "unconfirmed", doubted)
	}
}

// What can be known of a lease's holders.
const (
	holderAlive = iota
	holderDead
	holderUnknown
)

// findHolder looks for one process, first among those whose pidfds were kept.
func findHolder(h *enforcer.Holder, was meta, inherited map[systemd.Process]*liveness.Handle) (*liveness.Handle, liveness.State) {
	kept, ok := inherited[systemd.Process{PID: h.PID, Start: h.Start, Inode: h.Inode}]
	if !ok {
		return liveness.Find(was.process(h))
	}
	if kept == nil {
		return nil, liveness.Dead
	}
	handle, err := kept.Share()
	if err != nil {
		return nil, liveness.Unknown
	}
	return handle, liveness.Alive
}

// findHolders looks for the processes that hold a lease: those that are dead leave it, those that live are watched.
func (a *Agent) findHolders(l *enforcer.Lease, was, is meta, inherited map[systemd.Process]*liveness.Handle) int {
	if l.Unconfirmed {
		was.PIDNS = "" // it may be from before the last restart, when the numbers were another namespace's
	}
	result := holderDead
	for _, h := range append([]*enforcer.Holder{l.Holder}, l.Others...) {
		handle, state := findHolder(h, was, inherited)
		if state == liveness.Alive && was.PIDNS != is.PIDNS && h.PID != handle.Process().PID {
			handle.Close()           //nolint:errcheck // it was only looked at
			state = liveness.Unknown // its number in the record is another's here: the next restart would take it for that one
		}
		if state == liveness.Dead {
			a.desk.do(&enforcer.Leave{ID: l.ID, Holder: h.Caller})
			continue
		}
		if state == liveness.Alive {
			if a.holders.hold(l.ID, h.Caller, handle) != nil {
				state = liveness.Unknown
			}
			handle.Close() //nolint:errcheck // the watch has its own
		}
		if state == liveness.Unknown {
			result = holderUnknown
		} else if result == holderDead {
			result = holderAlive
		}
	}
	return result
}
