// Package seals knows whether the files of an agent's two folders, state.dir and state.runtime_dir, are as the agent
// left them: each is sealed with the agent's key in its folder's manifest ([files.Vault]), and what is found otherwise
// stands until an operator accepts it. Start at [Open].
package seals

import (
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/journal"
	"github.com/usher-agent/usher/agent/journal/sealed"
	"github.com/usher-agent/usher/agent/leaselog"
	"github.com/usher-agent/usher/enforcer"
)

// The sealed files, by their names in state.dir and state.runtime_dir; docs/state.md has all that lies there.
const (
	stateManifest   = "state.seal"
	runtimeManifest = "runtime.seal"
	UpstreamFile    = "upstream.json"
	DrawsFile       = "draws.json"
	HistoryFile     = "history.json"
	BlocksFile      = "blocks.json"
	ReportsFile     = "reports.json"
	FleetFile       = "fleet.json"
	UsageFile       = "usage.json"
	UsageFolder     = "usage" // the record of hours that are over
	UsersFolder     = "users" // the record of days by user, where privacy.users allows one
)

// runtimeFact is what the state's manifest says of the runtime folder, so that one that is emptied while leases are
// held is missed.
const runtimeFact = "runtime"

// rekeyedFact says that the folder was sealed by another key before this agent's had sealed anything: an operator has
// given it a new one.
const rekeyedFact = "rekeyed"

type runtimeAnchor struct {
	Boot string `json:"boot"`
	Dir  string `json:"dir"`
	ID   string `json:"id"`
	// the agent has ended in order: removing the folder then takes leases away, and no evidence
	Closed bool `json:"closed,omitempty"`
}

// Seals are the seals of an agent's two folders.
type Seals struct {
	key     files.Key
	stores  string // see Config.Stores
	log     *slog.Logger
	now     func() time.Time
	began   time.Time // when the state folder was opened
	State   *files.Vault
	Runtime *files.Vault // nil until OpenRuntime
	anchor  runtimeAnchor
	rekeyed bool // the folder's seal is another key's, and this agent's key has sealed none before
}

// Config is what Open needs.
type Config struct {
	Dir     string // state.dir
	Key     ed25519.PrivateKey
	KeyFile identity.File    // where Key is
	Stores  string           // matches the names of the dialects' journals in Dir, see filepath.Match
	Now     func() time.Time // the wall clock
	Log     *slog.Logger
}

// Open opens the seal of the state folder, whose lock is held. A folder of a version that sealed nothing is taken over
// once; that it was is written into the key's file where that lies in the folder too.
func Open(c Config) (*Seals, error) {
	key, now, log := c.Key, c.Now, c.Log
	k, err := files.NewKey(key.Seed(), identity.Thumbprint(key.Public().(ed25519.PublicKey)))
	if err != nil {
		return nil, err
	}
	s := &Seals{key: k, log: log, now: now, began: now(), stores: c.Stores}
	marked := c.KeyFile.Sealed()
	earlier := files.Earlier{Files: []string{UpstreamFile, DrawsFile, HistoryFile}, Journals: []string{DurableJournal}}
	stores, err := filepath.Glob(filepath.Join(c.Dir, c.Stores))
	if err != nil {
		return nil, fmt.Errorf("state folder %s: %w", c.Dir, err)
	}
	for _, path := range stores {
		earlier.Journals = append(earlier.Journals, filepath.Base(path))
	}
	s.State, err = files.OpenVault(files.VaultConfig{Dir: c.Dir, Manifest: stateManifest, Key: k, Now: now,
		Sealed: marked || k.HasSealed(c.Dir, earlier.Files)}, earlier)
	if err != nil {
		return nil, err
	}
	if f, ok := s.State.Found(stateManifest); ok && f.Fault == files.FaultForeign && !marked && s.State.LostNow() {
		if err := s.State.SetFact(rekeyedFact, true); err != nil {
			log.Warn("that the state is another key's could not be written; it is found again", "error", err)
		}
	}
	s.State.Fact(rekeyedFact, &s.rekeyed)
	if !marked {
		if err := c.KeyFile.MarkSealed(); err != nil {
			log.Warn(
				"the agent's key could not be marked as one that has sealed its state; a removed seal is noticed "+
					"less well", "error", err)
		}
	}
	return s, nil
}

