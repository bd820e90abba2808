// Package external runs licence systems that are programs of their own: it checks, starts, watches, restarts and ends
// them, bounds every call, and is a Format and an Upstream to the agent. docs/plugins.md says what a plugin may rely
// on. Start with [New] and [Process.Run]; calls.go has the calls, runner.go the process.
package external

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/remote"
)

// Config is one plugin.
type Config struct {
	Name   string // of its system
	Path   string // of the binary, absolute
	Args   []string
	SHA256 [sha256.Size]byte
	// Dir holds a folder for the plugin's socket, which has the plugin's name and belongs to the process alone. It is
	// made when missing.
	Dir     string
	Version string // the agent's version, for the plugin
	Log     *slog.Logger
	// OnChange is called, from Run's goroutine, when the plugin has come up or gone down; it may be nil.
	OnChange func(up bool)
	// Now is the licence time, by which the times that an upstream answers are checked; nil: the wall clock.
	Now    func() time.Time
	Limits Limits
}

// Limits bound what a plugin may take. Zero values stand for the defaults.
type Limits struct {
	Start    time.Duration // until it has described itself: 10 s
	Format   time.Duration // a call to recognise or verify: 5 s; a slower plugin is restarted
	Upstream time.Duration // a call to the upstream: 30 s
	Health   time.Duration // between two looks at its health: 10 s
	Stop     time.Duration // to end by itself: 3 s
	Backoff  time.Duration // before the first restart: 1 s; each doubles it
	MaxWait  time.Duration // between two starts at most: 1 min
	Calls    int           // at one time: 4
}

func (l Limits) orDefault() Limits {
	for _, d := range []struct {
		v  *time.Duration
		or time.Duration
	}{{&l.Start, 10 * time.Second}, {&l.Format, 5 * time.Second}, {&l.Upstream, 30 * time.Second},
		{&l.Health, 10 * time.Second}, {&l.Stop, 3 * time.Second},
		{&l.Backoff, time.Second}, {&l.MaxWait, time.Minute}} {
		if *d.v == 0 {
			*d.v = d.or
		}
	}
	if l.Calls == 0 {
		l.Calls = 4
	}
	return l
}

// Process is one plugin, whether it runs or not. Make one with New, and call Run.
type Process struct {
	config Config
	limits Limits
	calls  chan struct{} // one for each call under way

	mu      sync.Mutex // guards all below
	session *session   // nil: it does not run
	failed  error      // why it does not run; nil before the first failure: only the first start is waited for
	known   *remote.Description
	starts  int
	changed chan struct{} // closed and replaced when any of these changes
}

// session is one run of the plugin's process.
type session struct {
	client  *remote.Client
	child   *child
	plugin  *goplugin.Client
	suspect chan error // capacity 1: why it must be ended
}

// accuse has the session ended and started again. It does not wait.
func (s *session) accuse(why error) {
	select {
	case s.suspect <- why:
	default: // it is ending already
	}
}

// New makes a plugin. It starts nothing and does not look at the file: see Check and Run.
func New(c Config) (*Process, error) {
	if err := plugin.CheckName(c.Name); err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Log = c.Log.With("plugin", c.Name)
	l := c.Limits.orDefault()
	return &Process{config: c, limits: l, calls: make(chan struct{}, l.Calls), changed: make(chan struct{})}, nil
}

// Check reports why the plugin's file cannot be started; nil: it can.
func (p *Process) Check() error {
	f, err := open(p.config.Path, p.config.SHA256)
	if err != nil {
		return fmt.Errorf("plugin %s (%s): %w", p.config.Name, p.config.Path, err)
	}
	return f.Close()
}

// Name returns the name of the plugin's system.
func (p *Process) Name() string { return p.config.Name }

// Up reports whether the plugin runs.
func (p *Process) Up() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.session != nil
}

// PID returns the number of the plugin's process; 0 when it does not run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session == nil {
		return 0
	}
	return p.session.child.process.Load().Pid
}

// Starts returns how often the plugin has come up.
func (p *Process) Starts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts
}

// set records the plugin's new state and wakes every waiter.
func (p *Process) set(s *session, d *remote.Description, failed error) {
	p.mu.Lock()
	was := p.session != nil
	p.session, p.failed = s, failed
	if d != nil {
		p.known = d
	}
	if s != nil {
		p.starts++
	}
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	if up := s != nil; up != was && p.config.OnChange != nil {
		p.config.OnChange(up)
	}
}

