package court

import (
	"crypto/sha256"
	"maps"
	"reflect"
	"slices"
	"sync"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
)

// maxAnswers is how many documents' answers a Verifier remembers.
const maxAnswers = 1024

// VerifierConfig is what a Verifier starts with. Catalog is required.
type VerifierConfig struct {
	Catalog *catalog.Catalog
	Anchors []plugin.Anchor
	// Keys are the configuration's licence keys, and Fingerprint is this host's, that documents are opened with.
	Keys        []string
	Fingerprint string
	// MayHoldKeys reports whether a file of the licence folder may hold licence keys, by its name; nil: none may.
	MayHoldKeys func(name string) bool
}

// Verifier verifies documents with the anchors, opens them with the secrets, and remembers the answers. It is safe for
// concurrent use.
type Verifier struct {
	catalog     *catalog.Catalog
	mayHoldKeys func(name string) bool
	wanted      chan struct{} // capacity 1: unasked is not empty

	mu         sync.Mutex // guards all below; a leaf: nothing is called under it but formats
	anchors    []plugin.Anchor
	timeTeller string            // the system whose signed dates tell the time; empty: none
	secrets    plugin.Secrets    // of the configuration and of the folder
	keys       []string          // the configuration's licence keys
	folderKeys map[string][]byte // the folder's licence keys, by their files' names
	stale      bool              // the secrets have changed since reopened was asked
	answers    map[[32]byte]answer
	generation int                 // counts how often the anchors or the secrets were replaced
	unasked    map[[32]byte][]byte // documents that a plugin is to be asked about
}

// answer is what is known of a document.
type answer struct {
	license *enforcer.License
	problem *enforcer.Problem
}

// NewVerifier returns a Verifier. It asks no plugin yet.
func NewVerifier(c VerifierConfig) *Verifier {
	v := &Verifier{catalog: c.Catalog, mayHoldKeys: c.MayHoldKeys, wanted: make(chan struct{}, 1), keys: c.Keys,
		secrets: plugin.Secrets{Fingerprint: c.Fingerprint}}
	v.Trust(c.Anchors)
	v.setKeys(nil)
	v.stale = false // nothing has been opened yet
	return v
}

// Verify has a document verified, by a plugin where it must be, and waits for that.
func (v *Verifier) Verify(document []byte) (*enforcer.License, *enforcer.Problem) {
	key := sha256.Sum256(document)
	v.mu.Lock()
	a, ok := v.known(key, document)
	anchors, secrets, generation := v.anchors, v.secrets, v.generation
	v.mu.Unlock()
	if ok {
		return a.license, a.problem
	}
	a.license, a.problem = v.catalog.Verify(document, anchors, secrets)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.generation == generation {
		v.remember(key, a)
	}
	return a.license, a.problem
}

// verifyNow returns what is known of a document, and has a plugin asked later where one must be: nobody who judges
// waits for a plugin.
func (v *Verifier) verifyNow(document []byte) (*enforcer.License, *enforcer.Problem) {
	key := sha256.Sum256(document)
	v.mu.Lock()
	defer v.mu.Unlock()
	if a, ok := v.known(key, document); ok {
		return a.license, a.problem
	}
	if v.unasked == nil {
		v.unasked = map[[32]byte][]byte{}
	}
	v.unasked[key] = document
	ring(v.wanted)
	return nil, &enforcer.Problem{Code: enforcer.Unavailable, Reason: "a plugin is being asked about it"}
}

// askPlugins has plugins asked about the documents that verifyNow did not know, and waits for their answers.
func (v *Verifier) askPlugins() {
	v.mu.Lock()
	unasked := v.unasked
	v.unasked = nil
	v.mu.Unlock()
	for _, document := range unasked {
		v.Verify(document)
	}
}

// known returns what is known of a document without asking a plugin. v.mu is held.
func (v *Verifier) known(key [32]byte, document []byte) (answer, bool) {
	if a, ok := v.answers[key]; ok {
		return a, true
	}
	l, p, ok := v.catalog.VerifyQuickly(document, v.anchors, v.secrets)
	if !ok {
		return answer{}, false
	}
	return v.remember(key, answer{l, p}), true
}

// remember keeps an answer. When there are too many, those go first that cost no plugin's answer. v.mu is held.
func (v *Verifier) remember(key [32]byte, a answer) answer {
	if len(v.answers) >= maxAnswers {
		v.forget(func(a answer) bool { return !v.fromPlugin(a) })
	}
	if v.answers == nil || len(v.answers) >= maxAnswers {
		v.answers = map[[32]byte]answer{}
	}
	v.answers[key] = a
	return a
}

// forget drops the answers that drop reports. v.mu is held.
func (v *Verifier) forget(drop func(answer) bool) {
	maps.DeleteFunc(v.answers, func(_ [32]byte, a answer) bool { return drop(a) })
}

