package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/court"
	"github.com/usher-agent/usher/agent/desk"
	"github.com/usher-agent/usher/agent/dialect"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/agent/holders"
	"github.com/usher-agent/usher/agent/host"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/inspect"
	"github.com/usher-agent/usher/agent/liveness"
	"github.com/usher-agent/usher/agent/ops"
	"github.com/usher-agent/usher/agent/plugins"
	"github.com/usher-agent/usher/agent/pulse"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/agent/shares"
	"github.com/usher-agent/usher/agent/systemd"
	"github.com/usher-agent/usher/agent/upstreams"
	"github.com/usher-agent/usher/agent/watch"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/metrics"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
)

// Options is what New needs besides the configuration.
type Options struct {
	Config *config.Config
	// Load reads the configuration again for a reload; nil: there is nothing to reload.
	Load func() (*config.Config, error)
	Log  *slog.Logger // nil: nothing is logged
	// SetLevel is told of a new log level; nil: nobody is.
	SetLevel func(level string)
	Version  string
	Commit   string
	Now      func() time.Time // the wall clock; nil: time.Now
	// Dialects can be spoken on listeners besides those that are built in.
	Dialects []plugin.Dialect
}

// Agent is one running instance. Make one with New, run it once with Run.
type Agent struct {
	options  Options
	log      *slog.Logger
	metrics  *metrics.Metrics
	desk     *desk.Desk
	feeds    *api.Feeds
	court    *court.Court
	verifier *court.Verifier
	systems  *catalog.Catalog
	holders  *holders.Registry
	handover *systemd.Store
	plugins  plugins.Plugins
	watcher  *watch.Watcher
	pulse    *pulse.Pulse
	shares   *shares.Keeper
	// upstreams are those that are configured, by system.
	upstreams map[string]plugin.Upstream
	requests  *upstreams.Requests
	duties    *upstreams.Duties
	signer    *identity.Signer
	sessions  *holders.Sessions
	state     *os.File // the lock of the state folder
	runtime   *os.File // the lock of the runtime folder
	seals     *seals.Seals
	key       ed25519.PrivateKey
	history   *court.History
	audit     *audit.Log
	vendor    string // the product that is compiled in; empty: none is
	socket    *api.Socket
	server    *api.Server
	dialects  *dialect.Dialects
	ready     chan struct{} // closed once: listening, and a first verdict
	judged    chan struct{} // closed once: a first verdict

	life context.Context // over when the agent stops
	stop context.CancelFunc

	reloading sync.Mutex // one reload at a time; see the order of locks

	mu     sync.Mutex // guards all below; a leaf
	config *config.Config
	host   host.Report
	mode   watch.Mode
	last   *enforcer.Verdict // as it was logged
}

