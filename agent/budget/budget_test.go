package budget

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// clerk is a site server: it counts the blocks that are out, each until its time is over.
type clerk struct {
	plugin.Upstream
	mu     sync.Mutex
	began  time.Time
	limit  int64
	ttl    time.Duration
	blocks map[string]*given
	missed bool // somebody was denied
	n      int
	calls  map[string]int
	err    error                // of every call, instead of an answer
	lost   bool                 // the answers are lost
	slow   time.Duration        // before a call arrives, and before its answer does
	peak   int64                // the most that was out at one time
	rigid  bool                 // blocks keep their size
	asked  func(plugin.Request) // optional
	less   func(string, int64)  // told of each call that makes a block so large, or gives it back; optional
	cut    int64                // blocks are made so small when they are extended; zero: they are not
}

type given struct {
	slots int64
	until time.Time
	token string
}

func newClerk(limit int64, ttl time.Duration) *clerk {
	return &clerk{began: time.Now(), limit: limit, ttl: ttl, blocks: map[string]*given{}, calls: map[string]int{}}
}

func (c *clerk) out() (n int64) {
	for id, b := range c.blocks {
		if !time.Now().Before(b.until) {
			delete(c.blocks, id)
		} else {
			n += b.slots
		}
	}
	c.peak = max(c.peak, n)
	return n
}

func (c *clerk) total() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out()
}

func (c *clerk) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *clerk) took(call string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[call]
}

// begin is the way to the clerk. c.mu is held after it.
func (c *clerk) begin(ctx context.Context, call string, r plugin.Request) error {
	c.mu.Lock()
	slow := c.slow
	c.mu.Unlock()
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			c.mu.Lock()
			return plugin.Transiently("no answer in time")
		}
	}
	c.mu.Lock()
	c.calls[call]++
	if c.asked != nil {
		c.asked(r)
	}
	return c.err
}

func (c *clerk) answer(id string, b *given) (*plugin.Block, error) {
	b.until = time.Now().Add(c.ttl)
	c.blocks[id] = b
	c.out()
	if c.lost {
		return nil, plugin.Transiently("the answer was lost")
	}
	var wanted int64
	if c.missed {
		wanted = 1
	}
	return &plugin.Block{ID: id, Pool: "seats", Slots: b.slots, For: c.ttl, State: []byte("s"), Wanted: wanted}, nil
}

func (c *clerk) CheckOut(ctx context.Context, r *plugin.CheckOut) (*plugin.Block, error) {
	b, err := c.checkOut(ctx, r)
	c.back()
	return b, err
}

func (c *clerk) Extend(ctx context.Context, r *plugin.Extend) (*plugin.Block, error) {
	b, err := c.extend(ctx, r)
	c.back()
	return b, err
}

// back is the way back.
func (c *clerk) back() {
	c.mu.Lock()
	slow := c.slow
	c.mu.Unlock()
	time.Sleep(slow)
}

func (c *clerk) checkOut(ctx context.Context, r *plugin.CheckOut) (*plugin.Block, error) {
	defer c.mu.Unlock()
	if err := c.begin(ctx, "check_out", r.Request); err != nil {
		return nil, err
	}
	left := c.limit - c.out()
	for id, b := range c.blocks {
		if b.token == r.Token {
			return c.answer(id, b)
		}
	}
	n := min(r.Slots, left)
	if n < r.AtLeast {
		return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: "full", SystemCode: plugin.SystemFull}
	}
	c.n++
	return c.answer(fmt.Sprint("b", c.n), &given{slots: n, token: r.Token})
}

func (c *clerk) extend(ctx context.Context, r *plugin.Extend) (*plugin.Block, error) {
	defer c.mu.Unlock()
	if err := c.begin(ctx, "extend", r.Request); err != nil {
		return nil, err
	}
	left := c.limit - c.out()
	b := c.blocks[r.Block]
	if b == nil {
		return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: "over", SystemCode: plugin.SystemLapsed}
	}
	if c.less != nil {
		c.less(r.Block, r.Slots)
	}
	if r.Slots > 0 && !c.rigid {
		b.slots = min(r.Slots, b.slots+left)
	}
	if c.cut > 0 {
		b.slots = min(b.slots, c.cut)
	}
	return c.answer(r.Block, b)
}

