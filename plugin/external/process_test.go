//go:build linux

package external

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// patient is how long anything may take on a busy machine.
const patient = 60 * time.Second

// running is a plugin that behaves in one way, and its log.
type running struct {
	*Process
	t    testing.TB
	log  *syncBuffer
	stop func()
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func run(t testing.TB, how string, change func(*Config)) *running {
	t.Helper()
	path, sum := self(t)
	dir, err := os.MkdirTemp("", "p") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	log := &syncBuffer{}
	c := Config{Name: "test", Path: path, Args: []string{how}, SHA256: sum, Dir: dir,
		Log: slog.New(slog.NewTextHandler(log, nil)),
		Limits: Limits{Start: patient, Format: patient, Health: patient, Backoff: 10 * time.Millisecond,
			MaxWait: 100 * time.Millisecond}}
	if change != nil {
		change(&c)
	}
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := p.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	r := &running{Process: p, t: t, log: log}
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(patient):
			t.Error("it does not end")
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*/*")); len(left) > 0 {
			t.Errorf("it leaves %v behind", left)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *running) until(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(patient); !ok(); <-time.After(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not so after %s; the log is\n%s", what, patient, r.log)
		}
	}
}

func (r *running) verify(word string) (*enforcer.License, *enforcer.Problem) {
	l, p := r.Format().Verify([]byte("TEST "+word), anchors)
	return plugin.CheckVerified("test", anchors, l, p)
}

// good checks that the plugin works, after whatever it has been asked.
func (r *running) good() {
	r.t.Helper()
	r.until("it works", func() bool {
		l, p := r.verify("good")
		return p == nil && l.Pools["seats"].Max == 3
	})
}

func TestGood(t *testing.T) {
	t.Parallel()
	r := run(t, "good", nil)
	r.good()
	for doc, want := range map[string]bool{"TEST x": true, "": false, "other": false} {
		if got, err := r.Format().TryRecognise([]byte(doc)); got != want || err != nil {
			t.Errorf("%q is recognised: %t, %v", doc, got, err)
		}
	}
	if _, p := r.verify("bad"); p == nil || p.Code != enforcer.BadSignature || p.System != "test" {
		t.Errorf("got %+v", p)
	}
	if c := r.Upstream().Capabilities(); !c.Budget || !c.CheckIn || c.Deactivate {
		t.Errorf("got %+v", c)
	}
	if r.Starts() != 1 || !strings.Contains(r.log.String(), "version=1.2 protocol=1") {
		t.Errorf("%d starts; the log is %s", r.Starts(), r.log)
	}
	r.stop()
	if r.Up() || !strings.HasSuffix(strings.TrimSpace(r.log.String()), "protocol=1") {
		t.Errorf("it did not end as it should: %s", r.log)
	}
	if _, p := r.verify("good"); p == nil || p.Code != enforcer.Unavailable {
		t.Errorf("after the end: %+v", p)
	}
}

// A plugin's answer is input: nonsense is named as such, and is the plugin's fault and no document's.
func TestNonsense(t *testing.T) {
	t.Parallel()
	r := run(t, "good", nil)
	for word, want := range map[string]string{"nothing": "neither a licence nor a problem",
		"negative": "max of p is -7", "untrusted": "a key that is not in trust",
		"usher": "of another system", "huge": "has not the space"} {
		l, p := r.verify(word)
		if word == "huge" {
			want = "larger than 4194304 bytes"
		}
		if l != nil || p == nil || p.Code != enforcer.Unavailable || !strings.Contains(p.Reason, want) {
			t.Errorf("%s: %+v, %+v; want %q", word, l, p, want)
		}
	}
	if _, p := r.verify("endless"); p == nil || len(p.Reason) > 2048 ||
		strings.ContainsAny(p.Reason+p.Hint, "\n\x1b\x00") || !utf8.ValidString(p.Hint) {
		t.Errorf("endless: %d bytes", len(p.Reason))
	}
	r.good()
	if r.Starts() != 1 {
		t.Errorf("it was started %d times for nonsense", r.Starts())
	}
}

// Messages that no SDK writes.
func TestRawMessages(t *testing.T) {
	t.Parallel()
	r := run(t, "raw", nil)
	for doc, want := range map[string]string{`{`: "cannot be read", `[]`: "cannot be read",
		`{"id":"a","id":"b"}`: "cannot be read", `{"idd":"a"}`: "cannot be read",
		`{"pools":{"p":{}}}`: "no max", "{\"id\":\"\xff\"}": "cannot be read", `{"issued":7}`: "cannot be read",
		`{"id":"a"}`:                "system is missing",
		strings.Repeat("[", 100000): "cannot be read"} {
		l, p := r.Format().Verify([]byte(doc), anchors)
		l, p = plugin.CheckVerified("test", anchors, l, p)
		if l != nil || p == nil || p.Code != enforcer.Unavailable || !strings.Contains(p.Reason, want) {
			t.Errorf("%.40s: %+v, %+v; want %q", doc, l, p, want)
		}
	}
}

// It crashes and exits in the middle of a call, is started again, and works.
func TestCrash(t *testing.T) {
	t.Parallel()
	r := run(t, "good", nil)
	for i, word := range []string{"crash", "exit"} {
		r.good()
		l, p := r.verify(word)
		if l != nil || p == nil || p.Code != enforcer.Unavailable {
			t.Errorf("%s: %+v, %+v", word, l, p)
		}
		r.until("it is started again", func() bool { return r.Starts() >= i+2 })
	}
	r.good()
	if !strings.Contains(r.log.String(), "what is this?") || !strings.Contains(r.log.String(), "exit status 3") {
		t.Errorf("the log lacks why: %s", r.log)
	}
	// Killed from outside.
	n := r.Starts()
	if err := syscall.Kill(r.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.until("it is started again", func() bool { return r.Starts() > n })
	r.good()
}

// It hangs: the call ends in time, and the plugin is restarted.
func TestHang(t *testing.T) {
	t.Parallel()
	r := run(t, "good", func(c *Config) { c.Limits.Format = 2 * time.Second })
	r.good()
	n := r.Starts()
	l, p := r.verify("hang")
	if l != nil || p == nil || !strings.Contains(p.Reason, "not answered within 2 seconds") {
		t.Errorf("%+v, %+v", l, p)
	}
	r.until("it is restarted", func() bool { return r.Starts() > n })
	r.good()
}

// It stops altogether, without a call under way: its health tells.
func TestStopped(t *testing.T) {
	t.Parallel()
	r := run(t, "good", func(c *Config) { c.Limits.Health, c.Limits.Stop = time.Second, 100*time.Millisecond })
	r.good()
	n := r.Starts()
	if err := syscall.Kill(r.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r.until("it is restarted", func() bool { return r.Starts() > n })
	r.good()
}

// It floods its standard error: the log is bounded, and the call is answered.
func TestFlood(t *testing.T) {
	t.Parallel()
	began := time.Now()
	r := run(t, "good", nil)
	r.good()
	if l, p := r.verify("flood"); l == nil { // 12 MB
		t.Errorf("the flood's document is no good: %+v", p)
	}
	r.good()
	r.stop()
	most := (200 + linesPerSecond*int(time.Since(began).Seconds())) * maxLineLogged
	if n := len(r.log.String()); n > most || !strings.Contains(r.log.String(), "lines_dropped=") {
		t.Errorf("%d bytes were logged", n)
	}
}

// A plugin that does not end when asked is killed, and one that leaves its pipes to a child holds nobody up.
func TestEndsHard(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"stubborn", "heir"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			r := run(t, how, func(c *Config) { c.Limits.Stop = 500 * time.Millisecond })
			r.good()
			pid := r.PID()
			r.stop()
			r.until("nobody of its group lives", func() bool { return len(group(pid)) == 0 })
		})
	}
}

// group returns who lives of a process group; the dead that nobody has buried do not.
func group(pgid int) (alive []string) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		// pid (name) state ppid pgrp …: proc(5); the name may hold anything
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) > 2 && f[2] == fmt.Sprint(pgid) && f[0] != "Z" && f[0] != "X" {
			alive = append(alive, name)
		}
	}
	return alive
}

// The agent is killed, and a plugin that does not know of the end of its standard input ends all the same; and it does
// not end before, although the threads of the agent come and go.
func TestHostKilled(t *testing.T) {
	t.Parallel()
	path, _ := self(t)
	host := exec.Command(path)
	host.Env = append(os.Environ(), hostEnv+"=1")
	host.Stderr = os.Stderr
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	defer host.Process.Kill()
	var pid, again int
	if _, err := fmt.Fscan(out, &pid, &again); err != nil || pid != again || len(group(pid)) != 1 {
		t.Fatalf("the plugin is %d, and later %d, %v", pid, again, err)
	}
	if err := host.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	host.Wait()
	for deadline := time.Now().Add(patient); len(group(pid)) > 0; <-time.After(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the plugin has outlived its agent")
		}
	}
}

// The times of an answer are held against the licence time, however wrong the wall clock is.
func TestUpstreamByLicenceTime(t *testing.T) {
	t.Parallel()
	for years, fits := range map[int]bool{0: false, 150: true, 300: false} {
		r := run(t, "good", func(c *Config) { c.Now = func() time.Time { return time.Now().AddDate(years, 0, 0) } })
		r.good()
		// The plugin answers a check-in that is due in 200 years by the wall clock.
		if _, err := r.Upstream().Activate(t.Context(), &plugin.Request{LicenseID: "far"}); (err == nil) != fits {
			t.Errorf("the licence time is %d years ahead: %v", years, err)
		}
	}
}

func TestUpstream(t *testing.T) {
	t.Parallel()
	r := run(t, "good", func(c *Config) { c.Limits.Upstream = 2 * time.Second })
	r.good()
	u := r.Upstream()
	reply, err := u.Activate(t.Context(), &plugin.Request{LicenseID: "a", State: []byte("x")})
	if err != nil || string(reply.State) != "after x" {
		t.Errorf("%+v, %v", reply, err)
	}
	for id, want := range map[string]plugin.Error{
		"refused":     {Class: plugin.Refused, Code: enforcer.Suspended, Reason: "not paid", SystemCode: "E17"},
		"later":       {Class: plugin.Transient, Reason: "busy", RetryAfter: time.Minute},
		"bad refusal": {Class: plugin.Transient, Reason: "the answer has no known class or code: no   more"},
		"plain":       {Class: plugin.Transient, Reason: "dial tcp: no route"},
		"far":         {Class: plugin.Transient, Reason: "plugin test: its answer is impossible"},
		"hang":        {Class: plugin.Transient, Reason: "plugin test: it has not answered within 2 seconds"},
	} {
		_, err := u.Activate(t.Context(), &plugin.Request{LicenseID: id})
		e := (*plugin.Error)(nil)
		if !errors.As(err, &e) || e.Class != want.Class || e.Code != want.Code || e.RetryAfter != want.RetryAfter ||
			e.SystemCode != want.SystemCode || !strings.HasPrefix(e.Reason, want.Reason) {
			t.Errorf("%s: %+v", id, err)
		}
	}
	if _, err := u.Heartbeat(t.Context(), &plugin.Request{}); err == nil ||
		!strings.Contains(err.Error(), "transient") {
		t.Errorf("nothing as a reply: %v", err)
	}
	if _, err := u.CheckIn(t.Context(), &plugin.Request{State: make([]byte, 2048)}); err == nil ||
		!strings.Contains(err.Error(), "document has 2097152 bytes") {
		t.Errorf("a document of 2 MiB: %v", err)
	}
	ask := plugin.CheckOut{Pool: "seats", Slots: 5, For: time.Minute}
	if b, err := u.CheckOut(t.Context(), &ask); err != nil || b.Slots != 5 {
		t.Errorf("%+v, %v", b, err)
	}
	ask.Token = "more"
	if b, err := u.CheckOut(t.Context(), &ask); err == nil {
		t.Errorf("more than was asked: %+v", b)
	}
	if b, err := u.Extend(t.Context(), &plugin.Extend{Block: "b", For: time.Minute}); err == nil {
		t.Errorf("longer than was asked: %+v", b)
	}
	if err := u.Return(t.Context(), &plugin.Return{Block: "b"}); err != nil {
		t.Error(err)
	}
	if r.Starts() != 1 { // a network that hangs is no plugin that hangs
		t.Errorf("%d starts", r.Starts())
	}
	if _, err := u.Activate(t.Context(), &plugin.Request{LicenseID: "exit"}); err == nil ||
		!strings.Contains(err.Error(), "transient") {
		t.Errorf("exit: %v", err)
	}
	r.good()
}

// The agent's secrets do not reach a plugin.
func TestEnvironment(t *testing.T) {
	t.Setenv("USHER_LICENSE", "secret-licence")
	t.Setenv("HTTPS_PROXY", "http://proxy.example")
	r := run(t, "good", nil)
	_, p := r.verify("environment")
	if p == nil || strings.Contains(p.Reason, "secret-licence") || !strings.Contains(p.Reason, "proxy.example") {
		t.Errorf("%+v", p)
	}
}

// A file that others can change, or that is another one, is not started.
func TestFile(t *testing.T) {
	t.Parallel()
	path, sum := self(t)
	dir := t.TempDir()
	write := func(name string, mode os.FileMode) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good, open, inOpen := write("good", 0o755), write("open", 0o777), write("folder/plugin", 0o755)
	if err := os.Chmod(filepath.Dir(inOpen), 0o775); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(inOpen, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, want string
		sum        [32]byte
	}{
		{good, "", sum}, {good, "its SHA-256 is", [32]byte{}},
		{open, "can be changed by others (mode 0777); chmod go-w it", sum},
		{inOpen, "the folder " + filepath.Dir(inOpen) + " can be changed", sum},
		{link, "the folder " + filepath.Dir(inOpen) + " can be changed", sum}, {dir, "is not a regular file", sum},
		{"plugin", "must be absolute", sum}, {good + "x", "no such file", sum},
	} {
		p, err := New(Config{Name: "test", Path: c.path, SHA256: c.sum})
		if err != nil {
			t.Fatal(err)
		}
		err = p.Check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.path, err, c.want)
		}
	}
	for _, name := range []string{"", "Test", "te st", "../x", strings.Repeat("x", 33)} {
		if _, err := New(Config{Name: name}); err == nil {
			t.Errorf("the name %q is accepted", name)
		}
	}
}

// The log of a writer is bounded in lines, length and memory.
func TestLines(t *testing.T) {
	t.Parallel()
	bubble.Test(t, func(t *testing.T) { // the limit is for a second, whatever the machine takes
		var b bytes.Buffer
		l := newLines(slog.New(slog.NewTextHandler(&b, nil)))
		for i := range 10_000 {
			fmt.Fprintf(l, "line %d\n", i)
		}
		for range 1000 {
			l.Write(bytes.Repeat([]byte("x"), 10_000))
		}
		if cap(l.line) > 4*maxLineLogged {
			t.Errorf("it keeps %d bytes", cap(l.line))
		}
		l.end()
		if n := strings.Count(b.String(), "\n"); n < linesAtOnce || n > linesAtOnce+1 ||
			!strings.Contains(b.String(), "lines_dropped=") {
			t.Errorf("%d lines: %s", n, b.String())
		}
	})
}
