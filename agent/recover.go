package agent

import (
	"strconv"
	"strings"

	"github.com/usher-agent/usher/agent/desk"
	"github.com/usher-agent/usher/agent/holders"
	"github.com/usher-agent/usher/agent/liveness"
	"github.com/usher-agent/usher/agent/systemd"
	"github.com/usher-agent/usher/enforcer"
)

// recover looks, for each lease that the journals told of, whether its holder lives: the dead one's ends, the living
// one's goes on, and one that is not known has a while to show itself.
func (a *Agent) recover() {
	inherited := a.handover.Holders()
	defer func() {
		for _, h := range inherited {
			if h != nil {
				h.Close()
			}
		}
	}()
	was, is := a.desk.GrantedAt(), desk.Here()
	if was.TimeNS == "" {
		was.TimeNS, was.TimeOffset = is.TimeNS, is.TimeOffset
	}
	kept := func(pid int32, start, inode uint64) (*liveness.Handle, bool) {
		h, ok := inherited[systemd.Process{PID: pid, Start: start, Inode: inode}]
		return h, ok
	}
	ended, doubted := 0, 0
	sameBoot := was.Boot == "" || is.Boot == "" || was.Boot == is.Boot
	found, leases := a.desk.Recovered(func(l *enforcer.Lease) bool {
		return l.Lifetime != enforcer.LifetimeTTL && !desk.Outlasts(l) ||
			!sameBoot && l.Lifetime == enforcer.LifetimeTTL
	})
	for _, l := range leases {
		if !sameBoot {
			a.desk.Do(&enforcer.End{ID: l.ID, Cause: enforcer.CauseHolderGone})
			ended++
			continue
		}
		switch l.Lifetime {
		case enforcer.LifetimeProcess:
			switch a.holders.Find(l, placeOf(was), placeOf(is), kept) {
			case liveness.Alive:
				if l.Unconfirmed {
					a.desk.Do(&enforcer.Attach{ID: l.ID, Caller: l.Holder.Caller})
				}
			case liveness.Dead:
				ended++
			case liveness.Unknown:
				doubted++
				a.desk.Doubt(l)
			}
		default:
			doubted++
			a.desk.Doubt(l)
		}
	}
	if found > 0 {
		a.log.Info("leases found again", "leases", found, "of_dead_holders", ended, "unconfirmed", doubted)
	}
}

// leave ends what a dead process holds of a lease.
func (a *Agent) leave(id enforcer.LeaseID, holder enforcer.Caller) {
	a.desk.Do(&enforcer.Leave{ID: id, Holder: holder})
}

// placeOf is a place as holders are looked for.
func placeOf(m desk.Place) holders.Place {
	return holders.Place{Boot: m.Boot, PIDNS: namespace(m.PIDNS), TimeNS: namespace(m.TimeNS), TimeOffset: m.TimeOffset}
}

// namespace returns the inode out of a namespace's link, which is its kind, a colon and the number in brackets
// (namespaces(7)); 0 when there is none.
func namespace(link string) uint64 {
	_, n, _ := strings.Cut(link, ":[")
	inode, _ := strconv.ParseUint(strings.TrimSuffix(n, "]"), 10, 64) // 0 when it is no number
	return inode
}
