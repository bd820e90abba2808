package shares

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// crossed is a lender whose slots come free while it answers that it has none.
type crossed struct {
	*watched
	full bool
}

func (c *crossed) CheckOut(ctx context.Context, r *plugin.CheckOut) (*plugin.Block, error) {
	if c.full {
		c.full = false
		c.news <- &plugin.News{Pools: map[string]plugin.PoolNews{"seats": {Free: 1}}}
		time.Sleep(10 * time.Millisecond)
		return nil, &plugin.Error{Class: plugin.Transient, SystemCode: plugin.SystemFull, Reason: "full"}
	}
	return c.watched.CheckOut(ctx, r)
}

// Slots that come free while a call is under way are asked for at once: its answer may not have known of them.
func TestFreeDuringACall(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := &crossed{&watched{lender: newLender(40, 10*time.Minute), news: make(chan *plugin.News)}, true}
		h := openTenant(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), c)
		h.want(3)
		time.Sleep(200 * time.Millisecond)
		h.has(3, 40)
	})
}

// late is an upstream that has news at the moment at which its watch is ended.
type late struct {
	*watched
	lacks chan map[string]int64
	full  bool
}

func (l *late) Watch(ctx context.Context, r *plugin.Watch) (*plugin.News, error) {
	select {
	case l.lacks <- r.Lacks:
	default:
	}
	<-ctx.Done()
	return &plugin.News{Pools: map[string]plugin.PoolNews{"seats": {Free: 1, Wanted: 2}}}, nil
}

// An upstream hears for what callers wait, and that they wait no more, whether or not slots are idle then: it keeps the
// agent's turn. News that come as a watch is ended count.
func TestWatchSaysWhatIsLacked(t *testing.T) {
	for _, c := range []struct{ inUse, left int64 }{ // as the callers give up, and what the agent keeps then
		{5, 5},
		{2, 3}, // others want two, as the watch that was ended said
	} {
		bubble.Test(t, func(t *testing.T) {
			l := &late{&watched{lender: newLender(5, 10*time.Minute)}, make(chan map[string]int64, 9), true}
			h := openTenant(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), l)
			h.want(5)
			time.Sleep(3 * time.Second)
			h.want(4) // there are no more
			time.Sleep(3 * time.Second)
			lacks := func() int64 { // as the upstream was told last; -1: it was not
				for last := int64(-1); ; {
					select {
					case all := <-l.lacks:
						last = all["seats"]
					default:
						return last
					}
				}
			}
			if n := lacks(); n != 4 {
				t.Errorf("callers wait for 4 slots, and the upstream was told %d", n)
			}
			h.mu.Lock()
			h.waiting, h.inUse = 0, c.inUse // they give up
			h.mu.Unlock()
			h.Nudge()
			time.Sleep(3 * time.Second)
			if n := lacks(); n != 0 {
				t.Errorf("%d of 5 slots are in use, nobody waits, and the upstream was told %d", c.inUse, n)
			}
			if n := h.budget(); n != c.left {
				t.Errorf("%d of 5 slots are in use, others want 2, and %d are left", c.inUse, n)
			}
		})
	}
}
