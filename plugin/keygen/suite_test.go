package keygen_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin/keygen"
	"github.com/usher-agent/usher/plugin/plugintest"
)

// The dialect keeps what every dialect keeps.
func TestDialectKeepsThePromises(t *testing.T) {
	request := func(method, target string, body io.Reader) *http.Request {
		r := httptest.NewRequest(method, "http://"+host+target, body)
		r.RequestURI = target
		return r
	}
	name := func(i int) string { return fmt.Sprintf("machine-%d", i) }
	plugintest.Dialect(t, keygen.Dialect{}, plugintest.DialectSamples{
		Headers: []string{"Keygen-Version", "Keygen-Environment"},
		License: terms(nil),
		Now:     time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC),
		Pool:    "machines", Slots: 2, NoSlots: "MACHINE_LIMIT_EXCEEDED",
		Prepare: func(d *plugintest.Desk) { d.Facts = newDesk().Facts },
		Take: func(i int) *http.Request {
			return request("POST", "/v1/machines", strings.NewReader(machineBody("lic-1", name(i), "")))
		},
		Give: func(i int, _ *httptest.ResponseRecorder) *http.Request {
			return request("DELETE", "/v1/machines/"+name(i), http.NoBody)
		},
		Held: func(i int, _ *httptest.ResponseRecorder) *http.Request {
			return request("GET", "/v1/machines/"+name(i), http.NoBody)
		},
		Send:  func(body io.Reader) *http.Request { return request("POST", "/v1/machines", body) },
		Calls: calls(request),
		Reads: []string{"/v1/me", "/v1/licenses", "/v1/licenses/lic-1", "/v1/licenses/lic-1/entitlements",
			"/v1/licenses/lic-1/policy", "/v1/licenses/lic-1/product", "/v1/licenses/lic-1/users", "/v1/machines",
			"/v1/machines/f/components", "/v1/processes", "/v1/licenses/lic-1/actions/validate",
			"/v1/machines/f/actions/check-out", "/v1/machines?limit=1&page[size]=1"},
		Refusal: func(w *httptest.ResponseRecorder) error {
			var doc struct {
				Errors []struct{ Title, Detail string }
			}
			switch err := json.Unmarshal(w.Body.Bytes(), &doc); {
			case err != nil:
				return err
			case len(doc.Errors) != 1 || doc.Errors[0].Title == "" || doc.Errors[0].Detail == "":
				return errors.New("no error with title and detail")
			case w.Header().Get("Keygen-Signature") == "":
				return errors.New("it is not signed")
			}
			return nil
		},
	})
}

// calls are the calls of the API with a body. What is required is so in Keygen's documentation.
func calls(request func(method, target string, body io.Reader) *http.Request) (out []plugintest.DialectCall) {
	const (
		machine = `{"data":{"type":"machines","attributes":{"fingerprint":"f","name":"n","ip":"10.0.0.1",` +
			`"hostname":"h","platform":"p","cores":2,"memory":1024,"disk":2048,` +
			`"metadata":{"k":"v"}},"relationships":{"license":{"data":{"type":"licenses","id":"lic-1"}},` +
			`"components":{"data":[{"type":"components",` +
			`"attributes":{"fingerprint":"c","name":"board"}}]}}}}`
		patch = `{"data":{"type":"machines","attributes":{"name":"n","ip":"10.0.0.2","hostname":"h","platform":"p"}}}`
		scope = `{"product":"acme","fingerprint":"f","fingerprints":["f"],` +
			`"components":["c"],"entitlements":["EXPORT"],` +
			`"machine":"m","policy":"p","user":"u","checksum":"s","version":"1.0","environment":"e"}`
	)
	make := func(send plugintest.Sender) {
		send(request("POST", "/v1/machines", strings.NewReader(machine)))
	}
	for _, c := range []struct {
		method, target, body string
		bare                 bool // it needs no machine
		required             []string
	}{
		{"POST", "/v1/machines", machine, true, []string{"data", "data.type", "data.attributes",
			"data.attributes.fingerprint", "data.relationships", "data.relationships.license",
			"data.relationships.license.data", "data.relationships.license.data.id",
			"data.relationships.components.data.0.attributes.fingerprint"}},
		{"PATCH", "/v1/machines/f", patch, false, []string{"data", "data.type"}},
		{"POST", "/v1/processes", processBody("f", "100", ""), false, []string{"data", "data.type",
			"data.attributes", "data.attributes.pid", "data.relationships", "data.relationships.machine",
			"data.relationships.machine.data", "data.relationships.machine.data.id"}},
		{"POST", "/v1/licenses/lic-1/actions/validate", `{"meta":{"nonce":1,"scope":` + scope + `}}`, false, nil},
		{"POST", "/v1/licenses/actions/validate-key", `{"meta":{"key":"K","nonce":1,"scope":` + scope + `}}`, false,
			[]string{"meta", "meta.key"}},
		{"POST", "/v1/licenses/lic-1/actions/check-out", `{"meta":{"ttl":3600,"include":["entitlements"],` +
			`"encrypt":false,"algorithm":"base64+ed25519"}}`, false, nil},
		{"POST", "/v1/machines/f/actions/check-out", `{"meta":{"ttl":3600,"include":["license"],"encrypt":false}}`,
			false, nil},
		{"POST", "/v1/licenses/lic-1/actions/increment-usage", `{"meta":{"increment":1}}`, false, nil},
		{"POST", "/v1/licenses/lic-1/actions/decrement-usage", `{"meta":{"decrement":1}}`, false, nil},
	} {
		out = append(out, plugintest.DialectCall{Name: c.method + " " + c.target, Required: c.required,
			Body: func(send plugintest.Sender) string {
				if !c.bare {
					make(send)
					send(request("POST", "/v1/licenses/lic-1/actions/increment-usage",
						strings.NewReader(`{"meta":{"increment":3}}`)))
				}
				return c.body
			},
			Send: func(body io.Reader) *http.Request { return request(c.method, c.target, body) }})
	}
	return out
}
