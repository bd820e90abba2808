package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// sickDisk has every fsync of a running agent fail with EIO, as on a disk that dies, until well.
func sickDisk(t *testing.T, pid int) (well func()) {
	t.Helper()
	return traced(t, pid, "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO")
}

// straceOf returns the program strace(1).
func straceOf(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		lacks(t, "the test needs strace: %v", err)
	}
	return path
}

// traced has strace meddle with a running agent, until well.
func traced(t *testing.T, pid int, how ...string) (well func()) {
	t.Helper()
	strace := straceOf(t)
	out := filepath.Join(t.TempDir(), "strace")
	cmd := exec.Command(strace, append([]string{"-f", "-o", out, "-p", fmt.Sprint(pid)}, how...)...)
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	well = func() {
		_ = cmd.Process.Signal(os.Interrupt)
		<-ended
	}
	t.Cleanup(well)
	within(t, "strace does not see the agent's every thread", func() bool {
		select {
		case <-ended:
			if strings.Contains(errs.String(), "not permitted") {
				lacks(t, "no process may be traced here: %s", errs.String())
			}
			t.Fatal(errs.String())
		default:
		}
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		traced := 0
		for _, name := range tasks {
			if b, err := os.ReadFile(name); err == nil && !strings.Contains(string(b), "\nTracerPid:\t0\n") {
				traced++
			}
		}
		return err == nil && traced > 0 && traced == len(tasks)
	})
	return well
}

// surfaces says what each way on which an operator may look says of the journal; true: that it is not well.
func (w *whole) surfaces(c *client.Client, readyz string) map[string]bool {
	w.t.Helper()
	ctx := w.t.Context()
	said := map[string]bool{}
	res, err := http.Get(readyz)
	if err != nil {
		w.t.Fatal(err)
	}
	res.Body.Close()
	said["readyz"] = res.StatusCode == http.StatusServiceUnavailable
	ready, err := c.Ready(ctx)
	said["GET /v1/ready"] = err == nil && !ready
	for _, line := range []string{"health --ready", "status", "check", "doctor --config " + w.dir + "/u.yaml"} {
		code, out, errs := tool(w.t, append(strings.Fields(line), "--socket", w.socket)...)
		said[line] = strings.Contains(out+errs, "input/output error") && strings.Contains(out+errs, "journal") &&
			(code != 0 || line == "status")
	}
	m, err := c.Metrics(ctx)
	said["metrics"] = err == nil && strings.Contains(string(m), "\nusher_vital_fault{part=\"journal\"} 1\n")
	return said
}

