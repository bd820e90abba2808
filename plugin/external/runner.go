package external

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-plugin/runner"
)

// passed are the variables of the agent's environment that a plugin gets. A licence in USHER_LICENSE is not among them.
var passed = []string{"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SYSTEMROOT"}

// environment returns those variables that are set.
func environment() []string {
	var out []string
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); slices.Contains(passed, name) {
			out = append(out, kv)
		}
	}
	return out
}

// child is the plugin's process. go-plugin speaks with it; starting, waiting and killing are ours, because go-plugin's
// own way outlives an agent that is killed, and waits for pipes that a grandchild may hold.
type child struct {
	cmd            *exec.Cmd
	process        atomic.Pointer[os.Process] // once it runs; cmd is Start's own
	file           *os.File                   // the binary that was checked; the process runs this very file
	stdin          *os.File                   // open as long as the agent lives; its end ends the SDK
	stdout, stderr *os.File
	close          []*os.File // the child's ends
	done           chan struct{}
	err            error // how it ended; after done
}

var _ runner.Runner = (*child)(nil)

// newChild prepares a process of the binary that file is.
func newChild(path string, file *os.File, args, env []string) (*child, error) {
	c := &child{cmd: &exec.Cmd{Path: runnable(path, file), Args: append([]string{path}, args...), Env: env, Dir: "/"},
		file: file, done: make(chan struct{})}
	if runtime.GOOS == "windows" {
		c.cmd.Dir = ""
	}
	for _, p := range []struct {
		ours  **os.File
		child func(*os.File)
		reads bool
	}{
		{&c.stdin, func(f *os.File) { c.cmd.Stdin = f }, true},
		{&c.stdout, func(f *os.File) { c.cmd.Stdout = f }, false},
		{&c.stderr, func(f *os.File) { c.cmd.Stderr = f }, false},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			c.discard()
			return nil, err
		}
		ours, theirs := r, w
		if p.reads {
			ours, theirs = w, r
		}
		*p.ours = ours
		p.child(theirs)
		c.close = append(c.close, theirs)
	}
	contain(c.cmd)
	return c, nil
}

// discard closes what a child that was not started has open.
func (c *child) discard() {
	for _, f := range append(c.close, c.file, c.stdin, c.stdout, c.stderr) {
		if f != nil {
			f.Close()
		}
	}
}

// Start starts the process from a thread that lives as long as it does: the kernel ends the process when the thread
// that started it ends (PR_SET_PDEATHSIG), and Go ends idle threads.
func (c *child) Start(context.Context) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := c.cmd.Start()
		if err != nil {
			c.discard()
			started <- err
			return
		}
		for _, f := range append(c.close, c.file) {
			f.Close()
		}
		c.process.Store(c.cmd.Process)
		started <- nil
		reap(c.cmd.Process.Pid)
		c.err = c.cmd.Wait()
		close(c.done)
		c.stdin.Close()
		// Read what it has written last, but do not wait for others that hold its pipes.
		time.AfterFunc(pipesWithin, func() { c.stdout.Close(); c.stderr.Close() })
	}()
	return <-started
}

// pipesWithin is for how long the pipes of an ended process are read.
const pipesWithin = 500 * time.Millisecond

// kill ends the process and its group.
func (c *child) kill() {
	select {
	case <-c.done:
	default:
		killGroup(c.process.Load())
	}
}

func (c *child) Wait(context.Context) error {
	<-c.done
	return c.err
}

func (c *child) Kill(context.Context) error {
	if c.process.Load() != nil {
		c.kill()
	}
	return nil
}

func (c *child) Diagnose(context.Context) string {
	return "is it a plugin for Usher, built for this machine, and no script?"
}
func (c *child) Stdout() io.ReadCloser { return c.stdout }
func (c *child) Stderr() io.ReadCloser { return c.stderr }
func (c *child) Name() string          { return c.cmd.Args[0] }

func (c *child) ID() string {
	p := c.process.Load()
	if p == nil {
		return ""
	}
	return fmt.Sprint(p.Pid)
}

func (c *child) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

func (c *child) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}
