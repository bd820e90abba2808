package files

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Fault says how a file differs from the agent's last version.
type Fault string

// The faults, a closed set.
const (
	FaultMissing  Fault = "missing"  // it is gone, and the agent did not remove it
	FaultEmpty    Fault = "empty"    // it has no byte
	FaultEdited   Fault = "edited"   // its bytes are not the sealed ones
	FaultForeign  Fault = "foreign"  // another agent's key has sealed it
	FaultSwapped  Fault = "swapped"  // it was sealed under another name
	FaultOlder    Fault = "older"    // it is an earlier generation, or one that does not follow
	FaultUnlisted Fault = "unlisted" // this agent never listed it
)

// Faults returns every fault.
func Faults() []Fault {
	return []Fault{FaultMissing, FaultEmpty, FaultEdited, FaultForeign, FaultSwapped, FaultOlder, FaultUnlisted}
}

// Finding is one file that is not as the agent left it. It stands until [Vault.Accept].
type Finding struct {
	File  string    `json:"file"` // the name in its folder
	Fault Fault     `json:"fault"`
	At    time.Time `json:"at"`
}

// mostCopy is the size in bytes of the largest content that the manifest keeps a copy of.
const mostCopy = 256 << 10

// VaultConfig is what a Vault needs. All fields but those marked are required.
type VaultConfig struct {
	Dir      string // the folder of the sealed files; the caller holds its lock
	Manifest string // the manifest's name in it
	Key      Key
	// Boot binds the whole folder to one start of the host. The manifest of another start says nothing, neither what to
	// believe nor what is missing. Empty: it outlives the host.
	Boot string
	// Volatile says that the folder does not outlive the host, so that no write waits for the disk.
	Volatile bool
	// Past says that the folder was last used in another start of the host, and names its sealed files. Whatever lies
	// there is of that start, or what a power cut has left of it: it means nothing, and no fault of it is a finding.
	Past Earlier // optional
	// Sealed says that this agent's key has sealed the folder before, whatever lies in it now.
	Sealed bool
	Now    func() time.Time
	// Write replaces a file; nil: [Replace], or [ReplaceVolatile].
	Write func(path string, data []byte, mode fs.FileMode) error // optional
}

// Vault seals the files of one folder. Each sealed file names itself, its generation and the MAC of the generation
// before. A manifest, itself sealed and counted, lists the latest of each. So the vault notices an edit, a swap, an
// older copy, a missing or an empty file.
//
// It writes a file first and the manifest after it. A crash can leave a file one generation ahead that chains to the
// manifest, which is no finding. The manifest also keeps a copy of small contents, so that the last known content
// outlives the file.
//
// The first time an agent seals a folder, it lists the files of an earlier version there as they are. The caller keeps
// with the agent's key that it has done so (VaultConfig.Sealed): the vault does not take a folder without a manifest
// over a second time.
//
// It is safe for concurrent use.
type Vault struct {
	cfg  VaultConfig
	path string

	// seen guards the manifest's findings and facts beside mu, which whoever changes them holds as well: who reads them
	// alone waits for no disk. It is held for a moment.
	seen sync.RWMutex

	mu    sync.Mutex // guards all below, and is held over the disk: nothing that decides waits for it
	m     manifest
	count uint64
	mac   []byte // of the manifest as it lies on the disk
	stale bool   // the manifest on the disk lacks what m says
	fresh bool   // this agent had none
	lost  bool   // this start found the manifest itself gone or wrong
	told  map[string]Fault
	kept  map[string][]byte // what was written or read last of each sealed file, for Mend
}

// manifest is the manifest's body.
type manifest struct {
	Files map[string]*entry `json:"files"`
	// Found are the findings that stand.
	Found map[string]Finding `json:"found,omitempty"`
	// Lost is when the manifest itself was found gone or wrong. Nothing from before is certain since then.
	Lost time.Time `json:"lost,omitzero"`
	// Facts are small things that the caller binds to the folder.
	Facts map[string]json.RawMessage `json:"facts,omitempty"`
}

