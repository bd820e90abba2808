package eventlog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

type fixture struct {
	t   *testing.T
	cfg Config
	pub ed25519.PublicKey
}

func newFixture(t *testing.T) *fixture {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{t, Config{Dir: filepath.Join(t.TempDir(), "events"), Key: key, FileBytes: 2000, Files: 4}, pub}
}

// write runs a log that writes n events.
func (f *fixture) write(n int) {
	f.t.Helper()
	l, err := Open(f.cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	for i := range n {
		l.Note(Event{At: noon.Add(time.Duration(i) * time.Second), Type: "license.changed", Code: "VALID",
			Detail: fmt.Sprintf("event %d", i), Fields: map[string]string{"pool": "streams"}})
	}
	cancel()
	if err := l.Run(ctx); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) verify() (Report, error) { return Verify(f.cfg.Dir, f.pub, nil) }

func (f *fixture) must() Report {
	f.t.Helper()
	r, err := f.verify()
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

func TestChain(t *testing.T) {
	f := newFixture(t)
	if r := f.must(); r.Events != 0 {
		t.Errorf("%+v", r)
	}
	for i := range 5 {
		f.write(3)
		if r := f.must(); r.Last != uint64(3*(i+1)) {
			t.Errorf("after %d runs: %+v", i+1, r)
		}
	}
	f.write(100)
	r := f.must()
	names, _ := logFiles(f.cfg.Dir)
	if len(names) > f.cfg.Files || r.First == 1 || r.Last != 115 || r.Events != r.Last-r.First+1 {
		t.Errorf("%d files, %+v", len(names), r)
	}
	for _, n := range names {
		if fi, err := os.Stat(filepath.Join(f.cfg.Dir, n)); err != nil || fi.Size() > f.cfg.FileBytes ||
			fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", n, fi, err)
		}
	}
}

// Verify sees whatever is changed, taken out, put in or put elsewhere.
func TestTampering(t *testing.T) {
	f := newFixture(t)
	f.cfg.FileBytes = 1 << 20
	f.write(10)
	names, _ := logFiles(f.cfg.Dir)
	path := filepath.Join(f.cfg.Dir, names[0])
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(good, []byte("\n"))
	other := newFixture(t)
	forged, err := sign(Event{Sequence: 11, At: noon, Type: "x",
		Previous: digest(bytes.TrimSuffix(lines[9], []byte("\n")))}, other.cfg.Key)
	if err != nil {
		t.Fatal(err)
	}
	join := func(l ...[]byte) []byte { return bytes.Join(l, nil) }
	for name, bad := range map[string][]byte{
		"changed":     bytes.Replace(good, []byte("event 4"), []byte("event 5"), 1),
		"taken out":   join(append(append([][]byte{}, lines[:4]...), lines[5:]...)...),
		"swapped":     join(lines[0], lines[2], lines[1], join(lines[3:]...)),
		"doubled":     join(lines[0], lines[0], join(lines[1:]...)),
		"forged":      join(good, forged),
		"rearranged":  bytes.Replace(good, []byte(`{"seq":5,`), []byte(`{ "seq":5,`), 1),
		"no event":    join(good, []byte("hello\n")),
		"unsigned":    bytes.Replace(good, []byte(`"sig":"`), []byte(`"sig":"A`), 1),
		"an old head": join(lines[1:4]...),
	} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := f.verify()
		var broken *Broken
		if name == "an old head" { // as after a rotation
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.As(err, &broken) || broken.Line == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := f.verify(); err == nil && !(r.Torn && i == len(good)-1) {
			t.Fatalf("byte %d may be flipped: %+v", i, r)
		}
	}
}

// A crash in the middle of a line costs that line, and the chain goes on.
func TestTorn(t *testing.T) {
	f := newFixture(t)
	f.cfg.FileBytes = 1 << 20
	f.write(3)
	names, _ := logFiles(f.cfg.Dir)
	path := filepath.Join(f.cfg.Dir, names[0])
	good, _ := os.ReadFile(path)
	for _, cut := range []int{1, 10, 100} {
		if err := os.WriteFile(path, good[:len(good)-cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if r := f.must(); !r.Torn || r.Last != 2 {
			t.Errorf("cut by %d: %+v", cut, r)
		}
		f.write(2)
		if r := f.must(); r.Torn || r.Last != 4 {
			t.Errorf("cut by %d, after another run: %+v", cut, r)
		}
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f.write(1)
	f.must()
}

// The log counts events that it cannot write, and says so once it can write again.
func TestGap(t *testing.T) {
	f := newFixture(t)
	l, err := Open(f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range queue + 7 {
		l.Note(Event{At: noon, Type: "x"})
	}
	if err := os.RemoveAll(f.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	l.write(<-l.queue)
	if l.bad == nil {
		t.Fatal("it was written into a folder that is not there")
	}
	if err := os.MkdirAll(f.cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l.write(<-l.queue)
	if r := f.must(); r.Missing != 8 || r.Events != 2 {
		t.Errorf("%+v", r)
	}
	l.file.Close()
}

func TestUsers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pseudonyms")
	u := NewUsers(UsersPseudonym, dir)
	name := func(user string, at time.Time) string {
		t.Helper()
		n, err := u.Name(user, at)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	a, b := name("uid:1000", noon), name("uid:1001", noon)
	if a == b || a != name("uid:1000", noon.AddDate(0, 0, 20)) || strings.Contains(a, "1000") {
		t.Errorf("%s, %s", a, b)
	}
	if next := name("uid:1000", noon.AddDate(0, 1, 0)); next == a {
		t.Error("a user has one name over two months")
	}
	if again, err := NewUsers(UsersPseudonym, dir).Name("uid:1000", noon); err != nil || again != a {
		t.Errorf("after a restart %s (%v), before %s", again, err, a)
	}
	name("uid:1000", noon.AddDate(2, 0, 0))
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%d keys are left after two years", len(left))
	}
	for mode, want := range map[string]string{UsersOmit: "", UsersPlain: "uid:1000", "": ""} {
		if got, err := NewUsers(mode, dir).Name("uid:1000", noon); err != nil || got != want {
			t.Errorf("%s: %q, %v", mode, got, err)
		}
	}
}

// Somebody else knows the last line ten seconds after it was written, and at the log's end: no sooner, so that many
// lines are one seal, and not again while no line comes.
func TestEndIsSealed(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		f := newFixture(t)
		type sealed struct {
			sequence uint64
			after    time.Duration
		}
		var seals []sealed
		began := time.Now()
		f.cfg.Seal = func(h Head) { seals = append(seals, sealed{h.Sequence, time.Since(began)}) }
		l, err := Open(f.cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.Run(ctx)
		}()
		for range 3 {
			l.Note(Event{Type: "test"})
			time.Sleep(4 * time.Second)
		}
		time.Sleep(time.Minute)
		l.Note(Event{Type: "test"})
		cancel()
		<-done
		want := []sealed{{3, 10 * time.Second}, {4, 72 * time.Second}}
		if !slices.Equal(seals, want) {
			t.Errorf("the last line was sealed as %v rather than %v", seals, want)
		}
		if was, err := Last(f.cfg.Dir); err != nil || was != l.Head() || was.Lacking(Head{}) != 4 ||
			was.Lacking(was) != 0 || (Head{3, "x"}).Lacking(was) != 0 || (Head{4, "x"}).Lacking(was) != 1 {
			t.Errorf("the last line on the disk is %+v (%v), and the log's is %+v", was, err, l.Head())
		}
	})
}
