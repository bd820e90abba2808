package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/court"
	"github.com/usher-agent/usher/agent/fleetway"
	"github.com/usher-agent/usher/agent/host"
	"github.com/usher-agent/usher/agent/watch"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/metrics"
	"github.com/usher-agent/usher/plugin/catalog"
)

// facts returns what the judge is told of the configuration. Documents, host and time come from elsewhere.
func (a *Agent) facts(c *config.Config) enforcer.Facts {
	products := []string(c.Product)
	if a.vendor != "" {
		products = []string{a.vendor}
	}
	return enforcer.Facts{Products: products, Version: c.License.Version, Released: c.License.Released,
		Host:     a.hostFacts(),
		AgentKey: a.agentKey(), Narrowing: c.Narrowing(), UpstreamLost: a.seals.UpstreamLost().At,
		Withheld: a.desk.Withheld(), Folder: c.License.Path}
}

// hostName returns the name by which policies know this host; empty: it has none.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// hostFacts returns a host as the judge takes it, with what systems call it that name a host by one text.
func hostFacts(r host.Report) enforcer.Host {
	h := r.Facts()
	maps.Copy(h.Components, catalog.HostComponents(r.Fingerprint))
	return h
}

// watchHost has the licences judged again when the host changes.
func (a *Agent) watchHost(ctx context.Context) error {
	w := host.NewWatcher(host.WatchConfig{Config: a.hostConfig(), Every: a.settings().Host.Every.Duration(),
		Beat: a.beat,
		OnChange: func(r host.Report) {
			a.log.Info("the host has changed", "physical", r.Physical, "logical", r.Logical, "effective", r.Effective)
			a.setHost(r)
			a.court.SetHost(hostFacts(r), r.Fingerprint)
		}})
	return w.Run(ctx)
}

// folderChanged takes what the watcher saw.
func (a *Agent) folderChanged(s watch.Snapshot) {
	a.setMode(s.Mode)
	files := make([]court.File, 0, len(s.Files))
	for _, f := range s.Files {
		files = append(files, court.File{Name: f.Name, Data: f.Data, Problem: f.Problem, Stale: f.Stale})
	}
	var warnings []enforcer.Warning
	warn := func(code enforcer.WarningCode, detail string) {
		warnings = append(warnings, enforcer.Warning{Code: code, Detail: detail})
	}
	if s.Mode == watch.ModePolling {
		warn(enforcer.WarnPolling, "the licence folder is polled: "+s.ModeReason)
	}
	if s.Problem != nil {
		detail := s.Problem.Reason
		if s.Problem.Hint != "" {
			detail += "; " + s.Problem.Hint
		}
		warn(enforcer.WarnDocument, detail)
	}
	if s.Omitted > 0 {
		warn(enforcer.WarnDocument, fmt.Sprintf("the licence folder holds %d files more than are read", s.Omitted))
	}
	a.court.SetFolder(files, warnings)
}

// noteVerdicts returns what notes and logs each verdict that says something new, one after the other, says that there
// is a first one, and calls changed, which waits for nobody.
func (a *Agent) noteVerdicts(changed func()) func(*enforcer.Verdict, *enforcer.Facts, func(name string) []byte) {
	var last *enforcer.Verdict
	return func(v *enforcer.Verdict, f *enforcer.Facts, document func(name string) []byte) {
		a.audit.Verdict(v, f.Upstream, document)
		if last == nil {
			close(a.running.judged)
		}
		a.logVerdict(last, v)
		last = v
		changed()
	}
}

// logVerdict logs what a verdict says that the last one did not; nil: there was none.
func (a *Agent) logVerdict(last, v *enforcer.Verdict) {
	if last == nil || last.State != v.State || last.Code != v.Code || last.Reason != v.Reason {
		level := slog.LevelInfo
		if !v.Good() {
			level = slog.LevelWarn
		}
		fields := []any{"state", v.State, "code", v.Code, "reason", v.Reason}
		if !v.Until.IsZero() {
			fields = append(fields, "until", v.Until.UTC().Format(time.RFC3339))
		}
		a.log.Log(context.Background(), level, "licence", fields...)
	}
	for _, w := range v.Warnings {
		if last == nil || !slices.ContainsFunc(last.Warnings, func(o enforcer.Warning) bool {
			return o.Code == w.Code && o.Detail == w.Detail
		}) {
			a.log.Warn("licence warning", "code", w.Code, "detail", w.Detail)
		}
	}
}

// statusLine is one line for the service manager.
func (a *Agent) statusLine() string {
	v := a.desk.Verdict()
	if v == nil {
		return "starting"
	}
	parts := []string{string(v.Code)}
	for _, p := range a.desk.Pools() {
		if !p.Meter && len(parts) < 5 {
			parts = append(parts, fmt.Sprintf("%s %d/%s", p.Name, p.InUse, p.Limit))
		}
	}
	return strings.Join(parts, ", ")
}

// snapshot is what the metrics ask for on each scrape.
func (a *Agent) snapshot() metrics.Snapshot {
	contacts := map[string]metrics.Contact{}
	for call, c := range a.duties.Contacts(a.desk.Verdict()) {
		contacts[string(call)] = metrics.Contact(c)
	}
	timing := a.desk.Timing()
	written, dropped := a.leases.Counts()
	return metrics.Snapshot{LeaseLog: map[string]uint64{"written": written, "dropped": dropped},
		Verdict: a.desk.Verdict(), Now: a.desk.Now(),
		Holders: a.liveHolders(), Unconfirmed: a.desk.Unconfirmed(), WatchMode: string(a.watchMode()),
		RevokedStillAlive: a.sessions.Registry.RevokedAlive(), Draining: a.desk.Draining(), Contacts: contacts,
		ClockBehind: timing.Behind, ClockAhead: timing.Ahead, StateFree: freeBytes(a.settings().State.Dir),
		Plugins: a.plugins.Up(), Tampered: a.seals.Tampered(), Unfit: a.vitals.Unfit(),
		LogDropped: a.options.LogDropped(), Fleet: fleetway.Snapshot(a.fleet)}
}

// liveHolders counts the leases by what tells that their holder is gone.
func (a *Agent) liveHolders() map[string]int {
	out := a.sessions.Registry.ByPath()
	byProcess := 0
	for _, n := range out {
		byProcess += n
	}
	held := a.desk.Lifetimes()
	out["ttl"], out["none"] = held[enforcer.LifetimeTTL], held[enforcer.LifetimeHeld]+held[enforcer.LifetimeBorrow]
	// Where the kernel does not tell of a process, its connection does.
	out["connection"] = held[enforcer.LifetimeConnection] + max(0, held[enforcer.LifetimeProcess]-byProcess)
	return out
}

// apiRules turns the configuration's rules into the API's.
func apiRules(c config.Socket) (api.Rules, error) {
	c, err := c.ByID()
	if err != nil {
		return api.Rules{}, err
	}
	convert := func(in []config.Rule) (out []api.Rule) {
		for _, r := range in {
			out = append(out, api.Rule{UID: r.UID, GID: r.GID, Exe: r.Exe, ExeSHA256: r.ExeSHA256})
		}
		return out
	}
	return api.Rules{Allow: convert(c.Allow), Admin: convert(c.Admin)}, nil
}

func isFile(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular()
}
