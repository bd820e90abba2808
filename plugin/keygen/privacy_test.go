package keygen_test

import (
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/keygen/keygentest"
)

var told = regexp.MustCompile(`THE-KEY|S3CRET|[a-z]+@[a-z]+\.example`)

// unsealed returns an answer with its unencrypted licence files decoded.
func unsealed(t *testing.T, body []byte) string {
	t.Helper()
	out := string(body)
	var doc struct {
		Data json.RawMessage `json:"data"`
	}
	var file struct {
		Attributes struct {
			Certificate string `json:"certificate"`
		} `json:"attributes"`
	}
	if json.Unmarshal(body, &doc) != nil || json.Unmarshal(doc.Data, &file) != nil ||
		file.Attributes.Certificate == "" {
		return out
	}
	var lines []string
	for line := range strings.Lines(file.Attributes.Certificate) {
		if !strings.HasPrefix(line, "-----") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	var sealed struct {
		Enc string `json:"enc"`
	}
	b, err := base64.StdEncoding.DecodeString(strings.Join(lines, ""))
	if err != nil || json.Unmarshal(b, &sealed) != nil {
		t.Fatalf("the certificate is %q", file.Attributes.Certificate)
	}
	inner, err := base64.StdEncoding.DecodeString(sealed.Enc)
	if err != nil {
		t.Fatal(err)
	}
	return out + string(inner)
}

// A caller that has shown the licence's key, and an admin, see all of the licence. Others do not see its secrets.
func TestDialectHides(t *testing.T) {
	t.Parallel()
	d := newDesk()
	l := file(t, d.Now(), func(l *keygentest.License) {
		l.Attributes.Name, l.Attributes.MaxMachines = new("Bob <bob@customer.example>"), new(int64(9))
	})
	data := l.Terms["data"].(map[string]any)
	data["attributes"].(map[string]any)["metadata"] = map[string]any{"apiKey": "S3CRET",
		"email": "carol@customer.example", "seats": 3.0}
	l.Terms["included"] = []any{
		map[string]any{"type": "users", "id": "u1",
			"attributes": map[string]any{"email": "dave@customer.example", "firstName": "Dave"}},
		map[string]any{"type": "entitlements", "id": "e1", "attributes": map[string]any{"code": "HD",
			"name": "for erin@customer.example", "metadata": map[string]any{"accessToken": "S3CRET"}}},
	}
	d.Judge(l)
	d.CredentialsFile = []byte("THE-KEY\nANOTHER-KEY\n")
	c := newClient(t, d)
	id := "/v1/licenses/0b5f5c0e-0000-4000-8000-000000000001"
	calls := []struct {
		method, target, body string
		says                 string
	}{
		{"GET", "/v1/me", "", `"seats":3`}, {"GET", "/v1/licenses", "", `"seats":3`}, {"GET", id, "", `"seats":3`},
		{"GET", id + "/entitlements", "", `"HD"`},
		{"GET", id + "/policy", "", "policies"}, {"GET", id + "/actions/validate", "", `"valid":true`},
		{"POST", id + "/actions/validate", "{}", `"valid":true`},
		{"POST", id + "/actions/check-out?include=users,entitlements", "{}", "Dave"},
		{"PUT", "/v1/nodes/n", "", "license_file"},
	}
	for name, auth := range map[string]string{"no key": "", "the key of another licence": "License ANOTHER-KEY",
		"a token": "Bearer THE-OTHER"} {
		vouch(d, true)
		c.auth = auth
		for _, call := range calls {
			out := unsealed(t, c.send(call.method, call.target, call.body).body)
			if name != "a token" && !strings.Contains(out, call.says) {
				t.Errorf("%s: %s %s says %s", name, call.method, call.target, out)
			}
			if got := told.FindAllString(out, -1); len(got) > 0 {
				t.Errorf("%s: %s %s tells %q", name, call.method, call.target, got)
			}
		}
	}
	for name, caller := range map[string]*enforcer.Caller{"the key": {UID: 1000}, "an admin": {UID: 0, Admin: true}} {
		d.Sender = caller
		if c.auth = ""; !caller.Admin {
			c.auth = "License THE-KEY"
		}
		out := unsealed(t, c.send("GET", "/v1/me", "").body) +
			unsealed(t, c.send("POST", id+"/actions/check-out?include=users,entitlements", "{}").body) +
			string(c.send("PUT", "/v1/nodes/n", "").body)
		for _, want := range []string{"S3CRET", "THE-KEY", "bob@customer.example", "carol@customer.example",
			"dave@customer.example", "erin@customer.example"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s is not told %s", name, want)
			}
		}
	}
}
