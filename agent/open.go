package agent

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/court"
	"github.com/usher-agent/usher/agent/desk"
	"github.com/usher-agent/usher/agent/dialect"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/agent/holders"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/inspect"
	"github.com/usher-agent/usher/agent/liveness"
	"github.com/usher-agent/usher/agent/memory"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/agent/shares"
	"github.com/usher-agent/usher/agent/systemd"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/metrics"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
)

// opening is an agent that opens, with what only its start hands from one part to the next.
type opening struct {
	*Agent
	cfg      *config.Config
	anchors  []plugin.Anchor
	key      ed25519.PrivateKey
	newKey   bool // it was made just now
	handover *systemd.Store
	holders  *holders.Registry
	wants    *shares.Wants
	systems  *catalog.Catalog
	socket   *api.Socket
	verifier *court.Verifier
	history  *court.History
	early    []eventlog.Event // before there is an event log
	// upstreams are those that are configured, by system.
	upstreams map[string]plugin.Upstream
}

// open takes everything that can fail. Whatever opens says at once what runs of it and how it is closed.
func (a *Agent) open() error {
	o := &opening{Agent: a, cfg: a.settings(), wants: shares.NewWants()}
	o.running.pause(memory.Pause()) // nearly all that is made of the journals, and of the holders, is kept
	for _, step := range []func() error{o.openFolders, o.openDesk, o.openRecords, o.openVerifier, o.openUpstream,
		o.openShares, o.openReports, o.openCourt, o.openSocket, o.openServers} {
		if err := step(); err != nil {
			return err
		}
	}
	a.tellTampered()
	a.running.task("clock", a.watchClock)
	a.running.task("host", a.watchHost)
	a.running.task("lifecycle", a.lifecycle)
	return nil
}

// openFolders locks the agent's own folders and opens their seals.
func (o *opening) openFolders() (err error) {
	if o.anchors, o.vendor, err = inspect.Anchors(o.cfg); err != nil {
		return configured(err)
	}
	state, runtime := files.StateFolder(o.cfg.State.Dir), files.RuntimeFolder(o.cfg.State.RuntimeDir)
	if err := files.Own(state, runtime, o.folderCorrected); err != nil {
		return err
	}
	if o.folders.state, err = state.Hold(); err != nil {
		return err
	}
	o.running.closing(o.folders.state.Close)
	keyFile := identity.FileAt(o.cfg.Agent.KeyFile, o.cfg.State.Dir, o.cfg.ReadFile)
	o.folders.keyFile = keyFile
	o.newKey = keyFile.Public() == nil
	if o.key, err = keyFile.Load(); err != nil {
		return err
	}
	o.keyID = identity.Thumbprint(o.key.Public().(ed25519.PublicKey))
	if o.seals, err = seals.Open(seals.Config{Dir: o.cfg.State.Dir, Key: o.key, KeyFile: keyFile,
		Stores: dialect.Journals, Now: o.options.Now, Log: o.log}); err != nil {
		return err
	}
	if o.folders.runtime, err = runtime.Hold(); err != nil {
		return err
	}
	o.running.closing(o.folders.runtime.Close)
	return o.seals.OpenRuntime(o.cfg.State.RuntimeDir)
}

// openDesk opens the journals and looks for the holders of the leases that the last agent left.
func (o *opening) openDesk() (err error) {
	o.metrics = metrics.New(metrics.Options{Version: o.options.Version, Revision: o.options.Commit,
		Anchors: o.anchorsFrom(), Product: o.product(), Now: o.options.Now(),
		Snapshot: o.snapshot, Pools: func() []enforcer.PoolStatus { return o.desk.Pools() },
		GiveWay: desk.Pause, MeasureHolds: func() func() time.Duration { return o.desk.MeasureHolds() }})
	o.handover = systemd.OpenStore(o.log)
	o.running.closing(o.closeHandover)
	if o.holders, err = holders.New(holders.Config{Handover: o.handover,
		Leave: func(ids []enforcer.LeaseID, of enforcer.Caller) { o.desk.Leave(ids, of) },
	}); err != nil {
		return err
	}
	o.running.closing(func() error { o.holders.Close(); return nil })
	o.feeds = api.NewFeeds()
	o.openDenials()
	if err := o.openUsage(); err != nil {
		return err
	}
	o.openLeaseLog()
	o.openPlaces()
	if o.desk, err = desk.New(desk.Options{Now: o.options.Now, Observer: counters{o.metrics, o.usage, o.leases},
		Watcher: watchers{o.feeds, o.places},
		Signals: desk.Signals{
			Ended: o.holders.Ended, DemandChanged: o.wants.Changed, Used: o.wants.Used, Short: o.wants.Missed,
			Elsewhere: o.wants.Elsewhere, Drained: o.fleetDrained, Denied: o.denied,
			FencePassed: func() { o.court.Reshare() }},
		Core: enforcer.Options{MaxLeasesPerUID: o.cfg.Limits.LeasesPerUID, Durable: true,
			CountUsers: o.cfg.Privacy.Users != eventlog.UsersOmit},
		RuntimeDir: o.cfg.State.RuntimeDir, StateDir: o.cfg.State.Dir, Seals: o.seals, Locked: o.folders.locked,
		Beat: o.beat, Log: o.log}); err != nil {
		return err
	}
	o.desk.SetPolicies(o.cfg.Rules(hostName()))
	o.running.closing(o.closeDesk)
	o.running.task("leases", o.desk.Run)
	o.running.task("journal", o.desk.RunJournals)
	o.running.task("subscribers", func(ctx context.Context) error {
		<-ctx.Done()
		o.feeds.Close(o.desk.Now())
		return nil
	})
	o.running.task("places", o.places.Run)
	o.running.task("holders", o.holders.Run)
	o.running.task("usage", o.usage.Run)
	o.running.task("service manager", o.handover.Run)
	o.recoverHolders()
	return nil
}

