package agent

import (
	"time"

	"github.com/usher-agent/usher/agent/liveness"
	"github.com/usher-agent/usher/agent/systemd"
	"github.com/usher-agent/usher/enforcer"
)

// recoverWithin is how long a holder whose life is not known has to show itself after a restart, and after further
// restarts in all: only the time counts in which there was an agent. A lease of a time to live gets that long at least.
const recoverWithin = 15 * time.Second

// recover looks, for each lease that the journals told of, whether its holder lives: the dead one's ends, the living
// one's goes on, and one that is not known has a while to show itself. was is where the leases were granted.
func (a *Agent) recover(was meta) {
	inherited := a.handover.Holders()
	defer func() {
		for _, h := range inherited {
			if h != nil {
				h.Close()
			}
		}
	}()
	now := a.desk.time()
	is := presentMeta()
	if was.TimeNS == "" {
		was.TimeNS, was.TimeOffset = is.TimeNS, is.TimeOffset
	}
	kept := func(pid int32, start, inode uint64) (*liveness.Handle, bool) {
		h, ok := inherited[systemd.Process{PID: pid, Start: start, Inode: inode}]
		return h, ok
	}
	found, ended, doubted := 0, 0, 0
	sameBoot := was.Boot == "" || is.Boot == "" || was.Boot == is.Boot
	a.desk.mu.Lock()
	leases := a.desk.core.Leases(func(l *enforcer.Lease) bool {
		found++
		a.desk.countIn(l)
		return l.Lifetime != enforcer.LifetimeTTL && !durable(enforcer.Event{Lease: l}) ||
			!sameBoot && l.Lifetime == enforcer.LifetimeTTL
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
			switch a.holders.Find(l, was.place(), is.place(), kept) {
			case liveness.Alive:
				if l.Unconfirmed {
					a.desk.do(&enforcer.Attach{ID: l.ID, Caller: l.Holder.Caller})
				}
			case liveness.Dead:
				ended++
			case liveness.Unknown:
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

// leave ends what a dead process holds of a lease.
func (a *Agent) leave(id enforcer.LeaseID, holder enforcer.Caller) {
	a.desk.do(&enforcer.Leave{ID: id, Holder: holder})
}
