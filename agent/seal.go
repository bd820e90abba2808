package agent

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
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/dialect"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/journal"
	"github.com/usher-agent/usher/enforcer"
)

// The sealed files, by their names in state.dir and state.runtime_dir; docs/state.md has all that lies there.
const (
	stateManifest   = "state.seal"
	runtimeManifest = "runtime.seal"
	upstreamFile    = "upstream.json"
	drawsFile       = "draws.json"
	historyFile     = "history.json"
	blocksFile      = "blocks.json"
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
	// the agent has ended in order: who removes the folder then takes leases away, and no record
	Closed bool `json:"closed,omitempty"`
}

// seals are the seals of an agent's two folders.
type seals struct {
	key     files.Key
	log     *slog.Logger
	now     func() time.Time
	began   time.Time
	state   *files.Vault
	runtime *files.Vault // nil until openRuntime
	anchor  runtimeAnchor
	head    func() eventlog.Head // of the event log; nil: it is not open
	rekeyed bool                 // the folder's seal is another key's, and this agent's key has sealed none before
}

// openSeals opens the seal of the state folder, whose lock is held. A folder of a version that sealed nothing is taken
// over once; that it was is written into the key's file where that lies in the folder too.
func openSeals(c *config.Config, key ed25519.PrivateKey, now func() time.Time, log *slog.Logger) (*seals, error) {
	k, err := files.NewKey(key.Seed(), identity.Thumbprint(key.Public().(ed25519.PublicKey)))
	if err != nil {
		return nil, err
	}
	s := &seals{key: k, log: log, now: now, began: now()}
	marked := keyFile(c).Sealed()
	earlier := files.Earlier{Files: []string{upstreamFile, drawsFile, historyFile}, Journals: []string{durableJournal}}
	stores, err := filepath.Glob(filepath.Join(c.State.Dir, dialect.Journals))
	if err != nil {
		return nil, fmt.Errorf("state folder %s: %w", c.State.Dir, err)
	}
	for _, path := range stores {
		earlier.Journals = append(earlier.Journals, filepath.Base(path))
	}
	s.state, err = files.OpenVault(files.VaultConfig{Dir: c.State.Dir, Manifest: stateManifest, Key: k, Now: now,
		Sealed: marked || k.HasSealed(c.State.Dir, earlier.Files)}, earlier)
	if err != nil {
		return nil, err
	}
	if f, ok := s.state.Found(stateManifest); ok && f.Fault == files.FaultForeign && !marked && s.state.LostNow() {
		if err := s.state.SetFact(rekeyedFact, true); err != nil {
			log.Warn("that the state is another key's could not be written; it is found again", "error", err)
		}
	}
	s.state.Fact(rekeyedFact, &s.rekeyed)
	if !marked {
		if err := keyFile(c).MarkSealed(); err != nil {
			log.Warn(
				"the agent's key could not be marked as one that has sealed its state; a removed seal is noticed "+
					"less well", "error", err)
		}
	}
	return s, nil
}

// openRuntime opens the seal of the runtime folder, whose lock is held. It is of this start of the host alone.
func (s *seals) openRuntime(dir string) (err error) {
	var was runtimeAnchor
	known := s.state.Fact(runtimeFact, &was)
	var earlier files.Earlier
	if !known && s.state.Lost().IsZero() {
		earlier = files.Earlier{Files: []string{blocksFile}, Journals: []string{runtimeJournal}}
	}
	s.runtime, err = files.OpenVault(files.VaultConfig{Dir: dir, Manifest: runtimeManifest, Key: s.key,
		Boot: clock.BootID(), Volatile: true, Now: s.now}, earlier)
	if err != nil {
		return err
	}
	is := runtimeAnchor{Boot: clock.BootID(), Dir: dir}
	has := s.runtime.Fact(runtimeFact, &is.ID)
	if known && !was.Closed && was.Boot == is.Boot && was.Dir == is.Dir && s.runtime.Lost().IsZero() {
		switch {
		case s.runtime.Fresh():
			err = s.runtime.Lose(files.FaultMissing)
		case is.ID != was.ID:
			err = s.runtime.Lose(files.FaultOlder)
			has = false
		}
	}
	if !has {
		is.ID = rand.Text()
		err = errors.Join(err, s.runtime.SetFact(runtimeFact, is.ID))
	}
	s.anchor = is
	if err = errors.Join(err, s.state.SetFact(runtimeFact, is)); err != nil {
		// A full disk must not stop the start.
		s.log.Warn("what the seal says of the runtime folder could not be written", "error", err)
	}
	return nil
}

