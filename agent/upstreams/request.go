package upstreams

import (
	"maps"
	"os"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Requests composes all that leaves the host with a call to an upstream. All fields are required; the functions are
// safe for concurrent use.
type Requests struct {
	AgentKey string // the thumbprint of the agent's key
	// Carries lists the facts of the host that a system's requests may carry, beside the components keyed by product.
	Carries func(system string) plugin.Carries
	// Host returns this host without the components that single systems name it by, and the text that those systems are
	// given.
	Host    func() (h enforcer.Host, fingerprint string)
	Version func() string // the product's
	// Emergencies returns those of which a licence's upstream is told.
	Emergencies func(of enforcer.Ref, now time.Time) []plugin.Emergency
	Pools       func() []enforcer.PoolStatus
	Now         func() time.Time // the licence time
}

// For returns the request of a call for a licence.
func (q *Requests) For(l *enforcer.License, document []byte) plugin.Request {
	h, fingerprint := q.Host()
	carries := q.Carries(l.System)
	r := plugin.Request{System: l.System, LicenseID: l.ID, Document: document, Product: l.Product, Version: q.Version(),
		Components: stated(h), AgentKey: q.AgentKey,
		Cores: plugin.Cores{Physical: int64(h.Physical), Logical: int64(h.Logical), Effective: h.Effective}}
	if carries.Fingerprint {
		r.Fingerprint = fingerprint
	}
	if carries.Hostname {
		r.Hostname, _ = os.Hostname()
	}
	if carries.Memory {
		r.Memory = h.Memory
	}
	if carries.Disk {
		r.Disk = h.Disk
	}
	r.Emergencies = q.Emergencies(l.Ref(), q.Now())
	if l.Usage {
		for _, p := range q.Pools() {
			r.Usage = append(r.Usage, plugin.Usage{Pool: p.Name, InUse: p.InUse, Peak: p.Peak})
		}
	}
	return r
}

// ForShares returns the request of a call for blocks or draws. It has no usage and no emergencies: they are for the
// vendor alone, and a site's own server may answer this call.
func (q *Requests) ForShares(l *enforcer.License, document []byte) plugin.Request {
	r := q.For(l, document)
	r.Usage, r.Emergencies = nil, nil
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

// Preview puts requests into their wire form. It leaves out the fields that their systems' clients hold back.
func Preview(requests []plugin.Request, carries func(system string) plugin.Carries) []wire.UpstreamRequest {
	out := []wire.UpstreamRequest{}
	for _, r := range requests {
		w := wire.UpstreamRequest{License: r.LicenseID, Product: r.Product, Version: r.Version, AgentKey: r.AgentKey,
			Components: r.Components,
			Cores: wire.Cores{Physical: int(r.Cores.Physical), Logical: int(r.Cores.Logical),
				Effective: r.Cores.Effective},
			Fingerprint: r.Fingerprint, Hostname: r.Hostname, Memory: r.Memory, Disk: r.Disk,
			Usage: []wire.UpstreamUsage{}, Emergencies: []wire.UpstreamEmergency{}, Chain: string(r.State),
			Document: string(r.Document)}
		if carries(r.System).Held {
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

// PreviewReport puts a report of leases with a label into its wire form.
func PreviewReport(r *plugin.Report, product, label string) wire.UpstreamRequest {
	told := &wire.UpstreamReport{Code: string(r.Code), Label: label, Values: []string{}}
	for _, l := range r.Leases {
		told.Values = append(told.Values, l.Labels[label])
	}
	return wire.UpstreamRequest{License: r.LicenseID, Product: product, Components: map[string][]string{},
		Usage: []wire.UpstreamUsage{}, Emergencies: []wire.UpstreamEmergency{}, Report: told}
}
