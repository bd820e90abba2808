package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// machine is this host's system in namespaces of its own, with systemd as its first process. What changes in it is in
// memory, and gone with it: packages are installed, services run and users are made without a trace on the host.
type machine struct {
	t   *testing.T
	pid int // of its systemd, as the host has it
}

// bootScript makes the machine's file systems and becomes systemd. Its argument is an empty folder of the host's. Only
// what the tests need is started: nothing that would set the kernel's variables or load its modules.
const bootScript = `set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --bind proc/sys proc/sys && mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs dev && mkdir dev/shm dev/pts
for d in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 ptmx:5:2; do
  name=${d%%:*} numbers=${d#*:}
  mknod -m 666 "dev/$name" c "${numbers%:*}" "${numbers#*:}"
done
ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
rm -rf usr/sbin/policy-rc.d var/lib/man-db/auto-update run/systemd
rm -rf etc/systemd/system usr/lib/systemd/system/*.wants lib/systemd/system/*.wants
mkdir -p etc/systemd/system/sysinit.target.wants
ln -s /lib/systemd/system/multi-user.target etc/systemd/system/default.target
ln -s /lib/systemd/system/systemd-journald.service etc/systemd/system/sysinit.target.wants/
: > etc/fstab
echo 0123456789abcdef0123456789abcdef > etc/machine-id
exec env -i container=machine PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  chroot . /lib/systemd/systemd --log-target=journal-or-kmsg
`

// bootMachine starts a machine. Without the right or the means for that the test is skipped.
func bootMachine(t *testing.T) *machine {
	t.Helper()
	if testing.Short() {
		t.Skip("a whole system is started")
	}
	if os.Getuid() != 0 {
		t.Skip("namespaces of its own need root")
	}
	for _, tool := range []string{"/lib/systemd/systemd", "systemctl", "unshare", "nsenter", "dpkg"} {
		if _, err := exec.LookPath(tool); err != nil {
			lacks(t, "there is no %s", tool)
		}
	}
	dir := t.TempDir()
	group, err := cgroupFor(t, dir)
	if err != nil {
		lacks(t, "a control group of its own: %v", err)
	}
	var said bytes.Buffer
	first := exec.Command("sh", "-c",
		`echo $$ > "$1/cgroup.procs" && shift && exec unshare --pid --fork --mount --cgroup `+
			`--uts --ipc --net --kill-child sh -c "$1" sh "$2"`, "sh", group, bootScript, dir)
	first.Stdout, first.Stderr = &said, &said
	first.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { gone <- first.Wait() }()
	m := &machine{t: t}
	t.Cleanup(func() {
		if m.pid > 0 {
			syscall.Kill(m.pid, syscall.SIGKILL) // and with it all of the machine
		}
		first.Process.Kill()
		<-gone
		removeCgroup(t, group)
	})
	for deadline, rest := time.Now().Add(90*time.Second), pause(); ; rest() {
		select {
		case err := <-gone:
			gone <- err
			lacks(t, "this host does not let the tests start a system of their own: %v: %s", err, &said)
		default:
		}
		if m.pid == 0 {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", first.Process.Pid)) // soon
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && strings.HasSuffix(exe,
					"/systemd") {
					m.pid = pid
				}
			}
		} else if out, _ := m.command("systemctl", "is-system-running").Output(); slices.Contains(
			[]string{"running", "degraded"}, strings.TrimSpace(string(out))) {
			return m
		}
		if time.Now().After(deadline) {
			t.Fatalf("systemd is not up after 90 s: %s", &said)
		}
	}
}

// cgroupFor makes a control group for a machine, in the unified hierarchy (cgroups(7)).
func cgroupFor(t *testing.T, dir string) (string, error) {
	root := ""
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			root = f[1]
		}
	}
	if root == "" {
		root = filepath.Join(dir, "cgroup")
		if err := os.Mkdir(root, 0o700); err != nil {
			return "", err
		}
		if err := syscall.Mount("cgroup2", root, "cgroup2", 0, ""); err != nil {
			return "", err
		}
		t.Cleanup(func() { syscall.Unmount(root, syscall.MNT_DETACH) })
	}
	return os.MkdirTemp(root, "usher-machine-")
}

// removeCgroup removes a control group, whose processes have ended.
func removeCgroup(t *testing.T, group string) {
	deadline := time.Now().Add(30 * time.Second)
	for {
		var all []string
		filepath.WalkDir(group, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		slices.Reverse(all)
		for _, path := range all {
			syscall.Rmdir(path)
		}
		if _, err := os.Stat(group); err != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s stays: its processes have not ended", group)
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}

// command is a program that runs in the machine, as root.
func (m *machine) command(args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", slices.Concat([]string{"-t", strconv.Itoa(m.pid), "-m", "-p", "-C", "-n", "-u", "-i",
		"-r", "-w", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root"}, args)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run runs a line of the shell in the machine, which must succeed, and returns what it prints.
func (m *machine) run(line string) string {
	m.t.Helper()
	out, code := m.try(line)
	if code != 0 {
		m.t.Fatalf("%s: exit code %d: %s%s", line, code, out, m.journal())
	}
	return out
}

// try runs a line of the shell in the machine, and returns what it prints and its exit code.
func (m *machine) try(line string) (string, int) {
	m.t.Helper()
	out, err := m.command("sh", "-c", line).CombinedOutput()
	if e, ok := err.(*exec.ExitError); ok {
		return string(out), e.ExitCode()
	}
	if err != nil {
		m.t.Fatalf("%s: %v", line, err)
	}
	return string(out), 0
}

// says demands that a line of the shell prints texts, in any order.
func (m *machine) says(line string, texts ...string) {
	m.t.Helper()
	out := m.run(line)
	for _, text := range texts {
		if !strings.Contains(out, text) {
			m.t.Errorf("%s: it does not say %q: %s", line, text, out)
		}
	}
}

// until waits until a line of the shell succeeds.
func (m *machine) until(what, line string) {
	m.t.Helper()
	deadline, rest := time.Now().Add(90*time.Second), pause()
	for {
		out, code := m.try(line)
		if code == 0 {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%s: not after 90 s: exit code %d: %s%s", what, code, out, m.journal())
		}
		rest()
	}
}

// journal returns the last lines that the services have logged.
func (m *machine) journal() string {
	out, _ := m.command("journalctl", "--no-pager", "-q", "-n", "30").CombinedOutput()
	return "\n" + string(out)
}

// put copies a file of the host into the machine.
func (m *machine) put(from, to string) {
	m.t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(m.host(to), b, 0o644)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// write writes a file in the machine.
func (m *machine) write(path, text string) {
	m.t.Helper()
	if err := os.WriteFile(m.host(path), []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// host returns the path by which the host knows a file of the machine.
func (m *machine) host(path string) string { return fmt.Sprintf("/proc/%d/root%s", m.pid, path) }
