package agent

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/desk"
	"github.com/usher-agent/usher/agent/dialect"
	"github.com/usher-agent/usher/agent/seals"
)

// Repaired is what was done about one journal.
type Repaired = desk.Repaired

// Repair mends the journals of a configuration's folders, which no agent may be using: those of leases and draws
// ([desk.Repair]), and those of the dialects' stores.
func Repair(c *config.Config) (out []Repaired, err error) {
	state, err := lockState(c.State.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	runtime, err := lockRuntime(c.State.RuntimeDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, runtime.Close()) }()
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

// Accepted is a finding that an operator has accepted.
type Accepted = seals.Accepted

// Accept ends the findings of a configuration's folders, which no agent may be using: see [seals.Accept].
func Accept(c *config.Config) (out []Accepted, err error) {
	if keyFile(c).Public() == nil {
		return nil, nil // no agent has sealed anything
	}
	state, err := lockState(c.State.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	runtime, err := lockRuntime(c.State.RuntimeDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, runtime.Close()) }()
	key, err := keyFile(c).Load()
	if err != nil {
		return nil, err
	}
	return seals.Accept(sealing(c, key, time.Now, slog.New(slog.DiscardHandler)), c.State.RuntimeDir)
}

// sealing is how the folders of a configuration are sealed.
func sealing(c *config.Config, key ed25519.PrivateKey, now func() time.Time, log *slog.Logger) seals.Config {
	return seals.Config{Dir: c.State.Dir, Key: key, KeyFile: keyFile(c), Stores: dialect.Journals, Now: now,
		Log: log}
}

// mendStore returns the records of a dialect's store that can be read.
func mendStore(out *Repaired, records [][]byte) ([][]byte, error) {
	keep, err := dialect.Sound(records)
	out.LeftOut += len(records) - len(keep)
	return keep, err
}
