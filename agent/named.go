package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/dialect"
	"github.com/usher-agent/usher/agent/ops"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// named is what is known of the configuration and of the files that it names.
type named struct {
	check func(*config.Config) error // looks at the files that are used, or says which is bad
	told  chan struct{}              // capacity 1: faults have changed

	telling sync.Mutex // held while the verdict is told, so that an older word never replaces a later one; before mu

	mu      sync.Mutex // guards all below; a leaf
	start   config.Contents
	taken   config.Contents   // at the start, or at the last good reload
	faults  map[string]string // why the file of a key is not used as it is now
	refused string            // why the configuration was not taken over; empty: it was
	restart []string          // keys that wait for a restart
	last    *wire.LastReload  // that put keys in force; nil: none has since the start
}

// remember remembers the files as they are before the first is read.
func (n *named) remember(c *config.Config) {
	n.told = make(chan struct{}, 1)
	n.start = c.Contents()
	n.taken, n.faults = maps.Clone(n.start), map[string]string{}
}

// openNamed says how the files are looked at when they may have been renewed.
func (o *opening) openNamed(known []plugin.Dialect) error {
	opener, err := o.opener()
	if err != nil {
		return err
	}
	o.named.check = func(c *config.Config) error {
		if err := opener.Check(c); err != nil {
			return err
		}
		if _, err := dialect.Check(c, known); err != nil {
			return err
		}
		if _, _, err := fleetWay(c).Open(); err != nil {
			return err
		}
		if c.Ops.WebConfig == "" {
			return nil
		}
		if _, err := c.ReadFile(c.Ops.WebConfig, maxNamed); err != nil {
			return fmt.Errorf("ops.web_config: %w", err)
		}
		return ops.Check(c.Ops.WebConfig)
	}
	o.running.task("files", o.tellFaults)
	return nil
}

// fileRefused takes which key's file is bad now, and why; nil: it is good. It waits for nothing.
func (n *named) fileRefused(key string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	n.mu.Lock()
	same := n.faults[key] == text
	if err != nil {
		n.faults[key] = text
	} else {
		delete(n.faults, key)
	}
	n.mu.Unlock()
	if !same {
		n.tell()
	}
}

func (n *named) tell() {
	select {
	case n.told <- struct{}{}:
	default:
	}
}

// tellFaults warns of what is wrong with the configuration and its files, until ctx ends.
func (a *Agent) tellFaults(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.named.told:
			a.warn()
		}
	}
}

// warn has the verdict say what is wrong with the configuration and its files by now.
func (a *Agent) warn() {
	a.named.telling.Lock()
	defer a.named.telling.Unlock()
	a.court.Warn(a.named.warnings())
}

// warnings are what an operator should know of the configuration.
func (n *named) warnings() (out []enforcer.Warning) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refused != "" {
		out = append(out, enforcer.Warning{Code: enforcer.WarnConfigRefused,
			Detail: "the configuration was not taken over, and what was in force stays: " + n.refused})
	}
	for _, key := range slices.Sorted(maps.Keys(n.faults)) {
		out = append(out, enforcer.Warning{Code: enforcer.WarnConfigRefused,
			Detail: "a renewed file is not used, and what it held before stays: " + n.faults[key]})
	}
	if len(n.restart) > 0 {
		out = append(out, enforcer.Warning{Code: enforcer.WarnRestartNeeded,
			Detail: "changed, and not in force before a restart: " + strings.Join(n.restart, ", ")})
	}
	return out
}

// reloadFailed notes that a configuration was not taken over.
func (n *named) reloadFailed(err error) {
	const most = 500 // bytes of a warning
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	n.mu.Lock()
	n.refused = text
	n.mu.Unlock()
	n.tell()
}

// reloaded notes that a configuration is in force, with the files as they were before they were read. It returns the
// renewed files that are used now, and those that are read at a start alone.
func (n *named) reloaded(c *config.Config, is config.Contents, restart []string) (taken, waiting []config.NamedFile) {
	n.mu.Lock()
	for _, f := range n.taken.Renewed(is, c) {
		if f.Renewal != config.OnRestart {
			taken = append(taken, f)
		}
	}
	for _, f := range n.start.Renewed(is, c) {
		if f.Renewal == config.OnRestart {
			waiting = append(waiting, f)
		}
	}
	n.taken, n.refused, n.faults = is, "", map[string]string{}
	n.restart = slices.Clone(restart)
	for _, f := range waiting {
		n.restart = append(n.restart, f.Key)
	}
	n.restart = slices.Compact(slices.Sorted(slices.Values(n.restart)))
	n.mu.Unlock()
	n.tell()
	return taken, waiting
}

// lastReload notes a reload that put keys in force. After one that put none it returns the latest that did.
func (n *named) lastReload(r wire.Reloaded, at time.Time) *wire.LastReload {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(r.Changed) == 0 {
		return n.last
	}
	n.last = &wire.LastReload{At: at.UTC(), Changed: r.Changed}
	return nil
}
