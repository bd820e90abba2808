package api

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// A file of accounts is read as the C library does: of two lines with one number the first counts, and a line that is
// none is passed over.
func TestNamesOfAccounts(t *testing.T) {
	got := namesOf("root:x:0:0:root:/root:/bin/sh\n# of the desk\nann:x:1001:100::/home/ann:/bin/sh\n" +
		"again:x:1001:100:::\n:x:1002:1:::\nnobody:x:none:1:::\n+nis\nbig:x:4294967296:1:::\ncad:x:50:ann,bob\r\n\n")
	want := map[uint32]string{0: "root", 1001: "ann", 50: "cad"}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// accountsAt are accounts in files of a test's own.
func accountsAt(t *testing.T, passwd, group string) *accounts {
	t.Helper()
	dir := t.TempDir()
	a := &accounts{passwd: filepath.Join(dir, "passwd"), group: filepath.Join(dir, "group")}
	for path, text := range map[string]string{a.passwd: passwd, a.group: group} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// A caller's profile has its login and its groups, by number and by name, and nothing of an identity that the kernel
// does not map. A credential and the agent itself have none.
func TestProfileOfACaller(t *testing.T) {
	a := accountsAt(t, "ann:x:1001:100:::\nnobody:x:65534:65534:::\n", "users:x:100:\nnogroup:x:65534:\ncad:x:50:ann\n")
	for name, c := range map[string]struct {
		peer peer
		want enforcer.Profile
	}{
		"known": {peer{uid: 1001, gid: 100, groups: []uint32{50, 7}},
			enforcer.Profile{Login: "ann", Groups: "100\nusers\n50\ncad\n7"}},
		"unknown": {peer{uid: 1002, gid: 8}, enforcer.Profile{Groups: "8"}},
		"nobody":  {peer{uid: Nobody, gid: Nobody}, enforcer.Profile{}},
		"itself":  {peer{own: true, uid: 1001, gid: 100}, enforcer.Profile{}},
	} {
		if got := a.profile(&c.peer).Profile(); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	if uid := a.uidOf("ann"); uid != 1001 {
		t.Errorf("ann is %d", uid)
	}
	if uid := a.uidOf("bob"); uid != Nobody {
		t.Errorf("bob, whom nobody knows, is %d", uid)
	}
}

// A file that has changed is read again, a second after it was looked at; one that is gone, or too large to be a file
// of accounts, leaves what was known.
func TestAccountsAreReadAgain(t *testing.T) {
	a := accountsAt(t, "ann:x:1001:100:::\n", "")
	change := func(text string) {
		if err := os.WriteFile(a.passwd, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		a.looked = time.Now().Add(-time.Minute)
	}
	login := func() string {
		l, _ := a.names(1001, nil)
		return l
	}
	if l := login(); l != "ann" {
		t.Fatalf("1001 is %q", l)
	}
	change("annette:x:1001:100:::\n")
	if l := login(); l != "annette" {
		t.Errorf("after a change 1001 is %q", l)
	}
	if err := os.Remove(a.passwd); err != nil {
		t.Fatal(err)
	}
	a.looked = time.Time{}
	if l := login(); l != "annette" {
		t.Errorf("without the file 1001 is %q", l)
	}
	change("")
	if err := os.Truncate(a.passwd, maxAccounts+1); err != nil {
		t.Fatal(err)
	}
	if l := login(); l != "annette" {
		t.Errorf("with a file that is too large 1001 is %q", l)
	}
}
