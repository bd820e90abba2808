package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/usher-agent/usher/client/wire"
)

// packaged are the packages that the tests install: two versions, and a vendor's under its own name.
type packaged struct{ keys, deb, nextDeb, rpm, nextRPM, ownDeb, ownRPM string }

// ownName is the name of the vendor's packages. It contains the project's, which must not be put in twice.
const ownName = "acme-usher"

// packagesIn returns the packages that makePackages has built into a folder.
func packagesIn(dir string) packaged {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	deb := func(name, version string) string {
		return filepath.Join(dir, "package", name+"_"+version+"_"+runtime.GOARCH+".deb")
	}
	rpm := func(name, version string) string {
		return filepath.Join(dir, "package", name+"-"+version+"-1."+arch+".rpm")
	}
	return packaged{keys: filepath.Join(dir, "keys"), deb: deb("usher", "1.0.0"), nextDeb: deb("usher", "1.1.0~rc1"),
		rpm: rpm("usher", "1.0.0"), nextRPM: rpm("usher", "1.1.0~rc1"), ownDeb: deb(ownName, "1.0.0"),
		ownRPM: rpm(ownName, "1.0.0")}
}

// makePackages builds all packages into a folder, with make.
func makePackages(dir string) error {
	vendor := filepath.Join(dir, "vendor")
	if err := os.Mkdir(vendor, 0o700); err != nil {
		return err
	}
	if code := run([]string{"vendor", "keygen", "--kid", "2027-a", "--out", filepath.Join(dir, "keys")}, nil,
		io.Discard,
		os.Stderr); code != 0 {
		return fmt.Errorf("vendor keygen: exit code %d", code)
	}
	public, err := os.ReadFile(filepath.Join(dir, "keys", "2027-a.pub"))
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{"2027-a.pub": public, "vendor.json": []byte(`{"product": "transcoder"}`)} {
		if err := os.WriteFile(filepath.Join(vendor, name), b, 0o600); err != nil {
			return err
		}
	}
	for _, args := range [][]string{{"VERSION=1.0.0"}, {"VERSION=v1.1.0-rc1"},
		{"VERSION=1.0.0", "NAME=" + ownName, "VENDOR=" + vendor}} {
		cmd := exec.Command("make", append([]string{"-s", "package", "BIN=" + dir}, args...)...)
		cmd.Dir = "../.."
		cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MAKE") })
		cmd.Env = append(cmd.Env, "COMPRESSION=fast")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("make package %v: %w: %s", args, err, out)
		}
	}
	return nil
}

// Packages on a real system, with a systemd of its own: each is installed, used, upgraded and removed.
func TestPackages(t *testing.T) {
	t.Parallel()
	bootMachine(t) // else nothing is built
	dir := t.TempDir()
	if err := makePackages(dir); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]func(*machine, packaged){"deb": testDeb, "rpm": testRPM, "own name": testOwnName,
		"page": testInstallPage} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, p := bootMachine(t), packagesIn(dir)
			for _, file := range []*string{&p.deb, &p.nextDeb, &p.rpm, &p.nextRPM, &p.ownDeb, &p.ownRPM} {
				to := "/tmp/" + filepath.Base(*file)
				m.put(*file, to)
				*file = to
			}
			test(m, p)
		})
	}
	for name, test := range map[string]func(*testing.T, string){"make install": testMakeInstall, "how-to": testHowTos} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, dir)
		})
	}
}

// site is an agent that a package has installed, with a licence in force, and callers.
type site struct {
	*machine
	tool string // the command, with what names the agent
	unit string
	kept []string // the leases that stay
}

// setUp starts an instance as docs/install.md has it, and drops a licence for it.
func (m *machine) setUp(name, instance, tool, key string) *site {
	m.t.Helper()
	s := &site{machine: m, tool: tool, unit: name + "@" + instance}
	m.run("systemctl enable --now " + s.unit + ".service")
	m.run(tool + " health --ready --wait 30s")
	m.run(fmt.Sprintf(`%s fingerprint --request /tmp/%s.json`, tool, name))
	m.run(fmt.Sprintf(`%[1]s vendor sign --key %[2]s --product transcoder --licensee Example --limit streams=50 `+
		`--meter renders=100 --scope host --bind /tmp/%[1]s.json --out /etc/%[1]s/%[3]s.d/example.lic`, name, key,
		instance))
	m.until("the licence is in force", tool+" status")
	m.run("useradd product && usermod --append --groups " + name + " product")
	m.until("the product is let in", s.as(tool+" pools"))
	return s
}

