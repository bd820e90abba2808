package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/court"
	"github.com/usher-agent/usher/agent/denials"
	"github.com/usher-agent/usher/agent/desk"
	"github.com/usher-agent/usher/agent/dialect"
	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/agent/holders"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/leaselog"
	"github.com/usher-agent/usher/agent/ops"
	"github.com/usher-agent/usher/agent/places"
	"github.com/usher-agent/usher/agent/plugins"
	"github.com/usher-agent/usher/agent/reports"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/agent/shares"
	"github.com/usher-agent/usher/agent/systemd"
	"github.com/usher-agent/usher/agent/upstreams"
	"github.com/usher-agent/usher/agent/usage"
	"github.com/usher-agent/usher/agent/vitals"
	"github.com/usher-agent/usher/metrics"
	"github.com/usher-agent/usher/plugin"
)

// Options is what New needs besides the configuration.
type Options struct {
	Config *config.Config
	// Load reads the configuration again for a reload; nil: there is nothing to reload.
	Load func() (*config.Config, error)
	Log  *slog.Logger // nil: nothing is logged
	// SetLevel is told of a new log level; nil: nobody is.
	SetLevel func(level string)
	// LogDropped returns how many lines of Log were dropped; nil: none ever is.
	LogDropped func() uint64
	Version    string
	Commit     string
	Now        func() time.Time // the wall clock; nil: time.Now
	// Dialects can be spoken on listeners besides those that are built in.
	Dialects []plugin.Dialect
}

// Agent is one running instance. Make one with New, run it once with Run. What only the start needs is in [opening].
type Agent struct {
	options Options
	log     *slog.Logger
	observers
	*present
	vital
	running  *running
	signer   *identity.Signer
	desk     *desk.Desk
	sessions *holders.Sessions
	court    *court.Court
	duties   *upstreams.Duties // and the pulse that meets them
	requests *upstreams.Requests
	sharing
	server   *api.Server
	dialects *dialect.Dialects
}

// observers are told what happens, and stop nobody.
type observers struct {
	metrics *metrics.Metrics
	feeds   *api.Feeds
	audit   *audit.Log
	plugins plugins.Plugins
	reports *reports.Reports
	denials []*denials.Tally
	usage   *usage.Usage
	leases  *leaselog.Log
	places  *places.Teller
}

// sharing is what gives this agent its part of a site's pools.
type sharing struct {
	shares *shares.Keeper
	fleet  *fleet.Fleet // nil: the configuration names none
}

// vital is what the agent cannot do without, and what watches it.
type vital struct {
	folders folders
	seals   *seals.Seals
	vitals  *vitals.Vitals
	beat    func(every time.Duration) time.Duration // of all who look again and again: see clock.Beat
}

// New checks the configuration and takes what only one agent may have: the state folder and the socket. Whoever calls
// it must call Run, which gives them back.
func New(o Options) (*Agent, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.LogDropped == nil {
		o.LogDropped = func() uint64 { return 0 }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Config.Guard()
	a := &Agent{options: o, log: o.Log, present: &present{config: o.Config}, running: newRunning(),
		vital: vital{beat: clock.Beat()}}
	a.named.remember(o.Config)
	if err := a.open(); err != nil {
		_ = a.running.close() // the first fault counts
		return nil, err
	}
	return a, nil
}

// Ready is closed when the agent listens and has a first verdict.
func (a *Agent) Ready() <-chan struct{} { return a.running.ready }

// Run serves until ctx ends, then drains: no new leases, requests under way are answered, all is given back.
func (a *Agent) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, a.running.close()) }()
	defer a.runEvents(ctx)()
	defer context.AfterFunc(ctx, a.running.stop)()
	if cfg := a.settings().Ops; cfg.Listen != "" {
		if err := a.listenForOps(cfg); err != nil {
			return err
		}
	}
	return a.running.run()
}

// listenForOps opens the operators' listener.
func (a *Agent) listenForOps(cfg config.Ops) error {
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("ops.listen %s: %w; choose another address, or leave ops.listen out", cfg.Listen, err)
	}
	o, err := a.openOps(ops.Config{Listener: a.server.Counted(l), WebConfig: cfg.WebConfig,
		Handler: api.OpsHandler(front{a}, a.metrics.Handler(true)), Log: a.log})
	if err != nil {
		l.Close()
		return err
	}
	a.running.task("ops", func(ctx context.Context) error {
		if err := o.Run(ctx); err != nil { // whoever only watches stops nobody
			a.log.Error("the operators' listener has ended", "address", cfg.Listen, "error", err)
		}
		return nil
	})
	return nil
}

// maxNamed is the size in bytes of the largest file that a configuration names and the agent reads.
const maxNamed = 1 << 20

// openOps makes the operators' server. Its web configuration is read by Prometheus's toolkit, again for each
// connection; what is looked at here is who can change the file.
func (a *Agent) openOps(c ops.Config) (*ops.Server, error) {
	if c.WebConfig != "" {
		if _, err := a.settings().ReadFile(c.WebConfig, maxNamed); err != nil {
			return nil, fmt.Errorf("ops.web_config: %w", err)
		}
	}
	return ops.New(c)
}

// lifecycle tells the service manager how the agent is.
func (a *Agent) lifecycle(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-a.running.judged:
		close(a.running.ready)
		a.log.Info("ready", "socket", a.settings().Socket.Path, "product", a.product(), "version", a.options.Version)
		for _, r := range FleetRemarks(a.settings(), a.desk.Verdict()) {
			a.log.Warn("a key of the configuration may not be meant so", "remark", r)
		}
		a.running.resume()
		debug.FreeOSMemory() // what only the start needed
		if err := dropStartPages(); err != nil {
			a.log.Debug("memory that only the start used is kept", "error", err)
		}
	}
	defer a.desk.Drain()
	m, err := systemd.NewManager()
	if err != nil {
		a.log.Warn("the service manager's watchdog period cannot be read", "error", err)
	}
	return a.tell(ctx, m)
}

// tell has the service manager know how the agent is, until ctx ends. Its watchdog is fed while what decides moves.
func (a *Agent) tell(ctx context.Context, m systemd.Manager) error {
	return m.Run(ctx, a.statusLine, a.vitals.Moving, func(err error) {
		a.log.Warn("the service manager could not be told how the agent is", "error", err)
	})
}
