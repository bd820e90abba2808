package dialect

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/identity"
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
		{"a socket", "{address: /run/a, dialect: plain}",
			"plain, for callers that the socket's mode and socket.allow let in"},
		{"tokens", fmt.Sprintf(`{address: "127.0.0.1:1", dialect: plain, token_file: %s}`, good),
			"callers with a token of " + good},
		{"nothing", `{address: "127.0.0.1:1", dialect: plain, insecure_loopback: true}`,
			"every process of this host (insecure_loopback)"},
		{"its own credential", `{address: "127.0.0.1:1", dialect: own}`, "callers with a licence key"},
		{"tokens before its own", fmt.Sprintf(`{address: "127.0.0.1:1", dialect: own, token_file: %s}`, good),
			"callers with a token of " + good},
		{"its credentials", fmt.Sprintf(`{address: "127.0.0.1:1", dialect: own, credentials_file: %s}`, good),
			"callers with a licence key"},
		{"unknown", "{address: /run/a, dialect: plane}",
			`!listeners[0] (/run/a): there is no dialect "plane" (known: plain, own)`},
		{"nobody vouches", `{address: "127.0.0.1:1", dialect: plain}`,
			"!listeners[0] (127.0.0.1:1): over TCP the kernel vouches for nobody: give token_file, or a Unix socket, " +
				"or insecure_loopback: true"},
		{"no file", `{address: "127.0.0.1:1", dialect: plain, token_file: /nowhere/t}`, "!token_file: open /nowhere/t"},
		{"empty file", fmt.Sprintf(`{address: "127.0.0.1:1", dialect: plain, token_file: %s}`, file("empty", "\n\n")),
			"!there is no token in it"},
		{"short token", fmt.Sprintf(`{address: "127.0.0.1:1", dialect: plain, token_file: %s}`,
			file("short", "0123456789abcde")), "!a token has 15 bytes, and must have at least 16"},
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
			found, err := Check(c, []plugin.Dialect{bare{"plain"}, keyed{bare{"own"}}})
			want, refused := strings.CutPrefix(test.want, "!")
			switch {
			case refused && (err == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("%v, want %s", err, want)
			case !refused && (err != nil ||
				!strings.HasSuffix(found[0].Dialect()+", for "+found[0].Callers(), want)):
				t.Errorf("%v, %v", found, err)
			}
		})
	}
	if _, err := Check(config.Default(), []plugin.Dialect{bare{"a"}, bare{"a"}}); err == nil {
		t.Error("two dialects of one name")
	}
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
	name := credentialName(key, "token", "secret")
	if name != credentialName(key, "token", "secret") || name == credentialName(key, "toy", "secret") ||
		name == credentialName(other, "token", "secret") || strings.Contains(name, "secret") {
		t.Errorf("%s", name)
	}
	one, err := keyFor(key, "one")
	if err != nil {
		t.Fatal(err)
	}
	two, err := keyFor(key, "two")
	if err != nil || one.Equal(two) || one.Equal(key) {
		t.Errorf("the keys are alike: %v", err)
	}
	d := &desk{key: one}
	d.Key()[0]++
	if !d.Key().Equal(one) {
		t.Error("whoever is given the key can change it")
	}
	if _, ok := d.Caller((&http.Request{}).WithContext(context.Background())); ok {
		t.Error("a request out of nothing has a caller")
	}
}
