package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/usher-agent/usher/agent/liveness/oldkernel"
	"github.com/usher-agent/usher/cmd/usher/internal/doctor"
)

func init() { oldkernel.Main() }

// fault is one fault that is made for real, with what the doctor's first line must say of it.
type fault struct {
	name  string
	make  func(w *ward) []string // makes it, and has the doctor visit
	wants []string               // of the first line
}

// lonely are the faults that change this process's environment, or take what another agent of the same user needs.
var lonely = []string{"few components identify the host", "inotify is exhausted",
	"the host has no machine-id", "a variable leads elsewhere"}

// The first line that the doctor says names the cause and its mend, of each fault that an operator meets.
func TestDoctorNamesTheCauseFirst(t *testing.T) {
	if os.Geteuid() != 0 {
		lacks(t, "faults are made as root")
	}
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) {
			if !slices.Contains(lonely, f.name) {
				t.Parallel()
			}
			w := newWard(t)
			said := f.make(w)
			t.Log(said[0])
			if code := f.code(); code != "" && !slices.Contains(strings.Fields(said[0]), code) {
				t.Errorf("the first line is not %s; all that was said:\n%s", code, strings.Join(said, "\n"))
			}
			for _, want := range f.wants {
				if !strings.Contains(said[0], want) {
					t.Errorf("the first line lacks %q; all that was said:\n%s", want, strings.Join(said, "\n"))
					break
				}
			}
			if !strings.Contains(said[0], "; ") {
				t.Errorf("the first line names no mend: %s", said[0])
			}
			okSeen := false
			for _, line := range said {
				isOK := strings.HasPrefix(line, "ok ")
				if okSeen && !isOK {
					t.Errorf("a finding comes after what is ok: %s", line)
				}
				okSeen = okSeen || isOK
			}
		})
	}
}

// A healthy agent has nothing bad, and no warning.
func TestDoctorOfAHealthyAgent(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.sign("a.lic", "--bind", w.request(), "--strategy", "any")
	w.run()
	for _, line := range w.doctor() {
		if !strings.HasPrefix(line, "ok ") && !strings.Contains(line, "CLOCK_") && !strings.Contains(line, "HOST_") {
			t.Errorf("a healthy agent has: %s", line)
		}
	}
}

// The agent is known where the kernel names the service manager as the one that listens, too: it is the process that
// has called listen(2) last.
func TestDoctorOfAListenerOfTheServiceManager(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.sign("a.lic", "--bind", w.request(), "--strategy", "any")
	l := w.listen()
	f, err := l.File()
	w.must(err)
	defer f.Close()
	agent := w.command()
	cmd := exec.Command("sh", append([]string{"-c",
		`LISTEN_PID=$$ LISTEN_FDS=1 exec prlimit --nofile=3000:3000 "$0" "$@"`}, agent.Args...)...)
	cmd.Env, cmd.ExtraFiles = agent.Env, []*os.File{f}
	w.start(cmd)
	w.must(syscall.Listen(int(f.Fd()), 128))
	said := strings.Join(w.doctor(), "\n")
	if strings.Contains(said, "bad ") || !strings.Contains(said, "ok      descriptors: the agent may open 3000 files") {
		t.Errorf("it says:\n%s", said)
	}
}

// request writes this host's request for a licence.
func (w *ward) request() string {
	w.Helper()
	w.usher(0, "fingerprint", "--product", "acme", "--request", w.path("request.json"), "--socket", w.path("none"))
	return w.path("request.json")
}

