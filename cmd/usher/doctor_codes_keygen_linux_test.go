package main

import (
	"crypto/sha256"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/cmd/usher/internal/doctor"
)

// faults are all faults that are made for the doctor.
func faults() []fault {
	return slices.Concat(folderFaults, startFaults, licenceFaults, upstreamFaults, placeFaults, runningFaults,
		verdictFaults, wayFaults, fleetFaults)
}

// Each code that the doctor knows is the first word of some fault that is made for real.
func TestEveryCodeHasItsFault(t *testing.T) {
	t.Parallel()
	all := faults()
	for _, c := range doctor.Codes {
		if !slices.ContainsFunc(all, func(f fault) bool { return f.code() == c.Code }) {
			t.Errorf("no fault is made of which the doctor says %s first", c.Code)
		}
	}
}

// code is the one that the first line has.
func (f fault) code() string {
	for _, want := range f.wants {
		if slices.ContainsFunc(doctor.Codes, func(c doctor.Code) bool { return c.Code == want }) {
			return want
		}
	}
	return ""
}

// bound is a licence that nothing is to be said of: bound to this host, for a year.
func (w *ward) bound(more ...string) {
	w.Helper()
	w.sign("a.lic", append([]string{"--bind", w.request(), "--strategy", "any"}, more...)...)
}

// toy puts a file that could be a plugin where plugins may lie, and returns its path.
func (w *ward) toy(mode os.FileMode) string {
	w.Helper()
	dir, err := os.MkdirTemp("/usr/local/bin", "usher-test")
	w.must(err)
	w.Cleanup(func() { os.RemoveAll(dir) })
	w.must(os.WriteFile(dir+"/toy", []byte("#!/bin/sh\n"), 0o755))
	w.must(os.Chmod(dir+"/toy", mode))
	return dir + "/toy"
}

// health waits until what the running agent says of itself is as it is wanted.
func (w *ward) health(what string, ok func(*wire.Health) bool) {
	w.Helper()
	c := client.New(w.socket)
	defer c.Close()
	await(w.T, what, func() bool {
		h, err := c.Health(w.Context())
		return err == nil && ok(h)
	})
}

var placeFaults = []fault{
	{"the folders lie on a network file system", func(w *ward) []string {
		straceOf(w.T)
		w.run()
		// The kernel's answer to statfs(2) has NFS's number, 0x6969, in its first word.
		return w.doctorAs(func(cmd *exec.Cmd) {
			strace, err := exec.LookPath("strace")
			w.must(err)
			cmd.Args = append([]string{"strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace=statfs", "-e",
				"inject=statfs:poke_exit=@arg2=6969000000000000", cmd.Path}, cmd.Args[1:]...)
			cmd.Path = strace
		})
	}, []string{"bad", "STATE_NETWORK", "state folder", "NFS", "name a local folder with state.dir"}},
	{"others can write to the state folder's parent", func(w *ward) []string {
		w.must(os.Mkdir(w.path("open"), 0o755))
		w.must(os.Chmod(w.path("open"), 0o777))
		w.must(os.Mkdir(w.path("open/state"), 0o700))
		w.state = w.path("open/state")
		w.configure("", "")
		return w.doctor()
	}, []string{"bad", "STATE_MODE", "state folder", "/open", "chmod"}},
	{"the agent cannot make its folder", func(w *ward) []string {
		w.give("state", "sockets") // whose it is ran the last agent
		w.socket = w.path("sockets/s")
		w.configure("", "")
		return w.doctor()
	}, []string{"bad", "STATE_MISSING", "runtime folder", "/run", "install -d -o 61234 -m 755"}},
	{"a file has the socket's name", func(w *ward) []string {
		w.write("s", "a file")
		return w.doctor()
	}, []string{"bad", "SOCKET_TAKEN", "/s that is no socket", "move it away"}},
	{"others can change a plugin", func(w *ward) []string {
		path := w.toy(0o777)
		w.configure("", "plugins: [{name: toy, path: "+path+", sha256: "+
			fmt.Sprintf("%x", sha256.Sum256([]byte(read(w.T, path))))+"}]\n")
		return w.doctor()
	}, []string{"bad", "PLUGIN_UNFIT", "plugin toy", "can be changed by others", "chmod go-w it"}},
	{"a key is no key", func(w *ward) []string {
		w.write("keys/k1.pub", "no key")
		return w.doctor()
	}, []string{"bad", "TRUST_BROKEN", "u.yaml:2", "license.trust[0]", "it is not PEM"}},
	{"no key is trusted", func(w *ward) []string {
		w.bound()
		text := read(w.T, w.path("u.yaml"))
		from, to := strings.Index(text, ", trust: ["), strings.Index(text, "]}")
		w.write("u.yaml", text[:from]+text[to+1:])
		w.run()
		return w.doctor()
	}, []string{"bad", "TRUST_NONE", "no key is trusted", "license.trust", "UNTRUSTED_KEY"}},
	{"everybody can read a secret", func(w *ward) []string {
		w.write("token", strings.Repeat("s", 40)+"\n")
		w.configure("", "listeners: [{address: '"+w.nobody()+"', dialect: "+aDialect+
			", token_file: "+w.path("token")+"}]\n")
		w.bound()
		w.run()
		return w.doctor()
	}, []string{"warning", "SECRET_OPEN", "/token", "chmod o-rwx"}},
}