// OpenRuntime opens the seal of the runtime folder, whose lock is held. It is of this start of the host alone.
func (s *Seals) OpenRuntime(dir string) (err error) {
	var was runtimeAnchor
	known := s.State.Fact(runtimeFact, &was)
	var earlier files.Earlier
	if !known && s.State.Lost().IsZero() {
		earlier = files.Earlier{Files: []string{BlocksFile}, Journals: []string{RuntimeJournal}}
	}
	is := runtimeAnchor{Boot: clock.BootID(), Dir: dir}
	c := s.runtimeVault(is, was)
	if s.Runtime, err = files.OpenVault(c, earlier); err != nil {
		return err
	}
	has := s.Runtime.Fact(runtimeFact, &is.ID)
	if known && !was.Closed && was.Boot == is.Boot && was.Dir == is.Dir && s.Runtime.Lost().IsZero() {
		switch {
		case s.Runtime.Fresh():
			err = s.Runtime.Lose(files.FaultMissing)
		case is.ID != was.ID:
			err = s.Runtime.Lose(files.FaultOlder)
			has = false
		}
	}
	if !has {
		is.ID = rand.Text()
		err = errors.Join(err, s.Runtime.SetFact(runtimeFact, is.ID))
	}
	s.anchor = is
	if err = errors.Join(err, s.State.SetFact(runtimeFact, is)); err != nil {
		// A full disk must not stop the start.
		s.log.Warn("what the seal says of the runtime folder could not be written", "error", err)
	}
	return nil
}

// runtimeVault is what the runtime folder's vault needs; was is what the state's seal says of the folder, if anything.
func (s *Seals) runtimeVault(is, was runtimeAnchor) files.VaultConfig {
	c := files.VaultConfig{Dir: is.Dir, Manifest: runtimeManifest, Key: s.key, Boot: is.Boot, Volatile: true,
		Now: s.now}
	// A folder in memory is empty then. One on a disk is as it was, or as a power cut has left it.
	if was.Dir == is.Dir && was.Boot != "" && is.Boot != "" && was.Boot != is.Boot {
		c.Past = files.Earlier{Files: []string{BlocksFile, FleetFile}, Journals: []string{RuntimeJournal}}
	}
	return c
}

// Past reports whether an agent that starts would find the runtime folder's journal to be of an earlier start of the
// host. It changes nothing. No agent may be using the folders.
func Past(c Config, runtimeDir string) bool {
	s, err := read(c)
	if err != nil {
		return false
	}
	var was runtimeAnchor
	s.State.Fact(runtimeFact, &was)
	of := s.runtimeVault(runtimeAnchor{Boot: clock.BootID(), Dir: runtimeDir}, was)
	of.Write = nowhere
	s.Runtime, err = files.OpenVault(of, files.Earlier{})
	return err == nil && s.Runtime.Past(RuntimeJournal)
}

// read reads the seal of a state folder alone. It writes nothing.
func read(c Config) (*Seals, error) {
	k, err := files.NewKey(c.Key.Seed(), identity.Thumbprint(c.Key.Public().(ed25519.PublicKey)))
	if err != nil {
		return nil, err
	}
	s := &Seals{key: k, now: c.Now}
	s.State, err = files.OpenVault(files.VaultConfig{Dir: c.Dir, Manifest: stateManifest, Key: k, Now: c.Now,
		Write: nowhere}, files.Earlier{})
	return s, err
}

func nowhere(string, []byte, fs.FileMode) error { return nil }

// Close says that the agent has ended in order.
func (s *Seals) Close() error {
	if s.Runtime == nil || s.anchor.ID == "" {
		return nil
	}
	s.anchor.Closed = true
	return s.State.SetFact(runtimeFact, s.anchor)
}

// UsageGone notes that hours of the record of usage are gone.
func (s *Seals) UsageGone() {
	if err := s.State.Note(UsageFolder, files.FaultMissing); err != nil {
		s.log.Warn("what was found of the record of usage could not be written", "error", err)
	}
}

// Keeping is how a part of the agent reads and replaces a file of its own.
type Keeping struct {
	Read  func(path string) ([]byte, error)
	Write func(path string, data []byte) error
}

