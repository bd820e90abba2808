package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/agent"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// player is a product that a script plays: it does what it is told, a line each, and says what came of it.
type player struct {
	t   testing.TB
	cmd *exec.Cmd
	to  io.Writer
	in  *bufio.Scanner
}

// product begins every script: ask sends a request on the session s and returns the answer.
const product = `import ctypes, json, os, signal, socket, sys, threading, time
def session():
    s = socket.socket(socket.AF_UNIX)
    while s.connect_ex(sys.argv[1]): time.sleep(0.01)  # no agent listens yet
    return s
def send(s, method, **params):
    s.sendall((json.dumps({"jsonrpc":"2.0","id":1,"method":method,"params":params})+"\n").encode())
def ask(s, method, **params):
    send(s, method, **params); return s.makefile().readline().strip()
def say(text): print(text, flush=True)
def heard(): return sys.stdin.readline().strip()
`

func (h *house) play(script string) *player {
	h.t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		lacks(h.t, "there is no python3, which plays the product")
	}
	cmd := exec.Command("python3", "-c", product+script, h.Socket())
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	to, err := cmd.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		cmd.Wait()
	})
	return &player{h.t, cmd, to, bufio.NewScanner(out)}
}

func (p *player) hear() string {
	p.t.Helper()
	if !p.in.Scan() {
		p.t.Fatalf("the product says nothing: %v", p.in.Err())
	}
	return p.in.Text()
}

func (p *player) ask(text string) string {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.to, text); err != nil {
		p.t.Fatal(err)
	}
	return p.hear()
}

// untilState waits until a process's main thread is in one of the states of proc(5).
func untilState(t testing.TB, pid int, states string) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if i := bytes.LastIndexByte(b, ')'); err == nil && i >= 0 && strings.IndexByte(states, b[i+2]) >= 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d is not in a state of %s: %s, %v", pid, states, b, err)
		}
		<-time.After(time.Millisecond)
	}
}

// untilStopped waits until every thread of a process is stopped: each stops when it next notices the signal.
func untilStopped(t testing.TB, pid int) {
	t.Helper()
	untilState(t, pid, "T")
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("the threads of process %d: %v", pid, err)
	}
	for _, task := range tasks {
		if tid, err := strconv.Atoi(filepath.Base(task)); err == nil && tid != pid {
			untilState(t, tid, "T")
		}
	}
}

// pause stops the agent until the returned function is called.
func (c *crashing) pause() (goOn func()) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		c.t.Fatal(err)
	}
	untilStopped(c.t, c.cmd.Process.Pid)
	return func() {
		c.t.Helper()
		if err := c.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			c.t.Fatal(err)
		}
	}
}