// entry is the manifest's record of one file.
type entry struct {
	Generation uint64 `json:"generation"`
	MAC        []byte `json:"mac,omitempty"`
	// Plain is the digest of a file that an earlier version left unsealed. Of an Announced file it is a nonce, which
	// the first generation names as its predecessor.
	Plain     []byte          `json:"plain,omitempty"`
	Announced bool            `json:"announced,omitempty"`
	Past      bool            `json:"past,omitempty"` // of another start of the host: see VaultConfig.Past
	Copy      json.RawMessage `json:"copy,omitempty"`
	// Of a journal: the digest of its first Size bytes, and of those of the file that will take its place.
	Journal *Extent `json:"journal,omitempty"`
	Next    *Extent `json:"next,omitempty"`
}

// Earlier names the files that a version without seals may have left in a folder.
type Earlier struct{ Files, Journals []string }

// OpenVault opens the manifest, or begins one. Then it takes over the files of an earlier version.
func OpenVault(c VaultConfig, earlier Earlier) (*Vault, error) {
	if c.Write == nil {
		c.Write = Replace
		if c.Volatile {
			c.Write = ReplaceVolatile
		}
	}
	v := &Vault{cfg: c, path: filepath.Join(c.Dir, c.Manifest), m: manifest{Files: map[string]*entry{}},
		told: map[string]Fault{}, kept: map[string][]byte{}}
	b, err := Read(v.path, MaxSize)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !c.Sealed:
		v.fresh = true
		if err := v.takeOver(earlier); err != nil {
			return nil, err
		}
	case errors.Is(err, fs.ErrNotExist):
		v.lose(FaultMissing)
	case err != nil:
		return nil, fmt.Errorf("manifest of the state: %w", err)
	default:
		v.read(b)
	}
	if past := slices.Concat(c.Past.Files, c.Past.Journals); len(past) > 0 && (v.fresh || v.lost) {
		v.m, v.fresh, v.lost, v.stale = manifest{Files: map[string]*entry{}}, true, false, true
		clear(v.told)
		for _, name := range past {
			v.m.Files[name] = &entry{Announced: true, Past: true, Plain: []byte(rand.Text())}
		}
	}
	if v.stale {
		// A full disk must not stop the start. The next start makes the same findings.
		_ = v.write()
	}
	return v, nil
}

// read reads and judges the manifest on the disk.
func (v *Vault) read(file []byte) {
	body, s, has, proved := v.cfg.Key.open(file)
	var m manifest
	switch {
	case len(file) == 0:
		v.lose(FaultEmpty)
	case has && !proved && s.Key != v.cfg.Key.id:
		v.lose(FaultForeign)
	case !has || !proved || json.Unmarshal(body, &m) != nil:
		v.lose(FaultEdited)
	case s.Name != v.cfg.Manifest:
		v.lose(FaultSwapped)
	case s.Boot != v.cfg.Boot: // of another start of the host: as if there were none
		v.fresh, v.stale = true, true
		v.count = s.Generation
	default:
		v.m, v.count, v.mac = m, s.Generation, s.MAC
		if v.m.Files == nil {
			v.m.Files = map[string]*entry{}
		}
	}
}

// takeOver lists the files of an earlier version as they are.
func (v *Vault) takeOver(earlier Earlier) error {
	for _, name := range earlier.Journals {
		v.m.Files[name] = &entry{Announced: true} // reading it seals it
	}
	for _, name := range earlier.Files {
		b, err := Read(filepath.Join(v.cfg.Dir, name), MaxSize)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("state of an earlier version: %w", err)
		}
		v.m.Files[name] = &entry{Plain: digest(b)}
	}
	v.stale = true
	return nil
}

// lose begins a manifest in the place of one that is gone or wrong. v.mu is held, or nobody else has v yet.
func (v *Vault) lose(f Fault) {
	v.lost, v.fresh, v.stale = true, true, true
	v.seen.Lock()
	v.m.Lost = v.cfg.Now().UTC()
	v.seen.Unlock()
	v.find(v.cfg.Manifest, f)
}

