// Package reports tells upstreams how their licences stand on this agent, and who holds slots of them: see
// [plugin.Reporter]. It only watches. It is told that something may have changed, looks at it a moment later, outside
// all locks, and makes one report at a time. The last standing wins, and no decision waits for a report.
//
// Start reading at [Reports.Run].
package reports

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// The measure of reports.
const (
	// settle is for how long a change waits for further ones, and between is the least time between two reports.
	settle  = 200 * time.Millisecond
	between = time.Second
	// Between tries lies a random time up to a bound that doubles with each failure.
	backOffLeast = time.Second
	backOffMost  = 10 * time.Minute
)

// Config is what Reports needs. All but those marked are required; the functions are safe for concurrent use.
type Config struct {
	Upstreams map[string]plugin.Upstream // by system; those that are no [plugin.Reporter] are told nothing
	File      string                     // where the states of reports are kept; in the state folder
	Read      func(file string) ([]byte, error)
	Write     func(file string, data []byte) error
	// Standing returns a report without its state. It is false before the first verdict.
	Standing   func(system, label string) (plugin.Report, bool)
	CallWithin time.Duration // of one report
	// Follow has changed called whenever a lease with a label is granted or ends.
	Follow func(label string, changed func())
	// Told is called when a remote side has been told the first code, or another than before; optional.
	Told func(system string)
	// Called is called for each report; optional.
	Called func(result string)
	Log    *slog.Logger // optional
}

// Reports tells every Reporter. Make one with New.
type Reports struct {
	cfg Config
	all []*reporter

	mu    sync.Mutex        // guards states; never held over a report
	state map[string][]byte // by system
}

// reporter is one upstream that is told.
type reporter struct {
	*Reports
	system string
	to     plugin.Reporter
	wake   chan struct{} // capacity 1

	told     [sha256.Size]byte // what was told last; zero: nothing since the start
	code     enforcer.Code     // likewise
	failures int               // in a row
}

// New reads what was told before. It starts nothing.
func New(c Config) (*Reports, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Told == nil {
		c.Told = func(string) {}
	}
	if c.Called == nil {
		c.Called = func(string) {}
	}
	r := &Reports{cfg: c, state: map[string][]byte{}}
	for system, u := range c.Upstreams {
		if to, ok := u.(plugin.Reporter); ok {
			x := &reporter{Reports: r, system: system, to: to, wake: make(chan struct{}, 1)}
			r.all = append(r.all, x)
			if label := to.Label(); label != "" {
				c.Follow(label, x.changed)
			}
		}
	}
	if r.all == nil {
		return r, nil
	}
	b, err := c.Read(c.File)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &r.state)
	}
	if err != nil {
		return nil, fmt.Errorf("record of reports %s: %w; move the file away, and the agent reports anew", c.File, err)
	}
	return r, nil
}

// Changed says that the standing of a licence may have changed. It never waits.
func (r *Reports) Changed() {
	for _, x := range r.all {
		x.changed()
	}
}

// Preview returns the next reports, without their states, with the labels that they are by.
func (r *Reports) Preview() (all []plugin.Report, labels []string) {
	for _, x := range r.all {
		if p, ok := x.cfg.Standing(x.system, x.to.Label()); ok {
			all, labels = append(all, p), append(labels, x.to.Label())
		}
	}
	return all, labels
}

func (x *reporter) changed() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// Run makes the reports, until ctx ends.
func (r *Reports) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, x := range r.all {
		all.Go(func() { x.run(ctx) })
	}
	all.Wait()
	<-ctx.Done()
	return nil
}

// sleep waits, and reports whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (x *reporter) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-x.wake:
		}
		if !sleep(ctx, settle) {
			return
		}
		for {
			select {
			case <-x.wake: // it is looked at now
			default:
			}
			wait, again := x.report(ctx)
			if wait > 0 && !sleep(ctx, wait) {
				return
			}
			if !again {
				break
			}
		}
	}
}

// report makes a report where something has changed. It returns how long no other is to be made, and whether this one
// is to be made again.
func (x *reporter) report(ctx context.Context) (wait time.Duration, again bool) {
	r, ok := x.cfg.Standing(x.system, x.to.Label())
	if !ok {
		return 0, false
	}
	sum := digest(&r)
	if sum == x.told {
		return 0, false
	}
	x.mu.Lock()
	r.State = x.state[x.system]
	x.mu.Unlock()
	within, cancel := context.WithTimeout(ctx, x.cfg.CallWithin)
	state, err := x.to.Report(within, &r)
	cancel()
	if ctx.Err() != nil && err != nil {
		return 0, false // the agent ends; the next one reports
	}
	if err == nil && len(state) > plugin.MaxReportState {
		err = &plugin.Error{Class: plugin.Misconfigured,
			Reason: fmt.Sprintf("the upstream's state of reports has %d bytes",
				len(state))}
	}
	if err != nil {
		return x.failed(err), true
	}
	x.cfg.Called("ok")
	if x.failures > 0 {
		x.cfg.Log.Info("the upstream takes reports again", "system", x.system, "failures", x.failures)
	}
	other := x.code != r.Code
	x.failures, x.told, x.code = 0, sum, r.Code
	x.keep(state)
	if other {
		x.cfg.Told(x.system)
	}
	return between, true // what has changed meanwhile is looked at
}

// failed takes note of a failure, and returns how long to wait until the next try.
func (x *reporter) failed(err error) time.Duration {
	var e *plugin.Error
	if !errors.As(err, &e) {
		e = plugin.Transiently("%v", err)
	}
	x.cfg.Called(string(e.Class))
	x.failures++
	level := slog.LevelDebug
	if x.failures == 1 {
		level = slog.LevelWarn
	}
	x.cfg.Log.Log(context.Background(), level, "a report to the upstream failed, and is tried again", "system",
		x.system,
		"class", string(e.Class), "error", e.Reason, "hint", e.Hint)
	top := min(backOffMost, backOffLeast<<min(x.failures-1, 10))
	wait := top/2 + rand.N(top/2)
	if after := min(e.RetryAfter, plugin.MaxRetryAfter); after > wait {
		wait = after
	}
	return wait
}

// keep writes the state, whole or not at all. A failure is logged, and reports go on.
func (x *reporter) keep(state []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if string(x.state[x.system]) == string(state) {
		return
	}
	x.state[x.system] = state
	b, err := json.Marshal(x.state)
	if err == nil {
		err = x.cfg.Write(x.cfg.File, b)
	}
	if err != nil {
		x.cfg.Log.Error("what was reported could not be kept; after a restart the agent reports it again", "error", err)
	}
}

// digest is what a report says, without its state.
func digest(r *plugin.Report) [sha256.Size]byte {
	q := *r
	q.State = nil
	b, _ := json.Marshal(q) // of texts, numbers and times
	return sha256.Sum256(b)
}