func (c *clerk) Return(ctx context.Context, r *plugin.Return) error {
	defer c.mu.Unlock()
	if err := c.begin(ctx, "return", r.Request); err != nil {
		return err
	}
	if c.less != nil {
		c.less(r.Block, 0)
	}
	delete(c.blocks, r.Block)
	return nil
}

// house is an agent as a keeper sees it: what is in use of one pool, never more than the budget.
type house struct {
	*Keeper
	t        testing.TB
	mu       sync.Mutex
	inUse    int64
	waiting  int64
	cap      int64
	began    time.Time
	draining bool
	stop     func()
	full     atomic.Bool // the disk that the record is on
}

func (h *house) write(file string, data []byte) error {
	if h.full.Load() {
		return errors.New("no space left on device")
	}
	return os.WriteFile(file, data, 0o600)
}

func (h *house) up() time.Duration { return time.Since(h.began) + time.Hour }

func open(t testing.TB, file string, began time.Time, u plugin.Budgeter) *house {
	t.Helper()
	h := openWithout(t, file, began)
	h.Set([]Licence{licence("L1", u)})
	return h
}

// openWithout is open without a licence.
func openWithout(t testing.TB, file string, began time.Time) *house {
	t.Helper()
	h := &house{t: t, began: began}
	var err error
	h.Keeper, err = New(Config{File: file, Write: h.write, BootID: "boot", Now: h.up, Demand: h.demand,
		OnChange: h.changed, Jitter: func() float64 {
			return 0.5
		},
		Request: func(l *enforcer.License, doc []byte) plugin.Request {
			return plugin.Request{LicenseID: l.ID, Product: l.Product, Document: doc}
		}})
	if err != nil {
		t.Fatal(err)
	}
	h.changed()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Run(ctx)
	}()
	h.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(h.stop)
	return h
}

// recorded returns what a restarted agent would hand out of each block.
func (h *house) recorded(file string) map[string]int64 {
	h.t.Helper()
	of, err := load(Config{File: file, Read: os.ReadFile, BootID: "boot", Now: h.up})
	if err != nil {
		h.t.Fatal(err)
	}
	out := map[string]int64{}
	if e := of["usher/L1"]; e != nil {
		for _, b := range e.Pools["seats"].Blocks {
			out[b.ID] = b.Use
		}
	}
	return out
}

func licence(id string, u plugin.Budgeter) Licence {
	l := &enforcer.License{ID: id, System: "usher", Pools: map[string]enforcer.PoolTerm{"seats": {Max: 40}}}
	return Licence{License: l, Document: []byte(id), Upstream: u}
}

func (h *house) demand(string) Demand {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Demand{InUse: h.inUse, Waiting: h.waiting, Capacity: h.cap, Draining: h.draining}
}

// changed is what the agent does with a new budget: from then on it hands out no more than that, and waiters have what
// is free.
func (h *house) changed() {
	budgets, _ := h.Budgets()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cap = int64(budgets[enforcer.Share{License: "usher/L1", Pool: "seats"}])
	n := max(0, min(h.waiting, h.cap-h.inUse))
	h.inUse, h.waiting = h.inUse+n, h.waiting-n
}

// want acquires n slots, and waits for those that are not there.
func (h *house) want(n int64) {
	h.mu.Lock()
	h.waiting += n
	h.mu.Unlock()
	h.changed()
	h.Nudge()
}

func (h *house) release(n int64) {
	h.mu.Lock()
	h.inUse -= n
	h.mu.Unlock()
	h.Nudge()
}

func (h *house) has(inUse, most int64) {
	h.t.Helper()
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.inUse != inUse || h.cap > most || h.cap < min(inUse, most) {
		h.t.Errorf("%d are in use of %d; want %d of at most %d", h.inUse, h.cap, inUse, most)
	}
}

func TestKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClerk(40, time.Minute)
		h := open(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), c)
		time.Sleep(time.Second)
		h.has(0, 1) // one ahead, before anybody asks
		if n := c.total(); n != 1 {
			t.Errorf("a licence has come, and %d are out", n)
		}
		// It doubles ahead of use, and who waits has at once.
		h.want(1)
		time.Sleep(time.Second)
		h.has(1, 2)
		h.want(15)
		time.Sleep(time.Second)
		h.has(16, 40)
		if n := c.total(); n < 17 {
			t.Errorf("16 are in use, and %d are out: none ahead", n)
		}
		// One acquire without waiting is denied, and the next finds slots.
		h.Missed("seats", 20)
		time.Sleep(time.Second)
		if h.has(16, 40); h.demand("").Capacity < 36 {
			t.Errorf("after a denial for 20, %d are here", h.demand("").Capacity)
		}
		// What lies idle goes back in a while; what is in use is extended long before its time.
		h.release(12)
		time.Sleep(10 * time.Minute)
		h.has(4, 8)
		if n := c.total(); n > 8 {
			t.Errorf("4 are in use, and %d are out", n)
		}
		if n := c.took("extend"); n > 10*3*maxBlocks {
			t.Errorf("%d extensions in ten minutes", n)
		}
		// A graceful stop gives back all that is not in use.
		h.stop()
		if n := c.total(); n != 4 {
			t.Errorf("after the stop %d are out, and 4 in use", n)
		}
	})
}

// A host that is drained gives back at once what is not in use, keeps what is for as long as it is, and has nothing
// more.
func TestDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClerk(40, time.Minute)
		h := open(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), c)
		drain := func(on bool) {
			h.mu.Lock()
			h.draining = on
			h.mu.Unlock()
			h.Nudge()
		}
		h.want(8)
		time.Sleep(time.Second)
		h.release(5)
		drain(true)
		time.Sleep(time.Second)
		if n := c.total(); n != 3 {
			t.Errorf("3 are in use, and %d are out", n)
		}
		time.Sleep(10 * time.Minute)
		h.has(3, 3)
		h.release(3)
		time.Sleep(time.Second)
		if n := c.total(); n != 0 {
			t.Errorf("nothing is in use, and %d are out", n)
		}
		drain(false)
		h.want(1)
		time.Sleep(time.Second)
		h.has(1, 4)
	})
}

// Others ask in vain: idle slots go back at once, and nothing is asked ahead.
func TestWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClerk(40, time.Minute)
		h := open(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), c)
		time.Sleep(time.Second)
		c.change(func() { c.missed = true })
		time.Sleep(time.Minute)
		if n := c.total(); n != 0 {
			t.Errorf("others want slots, and %d are kept idle", n)
		}
		h.want(3)
		time.Sleep(time.Second)
		h.has(3, 3)
		h.release(3)
		time.Sleep(2 * time.Minute)
		if n := c.total(); n != 0 {
			t.Errorf("others want slots, and %d are kept idle after use", n)
		}
	})
}

// The server is away: the agent goes on until its own deadline, which is earlier than the server's, and begins anew
// after.
func TestAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClerk(40, time.Minute)
		h := open(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), c)
		h.want(5)
		time.Sleep(21 * time.Second) // extended once
		c.change(func() { c.err = errors.New("down") })
		time.Sleep(30 * time.Second)
		h.has(5, 40)
		before := c.took("extend")
		time.Sleep(time.Minute)
		if h.has(5, 0); c.total() != 0 {
			t.Error("the server has the slots out after a minute and a half")
		}
		if n := c.took("check_out") + c.took("extend") - before; n > 100 {
			t.Errorf("%d calls to a server that is down for a minute", n)
		}
		c.change(func() { c.err = nil })
		time.Sleep(20 * time.Second)
		h.has(5, 40)
		// Answers that are lost cost nothing: the same is asked again.
		c.change(func() { c.lost = true })
		h.want(3)
		time.Sleep(5 * time.Second)
		c.change(func() { c.lost = false })
		time.Sleep(20 * time.Second)
		if h.has(8, 40); c.total() > 16 {
			t.Errorf("8 are in use, and %d are out", c.total())
		}
	})
}

