package inspect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/dialect"
	"github.com/usher-agent/usher/agent/host"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/plugins"
	"github.com/usher-agent/usher/agent/watch"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
)

// Inspection is the effect of a configuration, found without an agent.
type Inspection struct {
	*Result
	Listeners [][2]string // of dialects: the address, and the dialect with its callers
}

// inlineName is the name of the document that stands in the configuration itself.
const inlineName = "USHER_LICENSE"

// Configured judges the documents in the licence folder of a configuration, as an agent with that configuration would.
// Of the programs that the configuration names it starts the plugins alone, for as long as it takes.
func Configured(c *config.Config) (*Inspection, error) {
	if err := Faults(c); err != nil {
		return nil, err
	}
	anchors, vendor, err := Anchors(c)
	if err != nil {
		return nil, err
	}
	listeners, err := dialect.Check(c, catalog.BuiltIn().Dialects(c.Upstream.Systems))
	if err != nil {
		return nil, err
	}
	keys, err := LicenseKeys(c)
	if err != nil {
		return nil, err
	}
	docs, beside, err := folder(c.License.Path)
	if err != nil {
		return nil, err
	}
	keys = append(keys, beside...)
	if c.License.Inline != "" {
		docs = append(docs, Document{Name: inlineName, Data: []byte(c.License.Inline)})
	}
	products := []string(c.Product)
	if vendor != "" {
		products = []string{vendor}
	}
	result, err := For(c).Judge(Question{Documents: docs, Anchors: anchors, LicenseKeys: keys, Products: products,
		Shared: sharing(c), Now: time.Now()})
	if err != nil {
		return nil, err
	}
	out := &Inspection{Result: result}
	for _, l := range listeners {
		out.Listeners = append(out.Listeners, [2]string{l.Address(), l.Dialect() + ", for " + l.Callers()})
	}
	return out, nil
}

// sharing returns which pools and meters of a site a fleet or site servers give to an agent with a configuration.
func sharing(c *config.Config) func(l *enforcer.License, name string) bool {
	fleet, servers := len(c.Fleet.Endpoints) > 0, len(c.Upstream.PoolServers()) > 0
	return func(l *enforcer.License, name string) bool {
		return fleet && (len(c.Fleet.Pools) == 0 || slices.Contains(c.Fleet.Pools, name)) ||
			servers && l.SiteServer != ""
	}
}

// Faults joins all that is wrong with what a configuration names: keys, users and groups, listeners and the files of
// plugins. Each says where in the configuration it is.
func Faults(c *config.Config) error {
	_, _, err := Anchors(c)
	faults := []error{err}
	_, err = c.Socket.ByID()
	faults = append(faults, c.Placed(err))
	if _, err := config.GroupID(c.Socket.Group); err != nil {
		faults = append(faults, c.At("socket.group", fmt.Errorf("socket.group: %w", err)))
	}
	_, err = dialect.Check(c, catalog.BuiltIn().Dialects(c.Upstream.Systems))
	_, failed := LicenseKeys(c)
	return errors.Join(append(faults, err, failed, plugins.Check(c))...)
}

// folder reads the documents of a licence folder, or of a licence file, and the licence keys beside them.
func folder(path string) (docs []Document, keys []string, err error) {
	paths := []string{path}
	fi, err := os.Stat(path)
	isFolder := err == nil && fi.IsDir()
	if isFolder {
		if paths, err = filepath.Glob(filepath.Join(path, "*")); err != nil {
			return nil, nil, err
		}
	}
	for _, p := range paths {
		if fi, err := os.Stat(p); err != nil || !fi.Mode().IsRegular() || fi.Size() > plugin.MaxDocument ||
			watch.Ignored(filepath.Base(p)) {
			continue
		}
		b, err := os.ReadFile(p)
		switch {
		case err != nil: // gone since, or not for this user to read
		case isFolder && watch.IsKey(p) && catalog.BuiltIn().IsLicenseKey(b):
			more, _ := plugin.LicenseKeys(b) // a file of no good keys holds none
			keys = append(keys, more...)
		default:
			docs = append(docs, Document{Name: filepath.Base(p), Data: b})
		}
	}
	return docs, keys, nil
}

// For returns an Inspector that judges documents as an agent with a configuration would. The agent's key is that of the
// configured state folder, where it can be read.
func For(c *config.Config) Inspector {
	i := Inspector{Config: c, Systems: func(use func(*catalog.Catalog)) error { return plugins.With(c, use) }}
	if i.Key = identity.FileAt(c.Agent.KeyFile, c.State.Dir, c.ReadFile).Public(); i.Key != nil {
		i.KeyID = identity.Thumbprint(i.Key)
	}
	i.Measure = func(product string) (enforcer.Host, string) {
		r := host.Measure(context.Background(), host.Config{Product: product, Extra: c.Host.Components,
			Fingerprint: c.Host.Fingerprint, AgentKey: i.KeyID})
		h := r.Facts()
		maps.Copy(h.Components, catalog.HostComponents(r.Fingerprint))
		return h, r.Fingerprint
	}
	return i
}
