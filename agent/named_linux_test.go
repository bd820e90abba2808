package agent_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
)

// sleeper starts a process that does nothing, as a user.
func (h *house) sleeper(uid uint32) *exec.Cmd {
	h.t.Helper()
	cmd := exec.Command("sleep", "600")
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// hold acquires for a process, and refuses to go on without.
func (h *house) hold(cmd *exec.Cmd, token string) *wire.Lease {
	h.t.Helper()
	l, err := h.Acquire(context.Background(), wire.AcquireRequest{Pool: "streams", PID: int32(cmd.Process.Pid),
		ClientToken: token})
	if err != nil {
		h.t.Fatal(err)
	}
	return l
}

// refusedPID checks that an acquire is refused for the process that it names.
func refusedPID(t testing.TB, what string, err error, code client.Code, words string) {
	t.Helper()
	var p *client.Error
	if !errors.As(err, &p) || p.Code != string(code) || p.Field != "pid" || !strings.Contains(p.Detail, words) {
		t.Errorf("%s: %v, want %s for pid with %q", what, err, code, words)
	}
}

// A process that runs already holds what another acquires for it: until it dies, over the death of the agent, and no
// longer than that where it dies while the agent is down.
func TestNamedHolder(t *testing.T) {
	t.Parallel()
	for _, kernel := range []string{"", "6.1"} {
		t.Run("kernel "+kernel, func(t *testing.T) {
			c := openCrashing(t, 2, nil)
			if kernel != "" {
				c.kill()
				c.kernel = kernel
				c.run()
			}
			app, other := c.sleeper(0), c.sleeper(0)
			l := c.hold(app, "once")
			if l.Lifetime != "process" || l.Liveness != "sentpidfd" || int(l.Holder.PID) != app.Process.Pid ||
				filepath.Base(l.Holder.Exe) != "sleep" {
				t.Fatalf("the lease is %+v, held by %+v", l, l.Holder)
			}
			if again := c.hold(app, "once"); again.ID != l.ID {
				t.Errorf("the same again is lease %s, and was %s", again.ID, l.ID)
			}
			if _, err := c.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", ClientToken: "once",
				PID: int32(other.Process.Pid)}); !errors.Is(err, client.ErrTokenReused) {
				t.Errorf("another process, with its token: %v", err)
			}
			second := c.hold(other, "")
			c.inUse(2)
			c.kill()
			c.run()
			if got, err := c.Lease(t.Context(), l.ID); err != nil || got.State != "held" ||
				int(got.Holder.PID) != app.Process.Pid {
				t.Fatalf("after the agent's death: %+v, %v", got, err)
			}
			c.inUse(2)
			w := c.wait(t.Context(), wire.AcquireRequest{Pool: "streams", WaitSeconds: 60})
			killed := time.Now()
			app.Process.Kill()
			<-w.done
			if w.err != nil {
				t.Fatal(w.err)
			}
			t.Logf("%v after the kill", time.Since(killed))
			c.kill()
			other.Process.Kill()
			other.Wait()
			c.run()
			c.untilGone(second.ID)
			c.inUse(1)
		})
	}
}