// A Retry-After, which nobody has signed, costs no slots: a check-out is tried again soon, and blocks get more time
// before they end.
func TestRetryAfterIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClerk(40, time.Minute)
		h := open(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), c)
		h.want(5)
		time.Sleep(time.Second)
		h.has(5, 40)
		busy := &plugin.Error{Class: plugin.Transient, Reason: "busy", RetryAfter: 24 * time.Hour}
		// one such answer to the next call for more time
		for asked, n := c.took("extend"), 0; c.took("extend") == asked; n++ {
			c.change(func() { c.err = busy })
			if time.Sleep(time.Second); n > 60 {
				t.Fatal("no more time was asked for")
			}
		}
		c.change(func() { c.err = nil })
		time.Sleep(3 * time.Minute)
		if n := c.total(); n < 5 {
			t.Errorf("5 are in use, and %d are out", n)
		}
		c.change(func() { c.err = busy })
		h.want(30)
		time.Sleep(20 * time.Second)
		c.change(func() { c.err = nil })
		time.Sleep(longestWait + time.Second)
		h.has(35, 40)
	})
}

// An upstream that serves no slots is asked seldom, and the pool has no budget at all.
func TestNoPools(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClerk(40, time.Minute)
		c.err = &plugin.Error{Class: plugin.Misconfigured, Reason: "none", SystemCode: plugin.SystemNoPools}
		h := open(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), c)
		time.Sleep(time.Hour)
		if budgets, fence := h.Budgets(); len(budgets) != 0 || fence != 0 {
			t.Errorf("the budget is %v", budgets)
		}
		if n := c.took("check_out"); n < 2 || n > 20 {
			t.Errorf("it was asked %d times in an hour", n)
		}
	})
}

// onePool serves the slots of one pool alone, and those not yet.
type onePool struct{ plugin.Budgeter }

func (onePool) CheckOut(_ context.Context, r *plugin.CheckOut) (*plugin.Block, error) {
	if r.Pool == "seats" {
		return nil, plugin.Transiently("not yet")
	}
	return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: "none", SystemCode: plugin.SystemNoPools}
}

// That an upstream serves no slots of one pool says nothing of another of the licence: who wants that one's waits for
// the first block, and is not told that nothing is shared.
func TestNoPoolsOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openWithout(t, filepath.Join(t.TempDir(), "blocks"), time.Now())
		l := licence("L1", onePool{newClerk(40, time.Minute)})
		l.Pools["bays"] = enforcer.PoolTerm{Max: 9}
		h.Set([]Licence{l})
		h.want(1)
		time.Sleep(10 * time.Second)
		budgets, _ := h.Budgets()
		var names []string
		for s := range budgets {
			names = append(names, s.Pool)
		}
		if len(names) != 1 || names[0] != "seats" {
			t.Errorf("there are budgets of %v", names)
		}
	})
}

