package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/agent"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/cmd/usher/internal/doctor"
)

// ward is an agent's house in which faults are made, and which the doctor visits.
type ward struct {
	*testing.T
	dir  string
	bin  string   // the program
	env  []string // of the agent, besides this process's
	args []string // of the doctor, besides --config
	root string   // the folder with the units of the host; empty: this host's
	now  func() time.Time
	// version is of the agent within the test; empty: that of this command.
	version string
	// socket and state are of the configuration, which configure writes.
	socket, state string
	ended         map[*exec.Cmd]chan struct{}
}

// stranger is a user that no account has.
const stranger = 61234

func newWard(t *testing.T) *ward {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "w") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &ward{T: t, dir: dir, bin: bin, socket: filepath.Join(dir, "s"), state: filepath.Join(dir, "state"),
		ended: map[*exec.Cmd]chan struct{}{}}
	w.must(os.Chmod(dir, 0o755))
	for _, sub := range []string{"l", "keys", "other"} {
		w.must(os.Mkdir(w.path(sub), 0o755))
	}
	w.usher(0, "vendor", "keygen", "--kid", "k1", "--out", w.path("keys"))
	w.configure("", "")
	return w
}

func (w *ward) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *ward) path(name string) string { return filepath.Join(w.dir, name) }

// configure writes the configuration. socket is more of its section, and rest more sections.
func (w *ward) configure(socket, rest string) {
	w.Helper()
	w.write("u.yaml", fmt.Sprintf(
		"product: acme\nlicense: {path: %[1]s/l, trust: [{kid: k1, key_file: %[1]s/keys/k1.pub}]}\n"+
			"socket: {path: %[2]s%[3]s}\nstate: {dir: %[4]s, runtime_dir: %[1]s/run}\n%[5]s", w.dir, w.socket, socket,
		w.state, rest))
}

func (w *ward) write(name, text string) string {
	w.Helper()
	w.must(os.WriteFile(w.path(name), []byte(text), 0o644))
	return w.path(name)
}

// append adds to a file.
func (w *ward) append(name, text string) {
	w.Helper()
	w.write(name, read(w.T, w.path(name))+text)
}

// usher runs the tool, which must exit with a code.
func (w *ward) usher(want int, args ...string) string {
	w.Helper()
	var out, errs strings.Builder
	if code := run(args, strings.NewReader(""), &out, &errs); code != want {
		w.Fatalf("usher %s: exit %d, want %d\n%s%s", strings.Join(args, " "), code, want, out.String(), errs.String())
	}
	return out.String()
}

// sign puts a licence into the folder.
func (w *ward) sign(name string, more ...string) {
	w.Helper()
	w.usher(0, over([]string{"vendor", "sign", "--key", w.path("keys/k1.key"), "--product", "acme", "--licensee", "L",
		"--limit", "streams=2", "--scope", "host", "--out", w.path("l/" + name)}, more...)...)
	w.must(os.Chmod(w.path("l/"+name), 0o644))
}

// unit makes the configuration that of an instance's unit, whose agent runs as a user.
func (w *ward) unit(user string) {
	w.Helper()
	w.root = w.path("root")
	units := filepath.Join(w.root, "etc/systemd/system")
	w.must(os.MkdirAll(units, 0o755))
	w.must(os.WriteFile(filepath.Join(units, "usher@u.service"), fmt.Appendf(nil,
		"[Service]\nUser=%s\nExecStart=/usr/bin/usher agent --config %s/u.yaml\n", user, w.dir), 0o644))
}

// command is the agent, of another configuration if args say so.
func (w *ward) command(args ...string) *exec.Cmd {
	args = append([]string{"agent", "--config", w.path("u.yaml")}, args...)
	cmd := exec.Command(w.bin, args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "USHER_") }),
		w.env...)
	return cmd
}

// start starts the agent, and waits until it is ready. It ends with the test.
func (w *ward) start(cmd *exec.Cmd) *exec.Cmd {
	w.Helper()
	log := &bytes.Buffer{}
	cmd.Stderr = log
	w.must(cmd.Start())
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	w.ended[cmd] = ended
	w.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		if w.Failed() {
			w.Logf("the agent's log:\n%s", log)
		}
	})
	c := client.New(w.socket)
	defer c.Close()
	for until := time.Now().Add(time.Minute); ; {
		if ok, err := c.Ready(w.Context()); err == nil && ok {
			return cmd
		}
		select {
		case <-ended:
			w.Fatalf("the agent has ended\n%s", log)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(until) {
			w.Fatalf("the agent is not ready\n%s", log)
		}
	}
}

// listen listens on the agent's socket, as the service manager does.
func (w *ward) listen() *net.UnixListener {
	w.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: w.socket, Net: "unix"})
	w.must(err)
	w.Cleanup(func() { l.Close() })
	return l
}