// A process that bears a dead holder's number has nothing of it: not while the agent runs, not when the agent could not
// look while one became the other, and not when the agent was down then.
func TestRecycledPID(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can choose the number of a process")
	}
	// clone3(2) with set_tid makes a process of a given number.
	const script = `
libc = ctypes.PyDLL(None, use_errno=True)
def again(pid):
    tid = (ctypes.c_int * 1)(pid)
    args = (ctypes.c_uint64 * 11)(0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(tid), 1, 0)
    n = libc.syscall(435, ctypes.byref(args), 88)
    if n < 0: say("error " + os.strerror(ctypes.get_errno())); sys.exit(1)
    return n
first = os.fork()
if first == 0:
    s = session(); say(ask(s, "lease.acquire", pool="streams")); signal.pause()
old = heard()
os.kill(first, 9); os.waitpid(first, 0)
if again(first) == 0:
    say(os.getpid()); s = session(); send(s, "lease.attach", id=old)
    f = s.makefile(); say(f.readline().strip())
    send(s, "lease.acquire", pool="streams"); say(f.readline().strip())
    signal.pause()
os.waitpid(first, 0)
`
	for _, how := range []string{"running", "stopped", "down"} {
		t.Run(how, func(t *testing.T) {
			c := openCrashing(t, 2, nil)
			p := c.play(script)
			l := lease(t, p.hear())
			if l.Liveness == "connection" {
				t.Skip("this kernel does not tell when a process dies")
			}
			goOn := func() {}
			switch how {
			case "stopped":
				goOn = c.pause()
			case "down":
				c.kill()
			}
			got := p.ask(l.ID)
			if strings.HasPrefix(got, "error ") {
				t.Skipf("the number of a process cannot be chosen: %s", got)
			}
			if got != fmt.Sprint(l.Holder.PID) {
				t.Fatalf("process %s bears not the number of %d", got, l.Holder.PID)
			}
			if how == "down" {
				c.run()
			}
			goOn()
			if got := p.hear(); !strings.Contains(got, `"error"`) {
				t.Errorf("it is given the dead holder's lease: %s", got)
			}
			own := lease(t, p.hear())
			if own.ID == l.ID || own.Holder.PID != l.Holder.PID {
				t.Errorf("its own lease is %+v", own)
			}
			c.inUse(1) // the dead one's is over, its own is not
			if got, err := c.Lease(t.Context(), l.ID); !errors.Is(err, client.ErrLeaseUnknown) {
				t.Errorf("the dead holder's lease: %+v, %v", got, err)
			}
			if got, err := c.Lease(t.Context(), own.ID); err != nil || got.State != "held" {
				t.Errorf("its own lease: %+v, %v", got, err)
			}
			if err := unix.Kill(int(own.Holder.PID), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			c.inUse(0)
		})
	}
}

// Who asks and dies before the agent has taken the connection keeps nothing.
func TestDeadBeforeAccept(t *testing.T) {
	t.Parallel()
	c := openCrashing(t, 1, nil)
	p := c.play(`
heard(); s = session(); send(s, "lease.acquire", pool="streams"); say("asked"); os._exit(0)
`)
	goOn := c.pause()
	if got := p.ask("go"); got != "asked" {
		t.Fatal(got)
	}
	if err := p.cmd.Wait(); err != nil { // dead and reaped: nothing is left of it but the connection
		t.Fatal(err)
	}
	goOn()
	l, err := c.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", WaitSeconds: 20})
	if err != nil {
		t.Fatal(err)
	}
	c.inUse(1)
	c.release(l)
	c.inUse(0)
}

// A process lives as long as one of its threads does: neither the end of the thread that asked nor that of the first is
// its death, for a running agent or for one that comes back.
func TestThreadsEnd(t *testing.T) {
	t.Parallel()
	c := openCrashing(t, 2, nil)
	p := c.play(`
def asks():
    global s
    s = session(); say(ask(s, "lease.acquire", pool="streams"))
t = threading.Thread(target=asks); t.start(); t.join()
def lives():
    say(heard()); os._exit(0)
threading.Thread(target=lives).start()
ctypes.CDLL(None).syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)  # exit(2), of this thread alone
`)
	l := lease(t, p.hear())
	if l.Liveness == "connection" {
		t.Skip("this kernel does not tell when a process dies")
	}
	pid := p.cmd.Process.Pid
	untilState(t, pid, "Z") // the first thread has ended
	// Another holder's death is told after whatever was to be told of this one.
	cmd, _, _ := c.holder(`{"pool":"streams"}`)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.inUse(1)
	held := func(when string) {
		t.Helper()
		if got, err := c.Lease(t.Context(), l.ID); err != nil || got.State != "held" {
			t.Errorf("%s: %+v, %v", when, got, err)
		}
	}
	held("after the threads' ends")
	c.kill()
	c.run()
	held("after a restart")
	if got := p.ask("end"); got != "end" {
		t.Fatal(got)
	}
	c.inUse(0)
}