// A keeper that is started anew goes on with the blocks of the old one, on the same start of the host alone; what was
// to be given back is not handed out again.
func TestRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, file, began := newClerk(40, time.Minute), filepath.Join(t.TempDir(), "blocks"), time.Now()
		h := open(t, file, began, c)
		h.want(5)
		time.Sleep(time.Second)
		old, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		now := func() time.Duration { return time.Since(began) + time.Hour }
		of, err := load(Config{File: file, Read: os.ReadFile, BootID: "boot", Now: now})
		if err != nil || of["usher/L1"] == nil || string(of["usher/L1"].State) != "s" {
			t.Fatalf("%+v, %v", of, err)
		}
		var n int64
		for _, b := range of["usher/L1"].Pools["seats"].Blocks {
			n += b.Use
		}
		if n != h.demand("").Capacity {
			t.Errorf("%d are recorded, and %d may be handed out", n, h.demand("").Capacity)
		}
		if of, err := load(Config{File: file, Read: os.ReadFile, BootID: "another boot", Now: now}); err != nil ||
			len(of) != 0 {
			t.Errorf("after a start of the host: %+v, %v", of, err)
		}
		if of, err := load(Config{File: file, Read: os.ReadFile, BootID: "", Now: now}); err != nil || len(of) != 0 {
			t.Errorf("where there is no boot id: %+v, %v", of, err)
		}
		if of, err := load(Config{File: file, Read: os.ReadFile, BootID: "boot", Now: func() time.Duration {
			return now() + time.Minute
		}}); err != nil || len(of["usher/L1"].Pools["seats"].Blocks) != 0 {
			t.Errorf("after their time: %+v, %v", of, err)
		}
		if of, err := load(Config{File: file, Read: os.ReadFile, BootID: "boot", Offset: true, Now: now}); err != nil ||
			of["usher/L1"] == nil {
			t.Errorf("in a time namespace: %+v, %v", of, err)
		}
		unmarked := func(string) ([]byte, error) {
			return bytes.Replace(old, []byte(`"host_clock":true,`), nil, 1), nil
		}
		if of, err := load(Config{Read: unmarked, BootID: "boot", Now: now}); err != nil || of["usher/L1"] == nil {
			t.Errorf("of a former version: %+v, %v", of, err)
		}
		if of, err := load(Config{Read: unmarked, BootID: "boot", Offset: true, Now: now}); err != nil || len(of) != 0 {
			t.Errorf("of a former version, which counted by the time namespace: %+v, %v", of, err)
		}
		h.stop()
		if err := os.WriteFile(file, old, 0o600); err != nil {
			t.Fatal(err)
		}
		// As after a kill: in use are five, and the blocks are the old ones.
		again, err := New(Config{File: file, BootID: "boot", Now: now})
		if err != nil {
			t.Fatal(err)
		}
		if budgets, fence := again.Budgets(); budgets[enforcer.Share{License: "usher/L1", Pool: "seats"}] < 5 ||
			fence <= now() {
			t.Errorf("the budget is %v until %v", budgets, fence)
		}
		// A former version named the licence by its id alone.
		former := bytes.Replace(old, []byte(`"L1":{"named":true,`), []byte(`"L1":{`), 1)
		if err := os.WriteFile(file, former, 0o600); err != nil || bytes.Equal(former, old) {
			t.Fatalf("%v: %s", err, old)
		}
		if again, err = New(Config{File: file, BootID: "boot", Now: now}); err != nil {
			t.Fatal(err)
		}
		again.Set([]Licence{licence("L1", c)})
		if budgets, _ := again.Budgets(); len(budgets) != 1 ||
			budgets[enforcer.Share{License: "usher/L1", Pool: "seats"}] < 5 {
			t.Errorf("of a former version's record: %v", budgets)
		}
		if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Config{File: file, BootID: "boot", Now: now}); err == nil {
			t.Error("a broken record is taken")
		}
	})
}

// The upstream hears that slots come back only when they are out of use here, and in the record of a restarted agent:
// it may give them to others before its answer comes.
func TestGivenBackAfterUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, file := newClerk(40, time.Minute), filepath.Join(t.TempDir(), "blocks")
		h := open(t, file, time.Now(), c)
		heard := map[string]bool{}
		c.change(func() {
			c.less = func(id string, slots int64) {
				if was := c.blocks[id].slots; slots >= was || was == 0 {
					return
				}
				most := slots
				for other, b := range c.blocks {
					if other != id {
						most += b.slots
					}
				}
				h.mu.Lock()
				use := h.cap
				h.mu.Unlock()
				if use > most {
					t.Errorf("the upstream hears that %d slots are enough while the agent may hand out %d", most, use)
				}
				if n := h.recorded(file)[id]; n > slots {
					t.Errorf(
						"the upstream hears that a block has %d slots while a restarted agent would hand out %d of it",
						slots, n)
				}
				heard[map[bool]string{true: "smaller", false: "back"}[slots > 0]] = true
			}
		})
		for range 3 {
			h.want(24)
			time.Sleep(time.Second)
			h.release(19)
			time.Sleep(3 * time.Minute)
			h.release(5)
			time.Sleep(3 * time.Minute)
		}
		h.stop()
		if !heard["smaller"] || !heard["back"] {
			t.Errorf("the upstream has heard %v", heard)
		}
	})
}

// What cannot be recorded as given back stays in use here, and is given back once it can.
func TestGivenBackNotRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClerk(40, time.Minute)
		h := open(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), c)
		h.want(24)
		time.Sleep(time.Second)
		h.has(24, 40)
		h.full.Store(true)
		h.release(24)
		for range 200 {
			time.Sleep(time.Second)
			synctest.Wait()
			if n := h.demand("").Capacity; n < 24 {
				t.Fatalf("%d of 24 slots are here, and no disk has recorded that they are given back", n)
			}
		}
		h.full.Store(false)
		time.Sleep(3 * time.Minute)
		if h.has(0, 2); c.total() > 2 {
			t.Errorf("none is in use, and %d are out", c.total())
		}
	})
}