// Sealed keeps the files of a vault. In place of a file that may not be believed it reads the bytes that known returns.
func Sealed(v *files.Vault, known func(files.Content) []byte) Keeping {
	return Keeping{
		Read: func(path string) ([]byte, error) {
			c, err := v.Load(filepath.Base(path))
			if err != nil {
				return nil, err
			}
			body := c.Body
			if c.Fault != "" {
				body = known(c)
			}
			if body == nil {
				return nil, fs.ErrNotExist
			}
			return body, nil
		},
		Write: func(path string, data []byte) error { return v.Save(filepath.Base(path), data) },
	}
}

// LastKnown and Nothing are such functions: the first for a file that must not be forgotten, the second for one that
// only grants.
func LastKnown(c files.Content) []byte { return c.Known }
func Nothing(files.Content) []byte     { return nil }

// Labels returns the names that findings are counted under: a closed set.
func Labels() []string {
	return []string{stateManifest, runtimeManifest, UpstreamFile, DrawsFile, HistoryFile, BlocksFile, ReportsFile,
		FleetFile, UsageFile, UsageFolder,
		DurableJournal, RuntimeJournal, "dialect", audit.Folder, leaselog.Folder}
}

// label returns the name of Labels that a file is counted under.
func (s *Seals) label(file string) string {
	if ok, _ := filepath.Match(s.stores, file); ok {
		return "dialect"
	}
	return file
}

// Findings returns what stands, of both folders.
func (s *Seals) Findings() []files.Finding {
	out := s.State.Findings()
	if s.Runtime != nil {
		out = append(out, s.Runtime.Findings()...)
	}
	return out
}

// IsNew reports whether a finding is of this start, and was not found before.
func (s *Seals) IsNew(f files.Finding) bool {
	return !f.At.Before(s.began.UTC().Truncate(time.Millisecond))
}

// Tampered says which kinds of files are not as the agent left them, for the metrics.
func (s *Seals) Tampered() map[string]bool {
	out := map[string]bool{}
	for _, file := range Labels() {
		out[file] = false
	}
	for _, f := range s.Findings() {
		out[s.label(f.File)] = true
	}
	return out
}

// Effect says what a finding does, in words for people.
func (s *Seals) Effect(file string) string {
	switch s.label(file) {
	case UpstreamFile:
		return "no duty towards an upstream counts as met until a call succeeds; refusals stand as they were last known"
	case BlocksFile:
		return "no slot of a site is handed out before its server is asked again"
	case FleetFile:
		return "the agent joins its fleet only when its own former place in it is over"
	case DrawsFile:
		return "draws taken of a site's meters stand as they were last known"
	case HistoryFile:
		return "first uses, emergencies and returns stand as they were last known"
	case ReportsFile:
		return "what upstreams were told stands as it was last known"
	case DurableJournal:
		return "meters and held leases stand as they were last known"
	case RuntimeJournal, runtimeManifest:
		return "who holds slots is not known for sure, and none is handed out until the state is accepted or the " +
			"host is started anew"
	case stateManifest:
		return "what was drawn and held before is not known for sure: no draw and no slot is handed out until the " +
			"state is accepted, and no duty counts as met until a call succeeds"
	case UsageFile:
		return "what was in use in the last hours stands as it was last known"
	case UsageFolder:
		return "hours are missing from the record of usage, and reports say so"
	case audit.Folder:
		return "events are missing from the log"
	case leaselog.Folder:
		return "lines are missing from the log of leases, and it says how many"
	}
	return "it is used as it is"
}

// UpstreamLoss is when what upstreams had said was last found changed or lost, and its name. It outlives the operator's
// acceptance: only the upstream can say again what it said.
type UpstreamLoss struct {
	At time.Time `json:"at"`
	ID string    `json:"id"`
}

const upstreamLossFact = "upstream_lost"

func (s *Seals) UpstreamLost() (l UpstreamLoss) {
	s.State.Fact(upstreamLossFact, &l)
	return l
}