// Run keeps the plugin running until ctx ends, and then ends it. Its error is always nil: a plugin that cannot be
// started is tried again, each time later, at nobody else's cost.
func (p *Process) Run(ctx context.Context) error {
	defer p.set(nil, nil, errors.New("the agent is ending"))
	wait := p.limits.Backoff
	for ctx.Err() == nil {
		began := time.Now()
		err := p.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > p.limits.MaxWait {
			wait = p.limits.Backoff // it ran well for long
		}
		// Half of the wait is random, so that plugins that fail together do not start together.
		pause := wait/2 + rand.N(wait/2+1)
		p.set(nil, nil, fmt.Errorf("%w; it is started again", err))
		p.config.Log.Warn("the plugin does not run", "error", err, "again_in",
			enforcer.Span(pause.Round(time.Millisecond)))
		wait = min(2*wait, p.limits.MaxWait)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// once starts the plugin and returns why it has stopped.
func (p *Process) once(ctx context.Context) error {
	out := newLines(p.config.Log)
	defer out.end()
	s, d, err := p.start(ctx, out)
	if err != nil {
		return err
	}
	defer p.stop(s)
	p.config.Log.Info("the plugin runs", "pid", s.child.process.Load().Pid, "version", d.Version, "protocol",
		s.plugin.NegotiatedVersion())
	p.set(s, d, nil)
	health := time.NewTicker(p.limits.Health)
	defer health.Stop()
	pinged := make(chan error, 1)
	pinging := false
	var sick <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.child.done:
			return fmt.Errorf("it ended by itself (%s)", ended(s.child.err))
		case err := <-s.suspect:
			return err
		case <-health.C:
			if !pinging {
				pinging, sick = true, time.After(p.limits.Health)
				go func() {
					c, err := s.plugin.Client()
					if err == nil {
						err = c.Ping() // it takes no deadline; a hanging call ends with the process
					}
					pinged <- err
				}()
			}
		case <-sick:
			return fmt.Errorf("its health check has had no answer for %s", enforcer.Span(p.limits.Health))
		case err := <-pinged:
			if err != nil {
				return fmt.Errorf("its health check says %s", short(err))
			}
			pinging, sick = false, nil
		}
	}
}

func ended(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// start starts the process and has it describe itself, all within the limit.
func (p *Process) start(ctx context.Context, out *lines) (*session, *remote.Description, error) {
	ctx, cancel := context.WithTimeout(ctx, p.limits.Start)
	defer cancel()
	// First remove what a killed agent has left behind.
	dir := filepath.Join(p.config.Dir, p.config.Name)
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return nil, nil, fmt.Errorf("its socket's folder: %w", err)
	}
	file, err := open(p.config.Path, p.config.SHA256)
	if err != nil {
		return nil, nil, err
	}
	child, err := newChild(p.config.Path, file, p.config.Args, environment())
	if err != nil {
		return nil, nil, err
	}
	client := goplugin.NewClient(&goplugin.ClientConfig{HandshakeConfig: remote.Handshake,
		VersionedPlugins: remote.Set(nil), AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS: true, SkipHostEnv: true, StartTimeout: p.limits.Start, Stderr: out, SyncStdout: out, SyncStderr: out,
		PluginLogBufferSize: 4 << 10,
		Logger:              hclog.NewNullLogger(), GRPCDialOptions: remote.DialOptions(),
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: dir},
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, _ string) (runner.Runner, error) {
			child.cmd.Env = append(child.cmd.Env, cmd.Env...)
			return child, nil
		}})
	s := &session{child: child, plugin: client, suspect: make(chan error, 1)}
	type result struct {
		d   *remote.Description
		err error
	}
	spoken := make(chan result, 1)
	go func() {
		d, err := s.speak(ctx, p.config.Version)
		spoken <- result{d, err}
	}()
	var r result
	select {
	case r = <-spoken:
	case <-ctx.Done():
		// go-plugin waits for a connection without a limit of its own; it gives up when there is no process.
		if child.process.Load() != nil {
			child.kill()
		}
		r = <-spoken
		r.err = fmt.Errorf("it has not described itself within %s", enforcer.Span(p.limits.Start))
	}
	if r.err == nil && r.d.System != p.config.Name {
		r.err = fmt.Errorf("it serves the system %s, and is configured as %s; give it that name", r.d.System,
			p.config.Name)
	}
	if r.err != nil {
		p.stop(s)
		return nil, nil, errors.New(short(r.err))
	}
	return s, r.d, nil
}

// speak connects and has the plugin describe itself.
func (s *session) speak(ctx context.Context, version string) (*remote.Description, error) {
	c, err := s.plugin.Client()
	if err != nil {
		return nil, err
	}
	raw, err := c.Dispense(remote.Name)
	if err != nil {
		return nil, err
	}
	s.client = raw.(*remote.Client)
	return s.client.Describe(ctx, version)
}

// stop ends a session, politely at first.
func (p *Process) stop(s *session) {
	killed := make(chan struct{})
	go func() {
		s.plugin.Kill()
		close(killed)
	}()
	select {
	case <-killed:
	case <-time.After(p.limits.Stop):
		s.child.kill()
		<-killed
	}
}

// short makes an error fit for a log line: one line, not longer than 500 bytes.
func short(err error) string {
	s := strings.Join(strings.Fields(strings.ToValidUTF8(err.Error(), "")), " ")
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "") + "…"
	}
	return s
}