var folderFaults = []fault{
	{"the configuration cannot be read", func(w *ward) []string {
		w.must(os.Chmod(w.path("u.yaml"), 0o600))
		return w.doctorAs(asStranger)
	}, []string{"bad", "CONFIG_UNREADABLE", "u.yaml", "as root or as the agent's user"}},
	{"the agent cannot read its configuration", func(w *ward) []string {
		w.must(os.Chmod(w.path("u.yaml"), 0o600))
		w.give("state", "run")
		w.unit(fmt.Sprint(stranger))
		return w.doctor()
	}, []string{"bad", "CONFIG_UNREADABLE", "u.yaml", "runs as uid 61234", "chmod 0644"}},
	{"others can change the configuration", func(w *ward) []string {
		w.must(os.Chmod(w.path("u.yaml"), 0o666))
		return w.doctor()
	}, []string{"bad", "CONFIG_UNREADABLE", "u.yaml", "can be written by others"}},
	{"the agent cannot read a key", func(w *ward) []string {
		w.must(os.Chmod(w.path("keys/k1.pub"), 0o600))
		w.give("state", "run")
		w.unit(fmt.Sprint(stranger))
		return w.doctor()
	}, []string{"bad", "FILE_UNREADABLE", "license.trust[0].key_file", "chown 61234"}},
	{"the socket's folder is not writable", func(w *ward) []string {
		w.must(os.Mkdir(w.path("sockets"), 0o755))
		w.socket = w.path("sockets/s")
		w.configure("", "")
		w.give("state", "run")
		w.unit(fmt.Sprint(stranger))
		return w.doctor()
	}, []string{"bad", "SOCKET_FOLDER", "/sockets", "install -d -o 61234"}},
	{"the socket's group is missing", func(w *ward) []string {
		w.configure(", group: no-such-group", "")
		return w.doctor()
	}, []string{"bad", "SOCKET_GROUP", "no-such-group", "groupadd"}},
	{"the state is full", func(w *ward) []string {
		at := w.disk("disk", "256k")
		w.state = at + "/state"
		w.configure("", "")
		w.sign("a.lic")
		w.run()
		w.fill(at, 0)
		return w.doctor()
	}, []string{"bad", "STATE_FULL", "/disk/state", "free some space"}},
	{"the state is read-only", func(w *ward) []string {
		at := w.disk("disk", "256k")
		w.must(os.Mkdir(at+"/state", 0o700))
		w.state = at + "/state"
		w.configure("", "")
		w.must(syscall.Mount("", at, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
		return w.doctor()
	}, []string{"bad", "STATE_READ_ONLY", "/disk/state", "mount it read-write"}},
	{"the state belongs to another", func(w *ward) []string {
		w.must(os.Mkdir(w.path("state"), 0o700))
		w.must(os.Mkdir(w.path("run"), 0o755))
		w.must(os.Chown(w.path("run"), stranger, stranger))
		w.unit(fmt.Sprint(stranger))
		return w.doctor()
	}, []string{"bad", "STATE_OWNER", "/state", "root (uid 0)", "chown -R 61234"}},
	{"a folder above the state is closed", func(w *ward) []string {
		w.must(os.Mkdir(w.path("var"), 0o700)) // as an agent does that root starts by hand
		w.must(os.Mkdir(w.path("var/acme"), 0o700))
		w.must(os.Chown(w.path("var/acme"), stranger, stranger))
		w.state = w.path("var/acme")
		w.configure("", "")
		w.give("run")
		w.unit(fmt.Sprint(stranger))
		return w.doctor()
	}, []string{"bad", "STATE_OWNER", "/var/acme", "mode 0700", "; chmod a+x ", "/var, or name another folder"}},
	{"a folder above a key is closed", func(w *ward) []string {
		w.must(os.Chmod(w.path("keys"), 0o700))
		w.give("state", "run")
		w.unit(fmt.Sprint(stranger))
		return w.doctor()
	}, []string{"bad", "FILE_UNREADABLE", "license.trust[0].key_file", "; chmod a+x ", "/keys"}},
	{"a file of the state belongs to another", func(w *ward) []string {
		w.give("state", "run")
		w.must(os.WriteFile(w.path("state/agent.key"), []byte("x"), 0o600))
		w.unit(fmt.Sprint(stranger))
		return w.doctor()
	}, []string{"bad", "STATE_OWNER", "/state/agent.key", "chown -R 61234"}},
	{"the disk is low", func(w *ward) []string {
		at := w.disk("disk", "64m")
		w.state = at + "/state"
		w.configure("", "")
		w.sign("a.lic", "--bind", w.request(), "--strategy", "any")
		w.run()
		w.fill(at, 2<<20)
		return w.doctor()
	}, []string{"warning", "STATE_LOW", "2.0 MiB", "free some space"}},
	{"a journal is corrupt", func(w *ward) []string {
		w.sign("a.lic")
		cmd := w.run()
		w.acquire(1)
		w.acquire(1)
		w.kill(cmd)
		journals, err := filepath.Glob(w.path("run/*.journal"))
		w.must(err)
		for _, path := range journals {
			b := []byte(read(w.T, path))
			for i := len(b) / 2; i < len(b)/2+20; i++ {
				b[i] ^= 0x55
			}
			w.must(os.WriteFile(path, b, 0o600))
		}
		return w.doctor()
	}, []string{"bad", "JOURNAL_DAMAGED", "/run/", "usher doctor --repair"}},
}

var startFaults = []fault{
	{"a port is in use", func(w *ward) []string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		w.must(err)
		w.Cleanup(func() { l.Close() })
		w.configure("", "ops: {listen: "+l.Addr().String()+"}\n")
		return w.doctor()
	}, []string{"bad", "ADDRESS_IN_USE", "ops.listen", "in use by", "pid", "choose another address"}},
	{"there is a second agent", func(w *ward) []string {
		w.run()
		w.socket = w.path("t")
		w.configure("", "")
		return w.doctor()
	}, []string{"bad", "SECOND_AGENT", "/state", "pid", "stop that one"}},
	{"a plugin is missing", func(w *ward) []string {
		w.configure("", fmt.Sprintf("plugins: [{name: toy, path: %s/none, sha256: %s}]\n", w.dir,
			strings.Repeat("ab", 32)))
		return w.doctor()
	}, []string{"bad", "PLUGIN_MISSING", "plugin toy", "/none", "install it"}},
	{"a plugin is another", func(w *ward) []string {
		dir, err := os.MkdirTemp("/usr/local/bin", "usher-test")
		w.must(err)
		w.Cleanup(func() { os.RemoveAll(dir) })
		w.must(os.WriteFile(dir+"/toy", []byte("#!/bin/sh\n"), 0o755))
		w.configure("", fmt.Sprintf("plugins: [{name: toy, path: %s/toy, sha256: %s}]\n", dir,
			strings.Repeat("ab", 32)))
		return w.doctor()
	}, []string{"bad", "PLUGIN_CHANGED", "plugin toy", "SHA-256", "compare plugins[0].sha256"}},
	{"the socket is stale", func(w *ward) []string {
		w.sign("a.lic")
		cmd := w.run()
		w.kill(cmd)
		return w.doctor()
	}, []string{"bad", "SOCKET_STALE", "is gone", "start it"}},
	{"open files are few", func(w *ward) []string {
		w.sign("a.lic")
		cmd := exec.Command("prlimit", append([]string{"--nofile=200:200", w.bin}, w.command().Args[1:]...)...)
		w.start(cmd)
		return w.doctor()
	}, []string{"bad", "DESCRIPTORS_LOW", "200 files", "LimitNOFILE"}},
	{"inotify is exhausted", func(w *ward) []string {
		w.sign("a.lic", "--bind", w.request(), "--strategy", "any")
		hog := exec.Command("hog")
		out, err := hog.StdoutPipe()
		w.must(err)
		in, err := hog.StdinPipe()
		w.must(err)
		w.must(hog.Start())
		w.Cleanup(func() { in.Close(); hog.Wait() })
		b := make([]byte, 4)
		_, err = out.Read(b)
		w.must(err)
		w.give("state", "run", "sockets")
		w.socket = w.path("sockets/s")
		w.configure("", "")
		cmd := w.command()
		asStranger(cmd)
		w.start(cmd)
		return w.doctor()
	}, []string{"warning", "NOTIFY_EXHAUSTED", "max_user_instances", "sysctl"}},
	{"the kernel is old", func(w *ward) []string {
		w.sign("a.lic", "--bind", w.request(), "--strategy", "any")
		self, err := os.Executable()
		w.must(err)
		pretend := func(cmd *exec.Cmd) {
			cmd.Path, cmd.Args = self, append([]string{self, w.bin}, cmd.Args[1:]...)
			cmd.Env = append(cmd.Env, oldkernel.Env+"=4.18")
		}
		cmd := w.command()
		pretend(cmd)
		w.start(cmd)
		return w.doctorAs(pretend)
	}, []string{"warning", "KERNEL_OLD", "does not report the death", "Linux 5.3"}},
	{"the rules deny the caller", func(w *ward) []string {
		w.configure(", mode: \"0666\", allow: [{uid: 4242}]", "")
		w.sign("a.lic")
		w.run()
		w.args = []string{"--as", fmt.Sprint(stranger)}
		return w.doctor()
	}, []string{"bad", "CALLER_DENIED", "61234", "socket.allow"}},
	{"the rules deny the caller that asks", func(w *ward) []string {
		w.configure(", mode: \"0666\", allow: [{uid: 4242}]", "")
		w.sign("a.lic")
		w.run()
		return w.doctorAs(asStranger)
	}, []string{"bad", "CALLER_DENIED", "61234", "socket.allow"}},
	{"the socket's mode denies the caller", func(w *ward) []string {
		w.configure(", group: nogroup", "")
		w.sign("a.lic")
		w.run()
		w.args = []string{"--as", fmt.Sprint(stranger)}
		return w.doctor()
	}, []string{"bad", "SOCKET_CLOSED", "61234", "add the user to the group nogroup"}},
	{"the agent is stopped", func(w *ward) []string { // by SIGSTOP
		w.sign("a.lic")
		cmd := w.run()
		w.must(cmd.Process.Signal(syscall.SIGSTOP))
		w.args = []string{"--timeout", "1s"}
		return w.doctor()
	}, []string{"bad", "AGENT_SILENT", "does not answer", "restart it"}},
	{"the service manager listens, and no agent runs", func(w *ward) []string {
		w.sign("a.lic")
		w.listen()
		w.unit("root")
		w.args = []string{"--timeout", "300ms"}
		return w.doctor()
	}, []string{"bad", "AGENT_AWAY", "the service manager keeps", "systemctl start usher@u.service"}},
	{"no agent runs", func(w *ward) []string {
		w.sign("a.lic")
		return w.doctor()
	}, []string{"bad", "AGENT_AWAY", "there is no socket", "start it"}},
	{"the agent has said why it ended", func(w *ward) []string {
		w.sign("a.lic")
		w.unit("root")
		log, err := os.Create(w.path("log"))
		w.must(err)
		defer log.Close()
		cmd := w.command("--ops-listen", "127.0.0.1:99999") // which the unit's command line has, and the file has not
		cmd.Stderr = log
		if cmd.Run() == nil {
			w.Fatal("the agent runs")
		}
		w.append("root/etc/systemd/system/usher@u.service", "StandardError=append:"+w.path("log")+"\n")
		return w.doctor()
	}, []string{"bad", "AGENT_AWAY", "it said last: ", "ops.listen", "systemctl start usher@u.service"}},
	{"paths begin elsewhere", func(w *ward) []string {
		w.sign("a.lic")
		w.state = "state"
		w.configure("", "")
		cmd := w.command()
		cmd.Dir = w.path("other")
		w.start(cmd)
		return w.doctor()
	}, []string{"bad", "CONFIG_RELATIVE", "state.dir is a relative path", "other; this command looked from",
		"run the command there"}},
	{"a variable leads elsewhere", func(w *ward) []string {
		w.sign("a.lic")
		w.run()
		w.Setenv("USHER_SOCKET", w.path("none"))
		return w.doctor()
	}, []string{"bad", "SOCKET_ELSEWHERE", "USHER_SOCKET", "unset USHER_SOCKET"}},
	{"a reload failed", func(w *ward) []string {
		w.sign("a.lic", "--bind", w.request(), "--strategy", "any")
		w.run()
		good := read(w.T, w.path("u.yaml"))
		w.must(os.Rename(w.write("new.yaml", good+"nonsense: 1\n"), w.path("u.yaml")))
		w.usher(1, "reload", "--socket", w.path("s"))
		w.must(os.Rename(w.write("new.yaml", "socket: ["), w.path("u.yaml")))
		return w.doctor()
	}, []string{"bad", "CONFIG_INVALID", "u.yaml", "agent --check"}},
	{"a key waits for a restart", func(w *ward) []string {
		w.sign("a.lic", "--bind", w.request(), "--strategy", "any")
		w.run()
		w.write("u.yaml", read(w.T, w.path("u.yaml"))+"host: {every: 20s}\n")
		return w.doctor()
	}, []string{"warning", "RESTART_PENDING", "host.every", "restart the agent"}},
	{"the agent drains", func(w *ward) []string {
		w.sign("a.lic", "--bind", w.request(), "--strategy", "any")
		w.run()
		w.usher(0, "drain", "--socket", w.path("s"))
		return w.doctor()
	}, []string{"warning", "DRAINING", "usher drain --undo"}},
}

// The journals are mended with the owner and the mode that they have.
func TestRepairKeepsOwnerAndMode(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("owners are given as root")
	}
	w := newWard(t)
	w.sign("a.lic")
	cmd := w.run()
	w.acquire(1)
	w.kill(cmd)
	journals, err := filepath.Glob(w.path("run/*.journal"))
	w.must(err)
	was := map[string]string{}
	for _, dir := range []string{"run", "state"} {
		w.must(filepath.WalkDir(w.path(dir), func(path string, _ os.DirEntry, err error) error {
			w.must(err)
			return os.Lchown(path, stranger, stranger)
		}))
	}
	for _, path := range journals {
		w.must(os.Truncate(path, int64(len(read(t, path))-3)))
		b := []byte(read(t, path))
		b[len(b)/2] ^= 1
		w.must(os.WriteFile(path, b, 0o600))
		was[path] = ownerAndMode(t, path)
	}
	w.usher(0, "doctor", "--repair", "--config", w.path("u.yaml"))
	for path, want := range was {
		if got := ownerAndMode(t, path); got != want {
			t.Errorf("%s was %s, and is %s", path, want, got)
		}
	}
	for _, dir := range []string{"run", "state"} {
		w.must(filepath.WalkDir(w.path(dir), func(path string, _ os.DirEntry, err error) error {
			w.must(err)
			if got := ownerAndMode(t, path); !strings.HasPrefix(got, "61234:61234 ") {
				t.Errorf("%s is %s", path, got)
			}
			return nil
		}))
	}
}

