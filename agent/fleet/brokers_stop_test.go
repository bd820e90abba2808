package fleet_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/agent/fleet"
)

// needs has n more callers of an agent wait, who hold what they get.
func (u *user) needs(n int64) {
	u.mu.Lock()
	u.waiting += n
	for range n {
		u.queue = append(u.queue, time.Now())
	}
	u.mu.Unlock()
	u.changed()
	u.keeper.Nudge()
}

// has is how many slots are held at an agent, and how many it may hand out.
func (u *user) has() (held, may int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.inUse, u.usable()
}

// hold reports whether each agent holds n slots.
func (y *tier) hold(n int64) bool {
	for _, u := range y.users {
		if held, _ := u.has(); held != n {
			return false
		}
	}
	return true
}

// lent is how many slots agents have from a server.
func (y *tier) lent(name string) (n int64) {
	for _, b := range y.server(name).registry.OutBlocks() {
		n += b.Slots
	}
	return n
}

// until waits until something is so, and returns how long that took.
func (y *tier) until(what string, ok func() bool) time.Duration {
	y.t.Helper()
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		y.check()
		if ok() {
			return time.Since(began)
		}
		if time.Since(began) > 3*time.Minute {
			y.end()
			y.t.Fatalf("not so after three minutes: %s", what)
		}
	}
}

// busy has messages between agents and servers be late, a few of them by up to two seconds, and the store be slow.
func (y *tier) busy(rng *rand.Rand) {
	var mu sync.Mutex // guards rng
	y.late = func() (there, back time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		there = time.Duration(rng.ExpFloat64() * float64(50*time.Millisecond))
		back = time.Duration(rng.ExpFloat64() * float64(50*time.Millisecond))
		if rng.IntN(8) == 0 {
			back += time.Duration(rng.Int64N(int64(2 * time.Second)))
		}
		return there, back
	}
	y.slow = func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return time.Duration(rng.Int64N(int64(100 * time.Millisecond)))
	}
}

// A site server of two is stopped, and its agents have more slots from the other one at once. It comes back, and the
// other one is drained. Meanwhile agents hold what they held, and in each moment no more than there is.
func TestBrokersStopAndDrain(t *testing.T) {
	for seed := range uint64(max(4, *fleet.Seeds/10)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) { stopAndDrain(t, rand.New(rand.NewPCG(seed, 11))) })
		})
	}
}

func stopAndDrain(t *testing.T, rng *rand.Rand) {
	y := openTier(t, 0, 12, "L1")
	y.ttl, y.lends = 5*time.Second, 30*time.Second
	y.busy(rng)
	y.serve("site-0")
	y.serve("site-1")
	time.Sleep(2 * time.Minute) // the new store's quarantine
	for i := range 3 {
		u := y.use(i)
		u.needs(1)
		y.users = append(y.users, u)
	}
	y.until("each agent holds two slots", func() bool { return y.hold(2) })
	stops, stays := "site-0", "site-1"
	if y.lent(stops) == 0 { // which server an agent asks first is by its key
		stops, stays = stays, stops
	}
	go y.server(stops).leave()
	for _, u := range y.users {
		u.needs(2)
	}
	took := y.until("each agent holds four slots", func() bool { return y.hold(4) })
	if took > 20*time.Second {
		t.Errorf("%s after a site server was stopped its agents have six slots more", took)
	}
	y.until("all is of the server that stays", func() bool { return y.lent(stays) == 12 })
	y.server(stops).leave()
	y.run(stops, y.server(stops).dir)
	operator := &fleet.Operator{Store: y.sim.Way("operator"), Prefix: "/u/", Now: y.now, Time: time.Now}
	if _, err := operator.Drain(t.Context(), stays, false); err != nil {
		t.Fatal(err)
	}
	moved := y.until("all has moved back", func() bool { return y.lent(stops) == 12 })
	for range 200 {
		for i, u := range y.users {
			if held, may := u.has(); (held != 4 || may != 4) && y.wrong == "" {
				y.wrong = fmt.Sprintf("after the drain agent %d holds %d slots of %d; it has taken four", i, held, may)
			}
		}
		y.check()
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("its agents have more after %s; after the drain all has moved after %s", took, moved)
	y.end()
}
