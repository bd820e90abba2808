package shares

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// lender is a site server: it counts the blocks that are out, each until its time is over.
type lender struct {
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
	sized  error                // of every call that would give out, or take back, slots; nil: there is none
	asked  func(plugin.Request) // optional
	less   func(string, int64)  // told of each call that makes a block so large, or gives it back; optional
	cut    int64                // blocks are made so small when they are extended; zero: they are not
}

type given struct {
	slots int64
	until time.Time
	token string
}

func newLender(limit int64, ttl time.Duration) *lender {
	return &lender{began: time.Now(), limit: limit, ttl: ttl, blocks: map[string]*given{}, calls: map[string]int{}}
}

func (c *lender) out() (n int64) {
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

func (c *lender) total() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out()
}

func (c *lender) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *lender) took(call string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[call]
}

// begin is the way to the lender. c.mu is held after it.
func (c *lender) begin(ctx context.Context, call string, r plugin.Request) error {
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

func (c *lender) answer(id string, b *given) (*plugin.Block, error) {
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

func (c *lender) CheckOut(ctx context.Context, r *plugin.CheckOut) (*plugin.Block, error) {
	b, err := c.checkOut(ctx, r)
	c.back()
	return b, err
}

func (c *lender) Extend(ctx context.Context, r *plugin.Extend) (*plugin.Block, error) {
	b, err := c.extend(ctx, r)
	c.back()
	return b, err
}

// back is the way back.
func (c *lender) back() {
	c.mu.Lock()
	slow := c.slow
	c.mu.Unlock()
	time.Sleep(slow)
}

func (c *lender) checkOut(ctx context.Context, r *plugin.CheckOut) (*plugin.Block, error) {
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
	if c.sized != nil {
		return nil, c.sized
	}
	n := min(r.Slots, left)
	if n < r.AtLeast {
		return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: "full", SystemCode: plugin.SystemFull}
	}
	c.n++
	return c.answer(fmt.Sprint("b", c.n), &given{slots: n, token: r.Token})
}

func (c *lender) extend(ctx context.Context, r *plugin.Extend) (*plugin.Block, error) {
	defer c.mu.Unlock()
	if err := c.begin(ctx, "extend", r.Request); err != nil {
		return nil, err
	}
	left := c.limit - c.out()
	b := c.blocks[r.Block]
	if b == nil {
		return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: "over", SystemCode: plugin.SystemLapsed}
	}
	if c.sized != nil && r.Slots != b.slots {
		return nil, c.sized
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

func (c *lender) Return(ctx context.Context, r *plugin.Return) error {
	defer c.mu.Unlock()
	if err := c.begin(ctx, "return", r.Request); err != nil {
		return err
	}
	if c.sized != nil {
		return c.sized
	}
	if c.less != nil {
		c.less(r.Block, 0)
	}
	delete(c.blocks, r.Block)
	return nil
}

// tenant is an agent as a keeper sees it: what is in use of one pool, never more than the budget.
type tenant struct {
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

func (h *tenant) write(file string, data []byte) error {
	if h.full.Load() {
		return errors.New("no space left on device")
	}
	return os.WriteFile(file, data, 0o600)
}

func (h *tenant) up() time.Duration { return time.Since(h.began) + time.Hour }

func openTenant(t testing.TB, file string, began time.Time, u plugin.Budgeter) *tenant {
	t.Helper()
	h := openTenantWithout(t, file, began)
	h.Set([]Licence{blockLicence("L1", u)})
	return h
}

// openWithout is open without a licence.
func openTenantWithout(t testing.TB, file string, began time.Time) *tenant {
	t.Helper()
	h := &tenant{t: t, began: began}
	var err error
	h.Keeper, err = New(Config{Blocks: File{Path: file, Write: h.write}, BootID: "boot", Now: h.up, Time: time.Now,
		Pool:     h.demand,
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
func (h *tenant) recorded(file string) map[string]int64 {
	h.t.Helper()
	of, err := loadBlocks(Config{Blocks: File{Path: file, Read: os.ReadFile}, BootID: "boot", Now: h.up})
	if err != nil {
		h.t.Fatal(err)
	}
	out := map[string]int64{}
	if e := of["usher/L1"]; e != nil {
		for _, b := range e.plans["seats"].Blocks {
			out[b.ID] = b.Use
		}
	}
	return out
}

func blockLicence(id string, u plugin.Budgeter) Licence {
	l := &enforcer.License{ID: id, System: "usher", Pools: map[string]enforcer.PoolTerm{"seats": {Max: 40}}}
	return Licence{License: l, Document: []byte(id), Budgeter: u}
}

func (h *tenant) demand(string) PoolDemand {
	h.mu.Lock()
	defer h.mu.Unlock()
	return PoolDemand{InUse: h.inUse, Waiting: h.waiting, Capacity: h.cap, Draining: h.draining}
}

// changed is what the agent does with a new budget: from then on it hands out no more than that, and waiters have what
// is free.
func (h *tenant) changed() {
	budgets, _ := h.Budgets()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cap = int64(budgets[seats])
	n := max(0, min(h.waiting, h.cap-h.inUse))
	h.inUse, h.waiting = h.inUse+n, h.waiting-n
}

// want acquires n slots, and waits for those that are not there.
func (h *tenant) want(n int64) {
	h.mu.Lock()
	h.waiting += n
	h.mu.Unlock()
	h.changed()
	h.Nudge()
}

func (h *tenant) release(n int64) {
	h.mu.Lock()
	h.inUse -= n
	h.mu.Unlock()
	h.Nudge()
}

func (h *tenant) has(inUse, most int64) {
	h.t.Helper()
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.inUse != inUse || h.cap > most || h.cap < min(inUse, most) {
		h.t.Errorf("%d are in use of %d; want %d of at most %d", h.inUse, h.cap, inUse, most)
	}
}
