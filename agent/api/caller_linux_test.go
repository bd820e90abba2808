//go:build linux

package api

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

func TestRules(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	hash := hex.EncodeToString(sum[:])
	me := &peer{uid: 1000, gid: 100, groups: []uint32{7, 8}, pid: int32(os.Getpid()), exe: self}
	id := func(n uint32) *uint32 { return &n }
	for _, test := range []struct {
		name string
		rule Rule
		peer *peer
		want bool
	}{
		{"uid", Rule{UID: id(1000)}, me, true},
		{"another uid", Rule{UID: id(1001)}, me, false},
		{"gid", Rule{GID: id(100)}, me, true},
		{"supplementary group", Rule{GID: id(8)}, me, true},
		{"another group", Rule{GID: id(9)}, me, false},
		{"uid and another group", Rule{UID: id(1000), GID: id(9)}, me, false},
		{"exe", Rule{Exe: self}, me, true},
		{"exe, written otherwise", Rule{Exe: self + "/../" + self[lastSlash(self)+1:]}, me, true},
		{"another exe", Rule{Exe: "/bin/sh"}, me, false},
		{"exe that cannot be read", Rule{Exe: "/bin/sh"}, &peer{uid: 1000, pid: 1}, false},
		{"hash", Rule{ExeSHA256: hash}, me, true},
		{"another hash", Rule{ExeSHA256: hash[1:] + "0"}, me, false},
		{"hash of an exe that cannot be read", Rule{ExeSHA256: hash}, &peer{uid: 1000}, false},
		{"nobody's gid", Rule{GID: id(Nobody)}, &peer{uid: 1000, gid: Nobody, groups: []uint32{Nobody}}, false},
		{"nobody's uid", Rule{UID: id(Nobody)}, &peer{uid: Nobody}, false},
		{"a rule of nothing", Rule{}, me, false},
	} {
		if got := test.rule.matches(test.peer); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

func lastSlash(s string) int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '/' {
			return i
		}
	}
	return -1
}

func TestAdmin(t *testing.T) {
	own := uint32(os.Geteuid())
	if own == 0 { // as another user too: root is an admin for two reasons
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestAdmin$")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4712, Gid: 4712}}
		cmd.Dir, cmd.Env = "/", []string{}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("as uid 4712: %v\n%s", err, out)
		}
	}
	id := func(n uint32) *uint32 { return &n }
	for _, test := range []struct {
		name           string
		rules          Rules
		peer           peer
		admin, allowed bool
	}{
		{"root", Rules{}, peer{uid: 0, pid: 5}, true, true},
		{"root of another PID namespace", Rules{}, peer{uid: 0}, false, true},
		{"the agent's user", Rules{}, peer{uid: own, pid: 5}, true, true},
		{"the agent's user of another PID namespace", Rules{}, peer{uid: own}, false, true},
		{"the agent's user of another PID namespace, who is not allowed", Rules{Allow: []Rule{{UID: id(1)}}},
			peer{uid: own}, false, false},
		{"somebody", Rules{}, peer{uid: 4711, pid: 5}, own == 4711, true},
		{"an admin by rule", Rules{Admin: []Rule{{UID: id(4711)}}}, peer{uid: 4711}, true, true},
		{"nobody, by rule", Rules{Admin: []Rule{{UID: id(Nobody)}}}, peer{uid: Nobody, pid: 5}, false, true},
		{"not allowed", Rules{Allow: []Rule{{UID: id(1)}}}, peer{uid: 4711, pid: 5}, own == 4711, own == 4711},
		{"allowed", Rules{Allow: []Rule{{UID: id(1)}, {UID: id(4711)}}}, peer{uid: 4711}, false, true},
		{"an admin is always allowed", Rules{Allow: []Rule{{UID: id(1)}}, Admin: []Rule{{UID: id(4711)}}},
			peer{uid: 4711}, true, true},
		{"where the kernel lets only one in", Rules{}, peer{uid: 0, own: true}, true, true},
	} {
		if got := test.rules.admin(&test.peer); got != test.admin {
			t.Errorf("%s: admin %v", test.name, got)
		}
		if got := test.rules.allowed(&test.peer); got != test.allowed {
			t.Errorf("%s: allowed %v", test.name, got)
		}
	}
}