// find notes a finding. v.mu is held.
func (v *Vault) find(name string, fault Fault) {
	if v.told[name] == fault {
		return
	}
	v.told[name] = fault
	f := Finding{File: name, Fault: fault, At: v.cfg.Now().UTC()}
	v.seen.Lock()
	defer v.seen.Unlock()
	if v.m.Found == nil {
		v.m.Found = map[string]Finding{}
	}
	v.m.Found[name], v.stale = f, true
}

// Fresh reports whether this start began the manifest.
func (v *Vault) Fresh() bool { return v.fresh }

// LostNow reports whether this start lost the manifest.
func (v *Vault) LostNow() bool { return v.lost }

// Lost returns when the manifest itself was found gone or wrong; zero: it was not, or that was accepted.
func (v *Vault) Lost() time.Time {
	v.seen.RLock()
	defer v.seen.RUnlock()
	return v.m.Lost
}

// Lose declares the whole folder lost, because something beside it says that its manifest is not the right one.
func (v *Vault) Lose(f Fault) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.m.Files = map[string]*entry{}
	v.lose(f)
	return v.write()
}

// Findings returns the findings that stand, by file.
func (v *Vault) Findings() []Finding {
	v.seen.RLock()
	defer v.seen.RUnlock()
	out := []Finding{}
	for _, name := range slices.Sorted(maps.Keys(v.m.Found)) {
		out = append(out, v.m.Found[name])
	}
	return out
}

// Found returns the standing finding of a file.
func (v *Vault) Found(name string) (Finding, bool) {
	v.seen.RLock()
	defer v.seen.RUnlock()
	f, ok := v.m.Found[name]
	return f, ok
}

// Content is a file as it was found.
type Content struct {
	// Body is the content that may be believed, without the seal; nil: there is none.
	Body []byte
	// Known is the last known content of a file that may not be believed: the manifest's copy, or bytes that this agent
	// did seal once. It is good for limits that must not be forgotten, and for nothing that grants. nil: there is none.
	Known []byte
	// Fault is why Body is nil; empty: there is no fault, or no such file, and none is expected.
	Fault Fault
}

