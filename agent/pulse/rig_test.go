package pulse

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// remote is an upstream whose every answer a test decides.
type remote struct {
	can    plugin.Capabilities
	answer func(Call, *plugin.Request) (*plugin.Reply, error)

	mu    sync.Mutex
	calls []called
}

type called struct {
	call Call
	at   time.Time
	req  plugin.Request
}

func (r *remote) System() string                    { return "fake" }
func (r *remote) Capabilities() plugin.Capabilities { return r.can }
func (r *remote) do(ctx context.Context, c Call, q *plugin.Request) (*plugin.Reply, error) {
	r.mu.Lock()
	r.calls = append(r.calls, called{c, time.Now(), *q})
	answer := r.answer
	r.mu.Unlock()
	if answer == nil {
		return &plugin.Reply{}, nil
	}
	if answer := answer; answer != nil {
		reply, err := answer(c, q)
		if errors.Is(err, errHang) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return reply, err
	}
	return nil, nil
}
func (r *remote) Activate(ctx context.Context, q *plugin.Request) (*plugin.Reply, error) {
	return r.do(ctx, Activate, q)
}
func (r *remote) Heartbeat(ctx context.Context, q *plugin.Request) (*plugin.Reply, error) {
	return r.do(ctx, Heartbeat, q)
}
func (r *remote) CheckIn(ctx context.Context, q *plugin.Request) (*plugin.Reply, error) {
	return r.do(ctx, CheckIn, q)
}
func (r *remote) Deactivate(ctx context.Context, q *plugin.Request) (*plugin.Reply, error) {
	return r.do(ctx, Deactivate, q)
}

var errHang = errors.New("hang")

func (r *remote) count(c Call) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range r.calls {
		if x.call == c {
			n++
		}
	}
	return n
}

// seen returns the calls so far.
func (r *remote) seen() []called {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

func (r *remote) set(answer func(Call, *plugin.Request) (*plugin.Reply, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// rig is a Pulse in a bubble, whose clock is the bubble's.
type rig struct {
	*Pulse
	t       *testing.T
	remote  *remote
	cfg     Config
	licence *enforcer.License
	start   time.Time
	boot    string
	slept   time.Duration
	skew    atomic.Int64 // how far the pulse's clock is wrong
	renewed [][]byte
	learnt  []time.Time
	results []string
	stop    func()
}

func newRig(t *testing.T, change func(*enforcer.License)) *rig {
	all := plugin.Capabilities{Activate: true, Heartbeat: true, CheckIn: true, Deactivate: true}
	r := &rig{t: t, remote: &remote{can: all}, start: time.Now(), boot: "b1"}
	r.licence = &enforcer.License{ID: "L1", System: "fake", Issued: time.Now(),
		Heartbeat: enforcer.Period{Every: 30 * time.Minute, Grace: 10 * time.Minute}}
	if change != nil {
		change(r.licence)
	}
	r.cfg = Config{File: filepath.Join(t.TempDir(), "upstream.json"), Now: r.now, Log: slog.New(slog.DiscardHandler),
		Uptime: func() Uptime {
			return Uptime{BootID: r.boot, Up: time.Since(r.start) + time.Hour, Suspended: r.slept}
		},
		Request: func(l *enforcer.License, doc []byte) plugin.Request {
			return plugin.Request{LicenseID: l.ID, Document: doc}
		},
		OnChange: func() {},
		Renewed: func(_ context.Context, _ *enforcer.License, d []byte) error {
			r.remote.mu.Lock()
			defer r.remote.mu.Unlock()
			r.renewed = append(r.renewed, d)
			return nil
		},
		Learnt: func(_ *enforcer.License, at time.Time) {
			r.remote.mu.Lock()
			defer r.remote.mu.Unlock()
			r.learnt = append(r.learnt, at)
		},
		Called: func(c Call, result string, _ time.Time) {
			r.remote.mu.Lock()
			defer r.remote.mu.Unlock()
			r.results = append(r.results, string(c)+" "+result)
		}}
	r.run()
	return r
}

// run starts a Pulse with the kept state.
func (r *rig) run() {
	r.t.Helper()
	p, err := New(r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.Pulse = p
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Run(ctx)
	}()
	r.stop = func() { cancel(); <-done }
	p.Set([]Licence{{r.licence, []byte("doc"), r.remote}})
	synctest.Wait()
}

func (r *rig) now() time.Time { return time.Now().Add(time.Duration(r.skew.Load())) }

// pass lets time pass.
func (r *rig) pass(d time.Duration) {
	time.Sleep(d) // of the bubble
	synctest.Wait()
}

func (r *rig) verdict() *enforcer.Verdict {
	return enforcer.Judge(enforcer.Facts{Documents: []enforcer.Document{{Name: "a.lic", License: r.licence}},
		Upstream: r.Facts()}, r.now())
}

func (r *rig) want(code enforcer.Code) {
	r.t.Helper()
	if v := r.verdict(); v.Code != code {
		r.t.Errorf("after %v the verdict is %s (%s), want %s", time.Since(r.start), v.Code, v.Reason, code)
	}
}

func down(Call, *plugin.Request) (*plugin.Reply, error) { return nil, plugin.Transiently("no route") }
