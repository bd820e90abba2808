package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/pulse"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/agent/upstreams"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/metrics"
	"github.com/usher-agent/usher/plugin"
)

// renewedDir is the folder, in state.dir, of documents that upstreams brought.
const renewedDir = "renewed"

// openUpstream makes the pulse, and what it speaks with.
func (a *Agent) openUpstream() error {
	cfg := a.config
	var err error
	if a.attestations, err = identity.OpenAttestations(filepath.Join(a.state.path, "activations.json")); err != nil {
		return err
	}
	opener, err := a.opener()
	if err != nil {
		return err
	}
	given := map[string]plugin.Upstream{}
	for _, p := range a.plugins {
		given[p.Name()] = p.Upstream()
	}
	if a.upstreams, err = opener.Open(given); err != nil {
		return err
	}
	file := seals.Sealed(a.seals.State, seals.LastKnown)
	if err := a.seals.CheckUpstream(); err != nil {
		return err
	}
	a.pulse, err = pulse.New(pulse.Config{File: filepath.Join(cfg.State.Dir, seals.UpstreamFile), Read: file.Read,
		Write: file.Write, Epoch: a.seals.UpstreamLost().ID, CallWithin: cfg.Upstream.Timeout.Duration(),
		Now: a.desk.Now, Uptime: uptime, Request: a.upstreamRequest, Renewed: a.renewed,
		OnChange: func() { a.court.change(func() {}) },
		Learnt:   a.learnt,
		Called: func(c pulse.Call, result string, at time.Time) {
			a.metrics.UpstreamCalled(string(c), result, at)
		}, Log: a.log})
	if err != nil {
		return err
	}
	a.court.upstream = a.pulse.Facts
	a.court.renewed, err = readRenewed(filepath.Join(cfg.State.Dir, renewedDir))
	return err
}

// vouched keeps the vendor's word for the agent's key. Nothing but proofs to products hangs on it, so that what cannot
// be kept is only logged.
func (a *Agent) vouched(license, word string) {
	if err := a.attestations.Set(license, word); err != nil {
		a.log.Error("the vendor's word for the agent's key could not be kept; the next activation brings it again",
			"licence", license, "error", err)
	}
}

// opener makes what upstreams are made with.
func (a *Agent) opener() (*upstreams.Opener, error) {
	own, err := identity.Certificate(a.key, a.options.Now())
	if err != nil {
		return nil, err
	}
	return &upstreams.Opener{Settings: a.settings, Key: a.key, Own: own.Certificates[0], Now: a.desk.Now,
		Dated: a.desk.Dated, Activated: a.vouched,
		Anchors: a.court.believed, Secrets: a.court.opened}, nil
}

// upstreamRequest is what leaves the host with each call.
func (a *Agent) upstreamRequest(l *enforcer.License, document []byte) plugin.Request {
	a.mu.Lock()
	// without what single systems call the host: that is not keyed by product, and no business of the others
	h := a.host.Facts()
	a.mu.Unlock()
	carries := a.court.catalog.Carries(l.System)
	r := plugin.Request{System: l.System, LicenseID: l.ID, Document: document, Product: l.Product,
		Components: stated(h), AgentKey: a.agentKey(),
		Cores: plugin.Cores{Physical: int64(h.Physical), Logical: int64(h.Logical), Effective: h.Effective}}
	a.mu.Lock()
	r.Version = a.config.License.Version
	if carries.Fingerprint {
		r.Fingerprint = a.host.Fingerprint
	}
	a.mu.Unlock()
	if carries.Hostname {
		r.Hostname, _ = os.Hostname()
	}
	if carries.Memory {
		r.Memory = h.Memory
	}
	if carries.Disk {
		r.Disk = h.Disk
	}
	r.Emergencies = a.history.told(l.Ref(), a.desk.Now())
	if l.Usage {
		for _, p := range a.desk.Pools() {
			r.Usage = append(r.Usage, plugin.Usage{Pool: p.Name, InUse: p.InUse, Peak: p.Peak})
		}
	}
	return r
}

// stated returns a host's components, measured and configured.
func stated(h enforcer.Host) map[string][]string {
	out := maps.Clone(h.Components)
	for name, values := range h.Configured {
		if out[name] == nil {
			out[name] = values
		}
	}
	return out
}

// haveDuties tells the pulse which licences there are: those that would be good if the upstream were content. The
// court's lock is held.
func (a *Agent) haveDuties(v *enforcer.Verdict) {
	var out []pulse.Licence
	for _, j := range v.Licenses {
		if j.License == nil || !j.UpstreamMayHeal(a.court.facts.Upstream[j.License.Ref()]) {
			continue
		}
		u := a.upstreams[j.License.System]
		if u == nil {
			continue
		}
		l := j.License
		if k, ok := u.(plugin.VoluntaryChecker); ok && !l.CheckIn.Stated() {
			c := *l
			c.CheckIn = k.Every(l)
			l = &c
		}
		out = append(out, pulse.Licence{License: l, Document: a.court.document(j.Document), Upstream: u})
	}
	a.pulse.Set(out)
}

// learnt takes a time that an upstream signed in an answer about a licence.
func (a *Agent) learnt(l *enforcer.License, at time.Time) {
	a.court.mu.Lock()
	teller := a.court.teller
	a.court.mu.Unlock()
	if l.TellsTime(teller) {
		a.desk.Learn(at)
	}
}

