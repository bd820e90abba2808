package agent

import (
	"context"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/court"
	"github.com/usher-agent/usher/agent/desk"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/agent/host"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/inspect"
	"github.com/usher-agent/usher/agent/plugins"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/agent/watch"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// openVerifier opens the plugins, the verifier of documents, and the history of licences.
func (o *opening) openVerifier() (err error) {
	if o.plugins, o.systems, err = plugins.New(o.cfg, plugins.Dir(o.cfg), o.options.Version, o.log, o.pluginChanged,
		o.desk.Now); err != nil {
		return configured(err)
	}
	for _, p := range o.plugins {
		o.running.task("plugin "+p.Name(), p.Run)
	}
	measured := host.Measure(context.Background(), o.hostConfig())
	o.setHost(measured)
	keys, err := inspect.LicenseKeys(o.cfg)
	if err != nil {
		return configured(err)
	}
	o.verifier = court.NewVerifier(court.VerifierConfig{Catalog: o.systems, Keys: keys,
		Anchors: catalog.Own(o.anchors, o.key.Public().(ed25519.PublicKey)), Fingerprint: measured.Fingerprint,
		MayHoldKeys: func(name string) bool { return watch.IsKey(name) && !isFile(o.cfg.License.Path) }})
	o.history, err = o.openHistory()
	return err
}

// openHistory opens the agent's record of licences and says when one is begun.
func (o *opening) openHistory() (*court.History, error) {
	path := filepath.Join(o.cfg.State.Dir, seals.HistoryFile)
	file := seals.Sealed(o.seals.State, func(c files.Content) []byte {
		if c.Fault == files.FaultEdited {
			b, _ := os.ReadFile(path)
			return b // its own signature says that it was changed, and the agent does not start
		}
		return c.Known
	})
	h, fresh, err := court.OpenHistory(court.HistoryConfig{Path: path, Read: file.Read, Write: file.Write, Key: o.key,
		KeyID: identity.Thumbprint, Now: o.desk.Now()})
	if err == nil && fresh != "" && !o.newKey {
		o.audit.Note(eventlog.Event{Type: audit.HistoryBegun, Detail: fresh})
		o.log.Warn(
			"a record of trials, emergencies and returned licences is begun, though the agent's key is older: trials "+
				"that were issued before count from their issue", "why", fresh)
	}
	return h, err
}

// openCourt makes the licence folder's watcher and the court, when all that they ask is there.
func (o *opening) openCourt() error {
	watcher, err := watch.New(watch.Config{Path: o.cfg.License.Path,
		KeepDir: filepath.Join(o.cfg.State.Dir, "documents"), Check: o.verifier.Check, OnChange: o.folderChanged,
		Beat: o.beat, Log: o.log})
	if err != nil {
		return err
	}
	kept, err := o.renewals().Read()
	if err != nil {
		return err
	}
	var renewed []court.File
	for _, k := range kept {
		renewed = append(renewed, court.File{Name: k.Name, Data: k.Data})
	}
	o.court = court.New(court.Config{Desk: courtDesk{o.desk}, Verifier: o.verifier, Folder: watcher,
		History: o.history, Sources: []court.Source{o.duties,
			o.shares}, Facts: o.facts(o.cfg), Inline: []byte(o.cfg.License.Inline), Renewed: renewed,
		KeepRenewed: o.renewals().Keep,
		InForce:     o.noteVerdicts(o.reports.Changed), ClockReset: o.clockReset, Log: o.log})
	o.running.task("verdict", o.court.Run)
	o.running.task("licence folder", watcher.Run)
	o.running.task("first licences", o.fetchFirst)
	if len(o.plugins) > 0 {
		o.running.task("plugins' documents", o.court.AskPlugins)
		o.running.task("plugins' documents again", o.retry)
	}
	return nil
}

// courtDesk is the desk as the court sees it.
type courtDesk struct{ *desk.Desk }

func (d courtDesk) Sign(signed time.Time) court.Time { return courtTime(d.Desk.Sign(signed)) }
func (d courtDesk) Timing() court.Time               { return courtTime(d.Desk.Timing()) }
func (d courtDesk) Would(signed time.Time) court.Time {
	now, c := d.Desk.Would(signed)
	return court.Time{Clock: c, Now: now}
}

func courtTime(r desk.Reading) court.Time {
	return court.Time{Clock: r.Clock, Now: r.Time, Steps: r.Steps}
}

// Install puts a document into the licence folder: see [court.Court.Install].
func (a *Agent) Install(ctx context.Context, document []byte, name string,
	dryRun bool) (wire.Installed, *enforcer.Denial) {
	c, d := a.court.Install(ctx, document, name, dryRun)
	if d != nil {
		return wire.Installed{}, d
	}
	out := a.installed(c)
	out.DryRun = dryRun
	return out, nil
}

// Would returns what a document would be judged as under a name: see [court.Court.Would].
func (a *Agent) Would(document []byte, name string) enforcer.Judged {
	return a.court.Would(document, name)
}

// Confirm asks the upstream of a document's licence whether it is good, where the licence demands an activation or
// check-ins. Any error is a [*plugin.Error].
func (a *Agent) Confirm(ctx context.Context, document []byte) error {
	l, p := a.court.Verify(document)
	if p != nil {
		return &plugin.Error{Class: plugin.Misconfigured, Reason: p.Reason, Hint: p.Hint}
	}
	return a.duties.Confirm(ctx, l, document)
}

// Remove takes a document out of the licence folder.
func (a *Agent) Remove(ctx context.Context, name string) *enforcer.Denial {
	return a.court.Remove(ctx, name)
}

// Rollback undoes the last Install or Remove of a name.
func (a *Agent) Rollback(ctx context.Context, name string) (wire.Installed, *enforcer.Denial) {
	c, d := a.court.Rollback(ctx, name)
	if d != nil {
		return wire.Installed{}, d
	}
	return a.installed(c), nil
}

// installed puts a change of the folder into its wire form.
func (a *Agent) installed(c court.Change) wire.Installed {
	document := api.DocumentShape(c.Judged)
	if c.Keys {
		document = wire.Document{Document: c.Name, Code: string(enforcer.Valid),
			Reason: "licence keys, to open documents with", Verified: true, Terms: map[string]any{}}
	}
	return wire.Installed{Removed: c.Removed, Document: document, Changes: api.Changes(c.Before, c.After),
		License: api.LicenseShape(c.After, a.hostFacts())}
}

// BeginEmergency spends an emergency of the licence that needs one: recorded, logged, counted, and told to the
// upstream.
func (f front) BeginEmergency(by enforcer.Caller, reason string) (wire.Emergency, *enforcer.Denial) {
	l, e, d := f.court.BeginEmergency(reason)
	if d != nil {
		return wire.Emergency{}, d
	}
	f.metrics.EmergencyBegan()
	f.audit.NoteBy(by, eventlog.Event{Type: audit.EmergencyStarted, Subject: l.ID, Detail: e.Reason,
		Fields: map[string]string{"ends": e.Ends.Format(time.RFC3339)}})
	f.log.Warn("an operator has begun an emergency", "licence", l.ID, "ends", e.Ends, "uid", by.UID, "pid", by.PID,
		"exe", by.Exe)
	f.feeds.Tell(nil, wire.Event{Type: "emergency.started", At: e.Began, Code: string(enforcer.ValidInGrace),
		Reason: "an operator has begun an emergency on licence " + l.ID + ", until " +
			e.Ends.UTC().Format(time.RFC3339)}) // why is for admins to know
	f.duties.Pulse.Now()
	return emergencyShape(l.ID, e, e.Began), nil
}

func emergencyShape(id string, e court.Emergency, now time.Time) wire.Emergency {
	return wire.Emergency{License: id, BeganAt: e.Began, EndsAt: e.Ends, Reason: e.Reason,
		Running: !now.Before(e.Began) && now.Before(e.Ends)}
}

// Emergencies returns what operators have begun, and what the licences at hand still grant.
func (f front) Emergencies() wire.Emergencies {
	out := wire.Emergencies{Emergencies: []wire.Emergency{}, Grants: []wire.EmergencyGrant{}}
	timing := f.desk.Timing()
	for ref, list := range f.court.History().Emergencies() {
		for _, e := range list {
			out.Emergencies = append(out.Emergencies, emergencyShape(ref.ID(), e, timing.Time))
		}
	}
	slices.SortFunc(out.Emergencies, func(a, b wire.Emergency) int { return a.BeganAt.Compare(b.BeganAt) })
	v := f.desk.Verdict()
	if v == nil {
		return out
	}
	seen := map[enforcer.Ref]bool{}
	for _, j := range v.Licenses {
		l := j.License
		if l == nil || l.Emergency.Length == 0 || seen[l.Ref()] {
			continue
		}
		seen[l.Ref()] = true
		var began []time.Time
		for _, e := range f.court.History().EmergenciesOf(l.Ref()) {
			began = append(began, e.Began)
		}
		g := wire.EmergencyGrant{License: l.ID, LengthSeconds: l.Emergency.Length.Seconds(),
			PerYear: l.Emergency.PerYear}
		if next, ever := l.Emergency.Free(began, timing.Counted()); ever {
			g.Next = api.Instant(next)
		}
		out.Grants = append(out.Grants, g)
	}
	return out
}

// Return stops a licence on this host for good and signs a receipt of that, which is the vendor's proof; this host's
// place is given back as well, if the upstream can be reached. Asked again it signs the same receipt again.
func (f front) Return(ctx context.Context, by enforcer.Caller, id string) (wire.Returned, *enforcer.Denial) {
	placed := f.duties.Pulse.Placed(id) // while the licence is served still
	back, fresh, d := f.court.GiveBack(id)
	if d != nil {
		return wire.Returned{}, d
	}
	if fresh {
		f.audit.NoteBy(by, eventlog.Event{Type: audit.LicenseReturned, Subject: id,
			Fields: map[string]string{"sha256": back.Document}})
		f.log.Warn("a licence was returned, and is of no use here any more", "licence", id, "uid", by.UID, "pid",
			by.PID, "exe", by.Exe)
		f.feeds.Tell(nil, wire.Event{Type: "license.returned", At: back.At,
			Reason: "licence " + id + " was returned to the vendor"})
	}
	receipt, err := online.SignReceipt(f.signer.Key,
		&online.Receipt{License: id, Product: back.Product, Issued: back.At.Unix(), Document: back.Document})
	if err != nil {
		return wire.Returned{},
			&enforcer.Denial{Code: api.Internal, Detail: "the receipt could not be signed: " + err.Error()}
	}
	out := wire.Returned{License: id, Product: back.Product, ReturnedAt: back.At, Receipt: receipt}
	for _, l := range placed {
		if l.Ref() != back.Ref {
			continue
		}
		out.Place = &wire.Released{License: id, Released: true}
		if err := f.duties.Pulse.Deactivate(ctx, l); err != nil {
			out.Place.Released, out.Place.Reason = false, err.Error()
		}
	}
	return out, nil
}
