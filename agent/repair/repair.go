// Package repair mends the state of an agent that does not run: damaged journals ([Journals]), and files that are not
// as the agent left them ([Accept]).
package repair

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/desk"
	"github.com/usher-agent/usher/agent/dialect"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/seals"
)

// Journals mends the journals of a configuration's folders, which no agent may be using: those of leases and draws
// ([desk.Repair]), and those of the dialects' stores.
func Journals(c *config.Config) (out []desk.Repaired, err error) {
	unlock, err := lock(c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if out, err = desk.Repair(c.State.Dir, c.State.RuntimeDir); err != nil {
		return out, err
	}
	stores, err := filepath.Glob(filepath.Join(c.State.Dir, dialect.Journals))
	if err != nil {
		return out, fmt.Errorf("state folder %s: %w", c.State.Dir, err)
	}
	for _, path := range stores {
		r, err := desk.RepairJournal(path, mendStore)
		if err != nil {
			return out, err
		}
		out = append(out, r)
	}
	return out, nil
}

// mendStore returns the records of a dialect's store that can be read.
func mendStore(out *desk.Repaired, records [][]byte) ([][]byte, error) {
	keep, err := dialect.Sound(records)
	out.LeftOut += len(records) - len(keep)
	return keep, err
}

// Accept ends the findings of a configuration's folders, which no agent may be using: see [seals.Accept].
func Accept(c *config.Config) (out []seals.Accepted, err error) {
	keyFile := identity.FileAt(c.Agent.KeyFile, c.State.Dir, c.ReadFile)
	if keyFile.Public() == nil {
		return nil, nil // no agent has sealed anything
	}
	unlock, err := lock(c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	key, err := keyFile.Load()
	if err != nil {
		return nil, err
	}
	return seals.Accept(seals.Config{Dir: c.State.Dir, Key: key, KeyFile: keyFile, Stores: dialect.Journals,
		Now: time.Now, Log: slog.New(slog.DiscardHandler)}, c.State.RuntimeDir)
}

// lock locks both folders until unlock. It makes none: a runtime folder that is gone, as after a boot, holds nothing,
// and without a state folder the configuration is another agent's.
func lock(c *config.Config) (unlock func() error, err error) {
	if _, err := os.Stat(c.State.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf(
			"there is no state folder %s, so no agent has run with this configuration; --config or --instance names "+
				"that of the agent", c.State.Dir)
	}
	state, err := files.StateFolder(c.State.Dir).Lock()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(c.State.RuntimeDir); errors.Is(err, fs.ErrNotExist) {
		return state.Close, nil
	}
	runtime, err := files.RuntimeFolder(c.State.RuntimeDir).Lock()
	if err != nil {
		return nil, errors.Join(err, state.Close())
	}
	return func() error { return errors.Join(runtime.Close(), state.Close()) }, nil
}
