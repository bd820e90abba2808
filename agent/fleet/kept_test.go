package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
)

// grantable is what the agent may hand out at this instant. mu is held.
func (h *host) grantable() int64 {
	if !h.alive || h.fence != 0 && h.now() >= h.fence {
		return 0
	}
	return h.cap
}

// stillHeld is what may be in use where n may be handed out: of a host that keeps what is held, all that is in use. mu
// is held.
func (h *host) stillHeld(n int64) int64 {
	if h.keep == 0 || !h.alive {
		return n
	}
	return max(n, h.inUse)
}

// keptOn has a host that keeps what is held in a partition let go of what is beyond that: at once where its limit has
// shrunk, and after the time in which leases are revoked where its share is over. mu is held.
func (h *host) keptOn(kept int64, bounded bool) {
	if h.kept = kept; h.keep == 0 || h.inUse <= h.cap+kept {
		return
	}
	if !bounded {
		h.inUse = h.cap + kept
		return
	}
	stop := h.stopped
	time.AfterFunc(enforcer.RevokeDelay, func() {
		h.c.mu.Lock()
		defer h.c.mu.Unlock()
		if h.stopped == stop {
			h.inUse = min(h.inUse, h.cap+h.kept)
		}
	})
}

// overdue has hosts whose fence has passed look at what they may hand out, as an acquire does.
func (c *crowd) overdue() {
	for _, h := range c.agents {
		c.mu.Lock()
		due := h.alive && h.fence != 0 && h.now() >= h.fence
		c.mu.Unlock()
		if due {
			h.changed()
		}
	}
}

// Where leases run on in a partition, what is held counts with what others may hand out, also after the agent has been
// cut off for longer than anybody keeps its slots.
func TestCrowdThatKeepsWhatIsHeld(t *testing.T) {
	for seed := range *seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) { play(t, uint64(seed), 30*time.Second, 0, 10*time.Second) })
		})
		if t.Failed() {
			return
		}
	}
}

// An agent that is cut off goes on with what is held until the stated bound, grants none, and has let go of it when
// others take its slots; also where the store is restored from a backup meanwhile that does not know of them.
func TestKeepHeld(t *testing.T) {
	for _, restored := range []bool{false, true} {
		t.Run(fmt.Sprint("restored ", restored), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) { keepHeld(t, restored) })
		})
	}
}

func keepHeld(t *testing.T, restored bool) {
	c := newCrowd(t, 1, 2, 10)
	a, b := c.agents[0], c.agents[1]
	const keep = 30 * time.Second
	a.keep = keep // b need not know
	a.start()
	b.start()
	time.Sleep(12*time.Second + keep + windDown)
	backup := c.sim.snapshot()
	a.act(5, false)
	a.wait()
	a.way.set(true, nil, nil)
	cut, bound := time.Now(), 25*time.Second+keep+windDown
	if restored {
		c.sim.restore(backup)
		bound += 15 * time.Second // b's next renewal finds out, and its tries lie apart
	}
	b.act(8, false)
	var held, served time.Duration
	for served == 0 && time.Since(cut) < 3*time.Minute {
		time.Sleep(100 * time.Millisecond)
		if time.Since(cut) > 12*time.Second {
			a.act(1, false) // nothing of it is granted
		}
		c.overdue()
		c.mu.Lock()
		c.check()
		if a.inUse > 5 {
			t.Fatalf("%s after it was cut off, the agent has granted more", time.Since(cut))
		}
		if a.inUse == 5 {
			held = time.Since(cut)
		}
		if b.waiting == 0 {
			served = time.Since(cut)
		}
		c.mu.Unlock()
	}
	if held < keep {
		t.Errorf("what is held was let go %s after the agent was cut off; it is kept for %s", held, keep)
	}
	if served <= held || served > bound {
		t.Errorf("the other was served %s after it, and what is held was let go after %s; the bound is %s", served,
			held,
			bound)
	}
	c.calm()
}

// A host that is started again while its former slots may be in use has none of them before their time is over; the
// agent that is started again on the same start of its host goes on with them.
func TestFormerSlots(t *testing.T) {
	for _, rebooted := range []bool{false, true} {
		bubble.Test(t, func(t *testing.T) {
			c := newCrowd(t, 1, 2, 10)
			a, b := c.agents[0], c.agents[1]
			a.keep, b.keep = 30*time.Second, 30*time.Second
			a.start()
			b.start()
			time.Sleep(12*time.Second + a.keep + windDown)
			a.act(6, false)
			a.wait()
			a.die()
			died := time.Now()
			if rebooted {
				a.epoch += "'"
			}
			time.Sleep(15 * time.Second) // its key has gone
			a.start()
			time.Sleep(3 * time.Second)
			b.act(8, false)
			for b.waits() && time.Since(died) < 2*time.Minute {
				time.Sleep(100 * time.Millisecond)
			}
			took := time.Since(died)
			if rebooted && (took < a.keep || took > a.keep+windDown+40*time.Second) {
				t.Errorf("slots that may be in use are with another %s after the host stopped", took)
			}
			if !rebooted && took > a.keep {
				t.Errorf("the agent's idle slots are with another only %s after it stopped", took)
			}
			c.calm()
		})
	}
}

// wait waits until the host has the slots that it waits for.
func (h *host) wait() {
	for begin := time.Now(); h.waits() && time.Since(begin) < 2*time.Minute; {
		time.Sleep(100 * time.Millisecond)
	}
}

func (h *host) waits() bool {
	h.c.mu.Lock()
	defer h.c.mu.Unlock()
	return h.waiting > 0
}