// close says that the agent has ended in order.
func (s *seals) close() error {
	if s.runtime == nil || s.anchor.ID == "" {
		return nil
	}
	s.anchor.Closed = true
	return s.state.SetFact(runtimeFact, s.anchor)
}

// eventsFact is what the manifest says of the event log: its last line, or one not much older.
const eventsFact = "events"

// checkEvents looks whether the event log still has the line that was its last.
func (s *seals) checkEvents() {
	var was eventlog.Head
	is := s.head()
	if !s.state.Fact(eventsFact, &was) || is.Sequence > was.Sequence || is == was {
		return
	}
	if err := s.state.Note(audit.Folder, files.FaultMissing); err != nil {
		s.log.Warn("what was found of the event log could not be written; it is found again", "error", err)
	}
	s.sealEvents() // else the same lines are missed until as many are written
}

// sealEvents has the manifest know the event log's last line.
func (s *seals) sealEvents() {
	if s.head == nil {
		return
	}
	if err := s.state.SetFact(eventsFact, s.head()); err != nil {
		s.log.Warn("the event log's last line was not sealed", "error", err)
	}
}

// keeping is how a part of the agent reads and replaces a file of its own.
type keeping struct {
	read  func(path string) ([]byte, error)
	write func(path string, data []byte) error
}

// sealed keeps the files of a vault. Of one that may not be believed it reads what known makes of what was known last.
func sealed(v *files.Vault, known func(files.Content) []byte) keeping {
	return keeping{
		read: func(path string) ([]byte, error) {
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
		write: func(path string, data []byte) error { return v.Save(filepath.Base(path), data) },
	}
}

// lastKnown and nothing are what is made of what was known last: of what must not be forgotten, and of what only
// grants.
func lastKnown(c files.Content) []byte { return c.Known }
func nothing(files.Content) []byte     { return nil }

// TamperedFiles returns the names that findings are counted under: a closed set.
func TamperedFiles() []string {
	return []string{stateManifest, runtimeManifest, upstreamFile, drawsFile, historyFile, blocksFile, durableJournal,
		runtimeJournal, "dialect", audit.Folder}
}

// label returns the name of TamperedFiles that a file is counted under.
func label(file string) string {
	if dialect.IsJournal(file) {
		return "dialect"
	}
	return file
}

// findings returns what stands, of both folders.
func (s *seals) findings() []files.Finding {
	out := s.state.Findings()
	if s.runtime != nil {
		out = append(out, s.runtime.Findings()...)
	}
	return out
}

// tampered says which kinds of files are not as the agent left them, for the metrics.
func (s *seals) tampered() map[string]bool {
	out := map[string]bool{}
	for _, file := range TamperedFiles() {
		out[file] = false
	}
	for _, f := range s.findings() {
		out[label(f.File)] = true
	}
	return out
}

// whatFollows says what a finding does, in words for people.
func whatFollows(file string) string {
	switch label(file) {
	case upstreamFile:
		return "no duty towards an upstream counts as met until a call succeeds; refusals stand as they were last known"
	case blocksFile:
		return "no slot of a site is handed out before its server is asked again"
	case drawsFile:
		return "draws taken of a site's meters stand as they were last known"
	case historyFile:
		return "first uses, emergencies and returns stand as they were last known"
	case durableJournal:
		return "meters and held leases stand as they were last known"
	case runtimeJournal, runtimeManifest:
		return "who holds slots is not known for sure, and none is handed out until the state is accepted or the " +
			"host is started anew"
	case stateManifest:
		return "what was drawn and held before is not known for sure: no draw and no slot is handed out until the " +
			"state is accepted, and no duty counts as met until a call succeeds"
	case audit.Folder:
		return "events are missing from the log"
	}
	return "it is used as it is"
}

// tellTampered logs what stands, and notes in the event log what is new.
func (a *Agent) tellTampered() {
	for _, f := range a.seals.findings() {
		a.log.Error("the state is not as the agent left it", "file", f.File, "fault", string(f.Fault), "found",
			f.At.Format(time.RFC3339),
			"effect", whatFollows(f.File), "hint",
			"stop the agent and run `usher doctor --repair`, which accepts the state as it is")
		if !f.At.Before(a.seals.began.UTC().Truncate(time.Millisecond)) {
			a.audit.Note(eventlog.Event{Type: audit.StateTampered, Subject: f.File, Code: string(f.Fault),
				Detail: whatFollows(f.File)})
		}
	}
}

// upstreamLoss is when what upstreams had said was last found changed or lost, and its name. It outlives the operator's
// acceptance: only the upstream can say again what it said.
type upstreamLoss struct {
	At time.Time `json:"at"`
	ID string    `json:"id"`
}

const upstreamLossFact = "upstream_lost"

func (s *seals) upstreamLost() (l upstreamLoss) {
	s.state.Fact(upstreamLossFact, &l)
	return l
}

// checkUpstream looks whether this start finds such a loss, and binds it to the folder.
func (s *seals) checkUpstream() error {
	c, err := s.state.Load(upstreamFile)
	if err != nil {
		return fmt.Errorf("upstream state: %w", err)
	}
	if c.Fault == "" && !s.state.LostNow() {
		return nil
	}
	if err := s.state.SetFact(upstreamLossFact, upstreamLoss{s.now().UTC(), rand.Text()}); err != nil {
		s.log.Warn("that the upstream's words were lost could not be written; it is found again", "error", err)
	}
	return nil
}

// withheld says what may have been given to another.
func (s *seals) withheld(omitted bool) (w enforcer.Withheld) {
	say := func(file string) string {
		fault := files.FaultEdited
		for _, f := range s.findings() {
			if f.File == file {
				fault = f.Fault
			}
		}
		return fmt.Sprintf("%s is %s, so that %s", file, fault, whatFollows(file))
	}
	if !s.state.Lost().IsZero() {
		w.Draws = say(stateManifest)
		if !s.rekeyed {
			w.Slots = w.Draws
		}
	}
	if _, ok := s.state.Found(durableJournal); ok && omitted {
		w.Slots = cmp.Or(w.Slots, say(durableJournal))
	}
	if s.runtime == nil {
		return w
	}
	if _, ok := s.runtime.Found(runtimeJournal); ok {
		w.Slots = cmp.Or(w.Slots, say(runtimeJournal))
	}
	if !s.runtime.Lost().IsZero() {
		w.Slots = cmp.Or(w.Slots, say(runtimeManifest))
	}
	return w
}

// extents are those of the vault as the journal has them.
func extents(v *files.Vault, name string) (want []journal.Extent, listed bool) {
	all, listed := v.Extents(name)
	for _, x := range all {
		want = append(want, journal.Extent(x))
	}
	return want, listed
}

// faultOf says how a journal that was opened is not as it was sealed.
func faultOf(r journal.Report, listed bool) files.Fault {
	if r.Fault == "" && !listed && !r.New && r.Records > 0 {
		return files.FaultUnlisted
	}
	return files.Fault(r.Fault)
}

// Accepted is a finding that an operator has accepted.
type Accepted struct {
	File, Fault string
}

// repairedFact says that the durable journal was repaired: the next start makes it whole by what was last known, and
// tells nobody.
const repairedFact = "repaired"

// Accept ends the findings of a configuration's folders, which no agent may be using. What was last known stays known:
// draws stand, refusals stand, and duties are unmet until a call succeeds. What it accepts is written to the event log.
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
	return accept(c, key, time.Now)
}

