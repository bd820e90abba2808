package ucloud_test

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/plugintest"
	"github.com/usher-agent/usher/plugin/ucloud"
)

// counter is the dialect at a desk.
type counter struct {
	t       testing.TB
	desk    *plugintest.Desk
	dialect ucloud.Settings
	h       http.Handler
	header  http.Header
}

func newCounter(t testing.TB, slots int64, settings ucloud.Settings) *counter {
	settings.Provider = "example"
	c := &counter{t: t, desk: plugintest.NewDesk(ucloud.System, noon.Add(24*time.Hour), license(t, slots, nil)),
		dialect: settings, header: http.Header{}}
	c.desk.Label = settings.Dialect().(plugin.Labeller).Label()
	c.restart()
	return c
}

// restart makes the handler again, as after a crash.
func (c *counter) restart() { c.h = c.dialect.Dialect().Handler(c.desk) }

// send makes a request, which must be answered with a status and JSON.
func (c *counter) send(status int, method, target, body string) string {
	c.t.Helper()
	r := httptest.NewRequest(method, "http://localhost"+target, strings.NewReader(body))
	r.Header = c.header.Clone()
	// the documentation's own examples send this
	r.Header.Set("Content-Type", "content-type: application/json; charset=utf-8")
	w := httptest.NewRecorder()
	c.h.ServeHTTP(w, r)
	if w.Code != status || !json.Valid(w.Body.Bytes()) ||
		w.Header().Get("Content-Type") != "application/json; charset=utf-8" {
		c.t.Fatalf("%s %s %.200s: %d %.2000s, and it must be %d", method, target, body, w.Code, w.Body.String(), status)
	}
	return w.Body.String()
}

// as makes further requests come from a user of the host.
func (c *counter) as(uid uint32, admin bool) {
	c.desk.Sender = &enforcer.Caller{UID: uid, Admin: admin}
}

// says checks that an answer has texts.
func (c *counter) says(answer string, texts ...string) {
	c.t.Helper()
	for _, s := range texts {
		if !strings.Contains(answer, s) {
			c.t.Errorf("%s does not say %s", answer, s)
		}
	}
}

const item = `{"items":[{"product":{"id":"abaqus","category":"abaqus","provider":"example"}}]}`

// create makes a licence and returns its id.
func (c *counter) create() string {
	c.t.Helper()
	var out ucloud.Responses[ucloud.ID]
	if err := json.Unmarshal([]byte(c.send(200, "POST", "/api/licenses", item)), &out); err != nil {
		c.t.Fatal(err)
	}
	return out.Responses[0].ID
}

// binding is the body of an update that binds or unbinds.
func binding(id, kind, job string) string {
	return `{"items":[{"id":"` + id + `","update":{"timestamp":0,"binding":{"kind":"` + kind + `","job":"` + job +
		`"}}}]}`
}

func (c *counter) bind(status int, id, kind, job string) string {
	c.t.Helper()
	return c.send(status, "POST", "/api/licenses/control/update", binding(id, kind, job))
}

func (c *counter) inUse(want int64) {
	c.t.Helper()
	if n := max(0, c.desk.InUse("abaqus")); n != want { // an expired pool without leases is gone
		c.t.Errorf("%d slots are in use, and it should be %d", n, want)
	}
}

// secret is the shared secret of an installation that has one.
const secret = "a-secret-of-a-test-0123456789abcdef"

var rsaKey = func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
}()

// token makes a JWT, by HS512 or RS256.
func token(t testing.TB, alg string, claims map[string]any) string {
	t.Helper()
	all := map[string]any{"iss": "cloud.sdu.dk", "sub": "alice", "aud": []string{"all:write"}, "role": "USER",
		"iat": noon.Add(23 * time.Hour).Unix(), "exp": noon.Add(25 * time.Hour).Unix()}
	for k, v := range claims {
		if all[k] = v; v == nil {
			delete(all, k)
		}
	}
	body, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	input := b64([]byte(`{"alg":"`+alg+`","typ":"JWT"}`)) + "." + b64(body)
	var sig []byte
	switch alg {
	case "HS512":
		mac := hmac.New(sha512.New, []byte(secret))
		mac.Write([]byte(input))
		sig = mac.Sum(nil)
	case "RS256":
		sum := sha256.Sum256([]byte(input))
		if sig, err = rsa.SignPKCS1v15(rand.Reader, rsaKey, crypto.SHA256, sum[:]); err != nil {
			t.Fatal(err)
		}
	}
	return input + "." + b64(sig)
}
