package shares

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// seller counts what is drawn, each token once.
type seller struct {
	plugin.Upstream
	mu    sync.Mutex
	left  int64
	done  map[string]int64 // by token
	calls int
	err   error // of every call
	lost  bool  // the answers are lost
	slow  time.Duration
}

func (c *seller) Draw(_ context.Context, r *plugin.Draw) (*plugin.Drawn, error) {
	c.mu.Lock()
	slow := c.slow
	c.mu.Unlock()
	time.Sleep(slow)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	if c.err != nil {
		return nil, c.err
	}
	if _, ok := c.done[r.Token]; !ok {
		if r.N > c.left {
			return nil, &plugin.Error{Class: plugin.Transient, SystemCode: plugin.SystemFull,
				Reason: "there are no more"}
		}
		c.done[r.Token] = r.N
		c.left -= r.N
	} else if c.done[r.Token] != r.N {
		return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: "the token was used for another number"}
	}
	if c.lost {
		return nil, plugin.Transiently("the answer was lost")
	}
	return &plugin.Drawn{Meter: r.Meter, N: r.N}, nil
}

func (c *seller) change(f func()) { c.mu.Lock(); defer c.mu.Unlock(); f() }

// took is what was drawn, and by how many calls.
func (c *seller) took() (n int64, calls int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.done {
		n += x
	}
	return n, c.calls
}

// buyer is an agent that draws from one meter.
type buyer struct {
	*Keeper
	t       testing.TB
	mu      sync.Mutex
	taken   enforcer.Taken
	drawn   int64
	period  time.Time
	waiting int64
	stop    func()
}

var uses = enforcer.Share{License: "usher/L1", Pool: "uses"}

func drawLicence(u plugin.Drawer, resets enforcer.Resets) Licence {
	return Licence{License: &enforcer.License{ID: "L1", System: "usher",
		Meters: map[string]enforcer.MeterTerm{"uses": {Max: 100, Scope: enforcer.ScopeSite, Resets: resets}}},
		Drawer: u}
}

// spans returns a clock that begins now.
func spans() func() time.Duration {
	began := time.Now()
	return func() time.Duration { return time.Since(began) }
}

func writeFile(file string, data []byte) error { return os.WriteFile(file, data, 0o600) }