// New checks the configuration and takes what only one agent may have: the state folder and the socket. Whoever calls
// it must call Run, which gives them back.
func New(o Options) (*Agent, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Config.Guard()
	a := &Agent{options: o, log: o.Log, config: o.Config, ready: make(chan struct{}), judged: make(chan struct{})}
	a.life, a.stop = context.WithCancel(context.Background())
	if err := a.open(); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

// Ready is closed when the agent listens and has a first verdict.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// open takes everything that can fail, in the order in which close gives it back reversed.
func (a *Agent) open() (err error) {
	cfg := a.config
	anchors, vendor, err := inspect.Anchors(cfg)
	if err != nil {
		return err
	}
	a.vendor = vendor
	state, runtime := files.StateFolder(cfg.State.Dir), files.RuntimeFolder(cfg.State.RuntimeDir)
	if err := files.Own(state, runtime, a.folderCorrected); err != nil {
		return err
	}
	if a.state, err = state.Lock(); err != nil {
		return err
	}
	keyFile := identity.FileAt(cfg.Agent.KeyFile, cfg.State.Dir, cfg.ReadFile)
	newKey := keyFile.Public() == nil
	if a.key, err = keyFile.Load(); err != nil {
		return err
	}
	if a.seals, err = seals.Open(seals.Config{Dir: cfg.State.Dir, Key: a.key, KeyFile: keyFile,
		Stores: dialect.Journals, Now: a.options.Now, Log: a.log}); err != nil {
		return err
	}
	if a.runtime, err = runtime.Lock(); err != nil {
		return err
	}
	if err := a.seals.OpenRuntime(cfg.State.RuntimeDir); err != nil {
		return err
	}
	a.metrics = metrics.New(metrics.Options{Version: a.options.Version, Revision: a.options.Commit,
		Anchors: a.anchorsFrom(), Product: a.product(), Snapshot: a.snapshot})
	a.handover = systemd.OpenStore(a.log)
	if a.holders, err = holders.New(holders.Config{Handover: a.handover,
		Leave: func(id enforcer.LeaseID, of enforcer.Caller) { a.desk.Do(&enforcer.Leave{ID: id, Holder: of}) },
	}); err != nil {
		return err
	}
	a.feeds = api.NewFeeds()
	wants := shares.NewWants()
	if a.desk, err = desk.New(desk.Options{Now: a.options.Now, Observer: a.metrics, Watcher: a.feeds,
		Signals: desk.Signals{
			Ended: a.holders.Ended, DemandChanged: wants.Changed, Short: wants.Missed,
			FencePassed: func() { a.court.Reshare() }},
		Core:       enforcer.Options{MaxLeasesPerUID: cfg.Limits.LeasesPerUID, Durable: true},
		RuntimeDir: cfg.State.RuntimeDir, StateDir: cfg.State.Dir, Seals: a.seals, Log: a.log}); err != nil {
		return err
	}
	words, err := identity.OpenAttestations(filepath.Join(cfg.State.Dir, "activations.json"))
	if err != nil {
		return err
	}
	a.signer = &identity.Signer{Key: a.key, Attestations: words, Product: a.product, Now: a.desk.Now}
	a.recoverHolders()
	if a.audit, err = audit.Open(audit.Config{Dir: cfg.State.Dir, Key: a.key, Users: cfg.Privacy.Users,
		Now: a.desk.Now, Log: a.log}); err != nil {
		return err
	}
	a.seals.CheckEvents(a.audit.Head())
	if a.plugins, a.systems, err = plugins.New(cfg, plugins.Dir(cfg), a.options.Version, a.log, a.pluginChanged,
		a.desk.Now); err != nil {
		return err
	}
	a.host = host.Measure(context.Background(), a.hostConfig())
	keys, err := inspect.LicenseKeys(cfg)
	if err != nil {
		return err
	}
	if err := a.openVerifier(newKey, anchors, keys); err != nil {
		return err
	}
	if err := a.openUpstream(); err != nil {
		return err
	}
	if err := a.openShares(wants); err != nil {
		return err
	}
	if err := a.openCourt(); err != nil {
		return err
	}
	gid, err := config.GroupID(cfg.Socket.Group)
	if err != nil {
		return fmt.Errorf("socket.group: %w", err)
	}
	rules, err := apiRules(cfg.Socket)
	if err != nil {
		return err
	}
	if a.socket, err = api.Listen(api.SocketConfig{Path: cfg.Socket.Path, Mode: cfg.Socket.Mode, GID: gid,
		Lock: files.Lock, LockFile: api.SocketLock(cfg.State.RuntimeDir, cfg.Socket.Path), Log: a.log,
		Inherit: a.handover.Socket}); err != nil {
		return err
	}
	if name := systemd.SocketName(a.socket.File()); name != "" &&
		a.handover.Keep(name, systemd.Kept{Lend: a.socket.Lend, Close: func() {}}) {
		a.socket.Stay()
	}
	a.handover.Settle()
	tlsConfig, err := identity.Certificate(a.key, a.options.Now())
	if err != nil {
		return err
	}
	a.sessions = &holders.Sessions{Slots: slots{a.desk}, Registry: a.holders, Prove: a.signer.Prove,
		Stopping: a.life.Done()}
	server := api.Config{Slots: front{a}, Documents: front{a}, Operations: front{a}, Feeds: a.feeds, TLS: tlsConfig,
		Metrics: a.metrics.Handler(), Log: a.log, Rules: rules,
		MaxConns: connections(), MaxConnsPerUID: cfg.Limits.ConnectionsPerUID}
	if liveness.WantsSent() {
		server.TakeSent, server.SentSpace = holders.TakeSent, liveness.SentSpace
	}
	a.server = api.New(server)
	a.dialects, err = a.openDialects(slices.Concat(a.systems.Dialects(), a.options.Dialects))
	if err != nil {
		return err
	}
	a.tellTampered()
	return nil
}

// recoverHolders looks for the holders of the leases that the last agent left.
func (a *Agent) recoverHolders() {
	inherited := a.handover.Holders()
	defer func() {
		for _, h := range inherited {
			if h != nil {
				h.Close()
			}
		}
	}()
	place := func(p desk.Place) holders.Place { return holders.PlaceOf(p.Boot, p.PIDNS, p.TimeNS, p.TimeOffset) }
	a.holders.Recover(holders.Recovery{Slots: a.desk, Was: place(a.desk.GrantedAt()), Is: place(desk.Here()),
		Log: a.log,
		Kept: func(pid int32, start, inode uint64) (*liveness.Handle, bool) {
			h, ok := inherited[systemd.Process{PID: pid, Start: start, Inode: inode}]
			return h, ok
		}})
}

func (a *Agent) close() error {
	var errs []error
	if a.handover != nil {
		a.handover.Close()
	}
	if a.socket != nil {
		errs = append(errs, a.socket.Close())
	}
	if a.dialects != nil {
		errs = append(errs, a.dialects.Close())
	}
	if a.holders != nil {
		a.holders.Close()
	}
	if a.desk != nil {
		errs = append(errs, a.desk.Close())
		if a.audit != nil {
			a.seals.SealEvents(a.audit.Head())
		}
		if err := a.seals.Close(); err != nil {
			a.log.Warn("that the agent has ended in order could not be written", "error", err)
		}
	}
	if a.runtime != nil {
		errs = append(errs, a.runtime.Close())
	}
	if a.state != nil {
		errs = append(errs, a.state.Close())
	}
	return errors.Join(errs...)
}

// settings returns the configuration as it is, which a reload replaces.
func (a *Agent) settings() *config.Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.config
}

