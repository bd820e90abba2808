package denials_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/agent/denials"
	"github.com/usher-agent/usher/enforcer"
)

// told collects reports.
type told struct {
	mu      sync.Mutex
	reports []denials.Report
}

func (c *told) tell(r denials.Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reports = append(c.reports, r)
}

// take returns the reports since the last take, a line each.
func (c *told) take() string {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, r := range c.reports {
		s := fmt.Sprintf("%s %s %d of uid %d", r.Pool, r.Code, r.Count, r.By.UID)
		if r.Others {
			s = fmt.Sprintf("others %d", r.Count)
		}
		if !r.Since.IsZero() {
			s += " since"
		}
		out = append(out, s)
	}
	c.reports = nil
	return strings.Join(out, "; ")
}

func denied(t *denials.Tally, uid uint32, pool string, code enforcer.DenialCode) {
	d := &enforcer.Denial{Code: code, Detail: "no"}
	if code == enforcer.NoSlots || code == enforcer.PoolUnknown {
		d.Pool = pool
	}
	t.Denied(&enforcer.Acquire{Pool: pool, Caller: enforcer.Caller{UID: uid}}, d)
}

// The first denial of a kind is told at once, and the others as a number at the end of each interval; none is lost.
func TestGathered(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var c told
		tally := denials.New(denials.Config{Every: 10 * time.Second, Most: 3, Now: time.Now, Tell: c.tell})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan struct{})
		go func() { defer close(ended); tally.Run(ctx) }()
		want := func(what, want string) {
			t.Helper()
			if got := c.take(); got != want {
				t.Errorf("%s: told %q, want %q", what, got, want)
			}
		}
		denied(tally, 1, "a", enforcer.NoSlots)
		want("the first", "a no_slots 1 of uid 1")
		for range 1000 {
			denied(tally, 1, "a", enforcer.NoSlots)
		}
		want("a flood", "")
		denied(tally, 2, "a", enforcer.NoSlots)
		want("another user", "a no_slots 1 of uid 2")
		for i := range 100 { // a caller chooses the pool's name
			denied(tally, 2, fmt.Sprint("x", i), enforcer.PoolUnknown)
			synctest.Wait()
		}
		want("names that nobody knows", "x0 pool_unknown 1 of uid 2")
		for uid := range uint32(50) {
			denied(tally, 100+uid, "a", enforcer.LicenseExpired)
		}
		want("more kinds than are told apart", "")
		time.Sleep(10 * time.Second)
		want("the interval", "others 50 since; a no_slots 1000 of uid 1 since; x99 pool_unknown 99 of uid 2 since")
		denied(tally, 1, "a", enforcer.NoSlots)
		want("one more", "")
		time.Sleep(10 * time.Second)
		want("the next interval", "a no_slots 1 of uid 1 since")
		time.Sleep(time.Minute)
		denied(tally, 1, "a", enforcer.NoSlots)
		want("after a rest", "a no_slots 1 of uid 1")
		denied(tally, 1, "a", enforcer.NoSlots)
		cancel()
		<-ended
		want("at the end", "a no_slots 1 of uid 1 since")
	})
}

// Whoever is told may stand still: denials are taken note of all the same, and told later.
func TestDeniedWaitsForNobody(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var c told
		goOn := make(chan struct{})
		tally := denials.New(denials.Config{Every: time.Second, Most: 2, Now: time.Now, Tell: func(r denials.Report) {
			<-goOn
			c.tell(r)
		}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); tally.Run(ctx) }()
		for range 100 {
			denied(tally, 1, "a", enforcer.NoSlots)
		}
		synctest.Wait()
		for range 100 {
			denied(tally, 1, "a", enforcer.NoSlots)
		}
		close(goOn)
		cancel()
		<-ended
		var n int64
		for _, r := range c.reports {
			n += r.Count
		}
		if n != 200 || !slices.IsSortedFunc(c.reports, func(a, b denials.Report) int {
			return a.Since.Compare(b.Since)
		}) {
			t.Errorf("%d denials were told, of 200: %+v", n, c.reports)
		}
	})
}