// CheckUpstream looks whether this start finds such a loss, and binds it to the folder.
func (s *Seals) CheckUpstream() error {
	c, err := s.State.Load(UpstreamFile)
	if err != nil {
		return fmt.Errorf("upstream state: %w", err)
	}
	if c.Fault == "" && !s.State.LostNow() {
		return nil
	}
	if err := s.State.SetFact(upstreamLossFact, UpstreamLoss{s.now().UTC(), rand.Text()}); err != nil {
		s.log.Warn("that the upstream's words were lost could not be written; it is found again", "error", err)
	}
	return nil
}

// Withheld says what may have been given to another.
func (s *Seals) Withheld(omitted bool) (w enforcer.Withheld) {
	say := func(file string) string {
		fault := files.FaultEdited
		for _, f := range s.Findings() {
			if f.File == file {
				fault = f.Fault
			}
		}
		return fmt.Sprintf("%s is %s, so that %s", file, fault, s.Effect(file))
	}
	if !s.State.Lost().IsZero() {
		w.Draws = say(stateManifest)
		if !s.rekeyed {
			w.Slots = w.Draws
		}
	}
	if _, ok := s.State.Found(DurableJournal); ok && omitted {
		w.Slots = cmp.Or(w.Slots, say(DurableJournal))
	}
	if s.Runtime == nil {
		return w
	}
	if _, ok := s.Runtime.Found(RuntimeJournal); ok {
		w.Slots = cmp.Or(w.Slots, say(RuntimeJournal))
	}
	if !s.Runtime.Lost().IsZero() {
		w.Slots = cmp.Or(w.Slots, say(runtimeManifest))
	}
	return w
}

// Accepted is a finding that an operator has accepted.
type Accepted struct {
	File, Fault string
}

// Accept ends the findings of both folders, whose locks are held. What was last known stays known: draws stand,
// refusals stand, and duties are unmet until a call succeeds. What it accepts is written to the event log.
func Accept(c Config, runtimeDir string) (out []Accepted, err error) {
	s, err := Open(c)
	if err != nil {
		return nil, err
	}
	settle := func(v *files.Vault, names ...string) error {
		for _, name := range names {
			content, err := v.Load(name)
			switch {
			case err != nil:
				return err
			case content.Fault != "" && content.Known != nil:
				err = v.Save(name, content.Known)
			case content.Fault != "":
				err = v.Remove(name)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err := s.CheckUpstream(); err != nil {
		return nil, err
	}
	if err := settle(s.State, UpstreamFile, DrawsFile, HistoryFile, ReportsFile, UsageFile); err != nil {
		return nil, err
	}
	if err := s.OpenRuntime(runtimeDir); err != nil {
		return nil, err
	}
	if err := settle(s.Runtime, BlocksFile); err != nil {
		return nil, err
	}
	if err := takeAsIs(s.Runtime, runtimeDir, RuntimeJournal); err != nil {
		return nil, err
	}
	want, _ := sealed.Extents(s.State, DurableJournal)
	switch fault, err := journal.Check(filepath.Join(c.Dir, DurableJournal), want); {
	case err != nil:
		return nil, err
	case fault != "":
		if err := s.State.SetFact(RepairedFact, true); err != nil {
			return nil, err
		}
	}
	stores, err := filepath.Glob(filepath.Join(c.Dir, c.Stores))
	if err != nil {
		return nil, err
	}
	for _, path := range stores {
		if err := takeAsIs(s.State, c.Dir, filepath.Base(path)); err != nil {
			return nil, err
		}
	}
	var events []eventlog.Event
	for _, v := range []*files.Vault{s.State, s.Runtime} {
		found, err := v.Accept()
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			out = append(out, Accepted{f.File, string(f.Fault)})
			events = append(events, eventlog.Event{At: c.Now(), Type: audit.StateAccepted, Subject: f.File,
				Code: string(f.Fault), Detail: "an operator accepted the state as it is"})
		}
	}
	if err := s.Close(); err != nil || len(events) == 0 {
		return nil, err
	}
	return out, audit.Append(c.Dir, c.Key, events)
}

// takeAsIs seals a journal as it lies there. The durable one is not taken so: the agent makes it whole from
// the copy in its seal.
func takeAsIs(v *files.Vault, dir, name string) error {
	x, err := journal.ExtentOf(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return v.Remove(name)
	}
	if err != nil {
		return err
	}
	return v.SealJournal(name, files.Extent(x), nil)
}