func openBuyer(t testing.TB, u plugin.Drawer, resets enforcer.Resets, change ...func(*Config)) *buyer {
	t.Helper()
	h := &buyer{t: t}
	cfg := Config{Draws: File{Path: filepath.Join(t.TempDir(), "draws.json"), Write: writeFile}, Now: spans(),
		Time:     time.Now,
		Meter:    h.demand,
		OnChange: h.changed, Jitter: func() float64 {
			return 0.5
		},
		Request: func(l *enforcer.License, doc []byte) plugin.Request {
			return plugin.Request{LicenseID: l.ID, Document: doc}
		}}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if h.Keeper, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	h.Set([]Licence{drawLicence(u, resets)})
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

func (h *buyer) demand(string) MeterDemand {
	h.mu.Lock()
	defer h.mu.Unlock()
	return MeterDemand{Drawn: h.drawn, Waiting: h.waiting, Capacity: int64(h.taken.N)}
}

// changed is what the agent does with what was taken: waiters get what there is.
func (h *buyer) changed() {
	taken := h.Taken()[uses]
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.taken = taken; !h.period.Equal(taken.Period) {
		h.period, h.drawn = taken.Period, 0
	}
	n := max(0, min(h.waiting, int64(taken.N)-h.drawn))
	h.drawn, h.waiting = h.drawn+n, h.waiting-n
}

// draw draws what is there, and reports whether it could.
func (h *buyer) draw(n int64) bool {
	h.mu.Lock()
	ok := h.drawn+n <= int64(h.taken.N)
	if ok {
		h.drawn += n
	}
	h.mu.Unlock()
	if !ok {
		h.cfg.Wants.Missed(&enforcer.Acquire{Pool: "uses", N: n})
	}
	h.Nudge()
	return ok
}

func (h *buyer) wait(n int64) {
	h.mu.Lock()
	h.waiting += n
	h.mu.Unlock()
	h.Nudge()
}

// settle lets the keeper do all that is due now: it rests for a moment between two looks.
func settle() {
	time.Sleep(10 * restBetween)
	synctest.Wait()
}

// has checks what was taken, here and upstream, and what was drawn.
func (h *buyer) has(what string, c *seller, taken, drawn int64) {
	h.t.Helper()
	settle()
	up, _ := c.took()
	h.mu.Lock()
	defer h.mu.Unlock()
	if int64(h.taken.N) != taken || up < taken || h.drawn != drawn {
		h.t.Errorf("%s: %d taken and %d drawn here, %d upstream; want %d and %d", what, h.taken.N, h.drawn, up, taken,
			drawn)
	}
}

func TestDraws(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := &seller{left: 100, done: map[string]int64{}}
		h := openBuyer(t, c, enforcer.ResetsNever)
		h.has("nobody draws", c, 0, 0)
		time.Sleep(time.Hour)
		h.has("an hour later", c, 0, 0)
		if _, calls := c.took(); calls != 0 || h.draw(1) {
			t.Errorf("%d calls for a meter that nobody has asked for", calls)
		}
		h.has("one is wanted", c, 2, 0)
		if !h.draw(1) {
			t.Error("what was missed was not taken")
		}
		h.has("one is drawn", c, 2, 1)
		if h.draw(4) {
			t.Error("drawn what was not taken")
		}
		settle()
		if !h.draw(4) {
			t.Error("what was missed was not taken")
		}
		c.change(func() { c.slow = time.Second })
		h.wait(10)
		time.Sleep(3 * time.Second) // a call may be under way, and asks for less
		synctest.Wait()
		h.mu.Lock()
		if n, w := h.drawn, h.waiting; n != 15 || w != 0 {
			t.Errorf("a waiter did not get what arrived: %d drawn, %d waited for", n, w)
		}
		h.mu.Unlock()
		time.Sleep(time.Hour)
		// A licence that is not in force takes none, and what was taken is there when it is again.
		synctest.Wait()
		was := h.Taken()[uses].N
		h.Set(nil)
		if _, ok := h.Taken()[uses]; ok {
			t.Error("it is not in force, and something was taken of it")
		}
		h.cfg.Wants.Missed(&enforcer.Acquire{Pool: "uses", N: 5})
		time.Sleep(time.Minute)
		if !h.Set([]Licence{drawLicence(c, enforcer.ResetsNever)}) || h.Taken()[uses].N != was {
			t.Errorf("in force again: %v, was %d", h.Taken(), was)
		}
		h.changed()
		h.wait(1000)
		time.Sleep(time.Hour)
		h.has("all", c, 100, 100)
		if up, _ := c.took(); up != 100 {
			t.Errorf("%d were drawn of 100", up)
		}
	})
}

// The agent takes what others have left, and then leaves the upstream alone for minutes.
func TestOthersDraw(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := &seller{left: 4, done: map[string]int64{}}
		h := openBuyer(t, c, enforcer.ResetsNever)
		h.wait(50)
		time.Sleep(time.Minute)
		h.has("the rest", c, 4, 4)
		_, calls := c.took()
		time.Sleep(4 * time.Minute)
		if _, more := c.took(); more > calls+1 {
			t.Errorf("%d calls in 4 minutes to one that has no more", more-calls)
		}
		c.change(func() { c.left = 60 })
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if h.waiting != 0 {
			t.Errorf("%d are waited for when there are more", h.waiting)
		}
	})
}

// That other hosts have taken all that is left is known until the upstream is asked again, and not where one of two
// licences has draws left or the limit is raised.
func TestNoneIsLeftToTake(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c, other := &seller{left: 4, done: map[string]int64{}}, &seller{left: 2, done: map[string]int64{}}
		h := openBuyer(t, c, enforcer.ResetsWeekly)
		know := func(when string, want int64) {
			t.Helper()
			if out, _, _, known := h.cfg.Wants.Elsewhere("uses"); known != (want > 0) || known && out != want {
				t.Errorf("%s: other hosts have taken %d, known: %t; want %d", when, out, known, want)
			}
		}
		first := drawLicence(c, enforcer.ResetsWeekly)
		know("at first", 0)
		h.wait(50)
		time.Sleep(time.Minute)
		know("of 100, 4 of which came here", 96)
		time.Sleep(9 * time.Minute)
		know("later", 96)
		more := drawLicence(other, enforcer.ResetsWeekly)
		more.License.ID = "L2"
		h.Set([]Licence{first, more})
		time.Sleep(time.Second)
		know("with another licence", 0)
		time.Sleep(20 * time.Minute)
		know("of two licences", 96+98)
		h.Set([]Licence{first})
		c.change(func() { c.left = 60 })
		first.License.Meters = map[string]enforcer.MeterTerm{"uses": {Max: 200, Scope: enforcer.ScopeSite,
			Resets: enforcer.ResetsWeekly}}
		h.Set([]Licence{first})
		time.Sleep(time.Second)
		synctest.Wait()
		if n, _ := c.took(); n < 50 {
			t.Errorf("of a raised limit %d were taken at once", n)
		}
		know("of a raised limit", 0)
	})
}

