// Package inspect says what a configuration and documents come to without an agent: which keys are trusted, and how the
// judge judges documents. It starts nothing but the configuration's plugins, and writes nothing. Start reading at
// [Inspector.Judge].
package inspect

import (
	"crypto/ed25519"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
)

// Inspector judges documents as an agent with a configuration would.
type Inspector struct {
	Config *config.Config
	Key    ed25519.PublicKey // the agent's; nil: there is none, or it cannot be read
	KeyID  string            // its RFC 7638 thumbprint
	// Measure measures this host for a product. fingerprint is its name in a system that names a host by one text.
	Measure func(product string) (h enforcer.Host, fingerprint string)
	// Systems calls use with all licence systems. Those that are plugins run for as long as use does.
	Systems func(use func(*catalog.Catalog)) error
}

// Document is a document with its name.
type Document struct {
	Name string
	Data []byte
}

// Question is what to judge, and for which host.
type Question struct {
	Documents   []Document
	Anchors     []plugin.Anchor
	LicenseKeys []string       // that documents are opened with
	Products    []string       // none: any
	Host        *enforcer.Host // nil: this one, with this agent's key
	AgentKey    string         // with Host: the thumbprint of its agent's key; empty: it has none
	// Shared reports whether this host gets shares of a pool or meter of a site's licence; nil: of none.
	Shared func(l *enforcer.License, name string) bool
	Now    time.Time
}

// Result is the outcome of a judgement.
type Result struct {
	Keys    []string // the anchors that verify documents: system:kid
	Verdict *enforcer.Verdict
	Host    enforcer.Host
}

// Judge judges documents. An error says that a plugin of the configuration cannot be started.
func (i Inspector) Judge(q Question) (*Result, error) {
	anchors := q.Anchors
	if i.Key != nil {
		anchors = catalog.Own(anchors, i.Key)
	}
	f := enforcer.Facts{
		Products:  q.Products,
		Narrowing: i.Config.Narrowing(),
		Version:   i.Config.License.Version,
		Released:  i.Config.License.Released,
		Folder:    i.Config.License.Path,
	}
	out := &Result{}
	for _, a := range anchors {
		out.Keys = append(out.Keys, a.System+":"+a.KeyID)
	}
	product := ""
	if len(q.Products) > 0 {
		product = q.Products[0]
	}
	here, fingerprint := i.Measure(product)
	if err := i.Systems(func(systems *catalog.Catalog) {
		for _, d := range q.Documents {
			l, p := systems.Verify(d.Data, anchors, plugin.Secrets{Keys: q.LicenseKeys, Fingerprint: fingerprint})
			f.Documents = append(f.Documents,
				enforcer.Document{Name: d.Name, License: l, Problem: p.Of(d.Name), Arrived: q.Now})
		}
	}); err != nil {
		return nil, err
	}
	if q.Host != nil {
		here, f.AgentKey = *q.Host, q.AgentKey
	} else {
		if product == "" && len(f.Documents) > 0 && f.Documents[0].License != nil {
			here, _ = i.Measure(f.Documents[0].License.Product)
		}
		f.AgentKey = i.KeyID
	}
	f.Seen = map[enforcer.Ref]time.Time{}
	for _, d := range f.Documents { // a trial is judged as one that begins now
		if d.License != nil && d.License.Trial > 0 {
			f.Seen[d.License.Ref()] = q.Now
		}
	}
	if q.Shared != nil {
		f.Budgets = shares(f.Documents, q.Shared)
	}
	f.Host, out.Host = here, here
	out.Verdict = enforcer.Judge(f, q.Now)
	return out, nil
}

// shares returns a share of nothing of each pool and meter that is shared: how much it is, an agent only learns.
func shares(documents []enforcer.Document,
	shared func(*enforcer.License, string) bool) map[enforcer.Share]enforcer.Limit {
	out := map[enforcer.Share]enforcer.Limit{}
	for _, d := range documents {
		if d.License == nil {
			continue
		}
		see := func(name string) {
			if shared(d.License, name) {
				out[enforcer.Share{License: d.License.Ref(), Pool: name}] = 0
			}
		}
		for name := range d.License.Pools {
			see(name)
		}
		for name := range d.License.Meters {
			see(name)
		}
	}
	return out
}