// as is a line of the shell that the product's user runs.
func (s *site) as(line string) string {
	return "setpriv --reuid product --regid product --init-groups " + line
}

// hold has leases of every kind taken, and remembers them.
func (s *site) hold() {
	s.t.Helper()
	for range 3 {
		cmd := s.command("sh", "-c", s.as(s.tool+" run --pool streams -- sleep 100000"))
		if err := cmd.Start(); err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	}
	s.until("three processes hold slots",
		`test "$(`+s.tool+` --json leases | grep -o '"lifetime": *"process"' | wc -l)" = 3`)
	s.run(s.as(s.tool + " acquire --pool streams --ttl 1h"))
	s.run(s.tool + " acquire --pool streams --held")
	s.run(s.tool + " acquire --pool renders --n 3")
	for _, l := range s.leases() {
		s.kept = append(s.kept, l.ID)
	}
	if len(s.kept) != 5 {
		s.t.Fatalf("%d leases are held", len(s.kept))
	}
}

func (s *site) leases() (out []wire.Lease) {
	s.t.Helper()
	var all wire.Leases
	text := s.run(s.tool + " --json leases")
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		if err = json.Unmarshal([]byte(text), &all.Leases); err != nil {
			s.t.Fatalf("%v: %s", err, text)
		}
	}
	return all.Leases
}

// holds looks that every lease is held as before, and that the meter has what was drawn.
func (s *site) holds(after string) {
	s.t.Helper()
	s.run(s.tool + " health --ready --wait 30s")
	state := map[string]string{}
	for _, l := range s.leases() {
		state[l.ID] = l.State
	}
	for _, id := range s.kept {
		if state[id] != "held" {
			s.t.Errorf("after %s lease %s is %q", after, id, state[id])
		}
	}
	var pools []wire.Pool
	var all wire.Pools
	text := s.run(s.tool + " --json pools")
	if json.Unmarshal([]byte(text), &pools) != nil && json.Unmarshal([]byte(text), &all) == nil {
		pools = all.Pools
	}
	if i := slices.IndexFunc(pools, func(p wire.Pool) bool {
		return p.Name == "renders"
	}); i < 0 || pools[i].InUse != 3 {
		s.t.Errorf("after %s the meter is not at 3: %s", after, text)
	}
	if out, code := s.try(s.tool + " status"); code != 0 {
		s.t.Errorf("after %s: %s", after, out)
	}
}

// load has callers come and go, dozens in a second, until the returned function is called, which demands that none was
// turned away.
func (s *site) load() (end func()) {
	s.t.Helper()
	s.run("mkdir -m 777 /tmp/load")
	const loop = `n=0; while [ ! -e /tmp/load/end ]; do %s || echo "exit code $?" >> /tmp/load/failed; ` +
		`n=$((n+1)); sleep 0.05; done 2>> /tmp/load/errors; echo $n >> /tmp/load/calls`
	var all []*exec.Cmd
	for _, call := range []string{s.as(s.tool + " run --pool streams -- true"),
		"id=$(" + s.as(s.tool+" acquire --pool streams --client-token $$-$n") + ") && " + s.as(s.tool+" release $id")} {
		cmd := s.command("sh", "-c", fmt.Sprintf(loop, call))
		if err := cmd.Start(); err != nil {
			s.t.Fatal(err)
		}
		all = append(all, cmd)
	}
	return func() {
		s.t.Helper()
		s.run("touch /tmp/load/end")
		for _, cmd := range all {
			if err := cmd.Wait(); err != nil {
				s.t.Error(err)
			}
		}
		if out, code := s.try("tail -n 6 /tmp/load/failed"); code == 0 {
			s.t.Errorf("callers were turned away: %s%s", out, s.run("tail -n 6 /tmp/load/errors"))
		}
		s.t.Logf("calls: %s", strings.Join(strings.Fields(s.run("cat /tmp/load/calls")), ", "))
		s.run("rm -r /tmp/load")
	}
}