var runningFaults = []fault{
	{"the agent has used up its open files", func(w *ward) []string {
		w.bound()
		cmd := w.run()
		// As after a leak: more files are open than it may open.
		pid := strconv.Itoa(cmd.Process.Pid)
		w.must(exec.Command("prlimit", "--pid", pid, "--nofile=8:8").Run())
		w.args = []string{"--timeout", "300ms"}
		return w.doctor()
	}, []string{"bad", "DESCRIPTORS_USED", "of 8 files open", "LimitNOFILE", "and so agent"}},
	{"a listener's socket cannot be made again", func(w *ward) []string {
		w.configure("", "listeners: [{address: "+w.path("k")+", dialect: "+aDialect+"}]\n")
		w.bound()
		w.run()
		w.must(os.Remove(w.path("k")))
		w.must(os.Mkdir(w.path("k"), 0o700))
		w.health("the agent is not ready", func(h *wire.Health) bool { return len(h.Unready) > 0 })
		return w.doctor()
	}, []string{"bad", "AGENT_UNREADY", "vital part dialect", "/k", "until it is well"}},
	{"somebody changed the state", func(w *ward) []string {
		w.bound()
		cmd := w.run()
		w.must(cmd.Process.Signal(syscall.SIGTERM))
		<-w.ended[cmd]
		w.must(os.Remove(w.path("state/" + seals.DurableJournal)))
		w.run()
		return w.doctor()
	}, []string{"bad", "STATE_CHANGED", seals.DurableJournal, "doctor --repair"}},
	{"a mended configuration waits for a reload", func(w *ward) []string {
		w.bound()
		w.inProcess(time.Now) // the program's own agent would look at the file, and reload by itself
		good := read(w.T, w.path("u.yaml"))
		w.must(os.Rename(w.write("new.yaml", good+"nonsense: 1\n"), w.path("u.yaml")))
		w.usher(1, "reload", "--socket", w.path("s"))
		w.must(os.Rename(w.write("new.yaml", good), w.path("u.yaml")))
		return w.doctor()
	}, []string{"warning", "RELOAD_FAILED", "nonsense", "usher reload"}},
	{"the agent is of another version", func(w *ward) []string {
		w.bound()
		w.version = "0.0.1"
		w.inProcess(time.Now)
		return w.doctor()
	}, []string{"warning", "VERSION_DIFFERS", "0.0.1", "restart the agent"}},
	{"few components identify the host", func(w *ward) []string {
		w.must(os.Mkdir(w.path("etc"), 0o755))
		w.must(os.Mkdir(w.path("empty"), 0o755))
		w.write("etc/machine-id", "0123456789abcdef0123456789abcd00\n")
		w.Setenv("HOST_ETC", w.path("etc"))
		w.Setenv("HOST_SYS", w.path("empty"))
		w.Setenv("HOST_PROC", w.path("empty"))
		w.bound()
		w.run()
		return w.doctor()
	}, []string{"warning", "HOST_FEW", "1 of", "mount the host's /sys"}},
	{"a user may look at nothing but the socket", func(w *ward) []string {
		w.configure(", mode: \"0666\"", "")
		w.bound()
		w.run()
		return w.doctorAs(asStranger)
	}, []string{"unknown", "NOT_LOOKED_AT", "as root"}},
	{"the upstream knows no such call", func(w *ward) []string {
		s := httptest.NewServer(status(404))
		w.Cleanup(s.Close)
		w.configure("", "upstream: {url: '"+s.URL+"'}\n")
		w.bound("--check-in", "1h", "--activation", "2d")
		w.run()
		w.until("refused", func(l *wire.License) bool {
			return l.Upstream != nil && l.Upstream.State == "misconfigured"
		})
		return w.doctor()
	}, []string{"warning", "UPSTREAM_REFUSES", "404", "usher upstream call"}},
}