// The upstream cuts a block. It does not hear that the agent has heard of it before the record has: one that is
// restarted with the old record would go on with the old size.
func TestCutIsRecordedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, file := newClerk(40, time.Minute), filepath.Join(t.TempDir(), "blocks")
		h := open(t, file, time.Now(), c)
		h.want(8)
		time.Sleep(time.Second)
		h.has(8, 16)
		h.full.Store(true)
		c.change(func() { c.cut = 3 })
		time.Sleep(22 * time.Second) // it was extended once
		h.has(8, 3)
		h.mu.Lock()
		use := h.cap
		h.mu.Unlock()
		calls := c.took("extend") + c.took("check_out")
		time.Sleep(10 * time.Second)
		if n := c.took("extend") + c.took("check_out"); use == 0 || n != calls {
			t.Errorf("%d are here, the record cannot be written, and %d calls were made", use, n-calls)
		}
		h.full.Store(false)
		before := c.took("extend")
		again := func() bool {
			synctest.Wait()
			return c.took("extend") > before && len(h.recorded(file)) > 0
		}
		for i := 0; !again(); i++ {
			if time.Sleep(time.Second); i == 60 {
				t.Fatalf("the record can be written again and says %v; %d calls", h.recorded(file),
					c.took("extend")-before)
			}
		}
	})
}

// What another licence has replaced gives its blocks back after a moment.
func TestReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClerk(40, time.Minute)
		h := open(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), c)
		time.Sleep(time.Second)
		other := newClerk(40, time.Minute)
		h.Set([]Licence{licence("L2", other)})
		time.Sleep(time.Second)
		if c.total() == 0 || other.total() == 0 {
			t.Errorf("at once %d and %d are out", c.total(), other.total())
		}
		time.Sleep(time.Minute)
		if c.total() != 0 || other.total() == 0 {
			t.Errorf("later %d and %d are out", c.total(), other.total())
		}
	})
}

// Whatever is asked and fails, an agent hands out no more than the server knows to be out, and the calls stay few.
func TestNeverMoreThanOut(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "budget")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			c := newClerk(rapid.Int64Range(1, 40).Draw(rt, "limit"), time.Minute)
			c.rigid = rapid.Bool().Draw(rt, "rigid")
			var all []*house
			for i := range 3 {
				h := open(t, filepath.Join(dir, fmt.Sprint(i)), time.Now(), c)
				defer h.stop()
				all = append(all, h)
			}
			began := time.Now()
			for range rapid.IntRange(1, 25).Draw(rt, "steps") {
				h := all[rapid.IntRange(0, 2).Draw(rt, "agent")]
				switch rapid.IntRange(0, 6).Draw(rt, "step") {
				case 0, 1:
					h.want(rapid.Int64Range(1, 10).Draw(rt, "want"))
				case 2:
					h.mu.Lock()
					n := rapid.Int64Range(0, h.inUse).Draw(rt, "release")
					h.waiting = 0
					h.mu.Unlock()
					h.release(n)
				case 3:
					c.change(func() { c.lost = rapid.Bool().Draw(rt, "lost") })
				case 4:
					c.change(func() { c.slow = time.Duration(rapid.IntRange(0, 20).Draw(rt, "slow")) * time.Second })
				case 5:
					c.change(func() { c.missed = rapid.Bool().Draw(rt, "missed") })
				default:
				}
				for range rapid.IntRange(0, 30).Draw(rt, "seconds") {
					time.Sleep(time.Second)
					synctest.Wait()
					var budget int64
					for _, h := range all {
						budgets, _ := h.Budgets()
						budget += int64(budgets[enforcer.Share{License: "usher/L1", Pool: "seats"}])
					}
					if out := c.total(); budget > out || out > c.limit {
						rt.Fatalf("agents may hand out %d, %d are out of %d", budget, out, c.limit)
					}
				}
			}
			n := c.took("check_out") + c.took("extend") + c.took("return")
			if most := 300 + int(time.Since(began)/time.Second)*6; n > most {
				rt.Fatalf("%d calls in %v", n, time.Since(began))
			}
		})
	})
}