// settle waits until so much is true of the unit.
func (s *site) settle(property, want string) {
	s.t.Helper()
	s.until(property, fmt.Sprintf(`test "$(systemctl show -P %s %s.service)" = %s`, property, s.unit, want))
}

// ended has the agent's process end in a way, and waits until another has its place.
func (s *site) ended(line string) {
	s.t.Helper()
	was := strings.TrimSpace(s.run("systemctl show -P MainPID " + s.unit + ".service"))
	s.run(strings.ReplaceAll(line, "$PID", was))
	s.until("another agent", fmt.Sprintf(
		`pid=$(systemctl show -P MainPID %s.service); test "$pid" != %s -a "$pid" != 0`,
		s.unit, was))
}

// The deb on a real system: installed, used, restarted, upgraded under load, removed and purged.
func testDeb(m *machine, p packaged) {
	t := m.t
	m.run("dpkg -i " + p.deb)
	m.run(
		"systemd-analyze verify --man=no usher@acme.service usher@acme.socket > /tmp/said 2>&1 && ! test -s /tmp/said")
	m.isAsExposedAsThePageSays()
	m.documents("usher")
	if out := m.run("systemctl list-units --all --no-legend 'usher@*'"); strings.TrimSpace(out) != "" {
		t.Errorf("the package starts what nobody asked for: %s", out)
	}
	m.run("usher vendor keygen --kid k1 --out /root/keys && install -m 644 /root/keys/k1.pub /etc/usher/k1.pub")
	m.write("/etc/usher/acme.yaml",
		"product: transcoder\nlicense:\n  trust:\n    - kid: k1\n      key_file: /etc/usher/k1.pub\n")
	s := m.setUp("usher", "acme", "usher --instance acme", "/root/keys/k1.key")
	m.says("usher status", "streams") // it is the only instance
	s.hold()

	end := s.load()
	s.ended("systemctl restart usher@acme")
	s.holds("a restart")
	s.ended("kill -KILL $PID")
	s.holds("a crash")
	m.run("mkdir -p /run/systemd/system/usher@acme.service.d")
	m.write("/run/systemd/system/usher@acme.service.d/dog.conf", "[Service]\nWatchdogSec=1s\n")
	m.run("systemctl daemon-reload")
	s.ended("systemctl restart usher@acme")
	s.ended("kill -STOP $PID") // the watchdog bites
	s.holds("the watchdog")
	m.run("rm -r /run/systemd/system/usher@acme.service.d && systemctl daemon-reload")
	s.ended("dpkg -i " + p.nextDeb)
	s.holds("an upgrade")
	end()
	// A host whose policy is against it restarts nothing.
	m.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")
	was := m.run("chmod 755 /usr/sbin/policy-rc.d; systemctl show -P MainPID usher@acme")
	if is := m.run("dpkg -i " + p.nextDeb + " > /dev/null 2>&1 && systemctl show -P MainPID usher@acme"); is != was {
		t.Errorf("against the host's policy the agent was restarted: %s, and was %s", is, was)
	}
	m.run("rm /usr/sbin/policy-rc.d")
	m.says("usher --instance acme doctor || true", "version v1.1.0-rc1")

	// A stop is the operator's will; with the socket unit the next caller starts the agent.
	m.run("systemctl stop usher@acme.service")
	if out, code := m.try("usher --instance acme run --agent-wait 0 --pool streams -- true"); code != exitAgentAway {
		t.Errorf("without an agent: exit code %d: %s", code, out)
	}
	m.run("systemctl enable --now usher@acme.socket")
	m.says("stat -c '%a %U %G' /run/usher/acme/usher.sock", "660 usher usher")
	s.settle("ActiveState", "inactive")
	s.holds("a stop and a start by the socket")
	end = s.load()
	s.ended("systemctl restart usher@acme.service")
	s.ended("kill -KILL $PID")
	m.run("systemctl stop usher@acme.service") // callers start it again
	s.settle("ActiveState", "active")
	end()
	s.holds("restarts with the socket unit")

	m.run("usher --instance acme license install /etc/usher/acme.d/example.lic") // the agent may write there
	m.run("dpkg -r usher")
	if out, code := m.try("pgrep -x usher"); code == 0 {
		t.Errorf("after the removal there runs %s", out)
	}
	m.run("test -e /etc/usher/acme.d/example.lic && test -e /var/lib/usher/acme/agent.key && ! test -e /usr/bin/usher")
	m.run("dpkg -i " + p.nextDeb + " && systemctl start usher@acme.service")
	s.holds("a removal and an installation")
	s.saysItsLastWords()
	m.run("systemctl stop usher@acme.socket usher@acme.service && dpkg -P usher")
	m.run("! test -e /etc/usher && ! test -e /var/lib/usher && ! test -e /run/usher")
	m.run(`! find /usr /etc /var/lib /run \( -name 'usher*' -o -name _usher \) | grep .`)
}