// fromPlugin reports whether a plugin has found a document good: that stands while the plugin is away.
func (v *Verifier) fromPlugin(a answer) bool {
	return a.problem == nil && a.license != nil && v.catalog.IsPlugin(a.license.System)
}

// forgetUnsure forgets the documents that no plugin could be asked about, and reports whether there were any.
func (v *Verifier) forgetUnsure() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	before := len(v.answers)
	v.forget(func(a answer) bool { return a.problem != nil && a.problem.Code == enforcer.Unavailable })
	return len(v.answers) < before
}

// Check returns why a file of the licence folder is no good document, or no good file of licence keys; nil: it is good.
// Documents are opened with the keys of a good file from then on, those too that are read in the same look at the
// folder.
func (v *Verifier) Check(name string, data []byte) *enforcer.Problem {
	if !v.IsKeyFile(name, data) {
		_, p := v.Verify(data)
		return p.Of(name)
	}
	if _, err := plugin.LicenseKeys(data); err != nil {
		return &enforcer.Problem{Code: enforcer.Malformed, Reason: "licence key " + name + ": " + err.Error(),
			Hint: "a file whose name ends in .key holds licence keys, one a line; give a document another name"}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	keys := maps.Clone(v.folderKeys)
	if keys == nil {
		keys = map[string][]byte{}
	}
	keys[name] = data
	v.setKeys(keys)
	return nil
}

// IsKeyFile reports whether a file of the licence folder holds licence keys and is no document.
func (v *Verifier) IsKeyFile(name string, data []byte) bool {
	return v.mayHoldKeys != nil && v.mayHoldKeys(name) && v.catalog.IsLicenseKey(data)
}

// setFolderKeys replaces the folder's files of licence keys.
func (v *Verifier) setFolderKeys(files map[string][]byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.setKeys(files)
}

// setConfigured replaces the configuration's licence keys.
func (v *Verifier) setConfigured(keys []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.keys = keys
	v.setKeys(v.folderKeys)
}

// setKeys takes the folder's files of licence keys. v.mu is held, or nobody else has v yet.
func (v *Verifier) setKeys(files map[string][]byte) {
	v.folderKeys = files
	keys := slices.Clone(v.keys)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		more, err := plugin.LicenseKeys(files[name])
		if err == nil {
			keys = append(keys, more...)
		}
	}
	if !slices.Equal(keys, v.secrets.Keys) {
		v.open(plugin.Secrets{Keys: keys, Fingerprint: v.secrets.Fingerprint})
	}
}

// setFingerprint replaces this host's fingerprint.
func (v *Verifier) setFingerprint(fingerprint string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.secrets.Fingerprint != fingerprint {
		v.open(plugin.Secrets{Keys: v.secrets.Keys, Fingerprint: fingerprint})
	}
}

// open replaces the secrets. Answers that the old ones gave are forgotten, but not those of plugins: plugins are shown
// no secrets. v.mu is held, or nobody else has v yet.
func (v *Verifier) open(s plugin.Secrets) {
	v.secrets, v.stale = s, true
	v.forget(func(a answer) bool { return !v.fromPlugin(a) })
	v.generation++
}

// reopened reports, once, that the secrets have changed: the folder is to be checked again then.
func (v *Verifier) reopened() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	was := v.stale
	v.stale = false
	return was
}

// Secrets returns what documents are opened with.
func (v *Verifier) Secrets() plugin.Secrets {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.secrets
}

// Anchors returns the anchors.
func (v *Verifier) Anchors() []plugin.Anchor {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.anchors
}

// TimeTeller returns the system whose signed dates tell the time; empty: none does.
func (v *Verifier) TimeTeller() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.timeTeller
}

// TellsTime reports whether what is signed of a licence, its issue or an upstream's answer, is evidence of the time
// here.
func (v *Verifier) TellsTime(l *enforcer.License) bool { return l.TellsTime(v.TimeTeller()) }

// Trust replaces the anchors. Answers that the old ones gave are forgotten, but not those of a plugin by an anchor that
// has not changed: the plugin may be away.
func (v *Verifier) Trust(anchors []plugin.Anchor) {
	v.mu.Lock()
	defer v.mu.Unlock()
	same := func(system, keyID string) bool {
		of := func(in []plugin.Anchor) int {
			return slices.IndexFunc(in, func(a plugin.Anchor) bool { return a.System == system && a.KeyID == keyID })
		}
		i, j := of(v.anchors), of(anchors)
		return i >= 0 && j >= 0 && reflect.DeepEqual(v.anchors[i], anchors[j])
	}
	v.forget(func(a answer) bool { return !v.fromPlugin(a) || !same(a.license.System, a.license.KeyID) })
	v.anchors = anchors
	v.timeTeller = catalog.TimeTeller(anchors)
	v.generation++
}