// firstVerdict is for how long callers wait for the first verdict: a licence folder that hangs keeps nobody from asking
// how the agent is.
const firstVerdict = 5 * time.Second

// Run serves until ctx ends, then drains: no new leases, requests under way are answered, all is given back.
func (a *Agent) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, a.close()) }()
	defer a.runEvents(ctx)()
	defer context.AfterFunc(ctx, a.stop)()
	g, ctx := errgroup.WithContext(a.life)
	task := func(name string, run func(context.Context) error) {
		g.Go(func() error {
			if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				a.stop() // before any other task hears of it
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	task("leases", a.desk.Run)
	task("subscribers", func(ctx context.Context) error {
		<-ctx.Done()
		a.feeds.Close(a.desk.Now())
		return nil
	})
	task("verdict", a.court.Run)
	task("clock", a.watchClock)
	task("upstream", a.pulse.Run)
	task("shares", a.shares.Run)
	task("first licences", a.fetchFirst)
	task("holders", a.holders.Run)
	task("service manager", a.handover.Run)
	task("journal", a.desk.RunJournals)
	if len(a.plugins) > 0 {
		for _, p := range a.plugins {
			task("plugin "+p.Name(), p.Run)
		}
		task("plugins' documents", a.court.AskPlugins)
		task("plugins' documents again", a.retry)
	}
	task("licence folder", a.watcher.Run)
	task("host", a.watchHost)
	// Whoever connects meanwhile waits in the socket's queue, and is not told of a licence that is about to be read.
	judged := func(ctx context.Context) {
		select {
		case <-a.judged:
		case <-time.After(firstVerdict):
		case <-ctx.Done():
		}
	}
	task("api", func(ctx context.Context) error {
		judged(ctx)
		return a.server.Run(ctx, a.socket)
	})
	for _, l := range a.dialects.Listeners() {
		task("listener "+l.Address(), func(ctx context.Context) error {
			judged(ctx)
			return l.Run(ctx)
		})
	}
	if cfg := a.settings().Ops; cfg.Listen != "" {
		l, err := net.Listen("tcp", cfg.Listen)
		if err != nil {
			return fmt.Errorf("ops.listen %s: %w; choose another address, or leave ops.listen out", cfg.Listen, err)
		}
		o, err := a.openOps(ops.Config{Listener: l, WebConfig: cfg.WebConfig,
			Handler: api.OpsHandler(front{a}, a.metrics.Handler()), Log: a.log})
		if err != nil {
			l.Close()
			return err
		}
		task("ops", o.Run)
	}
	task("lifecycle", a.lifecycle)
	return g.Wait()
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
	case <-a.judged:
		if err := dropStartPages(); err != nil {
			a.log.Debug("memory that only the start used is kept", "error", err)
		}
		close(a.ready)
		a.log.Info("ready", "socket", a.settings().Socket.Path, "product", a.product(), "version", a.options.Version)
		debug.FreeOSMemory() // what only the start needed
	}
	defer a.desk.Drain()
	m, err := systemd.NewManager()
	if err != nil {
		a.log.Warn("the service manager's watchdog period cannot be read", "error", err)
	}
	return m.Run(ctx, a.statusLine, func() { a.desk.Now() })
}
