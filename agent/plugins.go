package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/plugin/catalog"
	"github.com/usher-agent/usher/plugin/external"
)

// askAgain is how often a document that no plugin could be asked about is tried again, beside when a plugin comes up.
const askAgain = time.Minute

// plugins are the licence systems that are programs of their own.
type plugins []*external.Process

// newPlugins makes the configured plugins and the catalog of all systems. dir is where their sockets lie. Nothing is
// started.
func newPlugins(c *config.Config, dir, version string, log *slog.Logger,
	onChange func(up bool), now func() time.Time) (plugins, *catalog.Catalog, error) {
	var all plugins
	for i, p := range c.Plugins {
		ec := external.Config{Name: p.Name, Path: p.Path, Args: p.Args, Dir: dir, Version: version, Log: log,
			OnChange: onChange, Now: now}
		if n, err := hex.Decode(ec.SHA256[:], []byte(p.SHA256)); err != nil || n != len(ec.SHA256) {
			return nil, nil, fmt.Errorf("plugins[%d] (%s): sha256 is not 64 hexadecimal digits", i, p.Name)
		}
		process, err := external.New(ec)
		if err != nil {
			return nil, nil, fmt.Errorf("plugins[%d]: %w", i, err)
		}
		all = append(all, process)
	}
	systems, err := catalog.New(all...)
	return all, systems, err
}

// up says of each plugin whether it runs.
func (all plugins) up() map[string]bool {
	if len(all) == 0 {
		return nil
	}
	out := make(map[string]bool, len(all))
	for _, p := range all {
		out[p.Name()] = p.Up()
	}
	return out
}

// pluginsDir is where the plugins' sockets lie.
func pluginsDir(c *config.Config) string { return filepath.Join(c.State.RuntimeDir, "plugins") }

// pluginChanged has documents tried again when a plugin has come up, and the licences' duties seen again: what its
// upstream can do is known only now. What a plugin that went away has said before stands.
func (a *Agent) pluginChanged(up bool) {
	if !up {
		return
	}
	if a.court.forgetUnsure() {
		a.watcher.Recheck()
	}
	a.court.change(func() {})
}

// retry tries again, now and then, what no plugin could be asked about.
func (a *Agent) retry(ctx context.Context) error {
	t := time.NewTicker(askAgain)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if a.court.forgetUnsure() {
				a.watcher.Recheck()
				a.court.change(func() {})
			}
		}
	}
}

// withPlugins starts the configured plugins for as long as f runs, and calls it with the catalog. A plugin whose file
// would not be started is an error.
func withPlugins(c *config.Config, f func(*catalog.Catalog)) error {
	if len(c.Plugins) == 0 {
		f(catalog.BuiltIn())
		return nil
	}
	dir, err := os.MkdirTemp("", "usher-plugins")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	all, systems, err := newPlugins(c, dir, "", slog.New(slog.DiscardHandler), nil, nil)
	if err != nil {
		return err
	}
	var faults []error
	for _, p := range all {
		faults = append(faults, p.Check())
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, p := range all {
		running.Go(func() { _ = p.Run(ctx) }) // it has no error
	}
	f(systems)
	cancel()
	running.Wait()
	return nil
}
