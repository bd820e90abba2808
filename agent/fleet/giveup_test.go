package fleet

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// An agent that stops keeps nobody waiting: its ticket goes at once, also one of which it does not know because the
// answer was lost, the next one hears of what was kept for it, and a call that is under way still makes no other
// ticket.
func TestGiveUp(t *testing.T) {
	for name, lost := range map[string]bool{"it knows its ticket": false, "the answer was lost": true} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				r := newRig(t)
				a, _ := r.agent("a", new([]byte))
				b, _ := r.agent("b", new([]byte))
				c, _ := r.agent("c", new([]byte))
				r.join(a, b, c)
				one, two, three := r.bound(a, 10), r.bound(b, 10), r.bound(c, 10)
				mine := r.must(r.checkOut(one, "a", 10))
				full := func(of *Bound, n int64) {
					t.Helper()
					if _, err := r.checkOut(of, of.fleet.cfg.Agent, n); err == nil {
						t.Fatal("slots that another has")
					}
				}
				full(two, 6)
				key := keys{"/u/"}.ticket(streams, "b")
				if r.value(key) == "" {
					t.Fatal("it does not wait")
				}
				full(three, 4)
				if lost {
					b.mu.Lock()
					b.pools[streams].asked = 0
					b.mu.Unlock()
				}
				r.must(one.Extend(t.Context(), &plugin.Extend{Block: mine.ID, Slots: 6, For: time.Hour}))
				if _, err := r.checkOut(three, "c", 4); err == nil {
					t.Fatal("it passes one that waits for longer")
				}
				b.GiveUp(t.Context())
				if is := r.value(key); is != "" {
					t.Errorf("its ticket is there still: %s", is)
				}
				if n := r.freeFor("c"); n != 4 {
					t.Errorf("the next one hears of %d free slots", n)
				}
				full(two, 6)
				if is := r.value(key); is != "" {
					t.Errorf("it waits again: %s", is)
				}
				if got := r.must(r.checkOut(three, "c", 4)); got.Slots != 4 {
					t.Errorf("the next one has %d slots", got.Slots)
				}
			})
		})
	}
}