// An agent without a descriptor left serves those it knows and watches them on, does not spin over those it cannot
// take, and takes them when it can.
func TestNoDescriptors(t *testing.T) {
	t.Parallel()
	c := openCrashing(t, 2, nil)
	c.kill()
	var err error
	if c.log, err = os.Create(c.path("log")); err != nil {
		t.Fatal(err)
	}
	defer c.log.Close()
	c.run()
	cmd, dying, _ := c.holder(`{"pool":"streams"}`)
	known := c.dial()
	own := lease(t, known.ask(`{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams"}}`))
	if dying.Liveness == "connection" {
		t.Skip("this kernel does not tell when a process dies")
	}
	pid := c.cmd.Process.Pid
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = 3 // what is open stays open
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &few, nil); err != nil {
		t.Skipf("the limit of another process cannot be set: %v", err)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	stranger := client.New(c.Socket())
	defer stranger.Close()
	_, err = stranger.Pools(ctx)
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, client.ErrAgentAway) {
		t.Errorf("of a new caller: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(60 * time.Second)
	for {
		got := known.ask(`{"jsonrpc":"2.0","id":2,"method":"pools.list"}`)
		if strings.Contains(got, `"in_use":1,`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the dead holder's slot is not given back: %s", got)
		}
	}
	if got := lease(t, known.ask(
		`{"jsonrpc":"2.0","id":3,"method":"lease.acquire","params":{"pool":"streams"}}`)); got.ID == own.ID {
		t.Errorf("got %+v", got)
	}
	elapsed := time.Since(began)
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if got, err := stranger.Lease(ctx, own.ID); err != nil || got.State != "held" {
		t.Errorf("when there are descriptors again: %+v, %v", got, err)
	}
	// It tries again after 1 ms, 2 ms and so on, and then every second.
	log, err := os.ReadFile(c.log.Name())
	if err != nil {
		t.Fatal(err)
	}
	n := bytes.Count(log, []byte("a connection could not be accepted"))
	if most := 13 + int(elapsed/time.Second); n == 0 || n > most {
		t.Errorf("it tried %d times in %v, at most %d are right", n, elapsed, most)
	}
}

// Of agents that are started at one time for one socket, each with a state of its own, one has it, and the others say
// why they do not; so, too, over the socket that a killed one has left.
func TestAgentsRaceForASocket(t *testing.T) {
	t.Parallel()
	const agents = 4
	c := openCrashing(t, 1, nil)
	c.kill()
	for range 3 {
		type end struct {
			i   int
			err error
		}
		ended := make(chan end, agents)
		var all [agents]*exec.Cmd
		var said [agents]bytes.Buffer
		for i := range agents {
			cmd := exec.Command(c.bin, "agent", "--config", c.path("usher.yaml"), "--log-level", "error")
			cmd.Env = append(os.Environ(), fmt.Sprintf("USHER_STATE_DIR=%s%d", c.path("state"), i),
				fmt.Sprintf("USHER_STATE_RUNTIME_DIR=%s%d", c.path("run"), i))
			cmd.Stderr = &said[i]
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { cmd.Process.Kill() })
			all[i] = cmd
			go func() { ended <- end{i, cmd.Wait()} }()
		}
		won := map[int]bool{0: true, 1: true, 2: true, 3: true}
		for range agents - 1 {
			select {
			case e := <-ended:
				delete(won, e.i)
				if e.err == nil || !strings.Contains(said[e.i].String(), "listens on it") {
					t.Errorf("agent %d: %v: %s", e.i, e.err, &said[e.i])
				}
			case <-time.After(60 * time.Second):
				t.Fatalf("%d agents run", len(won))
			}
		}
		for i := range won {
			c.until("one agent answers", inForce("a"))
			if err := all[i].Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if e := <-ended; e.i != i {
				t.Fatalf("agent %d ends, and not %d", e.i, i)
			}
		}
		c.Close()
	}
}

// A state folder that cannot be written is said before anything is granted.
func TestReadOnlyState(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_RDONLY, ""); err != nil {
		lacks(t, "a disk cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	h := open(t, "")
	h.stop()
	for _, name := range []string{"USHER_STATE_DIR", "USHER_STATE_RUNTIME_DIR"} {
		h.env = []string{name + "=" + disk + "/state"}
		cfg, err := h.load()
		if err != nil {
			t.Fatal(err)
		}
		_, err = agent.New(agent.Options{Config: cfg, Load: h.load, Version: "test"})
		if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), disk) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