// Load reads a sealed file. Its error is one of the disk. A fault of the content is in the Content, and a finding.
func (v *Vault) Load(name string) (Content, error) {
	b, err := Read(filepath.Join(v.cfg.Dir, name), MaxSize)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Content{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	c := v.judge(name, b, err == nil)
	if c.Fault != "" {
		v.find(name, c.Fault)
	} else if c.Body != nil {
		v.kept[name] = c.Body
	}
	if v.stale {
		_ = v.write() // the next start finds it again
	}
	return c, nil
}

// judge judges a file's bytes. v.mu is held.
func (v *Vault) judge(name string, file []byte, there bool) (c Content) {
	e := v.m.Files[name]
	if e != nil && len(e.Copy) > 0 {
		c.Known = e.Copy
	}
	if !there {
		if e != nil && !e.Announced {
			c.Fault = FaultMissing
		}
		return c
	}
	if e != nil && e.Generation == 0 && !e.Announced && bytes.Equal(digest(file), e.Plain) {
		return Content{Body: file}
	}
	if len(file) == 0 && (e == nil || !e.Past) {
		c.Fault = FaultEmpty
		return c
	}
	body, s, has, proved := v.cfg.Key.open(file)
	switch {
	// it means nothing any more
	case proved && s.Boot != v.cfg.Boot && s.Name == name && (e == nil || e.Announced):
		return Content{}
	case !proved && e != nil && e.Past: // a power cut may have left anything of it
		return Content{}
	case has && !proved && s.Key != v.cfg.Key.id:
		c.Fault = FaultForeign
	case !has && e == nil:
		c.Fault = FaultUnlisted
	case !proved:
		c.Fault = FaultEdited
	case s.Name != name:
		c.Fault = FaultSwapped
	case e == nil:
		c.Fault, c.Known = FaultUnlisted, body
	case bytes.Equal(s.MAC, e.MAC):
		return Content{Body: body}
	case s.Generation == e.Generation+1 && bytes.Equal(s.Previous, e.last()):
		v.list(name, s, body)
		return Content{Body: body}
	default:
		c.Fault = FaultOlder
		if c.Known == nil {
			c.Known = body
		}
	}
	return c
}

// last returns the MAC that the next generation must name as its predecessor.
func (e *entry) last() []byte {
	if e.Generation == 0 {
		return e.Plain
	}
	return e.MAC
}

// list makes the manifest list the file on the disk. v.mu is held.
func (v *Vault) list(name string, s seal, body []byte) {
	n := &entry{Generation: s.Generation, MAC: s.MAC}
	if len(body) <= mostCopy && v.cfg.Boot == "" {
		n.Copy = slices.Clone(body)
	}
	v.m.Files[name], v.stale = n, true
}

// Save replaces a sealed file, whole or not at all. body is a JSON object.
func (v *Vault) Save(name string, body []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.save(name, body)
}

// save is Save. v.mu is held.
func (v *Vault) save(name string, body []byte) error {
	e := v.m.Files[name]
	if e == nil { // so that an unlisted first generation after a crash differs from a copied one
		e = &entry{Announced: true, Plain: []byte(rand.Text())}
		v.m.Files[name], v.stale = e, true
	}
	if v.stale { // else the file would be two generations ahead of it, which no crash explains
		if err := v.write(); err != nil {
			return err
		}
	}
	s := seal{Name: name, Generation: e.Generation + 1, Previous: e.last(), Boot: v.cfg.Boot}
	file, mac, err := v.cfg.Key.seal(body, s)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := v.cfg.Write(filepath.Join(v.cfg.Dir, name), file, 0o600); err != nil {
		return err
	}
	s.MAC = mac
	v.kept[name] = slices.Clone(body)
	v.list(name, s, bytes.TrimSpace(body))
	_ = v.write() // the file is one ahead, and chains: the next Save, or start, writes the manifest first
	return nil
}

// write puts the manifest on the disk. v.mu is held.
func (v *Vault) write() error {
	body, err := json.Marshal(v.m)
	if err != nil {
		return err
	}
	file, mac, err := v.cfg.Key.seal(body,
		seal{Name: v.cfg.Manifest, Generation: v.count + 1, Previous: v.mac, Boot: v.cfg.Boot})
	if err == nil {
		err = v.cfg.Write(v.path, file, 0o600)
	}
	if err != nil {
		v.stale = true
		return fmt.Errorf("manifest of the state %s: %w", v.path, err)
	}
	v.count, v.mac, v.stale = v.count+1, mac, false
	return nil
}

// SetFact binds a small thing to the folder. [Vault.Fact] returns it.
func (v *Vault) SetFact(name string, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if bytes.Equal(v.m.Facts[name], b) && !v.stale {
		return nil
	}
	v.seen.Lock()
	if v.m.Facts == nil {
		v.m.Facts = map[string]json.RawMessage{}
	}
	v.m.Facts[name] = b
	v.seen.Unlock()
	return v.write()
}

// Fact reads into value what SetFact bound, and reports whether there is such a thing.
func (v *Vault) Fact(name string, value any) bool {
	v.seen.RLock()
	defer v.seen.RUnlock()
	b, ok := v.m.Facts[name]
	return ok && json.Unmarshal(b, value) == nil
}

// Accept ends the standing findings, because an operator has looked at them, and returns them. The caller has bound
// what must not be forgotten with SetFact.
func (v *Vault) Accept() ([]Finding, error) {
	found := v.Findings()
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(found) == 0 && v.m.Lost.IsZero() {
		return nil, nil
	}
	v.seen.Lock()
	v.m.Found, v.m.Lost = nil, time.Time{}
	v.seen.Unlock()
	return found, v.write()
}

// Remove removes a sealed file.
func (v *Vault) Remove(name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.m.Files, name)
	delete(v.kept, name)
	if err := v.write(); err != nil {
		return err
	}
	err := os.Remove(filepath.Join(v.cfg.Dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
