package fleet_test

import (
	"testing"
	"testing/synctest"
	"time"
)

// A site server that has two licences of one product, as while a renewal under another id reaches its agents, has one
// and the same slots of the fleet for both: the agents of the one and those of the other hand out no more together than
// one licence grants, all of them are served, and what those of the one leave is the others'.
func TestBrokersWithARenewal(t *testing.T) {
	for _, servers := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			y := openTier(t, servers, 12, "L1", "L2")
			time.Sleep(brokerTTL + blockTTL + time.Minute) // the new store's quarantine
			for i := range 12 {
				y.users = append(y.users, y.use(i))
			}
			y.play(time.Minute)
			all, had := y.users, y.usable("")
			if had < 11 {
				t.Errorf("%d of 12 slots are agents'", had)
			}
			y.users = nil
			for _, u := range all {
				u.mu.Lock()
				if u.first == 0 {
					t.Errorf("an agent with %s was not served", u.term.ID)
				}
				if u.term.ID == "L2" {
					y.users = append(y.users, u)
				} else { // nobody calls it any more
					u.inUse, u.waiting, u.queue, u.releases = 0, 0, nil, nil
				}
				u.mu.Unlock()
			}
			y.play(time.Minute)
			if n := y.usable("L2"); n < 10 {
				t.Errorf("%d of 12 slots are with agents that have the renewal", n)
			}
			y.users = all
			y.check()
			y.end()
		})
	}
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
