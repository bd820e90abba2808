package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/journal"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

type bare struct{ system string }

func (d bare) System() string                 { return d.system }
func (bare) Handler(plugin.Desk) http.Handler { return nil }

type keyed struct{ bare }

func (keyed) Credential() string { return "a licence key" }

// What is configured of listeners is held against the dialects that there are.
func TestCheckListeners(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", "0123456789abcdef\n")
	for _, test := range []struct{ name, listener, want string }{
		{"a socket", "{address: /run/a, dialect: plain}", "plain, for whom the socket's mode and socket.allow let"},
		{"tokens", fmt.Sprintf(`{address: "127.0.0.1:1", dialect: plain, token_file: %s}`, good),
			"who shows a token of " + good},
		{"nothing", `{address: "127.0.0.1:1", dialect: plain, insecure_loopback: true}`,
			"every process of this host (insecure_loopback)"},
		{"its own credential", `{address: "127.0.0.1:1", dialect: own}`, "who has a licence key"},
		{"tokens before its own", fmt.Sprintf(`{address: "127.0.0.1:1", dialect: own, token_file: %s}`, good),
			"who shows a token of " + good},
		{"its credentials", fmt.Sprintf(`{address: "127.0.0.1:1", dialect: own, credentials_file: %s}`, good),
			"who has a licence key"},
		{"unknown", "{address: /run/a, dialect: plane}",
			`!listeners[0] (/run/a): there is no dialect "plane" (known: plain, own)`},
		{"nobody vouches", `{address: "127.0.0.1:1", dialect: plain}`,
			"!listeners[0] (127.0.0.1:1): over TCP the kernel vouches for nobody: give token_file, or a Unix socket, " +
				"or insecure_loopback: true"},
		{"no file", `{address: "127.0.0.1:1", dialect: plain, token_file: /nowhere/t}`, "!token_file: open /nowhere/t"},
		{"empty file", fmt.Sprintf(`{address: "127.0.0.1:1", dialect: plain, token_file: %s}`, file("empty", "\n\n")),
			"!there is no token in it"},
		{"short token", fmt.Sprintf(`{address: "127.0.0.1:1", dialect: plain, token_file: %s}`,
			file("short", "0123456789abcde")), "!a token has 15 bytes, and must have 16 at least"},
		{"large file", fmt.Sprintf(`{address: "127.0.0.1:1", dialect: plain, token_file: %s}`,
			file("large", strings.Repeat("x", maxSecretFile+1))), "!it has more than 65536 bytes"},
		{"credentials of none", fmt.Sprintf(`{address: /run/a, dialect: plain, credentials_file: %s}`, good),
			"!credentials_file: the plain dialect has no credential of its own; leave it out"},
		{"no credentials", `{address: /run/a, dialect: own, credentials_file: /nowhere/c}`,
			"!credentials_file: open /nowhere/c"},
		{"no group", `{address: /run/a, dialect: plain, group: nobody-has-this-name}`,
			`!there is no group "nobody-has-this-name"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := config.Load(config.Source{Data: []byte("listeners: [" + test.listener + "]\n")})
			if err != nil {
				t.Fatal(err)
			}
			found, err := checkListeners(c, []plugin.Dialect{bare{"plain"}, keyed{bare{"own"}}})
			want, refused := strings.CutPrefix(test.want, "!")
			switch {
			case refused && (err == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("%v, want %s", err, want)
			case !refused && (err != nil ||
				!strings.HasSuffix(found[0].dialect.System()+", for "+found[0].who(), want)):
				t.Errorf("%v, %v", found, err)
			}
		})
	}
	if _, err := checkListeners(config.Default(), []plugin.Dialect{bare{"a"}, bare{"a"}}); err == nil {
		t.Error("two dialects of one name")
	}
	c, err := config.Load(config.Source{Data: []byte("listeners: [{address: /run/a, dialect: plain}]\n")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(c); err == nil || !strings.Contains(err.Error(), `there is no dialect "plain" (known: `) {
		t.Errorf("a check says %v", err)
	}
}

// What is kept on a lease is there after compactions and restarts, for what outlives the host after its reboot; nothing
// of it is left when the lease is over, however long its token is remembered.
func TestDataOutlivesCompaction(t *testing.T) {
	t.Parallel()
	for _, reboot := range []bool{false, true} {
		k := openKept(t)
		who := enforcer.Caller{UID: 65534, Credential: "token:1"}
		data := func(text string) *enforcer.Data { return &enforcer.Data{Owner: "toy", Bytes: []byte(text)} }
		var ids []enforcer.LeaseID
		for _, l := range []enforcer.Lifetime{enforcer.LifetimeHeld, enforcer.LifetimeBorrow, enforcer.LifetimeHeld,
			enforcer.LifetimeTTL} {
			r := enforcer.Acquire{Pool: "streams", Lifetime: l, Caller: who, Data: data("of " + string(l)),
				Token: fmt.Sprint(len(ids))}
			if l == enforcer.LifetimeBorrow {
				r.Until = k.wall.Add(time.Hour)
			}
			got, _, d := k.get(r)
			if d != nil {
				t.Fatal(d)
			}
			ids = append(ids, got.ID)
		}
		draw := enforcer.Acquire{Pool: "renders", Caller: who, Data: data("of the draw"), Token: "draw"}
		if _, _, d := k.get(draw); d != nil {
			t.Fatal(d)
		}
		if d := k.do(&enforcer.SetData{ID: ids[0], Caller: who, Data: data("another")}).Denial; d != nil {
			t.Fatal(d)
		}
		if d := k.Release(&enforcer.Release{ID: ids[2], Caller: who, Owner: "toy"}); d != nil {
			t.Fatal(d)
		}
		left := 3
		if reboot {
			left = 2
		}
		for _, compacted := range []bool{false, true, true} {
			k.restart(compacted, reboot)
			own := k.ownedBy("toy", who)
			if len(own) != left || len(k.ownedBy("toy", enforcer.Caller{UID: 65534})) > 0 ||
				len(k.ownedBy("other", who)) > 0 {
				t.Fatalf("reboot %t: %d leases", reboot, len(own))
			}
			for i, want := range []string{"another", "of borrow"} {
				if l, ok := k.Lease(ids[i]); !ok || l.Data == nil || string(l.Data.Bytes) != want ||
					l.Holder.Caller != who {
					t.Errorf("reboot %t: %+v, want %s", reboot, l, want)
				}
			}
			if l, replayed, d := k.get(draw); d != nil || !replayed || string(l.Data.Bytes) != "of the draw" {
				t.Errorf("reboot %t: the draw is answered %+v, %v", reboot, l, d)
			}
			if n, d := k.shift(&enforcer.Shift{Pool: "renders", By: 1, Caller: enforcer.Caller{Admin: true}}); d !=
				nil || n != 2 {
				t.Errorf("%d, %v", n, d)
			}
			if n, d := k.shift(&enforcer.Shift{Pool: "renders", By: -1, Caller: enforcer.Caller{Admin: true}}); d !=
				nil || n != 1 {
				t.Errorf("%d, %v", n, d)
			}
		}
	}
}

// What cannot be stored is denied and changes nothing.
func TestDataOnAFullDisk(t *testing.T) {
	t.Parallel()
	k := openKept(t)
	held, _, d := k.get(enforcer.Acquire{Pool: "streams", Lifetime: enforcer.LifetimeHeld,
		Data: &enforcer.Data{Owner: "toy", Bytes: []byte("one")}})
	if d != nil {
		t.Fatal(d)
	}
	full := false
	dir := t.TempDir()
	j, _, err := journal.Open(journal.Config{Dir: dir, Name: durableJournal, Sync: true,
		File: func(name string, flag int) (journal.File, error) {
			f, err := os.OpenFile(name, flag, 0o600)
			return fullDisk{f, &full}, err
		}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	was := k.store.durable
	defer func() { j.Close(); k.store.durable = was }()
	k.store.durable = j
	full = true
	if d := k.do(&enforcer.SetData{ID: held.ID, Data: &enforcer.Data{Owner: "toy", Bytes: []byte("two")}}).Denial; d ==
		nil || d.Code != enforcer.Storage {
		t.Errorf("on a full disk: %v", d)
	}
	if _, d := k.shift(&enforcer.Shift{Pool: "renders", By: 1, Caller: enforcer.Caller{Admin: true}}); d == nil ||
		d.Code != enforcer.Storage {
		t.Errorf("on a full disk: %v", d)
	}
	if l, ok := k.Lease(held.ID); !ok || string(l.Data.Bytes) != "one" {
		t.Errorf("it has become %+v", l)
	}
	if p, _ := k.Pool("renders"); p.InUse != 0 {
		t.Errorf("it has become %+v", p)
	}
	full = false
	if d := k.do(&enforcer.SetData{ID: held.ID, Data: &enforcer.Data{Owner: "toy", Bytes: []byte("two")}}).Denial; d !=
		nil {
		t.Error(d)
	}
}

// fullDisk is a file that cannot be written while it is full.
type fullDisk struct {
	*os.File
	full *bool
}

func (f fullDisk) WriteAt(b []byte, at int64) (int, error) {
	if *f.full {
		return 0, errors.New("no space left on device")
	}
	return f.File.WriteAt(b, at)
}

// A credential's name tells nothing of it, stays the same with the agent's key, and is another for another kind.
func TestCredentialNames(t *testing.T) {
	t.Parallel()
	key, err := identity.File{Path: filepath.Join(t.TempDir(), "k")}.Load()
	if err != nil {
		t.Fatal(err)
	}
	other, err := identity.File{Path: filepath.Join(t.TempDir(), "k")}.Load()
	if err != nil {
		t.Fatal(err)
	}
	a, b := &Agent{key: key, log: slog.New(slog.DiscardHandler)}, &Agent{key: other}
	name := a.credentialName("token", "secret")
	if name != a.credentialName("token", "secret") || name == a.credentialName("toy", "secret") ||
		name == b.credentialName("token", "secret") || strings.Contains(name, "secret") {
		t.Errorf("%s", name)
	}
	one, err := dialectKey(key, "one")
	if err != nil {
		t.Fatal(err)
	}
	two, err := dialectKey(key, "two")
	if err != nil || one.Equal(two) || one.Equal(key) {
		t.Errorf("the keys are alike: %v", err)
	}
	d := &dialectDesk{agent: a, key: one}
	d.Key()[0]++
	if !d.Key().Equal(one) {
		t.Error("whoever is given the key can change it")
	}
	if _, ok := d.Caller((&http.Request{}).WithContext(context.Background())); ok {
		t.Error("a request out of nothing has a caller")
	}
}
