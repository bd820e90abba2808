package agent

import (
	"context"
	"maps"
	"slices"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/host"
	"github.com/usher-agent/usher/agent/watch"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
)

// hostFacts returns a host as the judge takes it, with what systems call it that name a host by one text.
func hostFacts(r host.Report) enforcer.Host {
	h := r.Facts()
	maps.Copy(h.Components, catalog.HostComponents(r.Fingerprint))
	return h
}

// isKey reports whether a file of the licence folder holds licence keys and is no document.
func (c *court) isKey(name string, data []byte) bool {
	return watch.IsKey(name) && !isFile(c.path) && c.catalog.IsLicenseKey(data)
}

// checkKey tells the watcher whether a file of licence keys is good, and has documents opened with them from now on:
// those that are read in the same look at the folder, too. c.mu is not held.
func (c *court) checkKey(name string, data []byte) *enforcer.Problem {
	if _, err := plugin.LicenseKeys(data); err != nil {
		return &enforcer.Problem{Code: enforcer.Malformed, Reason: "licence key " + name + ": " + err.Error(),
			Hint: "a file whose name ends in .key holds licence keys, one a line; give a document another name"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	beside := maps.Clone(c.beside)
	if beside == nil {
		beside = map[string][]byte{}
	}
	beside[name] = data
	c.keep(beside)
	return nil
}

// keep takes the folder's files of licence keys. c.mu is held.
func (c *court) keep(beside map[string][]byte) {
	c.beside = beside
	keys := slices.Clone(c.keys)
	for _, name := range slices.Sorted(maps.Keys(beside)) {
		more, err := plugin.LicenseKeys(beside[name])
		if err == nil {
			keys = append(keys, more...)
		}
	}
	if slices.Equal(keys, c.secrets.Keys) {
		return
	}
	c.open(plugin.Secrets{Keys: keys, Fingerprint: c.secrets.Fingerprint})
}

// open replaces the secrets. What was verified with the old ones is forgotten, but for plugins' documents: they are
// shown none. The watcher must be told, which is left to who can: see reopen. c.mu is held.
func (c *court) open(s plugin.Secrets) {
	c.secrets, c.reopen = s, true
	maps.DeleteFunc(c.cache, func(_ [32]byte, v verified) bool { return !c.fromPlugin(v) })
	c.trusted++
}

// opened returns the secrets, for whoever asks while the agent runs.
func (c *court) opened() plugin.Secrets {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.secrets
}

// believed returns the anchors, for whoever asks while the agent runs.
func (c *court) believed() []plugin.Anchor {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.anchors
}

// installKey puts licence keys into the licence folder, where only the agent can read them.
func (a *Agent) installKey(ctx context.Context, keys []byte, name string,
	dryRun bool) (wire.Installed, *enforcer.Denial) {
	if _, err := plugin.LicenseKeys(keys); err != nil {
		return wire.Installed{}, &enforcer.Denial{Code: api.DocumentRefused, Field: "document",
			Detail: "what is to be a file of licence keys is none: " + err.Error(),
			Hint:   "a name that ends in .key is for licence keys, one a line; give a document another name"}
	}
	before := a.desk.Verdict()
	if !dryRun {
		if err := a.watcher.Install(name, keys); err != nil {
			return wire.Installed{}, &enforcer.Denial{Code: enforcer.Storage, Detail: err.Error()}
		}
		if d := a.seen(ctx, nil); d != nil {
			return wire.Installed{}, d
		}
	}
	after := a.desk.Verdict()
	return wire.Installed{DryRun: dryRun, Document: wire.Document{Document: name, Code: string(enforcer.Valid),
		Reason: "licence keys, to open documents with", Verified: true, Terms: map[string]any{}},
		Changes: changes(before, after), License: api.LicenseShape(after, a.hostFacts())}, nil
}
