package agent

import (
	"maps"
	"sync"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/host"
	"github.com/usher-agent/usher/agent/watch"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/catalog"
)

// present is what the agent knows of its configuration and its host now.
type present struct {
	vendor string // the product that is compiled in; empty: none is
	keyID  string // the thumbprint of the agent's key; set before anything is measured

	named     named      // and the files that it names
	reloading sync.Mutex // one reload at a time; see the order of locks

	mu     sync.Mutex // guards all below; a leaf
	config *config.Config
	host   host.Report
	mode   watch.Mode // how the licence folder is watched
}

// settings returns the configuration as it is, which a reload replaces.
func (p *present) settings() *config.Config {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.config
}

func (p *present) setSettings(c *config.Config) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.config = c
}

// hostReport returns the host as it was measured last.
func (p *present) hostReport() host.Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.host
}

func (p *present) setHost(r host.Report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.host = r
}

func (p *present) watchMode() watch.Mode {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mode
}

func (p *present) setMode(m watch.Mode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = m
}

// product returns the product that this agent serves; of several the first.
func (p *present) product() string {
	if p.vendor != "" {
		return p.vendor
	}
	return p.settings().Product.Name()
}

// anchorsFrom says where the anchors are from.
func (p *present) anchorsFrom() string {
	if p.vendor != "" {
		return "embedded"
	}
	return "config"
}

func (p *present) hostConfig() host.Config {
	c := p.settings()
	return host.Config{Product: p.product(), Extra: maps.Clone(c.Host.Components),
		Reserved: catalog.HostComponentNames(), Fingerprint: c.Host.Fingerprint,
		AgentKey: p.keyID}
}

func (p *present) hostFacts() enforcer.Host { return hostFacts(p.hostReport()) }