// closeHandover reports the last changes to the service manager.
func (o *opening) closeHandover() error {
	o.handover.Close()
	return nil
}

// closeDesk closes the journals, and seals that the agent has ended in order.
func (o *opening) closeDesk() error {
	err := o.desk.Close()
	if err := o.seals.Close(); err != nil {
		o.log.Warn("that the agent has ended in order could not be written", "error", err)
	}
	return err
}

// recoverHolders looks for the holders of the leases that the last agent left.
func (o *opening) recoverHolders() {
	inherited := o.handover.Holders()
	defer func() {
		for _, h := range inherited {
			if h != nil {
				h.Close()
			}
		}
	}()
	place := func(p desk.Place) holders.Place { return holders.PlaceOf(p.Boot, p.PIDNS, p.TimeNS, p.TimeOffset) }
	o.holders.Recover(holders.Recovery{Slots: o.desk, Was: place(o.desk.GrantedAt()), Is: place(desk.Here()),
		Log: o.log,
		Kept: func(pid int32, start, inode uint64) (*liveness.Handle, bool) {
			h, ok := inherited[systemd.Process{PID: pid, Start: start, Inode: inode}]
			return h, ok
		}})
}

// openRecords opens what is signed, and the event log.
func (o *opening) openRecords() error {
	words, err := identity.OpenAttestations(filepath.Join(o.cfg.State.Dir, "activations.json"))
	if err != nil {
		return err
	}
	o.signer = &identity.Signer{Key: o.key, Attestations: words, Product: o.product, Now: o.desk.Now}
	if o.audit, err = audit.Open(audit.Config{Dir: o.cfg.State.Dir, Key: o.key, Users: o.cfg.Privacy.Users,
		Now: o.desk.Now, Log: o.log,
		Seal: func(last eventlog.Head) { o.seals.SealLog(audit.Folder, last) }}); err != nil {
		return err
	}
	for _, e := range o.early {
		o.audit.Note(e)
	}
	o.seals.CheckLog(audit.Folder, o.audit.Head())
	return nil
}

// openSocket takes the local API's socket. The service manager keeps it over a restart.
func (o *opening) openSocket() error {
	gid, err := config.GroupID(o.cfg.Socket.Group)
	if err != nil {
		return configured(fmt.Errorf("socket.group: %w", err))
	}
	rules, err := apiRules(o.cfg.Socket)
	if err == nil {
		err = api.CheckPath(o.cfg.Socket.Path)
	}
	if err != nil {
		return configured(err)
	}
	socket, err := api.Listen(api.SocketConfig{Path: o.cfg.Socket.Path, Mode: o.cfg.Socket.Mode, GID: gid,
		Lock: files.Lock, LockFile: api.SocketLock(o.cfg.State.RuntimeDir, o.cfg.Socket.Path), Log: o.log,
		Inherit: o.handover.Socket, Activated: o.handover.Activated, Moved: o.socketMoved})
	if err != nil {
		return err
	}
	o.running.closing(socket.Close)
	o.running.closing(o.closeHandover) // while the socket that it lends is open; a second time does nothing
	o.socket = socket
	o.keepSocket(socket, socket.File())
	o.handover.Settle()
	tlsConfig, err := identity.Certificate(o.key, o.options.Now())
	if err != nil {
		return err
	}
	o.sessions = &holders.Sessions{Slots: slots{o.desk}, Registry: o.holders, Prove: o.signer.Prove,
		Stopping: o.running.life.Done()}
	seen := front{o.Agent}
	server := api.Config{Slots: seen, Documents: seen, Operations: seen, Feeds: o.feeds, TLS: tlsConfig,
		Metrics: o.metrics.Handler(false), Log: o.log, Rules: rules, MaxConns: connections(),
		MaxConnsPerUID: o.cfg.Limits.ConnectionsPerUID}
	if liveness.SentSpace > 0 {
		server.TakeSent, server.SentSpace = holders.TakeSent, liveness.SentSpace
	}
	o.server = api.New(server)
	cgroup, _ := o.cfg.Rules("").LooksAt()
	o.server.LookAtCgroups(cgroup)
	o.running.task("api", o.running.afterVerdict(func(ctx context.Context) error { return o.server.Run(ctx, socket) }))
	return nil
}

// openServers takes the addresses of the dialects' listeners.
func (o *opening) openServers() (err error) {
	known := slices.Concat(o.systems.Dialects(o.cfg.Upstream.Systems), o.options.Dialects)
	if o.dialects, err = o.openDialects(known); err != nil {
		return configured(err)
	}
	o.running.closing(o.dialects.Close)
	if err := o.openNamed(known); err != nil {
		return err
	}
	o.openVitals(o.socket)
	for _, l := range o.dialects.Listeners() {
		o.running.task("listener "+l.Address(), o.running.afterVerdict(l.Run))
	}
	return nil
}