// An answer that is lost is asked for again by the same token; one that refuses took nothing.
func TestDrawErrors(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := &seller{left: 100, done: map[string]int64{}, lost: true}
		h := openBuyer(t, c, enforcer.ResetsNever)
		h.wait(1)
		time.Sleep(10 * time.Minute)
		h.has("no answer", c, 0, 0)
		if n, calls := c.took(); n != 2 || calls < 8 || calls > 60 {
			t.Errorf("%d taken by %d calls in 10 minutes", n, calls)
		}
		c.change(func() { c.lost = false })
		time.Sleep(2 * longestOpen)
		h.has("an answer", c, 2, 1)
		if len(c.done) != 1 {
			t.Errorf("%d tokens", len(c.done))
		}
		c.change(func() { c.err = &plugin.Error{Class: plugin.Misconfigured, Reason: "no credentials"} })
		_, before := c.took()
		h.wait(1)
		h.wait(2)
		time.Sleep(4 * time.Minute)
		if _, calls := c.took(); calls-before > 1 {
			t.Errorf("%d calls in 4 minutes to one that refuses", calls-before)
		}
		c.change(func() { c.err = nil })
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if h.waiting != 0 {
			t.Errorf("%d are waited for", h.waiting)
		}
	})
}

// Each week has its own draws, and what is answered after its end is no good.
func TestPeriods(t *testing.T) {
	bubble.Test(t, func(t *testing.T) { // begins on Saturday, 2000-01-01
		c := &seller{left: 100, done: map[string]int64{}}
		h := openBuyer(t, c, enforcer.ResetsWeekly)
		h.wait(5)
		time.Sleep(time.Second)
		h.has("in the first week", c, 10, 5)
		monday := enforcer.ResetsWeekly.Start(time.Now()).AddDate(0, 0, 7)
		time.Sleep(time.Until(monday) - time.Second)
		h.has("before its end", c, 10, 5)
		c.change(func() { c.slow = 3 * time.Second })
		h.draw(4) // more is taken, and arrives when the week is over
		time.Sleep(2 * time.Second)
		h.has("while a call is under way", c, 10, 9)
		time.Sleep(31 * time.Second)
		h.has("in the next week", c, 1, 0)
		if up, _ := c.took(); up != 14 {
			t.Errorf("%d were drawn upstream, not 10, 3 for nothing, and 1", up)
		}
		if !h.taken.Period.Equal(monday) {
			t.Errorf("the period is %s", h.taken.Period)
		}
	})
}

// Without a record that is written, nothing is taken; what cannot be recorded afterwards is asked for again.
func TestUnwritableDraws(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := &seller{left: 100, done: map[string]int64{}}
		var mu sync.Mutex
		writes, fails := 0, func(int) bool { return true }
		h := openBuyer(t, c, enforcer.ResetsNever, func(cfg *Config) {
			cfg.Draws.Write = func(file string, data []byte) error {
				mu.Lock()
				defer mu.Unlock()
				if writes++; fails(writes) {
					return errors.New("the disk is full")
				}
				return writeFile(file, data)
			}
		})
		h.wait(1)
		time.Sleep(10 * time.Minute)
		h.has("no record", c, 0, 0)
		if _, calls := c.took(); calls != 0 {
			t.Errorf("%d calls that are not on the disk", calls)
		}
		mu.Lock()
		writes, fails = 0, func(n int) bool { return n == 2 } // that of the answer
		mu.Unlock()
		time.Sleep(longestOpen)
		h.has("the answer is not recorded", c, 0, 0)
		time.Sleep(2 * longestOpen)
		h.has("recorded", c, 2, 1)
		if len(c.done) != 1 {
			t.Errorf("%d tokens", len(c.done))
		}
	})
}

