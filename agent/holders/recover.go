package holders

import (
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/liveness"
	"github.com/usher-agent/usher/enforcer"
)

// Recovered is the part of the agent's desk that a recovery uses.
type Recovered interface {
	// Recovered counts the leases that the journals told of, and calls found, which must not call Slots, with each of
	// a lifetime for which doubtful is true.
	Recovered(doubtful func(enforcer.Lifetime) bool, found func(*enforcer.Lease)) (all int)
	// Doubt makes a lease unconfirmed: it ends unless its holder shows itself within a while.
	Doubt(*enforcer.Lease)
	Do(enforcer.Request) enforcer.Decision
}

// Recovery says where to look for holders. All fields are required.
type Recovery struct {
	Slots Recovered
	// Was is where the leases were granted, Is where the agent runs now.
	Was, Is Place
	Kept    Kept
	Log     *slog.Logger
}

// Recover looks, for each lease that the journals told of, whether its holder lives. The lease of a dead holder ends,
// that of a living one goes on, and an unknown holder has a while to show itself.
func (r *Registry) Recover(c Recovery) {
	was := c.Was
	if was.TimeNS == 0 { // earlier versions did not write it
		was.TimeNS, was.TimeOffset = c.Is.TimeNS, c.Is.TimeOffset
	}
	ended, doubted := 0, 0
	sameBoot := was.Boot == "" || c.Is.Boot == "" || was.Boot == c.Is.Boot
	var groups groups
	var single []*enforcer.Lease
	all := c.Slots.Recovered(func(l enforcer.Lifetime) bool {
		if l == enforcer.LifetimeTTL {
			return !sameBoot
		}
		return !l.OutlivesHost()
	}, func(l *enforcer.Lease) {
		if sameBoot && l.Lifetime == enforcer.LifetimeProcess && len(l.Others) == 0 && !l.Unconfirmed {
			groups.add(l)
		} else {
			single = append(single, l)
		}
	})
	look := newLookup(c.Kept)
	defer look.close()
	for _, l := range single {
		if !sameBoot {
			c.Slots.Do(&enforcer.End{ID: l.ID, Cause: enforcer.CauseHolderGone})
			ended++
			continue
		}
		state := liveness.Unknown
		if l.Lifetime == enforcer.LifetimeProcess {
			state = r.find(l, was, c.Is, look)
		}
		switch state {
		case liveness.Alive:
			if l.Unconfirmed {
				c.Slots.Do(&enforcer.Attach{ID: l.ID, Caller: l.Holder.Caller})
			}
		case liveness.Dead:
			ended++
		case liveness.Unknown:
			doubted++
			c.Slots.Doubt(l)
		}
	}
	for _, g := range groups.all {
		switch r.findAll(g, was, c.Is, look) {
		case liveness.Alive:
		case liveness.Dead:
			ended += g.n
		case liveness.Unknown:
			doubted += g.n
			for l := range g.leases {
				c.Slots.Doubt(l)
			}
		}
	}
	if all > 0 {
		c.Log.Info("leases found again", "leases", all, "of_dead_holders", ended, "unconfirmed", doubted)
	}
}

// PlaceOf makes a place of a boot's id and the links of its namespaces in /proc/self/ns, which are a kind, a colon and
// an inode in brackets (namespaces(7)). ahead is how far the time namespace's clock is ahead of the host's.
func PlaceOf(boot, pidns, timens string, ahead time.Duration) Place {
	return Place{Boot: boot, PIDNS: inodeOf(pidns), TimeNS: inodeOf(timens), TimeOffset: ahead}
}

// inodeOf returns the inode out of a namespace's link; 0: there is none.
func inodeOf(link string) uint64 {
	_, n, _ := strings.Cut(link, ":[")
	inode, _ := strconv.ParseUint(strings.TrimSuffix(n, "]"), 10, 64) // 0 when it is no number
	return inode
}
