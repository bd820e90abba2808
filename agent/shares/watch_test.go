package shares

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// Idle slots of one agent are another's within a second, whatever time blocks have; an agent that waits for slots gets
// what is released elsewhere as fast. At rest there is a call of each agent in twenty seconds.
func TestIdleSlotsMove(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := openServer(t, 10*time.Minute)
		all, _ := s.agents(3, s.sign(50))
		a, b, c := all[0], all[1], all[2]
		a.want(46)
		time.Sleep(10 * time.Second)
		a.release(20)
		time.Sleep(5 * time.Second)
		b.want(15)
		time.Sleep(time.Second)
		b.has(15, 16)
		c.want(9) // the last of them
		time.Sleep(time.Second)
		c.has(9, 9)
		c.want(4)
		time.Sleep(3 * time.Minute)
		c.has(9, 9)
		b.release(4)
		time.Sleep(time.Second)
		c.has(13, 13)
		if n := a.budget() + b.budget() + c.budget(); n != 50 {
			t.Errorf("agents may hand out %d of 50", n)
		}
	})
}

// watched is a lender that has news.
type watched struct {
	*lender
	fail  error
	calls atomic.Int64
	idle  atomic.Int64 // as it was told last
	news  chan *plugin.News
}

func (w *watched) Watch(ctx context.Context, r *plugin.Watch) (*plugin.News, error) {
	w.calls.Add(1)
	w.idle.Store(r.Idle["seats"])
	if w.fail != nil {
		return nil, w.fail
	}
	select {
	case n := <-w.news:
		return n, nil
	case <-time.After(r.For):
		return &plugin.News{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// reminded is a lender that hears which blocks a restarted agent has.
type reminded struct {
	*watched
	times int
	state string
	has   map[string]time.Duration
}

func (r *reminded) Has(state []byte, blocks map[string]time.Duration) {
	r.times++
	r.state, r.has = string(state), blocks
}

// A restarted agent tells once, before its first watch, which blocks it goes on with, and for how long they last.
func TestWhoGaveIsRemindedOfTheBlocks(t *testing.T) {
	w := &reminded{watched: &watched{}}
	e := &entry[*Pool]{state: []byte("chain"), plans: map[string]*Pool{
		"seats": {Blocks: []*Block{{ID: "x", Sent: time.Minute, For: time.Hour}}},
		"cores": {Blocks: []*Block{{ID: "y", Sent: 0, For: time.Minute}}}}}
	for range 3 {
		remind(w, e, 2*time.Minute)
	}
	if w.times != 1 || w.state != "chain" || len(w.has) != 2 || w.has["x"] != 59*time.Minute ||
		w.has["y"] != -time.Minute {
		t.Errorf("it heard %d times, last %q: %v", w.times, w.state, w.has)
	}
}

// An agent tells what lies idle, tells it again when it becomes much more, and gives back what is wanted and no more.
// It stops at once although a watch is under way.
func TestWatches(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := &watched{lender: newLender(40, 10*time.Minute), news: make(chan *plugin.News)}
		h := openTenant(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), w)
		h.want(20)
		time.Sleep(30 * time.Second)
		had := h.budget()
		if n := w.idle.Load(); n != had-20 {
			t.Errorf("%d lie idle, and the upstream was told %d", had-20, n)
		}
		h.release(12)
		time.Sleep(2 * time.Second)
		if n := w.idle.Load(); n != had-8 {
			t.Errorf("%d lie idle, and the upstream was told %d", had-8, n)
		}
		w.news <- &plugin.News{Pools: map[string]plugin.PoolNews{"seats": {Wanted: 5}, "other": {Wanted: 3}}}
		time.Sleep(time.Second)
		if n := h.budget(); n != had-5 {
			t.Errorf("5 of %d are wanted, and %d are left", had, n)
		}
		before := w.calls.Load()
		time.Sleep(time.Minute)
		if n := w.calls.Load() - before; n > 5 {
			t.Errorf("%d watches in a minute", n)
		}
		began := time.Now()
		if h.stop(); time.Since(began) > time.Second {
			t.Errorf("the stop took %v", time.Since(began))
		}
	})
}

// roaming is a lender that is several.
type roaming struct{ *watched }

func (roaming) Roams() bool { return true }

// An agent that hears that its lender stops asks for more time at once, also where it has nothing idle and lacks
// nothing, which is why it watches then, too.
func TestMoves(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := &watched{lender: newLender(3, 10*time.Minute), news: make(chan *plugin.News)}
		h := openTenant(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), roaming{w})
		h.want(3)
		time.Sleep(30 * time.Second)
		extended := func() int {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.lender.calls["extend"]
		}
		before := extended()
		w.news <- &plugin.News{Moves: true}
		time.Sleep(time.Second)
		if n := extended(); h.budget() != 3 || n != before+1 {
			t.Errorf("more time was asked for %d times", n-before)
		}
		h.stop()
	})
}

// An upstream of a former version does not know the call: it is asked again after minutes. One that fails is asked less
// and less often.
func TestWatchFails(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		most int64
	}{
		{"of a former version", &plugin.Error{Class: plugin.Misconfigured, Reason: "400 Bad Request"}, 1},
		{"away", errors.New("down"), 50},
		{"busy", &plugin.Error{Class: plugin.Misconfigured, SystemCode: "BUSY", Reason: "busy"}, 50},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				w := &watched{lender: newLender(40, 10*time.Minute), fail: c.err}
				h := openTenant(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), w)
				h.want(3)
				time.Sleep(4 * time.Minute)
				if h.has(3, 40); w.calls.Load() > c.most || w.calls.Load() == 0 {
					t.Errorf("%d watches in four minutes", w.calls.Load())
				}
			})
		})
	}
}
