package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
)

// whole is an agent in a process of its own, with a licence for two streams.
type whole struct {
	t                *testing.T
	bin, dir, socket string
	agent            *exec.Cmd
}

// newWhole makes what an agent needs, and starts none.
func newWhole(t *testing.T) *whole {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	w := &whole{t: t, bin: bin, dir: t.TempDir()}
	w.socket = filepath.Join(w.dir, "s")
	for _, line := range []string{"vendor keygen --kid k --out " + w.dir, "vendor sign --key " + w.dir +
		"/k.key --product acme --scope host --limit streams=2 --out " + w.dir + "/lic/a.lic"} {
		if err := os.MkdirAll(w.dir+"/lic", 0o755); err != nil {
			t.Fatal(err)
		}
		if code, _, errs := tool(t, strings.Fields(line)...); code != 0 {
			t.Fatal(errs)
		}
	}
	text := fmt.Sprintf("product: acme\nlicense: {path: %[1]s/lic, trust: [{kid: k, key_file: %[1]s/k.pub}]}\n"+
		"socket: {path: %[1]s/s}\nstate: {dir: %[1]s/state, runtime_dir: %[1]s/run}\n", w.dir)
	if err := os.WriteFile(w.dir+"/u.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// start starts an agent, by another program if before says so.
func (w *whole) start(errs io.Writer, before ...string) {
	w.t.Helper()
	args := append(before, w.bin, "agent", "--config", w.dir+"/u.yaml")
	w.agent = exec.Command(args[0], args[1:]...)
	w.agent.Stderr = errs
	if err := w.agent.Start(); err != nil {
		w.t.Fatal(err)
	}
	agent := w.agent
	w.t.Cleanup(func() {
		agent.Process.Kill()
		agent.Wait()
	})
}

func (w *whole) ready() {
	w.t.Helper()
	if code, _, errs := tool(w.t, "health", "--ready", "--wait", "30s", "--socket", w.socket); code != 0 {
		w.t.Fatalf("the agent is not ready: %s", errs)
	}
}

// within waits until something is so.
func within(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end, rest := time.Now().Add(30*time.Second), pause(); !so(); rest() {
		if time.Now().After(end) {
			t.Fatalf("after half a minute: %s", what)
		}
	}
}

var signalLines = regexp.MustCompile(`(?m)^(SigIgn|SigBlk):\s*([0-9a-f]+)$`)

// What `usher run` becomes ignores and blocks the signals that it was started to ignore and block.
func TestRunPassesSignalsOn(t *testing.T) {
	t.Parallel()
	w := newWhole(t)
	w.start(nil)
	w.ready()
	for _, with := range []string{"--ignore-signal=INT,QUIT,HUP,PIPE,TERM,USR1", "--ignore-signal=PIPE",
		"--ignore-signal=TERM,CHLD", "--block-signal=USR1,TERM,INT,WINCH", "--default-signal"} {
		const word = "agent" // the entry looks for it
		see := func(args ...string) string {
			out, err := exec.Command("env",
				append(append([]string{with}, args...), "sh", "-c", "exec cat /proc/self/status", word)...).Output()
			if err != nil {
				t.Fatalf("%s %v: %v", with, args, err)
			}
			return fmt.Sprint(signalLines.FindAllString(string(out), -1))
		}
		direct, run := see(), see(w.bin, "run", "--socket", w.socket, "--pool", "streams", "--")
		if runtime.GOARCH != "amd64" && strings.Contains(with, "ignore") {
			continue // docs/liveness.md says so
		}
		if direct != run || !strings.Contains(direct, "SigIgn") {
			t.Errorf("%s: a program has %s, and by `usher run` %s", with, direct, run)
		}
	}
}

// An agent whose log reader is gone goes on, also when it is PID 1, for which Go's runtime has rules of its own.
func TestLogReaderDies(t *testing.T) {
	t.Parallel()
	for name, before := range map[string][]string{"": nil, "SIGPIPE is ignored": {"env", "--ignore-signal=PIPE"},
		"PID 1": {"unshare", "--fork", "--pid", "--kill-child"}} {
		t.Run(name, func(t *testing.T) {
			if name == "PID 1" && os.Geteuid() != 0 {
				t.Skip("only root makes PID namespaces")
			}
			w := newWhole(t)
			r, errs, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			w.start(errs, before...)
			errs.Close()
			w.ready()
			r.Close()
			for i := range 3 { // each is logged
				name := fmt.Sprintf("junk%d.lic", i)
				if err := os.WriteFile(w.dir+"/lic/"+name, []byte("junk"), 0o600); err != nil {
					t.Fatal(err)
				}
				within(t, "the agent says nothing of "+name, func() bool {
					_, out, _ := tool(t, "license", "list", "--socket", w.socket)
					return strings.Contains(out, name)
				})
			}
			if code, _, errs := tool(t, "status", "--socket", w.socket); code != 0 {
				t.Errorf("status ends with %d: %s", code, errs)
			}
		})
	}
}

// As PID 1 the agent reaps the children of others that end.
func TestFirstProcessReaps(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root makes PID namespaces")
	}
	w := newWhole(t)
	// The orphan's parent is gone when it ends, and its new one is the agent, by exec.
	script := `(sh -c 'echo $$; exec sleep 0.3' & exec true) ; exec "$@"`
	w.agent = exec.Command("unshare", "--fork", "--pid", "--mount-proc", "--kill-child", "sh", "-c", script, "sh",
		w.bin,
		"agent", "--config", w.dir+"/u.yaml")
	w.agent.Stdout = io.Discard
	if err := w.agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.agent.Process.Kill()
		w.agent.Wait()
	})
	w.ready()
	within(t, "the agent has a zombie", func() bool {
		inside, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", w.agent.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		of, err := os.ReadFile("/proc/" + strings.TrimSpace(string(inside)) + "/task/" +
			strings.TrimSpace(string(inside)) +
			"/children")
		return err == nil && strings.TrimSpace(string(of)) == ""
	})
}

