package fleet_test

import (
	"slices"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
)

// A site server that has two licences of one product, as while a renewal under another id reaches its agents, has one
// and the same slots of the fleet for both: the agents of the one and those of the other hand out no more together than
// one licence grants, all are served, and those of the one keep nothing that they do not use from the others.
func TestBrokersWithARenewal(t *testing.T) {
	for _, servers := range []int{1, 2} {
		bubble.Test(t, func(t *testing.T) {
			y := openTier(t, servers, 12, "L1", "L2")
			time.Sleep(brokerTTL + blockTTL + time.Minute) // the new store's quarantine
			for i := range 12 {
				y.users = append(y.users, y.use(i))
			}
			y.play(time.Minute)
			for late := 0; late < 4 && y.waitsStill(); late++ { // all compete without end: one may come late each time
				y.play(time.Minute)
			}
			all, served := y.users, 0
			if n := y.usable(""); n < 9 || y.usable("L1") == 0 || y.usable("L2") == 0 {
				t.Errorf("%d of 12 slots are agents', %d of them by the renewal", n, y.usable("L2"))
			}
			y.users = nil
			for _, u := range all {
				u.mu.Lock()
				if u.first > 0 {
					served++
				}
				if u.term.ID == "L2" {
					y.users = append(y.users, u)
				} else { // nobody calls it any more
					u.inUse, u.waiting, u.queue, u.releases = 0, 0, nil, nil
				}
				u.mu.Unlock()
			}
			if served < 12 {
				t.Errorf("%d of 12 agents were served", served)
			}
			y.play(time.Minute)
			had := y.usable("L2")
			y.users = all
			y.check()
			if left := y.usable("L1"); had < 6 || left > 1 {
				t.Errorf("%d slots are with agents that have the renewal, and %d with the others", had, left)
			}
			y.end()
		})
	}
}

// waitsStill reports whether an agent has not been served yet.
func (y *tier) waitsStill() bool {
	return slices.ContainsFunc(y.users, func(u *user) bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.first == 0
	})
}

// usable is what the agents with a licence may hand out, or all agents.
func (y *tier) usable(id string) (n int64) {
	for _, u := range y.users {
		u.mu.Lock()
		if id == "" || u.term.ID == id {
			n += u.usable()
		}
		u.mu.Unlock()
	}
	return n
}
