package agent

import (
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/host"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/upstreams"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// front is the agent as the local API sees it: the desk's slots, and what only the agent as a whole can do.
type front struct{ *Agent }

func (f front) License() wire.License {
	v := f.desk.Verdict()
	out := api.LicenseShape(v, f.hostFacts())
	f.duties.Shape(v, &out)
	if f.shares.Shared() {
		out.SiteServer = upstreams.SiteServer(f.shares.Failing())
	}
	out.Draining = f.desk.Draining()
	return out
}

func (f front) Pools() []enforcer.PoolStatus { return f.desk.Pools() }

func (f front) Pool(name string) (enforcer.PoolStatus, bool) { return f.desk.Pool(name) }

func (f front) Acquire(ctx context.Context, r *enforcer.Acquire) (api.Grant, *enforcer.Denial) {
	return slots{f.desk}.Acquire(ctx, r)
}

func (f front) AcquireFor(ctx context.Context, r *enforcer.Acquire, pid int32, sent io.Closer) (api.Grant,
	*enforcer.Denial) {
	return f.sessions.AcquireFor(ctx, r, pid, sent)
}

func (f front) Renew(r *enforcer.Renew) (api.Grant, *enforcer.Denial) {
	return slots{f.desk}.Renew(r)
}

func (f front) Release(r *enforcer.Release) *enforcer.Denial {
	dec := f.desk.Do(r)
	if r.Force && dec.Denial == nil && dec.Lease != nil {
		f.audit.Forced(r.Caller, dec.Lease)
	}
	if dec.Denial == nil && r.HoldOff != nil {
		f.tellHoldOffs(r.Caller, dec.Events)
	}
	return dec.Denial
}

// tellHoldOffs notes the hold-offs that an admin has begun, changed or lifted.
func (f front) tellHoldOffs(by enforcer.Caller, events []enforcer.Event) {
	for _, ev := range events {
		h := ev.HoldOff
		switch ev.Kind {
		case enforcer.EventHeldOff:
			f.audit.HeldOff(by, h, h.Until)
			f.log.Warn("the holder of a lease that was released by force is held off", "lease", h.Lease.String()[:8],
				"pools", strings.Join(h.Pools, ", "), "until", h.Until.Format(time.RFC3339), "uid", by.UID,
				"pid", by.PID, "exe", by.Exe)
		case enforcer.EventLifted:
			f.audit.HeldOff(by, h, time.Time{})
			f.log.Warn("a hold-off was lifted", "lease", h.Lease.String()[:8], "pools", strings.Join(h.Pools, ", "),
				"uid", by.UID, "pid", by.PID, "exe", by.Exe)
		default:
		}
	}
}

func (f front) Adjust(r *enforcer.Adjust) *enforcer.Denial {
	d := f.desk.Do(r).Denial
	if d == nil {
		f.audit.NoteBy(r.Caller, eventlog.Event{Type: audit.MeterAdjusted, Subject: r.Pool,
			Fields: map[string]string{"drawn": strconv.FormatInt(r.Drawn, 10)}})
		f.log.Warn("a meter was adjusted", "meter", r.Pool, "drawn", r.Drawn, "uid", r.Caller.UID, "pid", r.Caller.PID,
			"exe", r.Caller.Exe)
	}
	return d
}

func (f front) Lease(id enforcer.LeaseID) (*enforcer.Lease, bool) { return f.desk.Lease(id) }

func (f front) List(of enforcer.Filter, after enforcer.Cursor, yield func([]*enforcer.Lease) bool) {
	f.desk.List(of, after, yield)
}

func (f front) Oldest(of enforcer.Filter, most int) []*enforcer.Lease { return f.desk.Oldest(of, most) }

func (f front) Fingerprint(ctx context.Context, product string) wire.Fingerprint {
	c := f.hostConfig()
	report := f.hostReport()
	if product != "" && product != c.Product {
		c.Product = product
		report = host.Measure(ctx, c)
	}
	return report.Shape(f.agentKey())
}

func (f front) Health() wire.Health {
	h := wire.Health{Status: "starting", Version: f.options.Version, Product: f.product(), Anchors: f.anchorsFrom()}
	for _, l := range f.dialects.Listeners() {
		h.Listeners = append(h.Listeners, wire.Listener{Dialect: l.Dialect(), Address: l.Address()})
	}
	for _, s := range f.seals.Findings() {
		h.State = append(h.State,
			wire.StateFinding{File: s.File, Fault: string(s.Fault), Found: s.At, Effect: f.seals.Effect(s.File)})
	}
	h.Unready = f.unready()
	switch {
	case f.desk.Draining():
		h.Status = "draining"
	case len(h.Unready) > 0:
		h.Status = "unready"
	case f.Ready():
		h.Status = "ok"
	}
	return h
}

// Ready reports whether the agent listens, has a first verdict, and nothing vital is wrong.
func (f front) Ready() bool {
	select {
	case <-f.running.ready:
		return !f.desk.Draining() && len(f.vitals.Faults()) == 0
	default:
		return false
	}
}

func (f front) Settings() []wire.Setting {
	out := []wire.Setting{}
	for _, s := range f.settings().Show() {
		out = append(out, wire.Setting{Key: s.Key, Value: s.Value, Origin: s.Origin})
	}
	return out
}

// agentKey returns the thumbprint of the agent's key.
func (a *Agent) agentKey() string { return a.signer.KeyID() }

// Session opens a session for the caller at the other end of a connection.
func (f front) Session(c *net.UnixConn, sent io.Closer, caller enforcer.Caller) api.Session {
	return f.sessions.Open(c, sent, caller)
}

func (f front) Liveness(l *enforcer.Lease) string { return f.sessions.Registry.Path(l) }

// LeaseToken signs a lease for the caller that sent the nonce.
func (f front) LeaseToken(l *enforcer.Lease, nonce string) (string, error) {
	return f.signer.LeaseToken(l, nonce)
}

// Keys returns the public keys of the agent and of its dialects, and what vouches for the first.
func (f front) Keys(admin bool) wire.Keys {
	v := f.desk.Verdict()
	out := f.signer.Keys(v, f.court.Document, admin)
	for _, k := range f.dialects.Keys() {
		out.Keys = append(out.Keys, identity.PublicKey(k.Public, k.Dialect))
	}
	return out
}