func accept(c *config.Config, key ed25519.PrivateKey, now func() time.Time) (out []Accepted, err error) {
	s, err := openSeals(c, key, now, slog.New(slog.DiscardHandler))
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
	if err := s.checkUpstream(); err != nil {
		return nil, err
	}
	if err := settle(s.state, upstreamFile, drawsFile, historyFile); err != nil {
		return nil, err
	}
	if err := s.openRuntime(c.State.RuntimeDir); err != nil {
		return nil, err
	}
	if err := settle(s.runtime, blocksFile); err != nil {
		return nil, err
	}
	if err := takeAsIs(s.runtime, c.State.RuntimeDir, runtimeJournal); err != nil {
		return nil, err
	}
	want, _ := extents(s.state, durableJournal)
	switch fault, err := journal.Check(filepath.Join(c.State.Dir, durableJournal), want); {
	case err != nil:
		return nil, err
	case fault != "":
		if err := s.state.SetFact(repairedFact, true); err != nil {
			return nil, err
		}
	}
	stores, err := filepath.Glob(filepath.Join(c.State.Dir, dialect.Journals))
	if err != nil {
		return nil, err
	}
	for _, path := range stores {
		if err := takeAsIs(s.state, c.State.Dir, filepath.Base(path)); err != nil {
			return nil, err
		}
	}
	var events []eventlog.Event
	for _, v := range []*files.Vault{s.state, s.runtime} {
		found, err := v.Accept()
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			out = append(out, Accepted{f.File, string(f.Fault)})
			events = append(events, eventlog.Event{At: now(), Type: audit.StateAccepted, Subject: f.File,
				Code: string(f.Fault), Detail: "an operator accepted the state as it is"})
		}
	}
	if err := s.close(); err != nil || len(events) == 0 {
		return nil, err
	}
	return out, audit.Append(c.State.Dir, key, events)
}

// takeAsIs seals a journal as it lies there. The durable one is not taken so: the agent makes it whole by what was last
// known.
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