// What cannot hold a lease does not: a dead process, one of another number than its pidfd, a number that is no
// process's but a thread's, and whatever lives by something else than its process.
func TestNamedRefused(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 2, nil))
	h.until("dropped", inForce("a"))
	app := h.sleeper(0)
	acquire := func(r wire.AcquireRequest) error {
		r.Pool = "streams"
		_, err := h.Acquire(t.Context(), r)
		return err
	}
	zombie := h.sleeper(0)
	pinned, err := client.OpenProcess(zombie.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer pinned.Close()
	zombie.Process.Kill()
	untilState(t, zombie.Process.Pid, "Z")
	_, err = h.AcquireFor(t.Context(), pinned, wire.AcquireRequest{Pool: "streams"})
	refusedPID(t, "a zombie", err, client.ErrBadRequest, "is dead")
	refusedPID(t, "a bare zombie", h.bare(fmt.Sprint(zombie.Process.Pid)), client.ErrBadRequest, "is dead")
	zombie.Wait()
	_, err = h.AcquireFor(t.Context(), pinned, wire.AcquireRequest{Pool: "streams"})
	refusedPID(t, "a dead process", err, client.ErrBadRequest, "is dead")
	refusedPID(t, "nobody's number", acquire(wire.AcquireRequest{PID: int32(zombie.Process.Pid)}),
		client.ErrBadRequest, "there is no process")
	refusedPID(t, "nobody's bare number", h.bare(fmt.Sprint(zombie.Process.Pid)), client.ErrBadRequest, "is dead")
	refusedPID(t, "no number", h.bare("-1"), client.ErrBadRequest, "pid is -1")
	for what, r := range map[string]wire.AcquireRequest{
		"a time to live": {TTLSeconds: 5}, "held": {Lifetime: "held"}, "a connection": {Lifetime: "connection"},
	} {
		r.PID = int32(app.Process.Pid)
		if err := acquire(r); !errors.Is(err, client.ErrBadRequest) || !strings.Contains(err.Error(), "lifetime") {
			t.Errorf("%s of a process that is named: %v", what, err)
		}
	}
	line := h.dial()
	if got := line.ask(fmt.Sprintf(
		`{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams","pid":%d}}`,
		app.Process.Pid)); !strings.Contains(got, "POST /v1/leases") {
		t.Errorf("in a session: %s", got)
	}
	h.inUse(0)
	p := h.play(namedScript)
	if got := p.ask(fmt.Sprintf("%d %d", app.Process.Pid, p.cmd.Process.Pid)); !strings.Contains(got,
		`"field":"pid"`) ||
		!strings.Contains(got, "the pidfd that was sent is process") {
		t.Errorf("a number and another's pidfd: %s", got)
	}
	if got := p.ask(fmt.Sprintf("%d %[1]d", app.Process.Pid)); !strings.Contains(got, `"liveness":"sentpidfd"`) {
		t.Errorf("a number and its pidfd: %s", got)
	}
	h.inUse(1)
}

// namedScript acquires for the process of a number, with a pidfd of that of another.
const namedScript = `
while True:
    pid, of = heard().split()
    s = session()
    body = json.dumps({"pool": "streams", "pid": int(pid)})
    socket.send_fds(s, [("POST /v1/leases HTTP/1.1\r\nHost: u\r\nConnection: close\r\n" +
        "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body).encode()],
        [os.pidfd_open(int(of))])
    say(s.makefile().read().splitlines()[-1])
`

// bare acquires by a number alone, with no pidfd beside it.
func (h *house) bare(pid string, through ...string) error {
	h.t.Helper()
	curl := append(through, "curl", "-sS", "--unix-socket", h.Socket(), "http://usher/v1/leases", "--json",
		`{"pool":"streams","pid":`+pid+`}`)
	out, err := exec.Command(curl[0], curl[1:]...).Output()
	e := &client.Error{}
	if err != nil || json.Unmarshal(out, &e.Problem) != nil {
		h.t.Fatalf("curl: %v: %s", err, out)
	}
	if e.Code == "" {
		return nil
	}
	return e
}