var verdictFaults = []fault{
	{"the clock is behind", func(w *ward) []string {
		w.bound("--issued", time.Now().UTC().Add(20*time.Hour).Format(time.RFC3339))
		w.run()
		return w.doctor()
	}, []string{"warning", "CLOCK_BEHIND", "behind", "set the clock right"}},
	{"the licence is for another product", func(w *ward) []string {
		w.usher(0, "vendor", "sign", "--key", w.path("keys/k1.key"), "--product", "other", "--licensee", "L", "--limit",
			"streams=2", "--scope", "host", "--out", w.path("l/a.lic"))
		w.run()
		return w.doctor()
	}, []string{"bad", "LICENSE_PRODUCT", "other", "acme"}},
	{"the licence is revoked", func(w *ward) []string {
		w.bound("--id", "gone")
		w.usher(0, "vendor", "revoke", "--key", w.path("keys/k1.key"), "--product", "acme", "--out",
			w.path("l/revoked.lic"), "gone")
		w.must(os.Chmod(w.path("l/revoked.lic"), 0o644))
		w.run()
		return w.doctor()
	}, []string{"bad", "LICENSE_REFUSED", "REVOKED", "ask the vendor"}},
	{"a check-in is overdue, and the user may not read why", func(w *ward) []string {
		w.configure(", mode: \"0666\"", "")
		w.bound("--check-in", "1s", "--activation", "1s")
		w.must(os.Chmod(w.path("u.yaml"), 0o600))
		w.run()
		w.until("overdue", func(l *wire.License) bool { return l.State != "valid" })
		return w.doctorAs(func(cmd *exec.Cmd) {
			asStranger(cmd)
			cmd.Env = append(cmd.Env, "USHER_SOCKET="+w.socket)
		})
	}, []string{"bad", "LICENSE_OVERDUE", "OVERDUE", "check the connection"}},
	{"the licence has expired", func(w *ward) []string {
		w.bound() // in force, it proves the clock, however long the agent takes to start
		w.run()
		w.until("in force", func(l *wire.License) bool { return l.State == "valid" })
		w.bound("--issued", "2026-01-01", "--expires", time.Now().UTC().Add(-24*time.Hour).Format(time.RFC3339),
			"--force")
		w.until("expired", func(l *wire.License) bool { return l.Code == "EXPIRED" })
		return w.doctor()
	}, []string{"bad", "LICENSE_EXPIRED", "EXPIRED", "install a renewed one"}},
	{"the licence is of the future", func(w *ward) []string {
		w.bound("--not-before", "4d")
		w.run()
		return w.doctor()
	}, []string{"bad", "LICENSE_NOT_YET", "NOT_YET_VALID", "wait for its start"}},
	{"the licence is no licence", func(w *ward) []string {
		w.write("l/a.lic", "no licence\n")
		w.run()
		return w.doctor()
	}, []string{"bad", "LICENSE_INVALID", "MALFORMED", "a.lic"}},
	{"the licence's grace runs", func(w *ward) []string {
		w.bound("--issued", "2026-01-01", "--expires", time.Now().UTC().Add(-24*time.Hour).Format(time.RFC3339),
			"--grace", "30d")
		w.run()
		return w.doctor()
	}, []string{"warning", "LICENSE_GRACE", "ask the vendor for a renewal"}},
	{"the licence is bound to no host", func(w *ward) []string {
		w.sign("a.lic")
		w.run()
		return w.doctor()
	}, []string{"warning", "LICENSE_WARNING", "NOT_BOUND", "docs/warnings.md#not_bound"}},
}
