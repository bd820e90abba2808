package fleet

import (
	"fmt"
	"hash/fnv"
	"sync"
	"time"
)

// chance is what is random for one host. What a seed draws at one instant for one purpose is the same, whatever order
// the scheduler runs goroutines in. So a seed plays nearly the same history again: what happens at one and the same
// instant of a bubble has no order there.
type chance struct {
	seed  uint64
	host  string
	begin time.Time

	mu sync.Mutex // guards all below
	at time.Duration
	n  map[string]int // by purpose: how often it was asked at this instant
}

// float is from 0 to 1.
func (c *chance) float(purpose string) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Since(c.begin); now != c.at || c.n == nil {
		c.at, c.n = now, map[string]int{}
	}
	c.n[purpose]++
	return drawn01(c.seed, c.host, c.at, purpose, c.n[purpose])
}

// drawn01 is a number from 0 to 1 that depends on what it is given alone.
func drawn01(of ...any) float64 {
	h := fnv.New64a()
	fmt.Fprint(h, of...)
	x := h.Sum64() // its upper bits depend little on the last bytes
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11) / (1 << 53)
}

// of is the jitter of one part of the host's agent.
func (c *chance) of(part string) func() float64 { return func() float64 { return c.float(part) } }

// wall is the host's wall clock: it steps every few seconds, by up to a day either way.
func (c *chance) wall() time.Time {
	step := drawn01(c.seed, c.host, "wall", int(time.Since(c.begin)/(7*time.Second)))
	return time.Now().Add(time.Duration((step - 0.5) * float64(48*time.Hour)))
}

// trip is for how long one way of a call is on the way: no two calls arrive at one instant.
func (c *chance) trip(of string) time.Duration {
	return time.Duration(1 + c.float(of)*float64(time.Millisecond))
}
