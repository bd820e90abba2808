package agent_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

// renewals has, for each key of the configuration that names a file, what renews that file beneath a running agent, and
// sees the new one used or named as waiting for a restart.
var renewals = map[string]func(t *testing.T, key string){
	"license.trust[].key_file":     renewAnchor,
	"agent.key_file":               renewAgentKey,
	"plugins[].path":               renewPlugin,
	"ops.web_config":               renewWebConfig,
	"listeners[].token_file":       renewTokens,
	"listeners[].credentials_file": renewCredentials,
	"fleet.ca_file":                renewFleetFile,
	"fleet.cert_file":              renewFleetFile,
	"fleet.key_file":               renewFleetFile,
	"fleet.password_file":          renewFleetFile,
	"upstream.enrolment_file":      renewEnrolment,
	"upstream.ca_file":             renewCA,
	"upstream.client_cert_file":    renewCertificate,
	"upstream.client_key_file":     renewCertificate,
}

// Whatever file the configuration names, a renewed one is taken without a restart, or a reload says that it needs one.
func TestEveryNamedFileIsRenewed(t *testing.T) {
	t.Parallel()
	keys := config.FileKeys()
	for _, key := range keys {
		renew := renewals[key]
		if _, ok := askers[key]; ok {
			renew = renewSecret
		}
		if renew == nil {
			t.Errorf("%s names a file, and nothing here renews it", key)
			continue
		}
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			renew(t, key)
		})
	}
	for key := range renewals {
		if !slices.Contains(keys, key) {
			t.Errorf("%s names no file", key)
		}
	}
}

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// reloads reloads, and expects that the answer names the key with its file.
func (h *house) reloads(key, file string) *wire.Reloaded {
	h.t.Helper()
	r, err := h.Reload(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	if !slices.Contains(slices.Concat(r.Changed, r.Restart), key) || !slices.Contains(r.Files,
		wire.RenewedFile{Key: key, File: file}) {
		h.t.Fatalf("after %s was renewed, a reload says %+v", key, r)
	}
	return r
}

// refuses reloads with a bad file, and expects that the configuration of before stays, and that all is told.
func (h *house) refuses(file, bad string) {
	h.t.Helper()
	good, err := os.ReadFile(file)
	if err != nil {
		h.t.Fatal(err)
	}
	put(h.t, file, bad)
	if r, err := h.Reload(h.t.Context()); err == nil {
		h.t.Fatalf("a bad file is taken: %+v", r)
	}
	h.warns(true)
	if m, err := h.Metrics(h.t.Context()); err != nil || !strings.Contains(string(m),
		"\nusher_config_last_reload_successful 0\n") {
		h.t.Errorf("the metric does not say so: %v", err)
	}
	put(h.t, file, string(good))
	if _, err := h.Reload(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	h.warns(false)
}

// warns expects a warning of a refused configuration, or none, by now: a reload has answered.
func (h *house) warns(refused bool) {
	h.t.Helper()
	l, err := h.License(h.t.Context())
	if err != nil || warnsOf(enforcer.WarnConfigRefused)(l) != refused {
		h.t.Errorf("after a reload the warnings are %+v (%v); want one of refusal: %v", l, err, refused)
	}
}

func warnsOf(code enforcer.WarningCode) func(*wire.License) bool {
	return func(l *wire.License) bool {
		return slices.ContainsFunc(l.Warnings, func(w wire.Warning) bool { return w.Code == string(code) })
	}
}

func renewAnchor(t *testing.T, _ string) {
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 2, nil))
	h.until("in force", inForce("a"))
	file := h.path("k1.pub")
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	h.refuses(file, "no key")
	if l, err := h.License(t.Context()); err != nil || l.State != "valid" {
		t.Errorf("after a bad anchor the verdict is %+v, %v", l, err)
	}
	_, public, err := issue.MakeKey(t.TempDir(), "k1", "")
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	put(t, file, string(other))
	r := h.reloads("license.trust[0].key_file", file)
	if v := r.Verdict; v == nil || v.From != "VALID" || v.To != "BAD_SIGNATURE" || v.Reason == "" {
		t.Errorf("the verdict has turned: %+v", v)
	}
	put(t, file, string(was))
	r = h.reloads("license.trust[0].key_file", file)
	if v := r.Verdict; v == nil || v.To != "VALID" {
		t.Errorf("the verdict has turned back: %+v", v)
	}
}

func renewAgentKey(t *testing.T, key string) {
	dir := t.TempDir()
	file := filepath.Join(dir, "agent.key")
	make := func() string {
		private, _, err := issue.MakeKey(t.TempDir(), "a", "")
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(private)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	put(t, file, make())
	h := open(t, "agent: {key_file: "+file+"}\n")
	put(t, file, make())
	if r := h.reloads(key, file); !slices.Contains(r.Restart, key) {
		t.Errorf("it needs a restart: %+v", r)
	}
	h.until("the warning", warnsOf(enforcer.WarnRestartNeeded))
}

func renewPlugin(t *testing.T, _ string) {
	a := newAcme(t)
	h := open(t, a.config())
	b, err := os.ReadFile(a.bin)
	if err != nil {
		t.Fatal(err)
	}
	put(t, a.bin, string(b)+"\n")
	if r := h.reloads("plugins[0].path", a.bin); !slices.Contains(r.Restart, "plugins[0].path") {
		t.Errorf("it needs a restart: %+v", r)
	}
	h.until("the warning", warnsOf(enforcer.WarnRestartNeeded))
}

func renewWebConfig(t *testing.T, key string) {
	file := filepath.Join(t.TempDir(), "web.yml")
	user := func(password string) string {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("basic_auth_users: {op: %s}\n", hash)
	}
	put(t, file, user("one"))
	at := freeAddress(t)
	h := open(t, fmt.Sprintf("ops: {listen: %q, web_config: %s}\n", at, file))
	status := func(password string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("op", password)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if a, b := status("one"), status("two"); a != 200 || b != 401 {
		t.Fatalf("%d, %d", a, b)
	}
	h.refuses(file, "basic_auth: nonsense\n")
	put(t, file, user("two"))
	h.reloads(key, file)
	if a, b := status("one"), status("two"); a != 401 || b != 200 {
		t.Errorf("after the renewal: %d, %d", a, b)
	}
}

func renewTokens(t *testing.T, _ string) {
	file := filepath.Join(t.TempDir(), "tokens")
	put(t, file, tokenOne)
	h := open(t, "listeners: [{address: \"127.0.0.1:0\", dialect: toy, token_file: "+file+"}]\n")
	at := h.listening()[0].Address
	h.refuses(file, "short")
	put(t, file, tokenTwo)
	h.reloads("listeners[0].token_file", file)
	for token, want := range map[string]int{tokenOne: 401, tokenTwo: 200} {
		if res, _ := callerOf(t, at, bearer(token)...).send("GET", "/echo", nil); res.StatusCode != want {
			t.Errorf("%s: %s", token, res.Status)
		}
	}
}

func renewCredentials(t *testing.T, _ string) {
	file := filepath.Join(t.TempDir(), "keys")
	put(t, file, "a\n")
	h := open(t, "listeners: [{address: \"127.0.0.1:0\", dialect: keys, credentials_file: "+file+"}]\n")
	at := h.listening()[0].Address
	put(t, file, "b\n")
	h.reloads("listeners[0].credentials_file", file)
	for key, want := range map[string]bool{"a": false, "b": true} {
		if res, _ := callerOf(t, at, "Toy-Key", key).send("GET", "/echo", nil); (res.StatusCode == 200) != want {
			t.Errorf("%s: %s", key, res.Status)
		}
	}
}