// placeTold is a line by which a command says where it stands in the queue.
var placeTold = regexp.MustCompile(`(?m)^waiting for streams: position 1.*\n`)

// A command that waits and is interrupted ends with 130, as a shell expects, and says nothing of that; what it waited
// for is not taken.
func TestInterruptedWhileWaiting(t *testing.T) {
	t.Parallel()
	w := newWhole(t)
	w.start(nil)
	w.ready()
	held, err := client.Open(t.Context(), client.WithSocket(w.socket))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, err := held.Acquire(t.Context(), client.Slots("streams", 2)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"run", "--pool", "streams", "--wait", "1h", "--", "true"},
		{"acquire", "--pool", "streams", "--wait", "1h"}, {"events", "-f"}} {
		for s, want := range map[os.Signal]int{os.Interrupt: 130, syscall.SIGTERM: 143} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			cmd := exec.CommandContext(ctx, w.bin, append([]string{args[0], "--socket", w.socket}, args[1:]...)...)
			var errs strings.Builder
			cmd.Stderr = &errs
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if args[0] == "events" {
				_, _ = bufio.NewReader(out).ReadString('\n')
			} else {
				within(t, "nobody waits", func() bool {
					p, err := client.New(w.socket).Pool(ctx, "streams")
					return err == nil && p.Waiting > 0
				})
			}
			if err := cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			err = cmd.Wait()
			var e *exec.ExitError
			if args[0] == "events" && err == nil {
				want = 0 // it is done when it is told to
			}
			said := placeTold.ReplaceAllString(errs.String(), "") // it may have been told its place by then
			if code := cmd.ProcessState.ExitCode(); code != want || err != nil && !errors.As(err, &e) || said != "" {
				t.Errorf("%v after %v: %d, want %d: %v %s", args, s, code, want, err, said)
			}
			cancel()
		}
	}
}
