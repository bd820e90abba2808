package agent

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/host"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/watch"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
)

// Inspection is what a configuration, or a document, comes to without an agent.
type Inspection struct {
	Listeners [][2]string // of dialects: where, and what is spoken to whom
	Keys      []string    // the anchors that documents are believed by: system:kid
	Verdict   *enforcer.Verdict
	Host      enforcer.Host
}

// Inspect judges what lies in the licence folder under a configuration, as an agent with it would, and starts nothing.
func Inspect(c *config.Config) (*Inspection, error) {
	anchors, vendor, err := Anchors(c)
	if err != nil {
		return nil, err
	}
	if _, err := apiRules(c.Socket); err != nil {
		return nil, err
	}
	if _, err := groupID(c.Socket.Group); err != nil {
		return nil, err
	}
	listeners, err := checkListeners(c, catalog.BuiltIn().Dialects())
	if err != nil {
		return nil, err
	}
	keys, err := configuredKeys(c)
	if err != nil {
		return nil, err
	}
	var docs []NamedDocument
	paths := []string{c.License.Path}
	if fi, err := os.Stat(c.License.Path); err == nil && fi.IsDir() {
		if paths, err = filepath.Glob(filepath.Join(c.License.Path, "*")); err != nil {
			return nil, err
		}
	}
	for _, p := range paths {
		if fi, err := os.Stat(p); err != nil || !fi.Mode().IsRegular() || fi.Size() > plugin.MaxDocument || watch.Ignored(filepath.Base(p)) {
			continue
		}
		if b, err := os.ReadFile(p); err == nil && !isFile(c.License.Path) && watch.IsKey(p) && catalog.BuiltIn().IsLicenseKey(b) {
			folder, _ := LicenseKeys(b)
			keys = append(keys, folder...)
		} else if err == nil {
			docs = append(docs, NamedDocument{filepath.Base(p), b})
		}
	}
	if c.License.Inline != "" {
		docs = append(docs, NamedDocument{inlineName, []byte(c.License.Inline)})
	}
	products := []string(c.Product)
	if vendor != "" {
		products = []string{vendor}
	}
	out, err := InspectDocuments(docs, anchors, keys, products, c, nil, time.Now())
	if err != nil {
		return nil, err
	}
	for _, l := range listeners {
		out.Listeners = append(out.Listeners, [2]string{l.address(), l.dialect.System() + ", for " + l.who()})
	}
	return out, nil
}

// NamedDocument is a document and what it is called.
type NamedDocument struct {
	Name string
	Data []byte
}

// InspectDocuments judges documents by anchors, opened with licence keys, for products (any when there are none), on a host (this one when it is
// nil) at a time; the configuration's plugins are started for it. The agent's key is that of the configured state folder, where it can be read.
func InspectDocuments(docs []NamedDocument, anchors []plugin.Anchor, keys, products []string, c *config.Config, on *enforcer.Host, now time.Time) (*Inspection, error) {
	if key := keyFile(c).Public(); key != nil {
		anchors = catalog.Own(anchors, key)
	}
	f := enforcer.Facts{Products: products, Narrowing: c.Narrowing(), Version: c.License.Version, Released: c.License.Released}
	out := &Inspection{}
	for _, a := range anchors {
		out.Keys = append(out.Keys, a.System+":"+a.KeyID)
	}
	measure := func(product string) host.Report {
		return host.Measure(context.Background(), host.Config{Product: product, Extra: c.Host.Components, Reserved: catalog.HostComponentNames(), Fingerprint: c.Host.Fingerprint})
	}
	product := ""
	if len(products) > 0 {
		product = products[0]
	}
	here := measure(product)
	if err := withPlugins(c, func(systems *catalog.Catalog) {
		for _, d := range docs {
			l, p := systems.Verify(d.Data, anchors, plugin.Secrets{Keys: keys, Fingerprint: here.Fingerprint})
			f.Documents = append(f.Documents, enforcer.Document{Name: d.Name, License: l, Problem: named(d.Name, p)})
		}
	}); err != nil {
		return nil, err
	}
	if on == nil {
		if product == "" && len(f.Documents) > 0 && f.Documents[0].License != nil {
			here = measure(f.Documents[0].License.Product)
		}
		h := hostFacts(here)
		on = &h
		if key := keyFile(c).Public(); key != nil {
			f.AgentKey = identity.Thumbprint(key)
		}
	}
	f.Host, out.Host = *on, *on
	out.Verdict = enforcer.Judge(f, now)
	return out, nil
}