// A user may name processes of its own, and root anybody's. The lease is that of the process's user.
func TestNamedBySomebody(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		lacks(t, "only root can call as another user")
	}
	h := open(t, "")
	for name, mode := range map[string]os.FileMode{h.dir: 0o755, h.path("s"): 0o777} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	h.drop("a.lic", h.sign("a", 2, func(c *usher.Claims) {
		p := c.Pools["streams"]
		p.CountBy = "user"
		c.Pools["streams"] = p
	}))
	h.until("dropped", inForce("a"))
	body := func(pid int) string { return fmt.Sprintf(`{"pool":"streams","pid":%d}`, pid) }
	roots, own, owns, others := h.sleeper(0), h.sleeper(somebody), h.sleeper(somebody), h.sleeper(somebody+1)
	for what, pid := range map[string]int{"root's": roots.Process.Pid, "another user's": others.Process.Pid,
		"the agent's": os.Getpid(), "the first": 1} {
		if got := h.as(somebody, "POST", "/v1/leases", body(pid)); !strings.HasPrefix(got, "403 ") ||
			!strings.Contains(got, `"field":"pid"`) {
			t.Errorf("somebody names %s process: %s", what, got)
		}
	}
	// its saved uid is root's: it can be root again
	half := h.play(`os.setresuid(4711, 4711, 0); say("ready"); heard()`)
	half.hear()
	if got := h.as(somebody, "POST", "/v1/leases", body(half.cmd.Process.Pid)); !strings.HasPrefix(got, "403 ") {
		t.Errorf("somebody names a process that can be root: %s", got)
	}
	h.inUse(0)
	for _, uid := range []uint32{somebody, 0} {
		pid := map[uint32]int{somebody: own.Process.Pid, 0: owns.Process.Pid}[uid]
		got := h.as(uid, "POST", "/v1/leases", body(pid))
		if !strings.HasPrefix(got, "201 ") ||
			!strings.Contains(got, `"holder":{"uid":4711,"gid":4711,"pid":`+fmt.Sprint(pid)) ||
			!strings.Contains(got, `"liveness":"pidfd"`) {
			t.Errorf("uid %d names somebody's process: %s", uid, got)
		}
	}
	h.inUse(1) // both count as somebody's
	if got := h.as(somebody, "GET", "/v1/leases", ""); strings.Count(got, `"uid":4711`) != 2 {
		t.Errorf("somebody sees %s", got)
	}
	if l := h.hold(others, ""); l.Holder.UID != somebody+1 {
		t.Errorf("root's lease for another is %+v", l.Holder)
	}
	h.inUse(2)
	own.Process.Kill()
	owns.Process.Kill()
	h.inUse(1)
}

// A number means another process in another PID namespace, and a pidfd the same: the agent refuses the one, and takes
// the other, whether it sees the process or not.
func TestNamedInAnotherNamespace(t *testing.T) {
	t.Parallel()
	for _, unseen := range []bool{false, true} {
		t.Run(fmt.Sprintf("unseen %v", unseen), func(t *testing.T) {
			c := openCrashing(t, 3, nil)
			if unseen {
				c.kill()
				c.own()
				c.run()
			} else {
				here := c.through
				c.own()
				c.through, here = here, c.through
				c.inside(here)
			}
			app := c.sleeper(0)
			if unseen {
				refusedPID(t, "a bare number", c.bare(fmt.Sprint(app.Process.Pid)), client.ErrBadRequest,
					"PID namespace")
				refusedPID(t, "the agent's own number there", c.bare("1"), client.ErrBadRequest, "PID namespace")
				l := c.hold(app, "t")
				if l.Liveness != "sentpidfd" || l.Holder.PID != 0 {
					t.Errorf("the lease is %+v, held by %+v", l, l.Holder)
				}
				c.kill()
				c.run() // it cannot know of the process, which its caller shows once more
				if got, err := c.Lease(t.Context(), l.ID); err != nil || got.State != "unconfirmed" {
					t.Fatalf("after the agent's death: %+v, %v", got, err)
				}
				if again := c.hold(app, "t"); again.ID != l.ID || again.State != "held" {
					t.Errorf("shown again: %+v", again)
				}
			} else {
				c.hold(app, "")
			}
			c.inUse(1)
			app.Process.Kill()
			c.inUse(0)
		})
	}
}