// run starts the agent as it is configured.
func (w *ward) run() *exec.Cmd {
	w.Helper()
	return w.start(w.command())
}

// inProcess runs the agent within the test, by a clock of its own.
func (w *ward) inProcess(now func() time.Time) {
	w.Helper()
	w.now = now
	load := func() (*config.Config, error) { return config.Load(config.Source{File: w.path("u.yaml")}) }
	cfg, err := load()
	w.must(err)
	a, err := agent.New(agent.Options{Config: cfg, Load: load, Version: cmp.Or(w.version, version), Now: now})
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	w.Cleanup(func() { cancel(); <-ended })
	select {
	case <-a.Ready():
	case <-time.After(time.Minute):
		w.Fatal("the agent is not ready")
	}
}

// acquire takes slots, which stay until the test's end.
func (w *ward) acquire(n int64) {
	w.Helper()
	c := client.New(w.socket)
	defer c.Close()
	_, err := c.Acquire(w.Context(), wire.AcquireRequest{Pool: "streams", N: &n, TTLSeconds: 3600})
	w.must(err)
}

// until waits until the agent's licence is as it is wanted.
func (w *ward) until(what string, ok func(*wire.License) bool) {
	w.Helper()
	c := client.New(w.socket)
	defer c.Close()
	var l *wire.License
	for until, rest := time.Now().Add(time.Minute), pause(); time.Now().Before(until); rest() {
		var err error
		if l, err = c.License(w.Context()); err == nil && ok(l) {
			return
		}
	}
	w.Fatalf("the licence never was %s: %+v", what, l)
}

// patient is a command that waits for each answer as long as a busy machine may take: what is silent is a finding.
func patient(args ...string) []string { return append(args, "--timeout", "1m") }

// doctor has the doctor visit, and returns what it says, line by line.
func (w *ward) doctor() []string {
	w.Helper()
	if w.now != nil {
		var out []string
		load := func() (*config.Config, error) { return config.Load(config.Source{File: w.path("u.yaml")}) }
		for _, f := range doctor.Examine(w.Context(),
			doctor.Options{Version: version, Load: load, File: w.path("u.yaml"),
				Now: w.now, Within: time.Minute}) {
			out = append(out, f.String())
		}
		return out
	}
	args := append(patient("doctor", "--config", w.path("u.yaml")), w.args...)
	_, out, errs := onHost(w.T, w.root, args...)
	return strings.Split(strings.TrimSpace(out+errs), "\n")
}

// doctorAs has the doctor visit as another user, or otherwise changed.
func (w *ward) doctorAs(change func(*exec.Cmd)) []string {
	w.Helper()
	cmd := exec.Command(w.bin, append(patient("doctor", "--config", w.path("u.yaml")), w.args...)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "USHER_") })
	cmd.Dir = "/"
	change(cmd)
	out, _ := cmd.CombinedOutput() // its code says whether something is bad
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func asStranger(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger}}
}

// disk mounts a small file system.
func (w *ward) disk(name, size string) string {
	w.Helper()
	at := w.path(name)
	w.must(os.Mkdir(at, 0o755))
	if err := syscall.Mount("tmpfs", at, "tmpfs", 0, "size="+size+",mode=755"); err != nil {
		w.Skipf("a small disk cannot be mounted: %v", err)
	}
	w.Cleanup(func() {
		if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil {
			w.Error(err)
		}
	})
	return at
}

// fill leaves so many bytes of a file system.
func (w *ward) fill(at string, leave int64) {
	w.Helper()
	var s unix.Statfs_t
	w.must(unix.Statfs(at, &s))
	f, err := os.Create(filepath.Join(at, "filler"))
	w.must(err)
	defer f.Close()
	w.must(unix.Fallocate(int(f.Fd()), 0, 0, int64(s.Bavail)*s.Bsize-leave))
}

// kill ends the agent at once.
func (w *ward) kill(cmd *exec.Cmd) {
	w.Helper()
	w.must(cmd.Process.Kill())
	<-w.ended[cmd]
}

// give gives the agent's own folders to a user, as the service manager does.
func (w *ward) give(names ...string) {
	w.Helper()
	for _, name := range names {
		w.must(os.Mkdir(w.path(name), 0o700))
		w.must(os.Chown(w.path(name), stranger, stranger))
	}
}

func ownerAndMode(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d:%d %o", st.Uid, st.Gid, st.Mode&0o7777)
}

// hog becomes the stranger, takes all inotify instances of that user, says so, and keeps them until its input ends.
func hog() {
	if err := syscall.Setuid(stranger); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for {
		if _, err := unix.InotifyInit(); err != nil {
			break
		}
	}
	fmt.Println("full")
	io.Copy(io.Discard, os.Stdin)
}