// saysItsLastWords has the doctor read in the journal why the agent has ended: the unit's command line is wrong, which
// the configuration does not show.
func (s *site) saysItsLastWords() {
	s.t.Helper()
	s.run("systemctl stop usher@acme.socket usher@acme.service && mkdir -p /run/systemd/system/usher@acme.service.d")
	s.write("/run/systemd/system/usher@acme.service.d/wrong.conf", "[Service]\nRestart=no\nExecStart=\n"+
		"ExecStart=/usr/bin/usher agent --config /etc/usher/acme.yaml --ops-listen 127.0.0.1:99999\n")
	if out, code := s.try("systemctl daemon-reload && systemctl start usher@acme.service"); code == 0 {
		s.t.Errorf("the agent runs: %s", out)
	}
	first, _, _ := strings.Cut(s.run("usher --instance acme doctor || true"), "\n")
	if !strings.Contains(first, "SOCKET_STALE") || !strings.Contains(first, "; it said last: ") ||
		!strings.Contains(first, "ops.listen") {
		s.t.Errorf("the doctor says first: %s", first)
	}
	s.run("rm -r /run/systemd/system/usher@acme.service.d && systemctl daemon-reload")
}

// The rpm on a system with systemd: installed, used, upgraded, removed.
func testRPM(m *machine, p packaged) {
	t := m.t
	if _, err := exec.LookPath("rpm"); err != nil {
		lacks(t, "there is no rpm: %v", err)
	}
	const rpm = "rpm --force-debian --nodeps --nosignature "
	m.run(rpm + "-i " + p.ownRPM)
	m.run("systemd-analyze verify --man=no " + ownName + "@x.service > /tmp/said 2>&1 && ! test -s /tmp/said")
	m.run(rpm + "-i " + p.rpm)
	m.run("usher vendor keygen --kid k1 --out /root/keys && install -m 644 /root/keys/k1.pub /etc/usher/k1.pub")
	m.write("/etc/usher/acme.yaml",
		"product: transcoder\nlicense:\n  trust:\n    - kid: k1\n      key_file: /etc/usher/k1.pub\n")
	s := m.setUp("usher", "acme", "usher --instance acme", "/root/keys/k1.key")
	s.hold()
	end := s.load()
	s.ended(rpm + "-U " + p.nextRPM)
	s.holds("an upgrade")
	end()
	m.says("usher --instance acme doctor || true", "version v1.1.0-rc1")
	m.run(rpm + "-e usher")
	if out, code := m.try("pgrep -x usher"); code == 0 {
		t.Errorf("after the removal there runs %s", out)
	}
	m.run("test -e /etc/usher/acme.d/example.lic && test -e /var/lib/usher/acme/agent.key && ! test -e /usr/bin/usher")
	m.says("rpm -qc "+ownName, "/etc/acme-usher/transcoder.yaml")
}

