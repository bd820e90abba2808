// Package plugins runs the licence systems that are programs of their own: those that a configuration names. Start
// reading at [New]; plugin/external starts, checks and bounds each of them.
package plugins

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
	"github.com/usher-agent/usher/plugin/external"
)

// Plugins are the programs of a configuration, in its order.
type Plugins []*external.Process

// New makes the configured plugins and the catalog of all systems, and starts nothing. The plugins' sockets are to lie
// in dir. onChange is called when one has come up or gone away; nil: it is not. now is the
// licence time; nil: the wall clock. The error names the key of the configuration.
func New(c *config.Config, dir, version string, log *slog.Logger,
	onChange func(up bool), now func() time.Time) (Plugins, *catalog.Catalog, error) {
	var all Plugins
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

// Up says of each plugin, by its name, whether it runs; nil: there is none.
func (all Plugins) Up() map[string]bool {
	if len(all) == 0 {
		return nil
	}
	out := make(map[string]bool, len(all))
	for _, p := range all {
		out[p.Name()] = p.Up()
	}
	return out
}

// Upstreams returns the upstream of each plugin's system, by the plugin's name.
func (all Plugins) Upstreams() map[string]plugin.Upstream {
	out := make(map[string]plugin.Upstream, len(all))
	for _, p := range all {
		out[p.Name()] = p.Upstream()
	}
	return out
}

// Dir returns where the plugins' sockets lie while the agent runs.
func Dir(c *config.Config) string { return filepath.Join(c.State.RuntimeDir, "plugins") }

// Check says which of the configured plugins the agent would not start, and starts none.
func Check(c *config.Config) error {
	all, _, err := New(c, Dir(c), "", slog.New(slog.DiscardHandler), nil, nil)
	if err != nil {
		return c.At("plugins", err)
	}
	var faults []error
	for i, p := range all {
		if err := p.Check(); errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("plugins[%d]: %w; install the plugin there, or mend its path", i, err)
			faults = append(faults, c.At(fmt.Sprintf("plugins[%d]", i), err))
		} else if err != nil {
			faults = append(faults, c.At(fmt.Sprintf("plugins[%d]", i), fmt.Errorf("plugins[%d]: %w", i, err)))
		}
	}
	return errors.Join(faults...)
}

// With starts the configured plugins for as long as use runs, and calls it with the catalog. The error says that the
// agent would not start a plugin's file.
func With(c *config.Config, use func(*catalog.Catalog)) error {
	if len(c.Plugins) == 0 {
		use(catalog.BuiltIn())
		return nil
	}
	dir, err := os.MkdirTemp("", "usher-plugins")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	all, systems, err := New(c, dir, "", slog.New(slog.DiscardHandler), nil, nil)
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
	use(systems)
	cancel()
	running.Wait()
	return nil
}
