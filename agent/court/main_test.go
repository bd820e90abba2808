package court

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

// agentKey and otherKey have the form of RFC 7638 thumbprints.
var agentKey, otherKey = strings.Repeat("A", 43), strings.Repeat("E", 43)

// house is a court with a desk, a folder and a disk that a test holds in its hands.
type house struct {
	*Court
	t      *testing.T
	signer *issue.Signer
	desk   *fakeDesk
	folder *fakeFolder
	disk   *disk
	source *fakeSource
}

// open returns a court whose history began at day0. change changes its configuration before it is made.
func open(t *testing.T, change func(*Config)) *house {
	t.Helper()
	private, _, err := issue.MakeKey(t.TempDir(), "k1", "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := issue.LoadSigner(private, "")
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, signer: signer, desk: &fakeDesk{now: day0}, folder: &fakeFolder{files: map[string][]byte{}},
		disk: &disk{}, source: &fakeSource{}}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	hc := configOf(filepath.Join(t.TempDir(), "history.json"), key, day0.AddDate(-1, 0, 0))
	hc.Write = h.disk.write
	history, _, err := OpenHistory(hc)
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Desk: h.desk, Folder: h.folder, History: history, Sources: []Source{h.source},
		Verifier: NewVerifier(VerifierConfig{Catalog: catalog.BuiltIn(), Anchors: []plugin.Anchor{signer.Anchor}}),
		Facts:    enforcer.Facts{Products: []string{"acme"}, AgentKey: agentKey},
		InForce: func(*enforcer.Verdict, *enforcer.Facts, func(string) []byte) {
			h.source.inForce++
		}}
	if change != nil {
		change(&c)
	}
	h.Court = New(c)
	h.folder.court = h.Court
	return h
}

// sign returns a document of a licence that was issued at day0.
func (h *house) sign(id string, change func(*usher.Claims)) []byte {
	h.t.Helper()
	c := &usher.Claims{ID: id, Product: "acme", Licensee: "Blue Cinema", Issued: day0.Unix(),
		AgentKeys: []string{agentKey}, Pools: map[string]usher.Pool{"streams": {Max: new(int64(4))}}}
	if change != nil {
		change(c)
	}
	b, err := h.signer.Sign(c)
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

// fakeDesk has the time that a test sets.
type fakeDesk struct {
	mu      sync.Mutex
	now     time.Time
	verdict *enforcer.Verdict
	set     int // how often a verdict was put in force
	fence   time.Duration
	healed  bool
}

func (d *fakeDesk) Sign(time.Time) Time  { return d.Timing() }
func (d *fakeDesk) Would(time.Time) Time { return d.Timing() }
func (d *fakeDesk) Timing() Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Time{Now: d.now}
}

func (d *fakeDesk) Heal(issued time.Time) (from, to time.Time, healed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	from, healed = d.now, !d.healed
	if healed {
		d.now, d.healed = issued, true
	}
	return from, d.now, healed
}

func (d *fakeDesk) SetVerdict(v *enforcer.Verdict, fence time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.verdict, d.fence = v, fence
	d.set++
}

func (d *fakeDesk) SetFence(fence time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fence = fence
}

func (d *fakeDesk) Verdict() *enforcer.Verdict {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.verdict
}

// fakeFolder tells the court of a change at Sync.
type fakeFolder struct {
	court     *Court
	files     map[string][]byte
	readOnly  bool
	rechecked int
}

func (f *fakeFolder) NameFor(id string) (name, former string) { return id + ".lic", id + ".lic" }
func (f *fakeFolder) Recheck()                                { f.rechecked++ }

func (f *fakeFolder) Accepts(name string) error {
	if strings.Contains(name, "/") {
		return errors.New("it is a path")
	}
	return nil
}

func (f *fakeFolder) Install(name string, document []byte) error {
	if f.readOnly {
		return fs.ErrPermission
	}
	f.files[name] = document
	return nil
}

func (f *fakeFolder) Remove(name string) (string, error) {
	if f.files[name] == nil {
		return name, fs.ErrNotExist
	}
	delete(f.files, name)
	return name, nil
}

func (f *fakeFolder) Rollback(string) (string, bool, error) { return "", false, fs.ErrNotExist }

func (f *fakeFolder) Sync(context.Context) error {
	var files []File
	for name, data := range f.files {
		files = append(files, File{Name: name, Data: data, Problem: f.court.cfg.Verifier.Check(name, data)})
	}
	f.court.SetFolder(files, nil)
	return nil
}

// disk is a disk that can be slow, and can fail.
type disk struct {
	mu      sync.Mutex
	fault   error
	writing chan struct{} // receives when a write has begun; nil: nothing waits
	written chan struct{} // a write ends when this is closed
}

func (d *disk) write(path string, data []byte) error {
	d.mu.Lock()
	fault, writing, written := d.fault, d.writing, d.written
	d.mu.Unlock()
	if writing != nil {
		writing <- struct{}{}
		<-written
	}
	if fault != nil {
		return fault
	}
	return os.WriteFile(path, data, 0o600)
}

// hang has writes wait until what it returns is called. A write that has begun sends on begun.
func (d *disk) hang() (begun <-chan struct{}, free func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writing, d.written = make(chan struct{}, 8), make(chan struct{})
	writing, written := d.writing, d.written
	return writing, func() {
		d.mu.Lock()
		d.writing = nil
		d.mu.Unlock()
		close(written)
	}
}

// fakeSource counts how often the facts are judged, and knows of budgets.
type fakeSource struct {
	filled, inForce int
	// news is how often it says that it knows more.
	news    int
	budgets map[enforcer.Share]enforcer.Limit
	fence   time.Duration
}

func (s *fakeSource) Fill(f *enforcer.Facts, _ time.Time) time.Duration {
	s.filled++
	f.Budgets = s.budgets
	return s.fence
}

func (s *fakeSource) See(*enforcer.Facts, *enforcer.Verdict, func(string) []byte) bool {
	s.news--
	return s.news >= 0
}