// Under its own name the vendor's package meets no other agent, and all of it says that name.
func testOwnName(m *machine, p packaged) {
	m.run("dpkg -i " + p.deb + " " + p.ownDeb)
	m.run("systemd-analyze verify --man=no acme-usher@x.service acme-usher@x.socket > /tmp/said 2>&1 && " +
		"! test -s /tmp/said")
	m.write("/etc/usher/transcoder.yaml", "product: transcoder\n")
	m.run("systemctl start usher@transcoder.service")
	m.put(filepath.Join(p.keys, "2027-a.key"), "/root/2027-a.key")
	m.run("chmod 600 /root/2027-a.key")
	s := m.setUp(ownName, "transcoder", ownName, "/root/2027-a.key") // the only instance is found
	s.hold()
	m.says("usher --instance transcoder status || true", "NOT_FOUND") // the other has no licence
	m.says("ls -l /run/acme-usher/transcoder/acme-usher.sock", "acme-usher acme-usher")
	end := s.load()
	s.ended("systemctl restart acme-usher@transcoder")
	end()
	s.holds("a restart")

	// The configuration is the operator's.
	m.run("echo '# by the operator' >> /etc/acme-usher/transcoder.yaml && dpkg -i " + p.ownDeb)
	m.says("cat /etc/acme-usher/transcoder.yaml", "product: transcoder", "# by the operator")
	m.says("dpkg-query -W -f '${Conffiles}' acme-usher", "/etc/acme-usher/transcoder.yaml")

	m.speaks(ownName)
	m.documents(ownName)
	m.run("dpkg -P " + ownName)
	m.run("! test -e /etc/acme-usher && ! test -e /var/lib/acme-usher")
	m.says("systemctl is-active usher@transcoder", "active")
}

// isAsExposedAsThePageSays compares the hardening of the unit with the figure in docs/install.md. Another version of
// systemd may count otherwise.
func (m *machine) isAsExposedAsThePageSays() {
	m.t.Helper()
	page := regexp.MustCompile(`exposure level of \*\*([0-9.]+)\*\* \(systemd ([0-9]+);`).FindStringSubmatch(
		read(m.t, "../../docs/install.md"))
	is := regexp.MustCompile(`exposure level for usher@acme.service: ([0-9.]+)`).FindStringSubmatch(
		m.run("systemd-analyze security --no-pager usher@acme.service"))
	if page == nil || is == nil {
		m.t.Fatalf("the page says %v, and systemd %v", page, is)
	}
	says, err1 := strconv.ParseFloat(page[1], 64)
	figure, err2 := strconv.ParseFloat(is[1], 64)
	if err := errors.Join(err1, err2); err != nil {
		m.t.Fatal(err)
	}
	same := strings.HasPrefix(m.run("systemctl --version"), "systemd "+page[2]+" ")
	if same && figure != says || figure > says+0.5 {
		m.t.Errorf("the exposure level is %v, and the page says %v", figure, says)
	}
}

// The commands of docs/install.md, in their order, on a system that has the package alone.
func testInstallPage(m *machine, p packaged) {
	blocks := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(read(m.t, "../../docs/install.md"),
		-1)
	if len(blocks) < 10 {
		m.t.Fatalf("the page has %d blocks of commands", len(blocks))
	}
	m.run("mkdir /root/page && cp /tmp/usher_* /root/page")
	for _, block := range blocks {
		m.run("set -e; cd /root/page; " + strings.ReplaceAll(block[1], "_amd64.deb", "_"+runtime.GOARCH+".deb"))
	}
	m.run("! test -e /usr/bin/usher && ! test -e /etc/usher && ! test -e /var/lib/usher")
}

// make install puts the files below another root and prefix, and the unit names the program there.
func testMakeInstall(t *testing.T, dir string) {
	root := t.TempDir()
	cmd := exec.Command("make", "-s", "install", "BIN="+dir, "VERSION=1.0.0", "DESTDIR="+root, "PREFIX=/opt/it")
	cmd.Dir = "../.."
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MAKE") })
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	unit := read(t, filepath.Join(root, "opt/it/lib/systemd/system/usher@.service"))
	if !strings.Contains(unit, "\nExecStart=/opt/it/bin/usher agent ") {
		t.Errorf("the unit starts another program: %s", unit)
	}
	for _, file := range []string{"bin/usher", "lib/systemd/system/usher@.socket", "lib/sysusers.d/usher.conf",
		"lib/tmpfiles.d/usher.conf", "share/man/man1/usher.1.gz", "share/bash-completion/completions/usher",
		"share/doc/usher/examples/usher.yaml", "share/doc/usher/copyright"} {
		if _, err := os.Stat(filepath.Join(root, "opt/it", file)); err != nil {
			t.Error(err)
		}
	}
}