// metered starts an agent with a pool, a meter, and an address for operators. logged returns what it has logged.
func metered(t *testing.T) (w *whole, log *os.File, logged func() string, readyz string) {
	t.Helper()
	w = newWhole(t)
	if code, _, errs := tool(t, "vendor", "sign", "--key", w.dir+"/k.key", "--product", "acme", "--scope", "host",
		"--limit", "streams=99", "--meter", "renders=99", "--out", w.dir+"/lic/a.lic", "--force"); code != 0 {
		t.Fatal(errs)
	}
	config, err := os.ReadFile(w.dir + "/u.yaml")
	if err == nil {
		err = os.WriteFile(w.dir+"/u.yaml", append(config, "ops: {listen: 127.0.0.1:0}\n"...), 0o600)
	}
	log, err2 := os.Create(w.dir + "/log")
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	logged = func() string {
		b, err := os.ReadFile(log.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	w.start(log)
	w.ready()
	at := regexp.MustCompile(`operators' listener" address=(\S+)`).FindStringSubmatch(logged())
	if at == nil {
		t.Fatal(logged())
	}
	return w, log, logged, "http://" + at[1] + "/readyz"
}

// A disk on which nothing can be made to last denies what must last, and every surface says so, for as long as it is so
// and no longer: the agent heals without a restart. What it has acknowledged before, meanwhile and after, the next
// start knows.
func TestJournalHealsWithTheDisk(t *testing.T) {
	t.Parallel()
	w, log, logged, readyz := metered(t)
	c := client.New(w.socket)
	defer c.Close()
	take := func(pool, lifetime string) (*wire.Lease, error) {
		return c.Acquire(t.Context(), wire.AcquireRequest{Pool: pool, Lifetime: lifetime})
	}
	must := func(l *wire.Lease, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return l.ID
	}
	kept, ends := must(take("streams", "held")), must(take("streams", "held"))
	must(take("renders", ""))
	well := sickDisk(t, w.agent.Process.Pid)
	for _, row := range [][2]string{{"renders", ""}, {"streams", "held"}} {
		if _, err := take(row[0], row[1]); !errors.Is(err, client.ErrStorage) {
			t.Errorf("%s %s on a disk that fails: %v", row[1], row[0], err)
		}
	}
	var said map[string]bool
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the surfaces last said %v; the log:\n%s", said, logged())
		}
	})
	all := func(want bool) func() bool {
		return func() bool {
			said = w.surfaces(c, readyz)
			for _, is := range said {
				if is != want {
					return false
				}
			}
			return true
		}
	}
	within(t, "a surface does not say it", all(true))
	if !strings.Contains(logged(), `msg="a vital part is not well, and the agent is not ready" part=journal`) {
		t.Errorf("the log does not say it: %s", logged())
	}
	short := must(take("streams", ""))
	if err := c.Release(t.Context(), ends, false); err != nil {
		t.Errorf("what ends on a disk that fails: %v", err)
	}
	well()
	within(t, "it does not heal, or a surface goes on saying that it has not", all(false))
	if !strings.Contains(logged(), `msg="a vital part is well again" part=journal`) {
		t.Errorf("the log does not say that it is over: %s", logged())
	}
	after := must(take("streams", "held"))
	must(take("renders", ""))
	count := func(pool string) int64 {
		p, err := c.Pool(t.Context(), pool)
		if err != nil {
			t.Fatal(err)
		}
		return p.InUse
	}
	drawn := count("renders")
	if drawn < 2 {
		t.Errorf("%d draws are known, and 2 were acknowledged", drawn)
	}
	_ = w.agent.Process.Kill()
	_ = w.agent.Wait()
	w.start(log)
	w.ready()
	for id, held := range map[string]bool{kept: true, after: true, short: true, ends: false} {
		if _, err := c.Lease(t.Context(), id); (err == nil) != held {
			t.Errorf("after a crash the lease %s: %v; want held %v", id, err, held)
		}
	}
	if n := count("renders"); n != drawn {
		t.Errorf("after a crash %d draws are known, want %d", n, drawn)
	}
}

// The service manager's watchdog is fed for as long as what decides moves, and not by a timer: where a disk hangs under
// a decision, it is fed no more, and it is again when the disk answers.
func TestWatchdogOfADiskThatHangs(t *testing.T) {
	t.Parallel()
	w := newWhole(t)
	if code, _, errs := tool(t, "vendor", "sign", "--key", w.dir+"/k.key", "--product", "acme", "--scope", "host",
		"--limit", "streams=9", "--out", w.dir+"/lic/a.lic", "--force"); code != 0 {
		t.Fatal(errs)
	}
	fed, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: w.dir + "/n", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer fed.Close()
	// eats reports whether the watchdog is fed within a while.
	eats := func(within time.Duration) bool {
		b := make([]byte, 4096)
		for fed.SetReadDeadline(time.Now().Add(within)) == nil {
			n, err := fed.Read(b)
			if err != nil {
				return false
			}
			if strings.Contains(string(b[:n]), "WATCHDOG=1") {
				return true
			}
		}
		return false
	}
	w.start(os.Stderr, "env", "NOTIFY_SOCKET="+w.dir+"/n", "WATCHDOG_USEC=1000000")
	w.ready()
	if !eats(20 * time.Second) {
		t.Fatal("the watchdog of an agent that is well is not fed")
	}
	journal, err := filepath.Glob(w.dir + "/*/leases.journal")
	if err != nil || len(journal) != 1 {
		t.Fatal(journal, err)
	}
	var at unix.Statfs_t
	if err := unix.Statfs(journal[0], &at); err != nil {
		t.Fatal(err)
	}
	if at.Type == unix.TMPFS_MAGIC {
		t.Skip("the journal is in memory, which does not hang")
	}
	well := traced(t, w.agent.Process.Pid, "-P", journal[0], "-e", "trace=pwrite64", "-e",
		"inject=pwrite64:delay_enter=600s")
	c := client.New(w.socket)
	defer c.Close()
	got := make(chan error, 1)
	go func() {
		_, err := c.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"})
		got <- err
	}()
	for end := time.Now().Add(time.Minute); eats(4 * time.Second); {
		if time.Now().After(end) {
			t.Fatal("the watchdog of an agent that decides nothing is fed still")
		}
	}
	well()
	if !eats(30 * time.Second) {
		t.Error("the watchdog is not fed when the disk answers again")
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}