// A user who is neither root nor the agent's is told what it could not look at, and nothing bad of it.
func TestDoctorOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("another user is made by root")
	}
	w := newWard(t)
	w.sign("a.lic")
	w.kill(w.run())
	said := w.doctorAs(asStranger)
	if !strings.Contains(said[0], "SOCKET_STALE") && !strings.Contains(said[0], "SOCKET_CLOSED") {
		t.Errorf("the first line is %s", said[0])
	}
	text := strings.Join(said, "\n")
	if strings.Contains(text, "STATE_OWNER") || !strings.Contains(text, "NOT_LOOKED_AT state folder") {
		t.Errorf("it says:\n%s", text)
	}
}

// A user who is not of the socket's group hears that first, and is not told that the agent is in anybody's way, nor
// that there is no licence in a folder that is closed to it.
func TestDoctorOfAUserOutsideTheGroup(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("another user is made by root")
	}
	w := newWard(t)
	w.configure(", group: nogroup", "")
	w.sign("a.lic")
	w.run()
	w.must(os.Chmod(w.path("l"), 0o700))
	said := w.doctorAs(asStranger)
	if !strings.Contains(said[0], "SOCKET_CLOSED") || !strings.Contains(said[0], "add the user to the group nogroup") {
		t.Errorf("the first line is %s", said[0])
	}
	if text := strings.Join(said, "\n"); strings.Contains(text, "SECOND_AGENT") ||
		strings.Contains(text, "LICENSE_MISSING") {
		t.Errorf("it says:\n%s", text)
	}
}

// As JSON, each finding has its code, its result and, where there is one, its place.
func TestDoctorAsJSON(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.configure(", group: no-such-group", "")
	w.args = []string{"--json"}
	var found []doctor.Finding
	if err := json.Unmarshal([]byte(strings.Join(w.doctor(), "\n")), &found); err != nil {
		t.Fatal(err)
	}
	if f := found[0]; f.Code != "SOCKET_GROUP" || f.Result != doctor.Bad || f.Place != "u.yaml:3" || f.Hint == "" {
		t.Errorf("the first finding is %+v", f)
	}
}