// inside acquires in a PID namespace below the agent's.
func (c *crashing) inside(enter []string) {
	t := c.t
	t.Helper()
	refusedPID(t, "the first there", c.bare("1", enter...), client.ErrBadRequest, "PID namespace")
	sh := exec.Command(enter[0], append(enter[1:], "sh", "-c",
		`sleep 600 & "$0" --socket "$1" acquire --json --pool streams --pid $! && echo has it && read x`, c.bin,
		c.Socket())...)
	to, err := sh.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	sh.Stderr = os.Stderr
	out, err := sh.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	for said := bufio.NewScanner(out); said.Scan() && said.Text() != "has it"; {
	}
	c.inUse(1)
	all, err := c.Leases(t.Context(), "streams")
	if err != nil || len(all) != 1 || all[0].Holder.PID == 0 || all[0].Liveness != "sentpidfd" {
		t.Fatalf("the leases are %+v, %v", all, err)
	}
	app := int(all[0].Holder.PID) // as the agent sees it, and this test
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", app)); err != nil || string(b) != "sleep\n" {
		t.Errorf("process %d is %s, %v", app, b, err)
	}
	c.kill()
	c.run()
	c.inUse(1)
	syscall.Kill(app, syscall.SIGKILL)
	c.inUse(0)
	to.Close()
	sh.Wait()
}

// A number that has passed from a dead process to another is not taken for it.
func TestNamedRecycled(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can choose the number of a process")
	}
	const script = `
libc = ctypes.PyDLL(None, use_errno=True)
def again(pid):
    tid = (ctypes.c_int * 1)(pid)
    args = (ctypes.c_uint64 * 11)(0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(tid), 1, 0)
    n = libc.syscall(435, ctypes.byref(args), 88)
    if n < 0: say("error " + os.strerror(ctypes.get_errno())); sys.exit(1)
    return n
first = os.fork()
if first == 0: signal.pause()
say(first); heard()
os.kill(first, 9); os.waitpid(first, 0)
if again(first) == 0: signal.pause()
say("again"); heard()
`
	c := openCrashing(t, 2, nil)
	p := c.play(script)
	var pid int
	fmt.Sscan(p.hear(), &pid)
	was, err := client.OpenProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer was.Close()
	l, err := c.AcquireFor(t.Context(), was, wire.AcquireRequest{Pool: "streams", ClientToken: "t"})
	if err != nil {
		t.Fatal(err)
	}
	c.kill()
	if got := p.ask(""); got != "again" {
		t.Skipf("the number of a process cannot be chosen: %s", got)
	}
	c.run()
	c.untilGone(l.ID)
	_, err = c.AcquireFor(t.Context(), was, wire.AcquireRequest{Pool: "streams"})
	refusedPID(t, "the dead one", err, client.ErrBadRequest, "is dead")
	is, err := client.OpenProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer is.Close()
	if _, err := c.AcquireFor(t.Context(), is, wire.AcquireRequest{Pool: "streams", ClientToken: "t"}); !errors.Is(err,
		client.ErrTokenReused) {
		t.Errorf("the dead one's token, for another: %v", err)
	}
	if l, err := c.AcquireFor(t.Context(), is, wire.AcquireRequest{Pool: "streams"}); err != nil ||
		int(l.Holder.PID) != pid {
		t.Errorf("the one that runs: %+v, %v", l, err)
	}
}

// A process that dies while a slot is waited for on its behalf waits no longer.
func TestNamedWaits(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 1, nil))
	h.until("dropped", inForce("a"))
	first, second := h.sleeper(0), h.sleeper(0)
	h.hold(first, "")
	dies := h.wait(t.Context(), wire.AcquireRequest{Pool: "streams", WaitSeconds: 60, PID: int32(second.Process.Pid)})
	second.Process.Kill()
	<-dies.done
	refusedPID(t, "it died", dies.err, client.ErrBadRequest, "died while it waited")
	h.untilWaiting(0)
	third := h.sleeper(0)
	lives := h.wait(t.Context(), wire.AcquireRequest{Pool: "streams", WaitSeconds: 60, PID: int32(third.Process.Pid)})
	first.Process.Kill()
	<-lives.done
	if lives.err != nil || int(lives.lease.Holder.PID) != third.Process.Pid {
		t.Fatalf("it lives: %+v, %v", lives.lease, lives.err)
	}
	// Its user gives it back sooner.
	if err := h.Release(t.Context(), lives.lease.ID, false); err != nil {
		t.Fatal(err)
	}
	h.inUse(0)
}