// A want that was granted is not taken for again: not for those that ask again and again until they have it, nor after
// a restart.
func TestGrantedOnce(t *testing.T) {
	for _, wait := range []bool{false, true} {
		bubble.Test(t, func(t *testing.T) {
			c := &seller{left: 1000, done: map[string]int64{}, slow: time.Second}
			file := filepath.Join(t.TempDir(), "draws.json")
			h := openBuyer(t, c, enforcer.ResetsNever, func(cfg *Config) { cfg.Draws.Path = file })
			granted := h.draw(40)
			if wait {
				h.wait(40) // as a caller that was denied, and now waits
			}
			for ; !granted && !wait; granted = h.draw(40) {
				time.Sleep(300 * time.Millisecond)
			}
			time.Sleep(time.Minute)
			h.has("40 are drawn", c, 46, 40) // of 100, a sixteenth of which is 6
			h.stop()
			again := openBuyer(t, c, enforcer.ResetsNever, func(cfg *Config) {
				cfg.Draws.Path = file
				cfg.Meter = func(string) MeterDemand { return MeterDemand{Drawn: 40, Capacity: 46} }
			})
			time.Sleep(time.Minute)
			again.stop()
			if up, _ := c.took(); up != 46 {
				t.Errorf("waiting: %v: %d are taken after a restart, not 46", wait, up)
			}
		})
	}
}

// What a call without an answer may have taken of one licence is not taken of another as well.
func TestOpenCallCounts(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := &seller{left: 1000, done: map[string]int64{}, lost: true}
		other := &seller{left: 1000, done: map[string]int64{}}
		h := openBuyer(t, c, enforcer.ResetsNever)
		h.wait(20)
		time.Sleep(time.Second)
		second := drawLicence(other, enforcer.ResetsNever)
		l := *second.License
		l.ID, second.License = "L2", &l
		h.Set([]Licence{drawLicence(c, enforcer.ResetsNever), second})
		time.Sleep(10 * time.Minute)
		if n, _ := other.took(); n != 0 {
			t.Errorf("%d are taken of the second licence for a want that a call for the first is open for", n)
		}
	})
}

// What a former version took for a licence, which it named by its id alone, is that licence's still, and no other's.
func TestFormerDrawsRecord(t *testing.T) {
	file := filepath.Join(t.TempDir(), "draws.json")
	if err := os.WriteFile(file, []byte(`{"licences": {"L1": {"meters": {"uses": {"taken": 7}}}}}`), 0o600); err !=
		nil {
		t.Fatal(err)
	}
	k, err := New(Config{Draws: File{Path: file, Write: func(string, []byte) error {
		return nil
	}}, Now: spans(), Time: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	other := drawLicence(nil, enforcer.ResetsNever)
	l := *other.License
	l.AnchorEnvironment = enforcer.Test
	other.License = &l
	mine := drawLicence(&seller{}, enforcer.ResetsNever)
	other.Drawer = mine.Drawer
	k.Set([]Licence{mine, other})
	if got := k.Taken(); got[uses].N != 7 || got[enforcer.Share{License: "usher:test/L1", Pool: "uses"}].N != 0 {
		t.Errorf("%v", got)
	}
}

// A record that cannot be read stops the start: the agent would lose draws that were paid for.
func TestDrawsRecord(t *testing.T) {
	file := filepath.Join(t.TempDir(), "draws.json")
	for _, bad := range []string{"", "{", "{}", `{"licences": {"L1": null}}`,
		`{"licences": {"L1": {"meters": {"uses": null}}}}`, `{"licences": {"L1": {"meters": {"uses": {"taken": -1}}}}}`,
		`{"licences": {"L1": {"meters": {"uses": {"taken": 1, "pending": {"n": 1}}}}}}`} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Config{Draws: File{Path: file}}); err == nil || !strings.Contains(err.Error(), file) ||
			!strings.Contains(err.Error(), "move it away") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