// renewed takes a document that an upstream brought for a licence, where it renews that (see
// [enforcer.License.CheckRenewal]) and counts here. It is put into the licence folder, or where that cannot be written
// into the state folder.
func (a *Agent) renewed(ctx context.Context, of *enforcer.License, document []byte) error {
	v := a.court.verify(document)
	if v.problem != nil {
		return fmt.Errorf("%s: %s", v.problem.Code, v.problem.Reason)
	}
	if err := v.license.CheckRenewal(of, a.desk.Verdict()); err != nil {
		return err
	}
	name := a.fileName(v.license)
	if judged := judgedAs(a.court.would(file{name: name, data: document}), name); judged.Hopeless() {
		return fmt.Errorf("%s: %s", judged.Code, judged.Reason)
	}
	err := a.watcher.Install(name, document)
	if err == nil {
		a.log.Info("the upstream renewed the licence", "licence", v.license.ID, "document", name, "expires",
			v.license.Expires)
		return nil
	}
	if v.license.Ref() != of.Ref() {
		return err // nothing in the folder would speak for it
	}
	kept := file{name: "renewed-" + name, data: document}
	if err := keepRenewed(filepath.Join(a.state.path, renewedDir), of.Ref(), document); err != nil {
		return err
	}
	a.log.Info("the upstream renewed the licence; the licence folder cannot be written, so the state folder has it",
		"licence", of.ID, "expires", v.license.Expires, "why", err)
	a.court.change(func() {
		a.court.renewed = append(slices.DeleteFunc(slices.Clone(a.court.renewed), func(f file) bool {
			return f.name == kept.name
		}), kept)
	})
	return nil
}

func keepRenewed(dir string, of enforcer.Ref, document []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(of))
	return files.Replace(filepath.Join(dir, hex.EncodeToString(sum[:16])+".lic"), document, 0o600)
}

// readRenewed reads what keepRenewed kept. It is verified like any other document.
func readRenewed(dir string) (out []file, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("renewed licences: %w", err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".lic") {
			continue
		}
		b, err := files.Read(filepath.Join(dir, e.Name()), plugin.MaxDocument+1)
		if err != nil {
			return nil, fmt.Errorf("renewed licences: %w", err)
		}
		if len(b) <= plugin.MaxDocument {
			out = append(out, file{name: "renewed-" + e.Name(), data: b})
		}
	}
	return out, nil
}

// duties puts what is known of the upstream into the wire form of the licence in force, or of the one nearest to it.
func (a *Agent) duties(v *enforcer.Verdict, out *wire.License) {
	if v == nil || len(v.Licenses) == 0 || v.Licenses[0].License == nil {
		return
	}
	l := v.Licenses[0].License
	s, known := a.pulse.Status()[l.Ref()]
	if !known && !l.CheckIn.Stated() && !l.Heartbeat.Stated() && !l.Activation.Required {
		return
	}
	u := a.pulse.Facts()[l.Ref()]
	if p := l.CheckIn; p.Stated() {
		out.CheckIn = &wire.CheckIn{Last: api.Instant(u.LastCheckIn), Next: api.Instant(s.State.NextCheckIn)}
	}
	if p := l.Heartbeat; p.Stated() {
		out.Heartbeat = &wire.Heartbeat{Last: api.Instant(u.LastHeartbeat)}
		if !u.LastHeartbeat.IsZero() {
			out.Heartbeat.Deadline = api.Instant(p.After(u.LastHeartbeat).Add(u.Asleep + p.Grace))
		}
	}
	out.Upstream = &wire.Upstream{State: u.State, Detail: u.Detail}
	if !known && a.upstreams[l.System] == nil {
		out.Upstream = &wire.Upstream{State: "none",
			Detail: "the licence demands an upstream, and none is configured for its system"}
	}
}

// upstreamFigures is what the metrics say of the duties of the licence in force.
func (a *Agent) upstreamFigures() metrics.Upstream {
	var out wire.License
	v := a.desk.Verdict()
	a.duties(v, &out)
	var f metrics.Upstream
	if c := out.CheckIn; c != nil {
		l := v.Licenses[0].License
		u := a.pulse.Facts()[l.Ref()]
		f.CheckInDue = l.CheckIn.After(slices.MaxFunc([]time.Time{l.LastCheckIn(), u.Activated, u.LastCheckIn},
			time.Time.Compare))
	}
	if h := out.Heartbeat; h != nil && h.Deadline != nil {
		f.HeartbeatDeadline = *h.Deadline
	}
	return f
}

// Preview returns what would leave the host with the next call to each upstream.
func (f front) Preview() []wire.UpstreamRequest {
	out := []wire.UpstreamRequest{}
	for _, r := range append(f.pulse.Preview(), f.shares.Preview()...) {
		w := wire.UpstreamRequest{License: r.LicenseID, Product: r.Product, Version: r.Version, AgentKey: r.AgentKey,
			Components: r.Components,
			Cores: wire.Cores{Physical: int(r.Cores.Physical), Logical: int(r.Cores.Logical),
				Effective: r.Cores.Effective},
			Fingerprint: r.Fingerprint, Hostname: r.Hostname, Memory: r.Memory, Disk: r.Disk,
			Usage: []wire.UpstreamUsage{}, Emergencies: []wire.UpstreamEmergency{}, Chain: string(r.State),
			Document: string(r.Document)}
		if f.court.catalog.Carries(r.System).Held {
			w.Document, w.Chain, w.AgentKey = "", "", ""
		}
		for _, e := range r.Emergencies {
			w.Emergencies = append(w.Emergencies,
				wire.UpstreamEmergency{BeganAt: e.Began, EndsAt: e.Ends, Reason: e.Reason})
		}
		for _, u := range r.Usage {
			w.Usage = append(w.Usage, wire.UpstreamUsage(u))
		}
		out = append(out, w)
	}
	return out
}

// CallUpstream has every upstream called at once.
func (f front) CallUpstream() { f.pulse.Now() }
