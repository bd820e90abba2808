package agent

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/dialect"
	"github.com/usher-agent/usher/agent/host"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/inspect"
	"github.com/usher-agent/usher/agent/watch"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
)

// Inspection is what a configuration comes to without an agent.
type Inspection struct {
	*inspect.Result
	Listeners [][2]string // of dialects: where, and what is spoken to whom
}

// Inspect judges what lies in the licence folder under a configuration, as an agent with it would, and starts nothing.
func Inspect(c *config.Config) (*Inspection, error) {
	anchors, vendor, err := inspect.Anchors(c)
	if err != nil {
		return nil, err
	}
	if _, err := apiRules(c.Socket); err != nil {
		return nil, err
	}
	if _, err := config.GroupID(c.Socket.Group); err != nil {
		return nil, err
	}
	listeners, err := dialect.Check(c, catalog.BuiltIn().Dialects())
	if err != nil {
		return nil, err
	}
	keys, err := inspect.LicenseKeys(c)
	if err != nil {
		return nil, err
	}
	var docs []inspect.Document
	paths := []string{c.License.Path}
	if fi, err := os.Stat(c.License.Path); err == nil && fi.IsDir() {
		if paths, err = filepath.Glob(filepath.Join(c.License.Path, "*")); err != nil {
			return nil, err
		}
	}
	for _, p := range paths {
		if fi, err := os.Stat(p); err != nil || !fi.Mode().IsRegular() || fi.Size() > plugin.MaxDocument ||
			watch.Ignored(filepath.Base(p)) {
			continue
		}
		if b, err := os.ReadFile(p); err == nil && !isFile(c.License.Path) && watch.IsKey(p) &&
			catalog.BuiltIn().IsLicenseKey(b) {
			folder, _ := plugin.LicenseKeys(b)
			keys = append(keys, folder...)
		} else if err == nil {
			docs = append(docs, inspect.Document{Name: filepath.Base(p), Data: b})
		}
	}
	if c.License.Inline != "" {
		docs = append(docs, inspect.Document{Name: inlineName, Data: []byte(c.License.Inline)})
	}
	products := []string(c.Product)
	if vendor != "" {
		products = []string{vendor}
	}
	question := inspect.Question{Documents: docs, Anchors: anchors, LicenseKeys: keys, Products: products,
		Now: time.Now()}
	result, err := Inspector(c).Judge(question)
	if err != nil {
		return nil, err
	}
	out := &Inspection{Result: result}
	for _, l := range listeners {
		out.Listeners = append(out.Listeners, [2]string{l.Address(), l.Dialect() + ", for " + l.Callers()})
	}
	return out, nil
}

// Inspector returns what judges documents as an agent with a configuration would. The agent's key is that of the
// configured state folder, where it can be read.
func Inspector(c *config.Config) inspect.Inspector {
	i := inspect.Inspector{Config: c, Systems: func(use func(*catalog.Catalog)) error { return withPlugins(c, use) },
		Measure: func(product string) (enforcer.Host, string) {
			r := host.Measure(
				context.Background(),
				host.Config{Product: product, Extra: c.Host.Components, Fingerprint: c.Host.Fingerprint},
			)
			return hostFacts(r), r.Fingerprint
		}}
	if i.Key = keyFile(c).Public(); i.Key != nil {
		i.KeyID = identity.Thumbprint(i.Key)
	}
	return i
}
