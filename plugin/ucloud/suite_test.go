package ucloud_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
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

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// vendor signs the companion documents of the tests.
var vendor = ed25519.NewKeyFromSeed(bytes.Repeat([]byte("v"), ed25519.SeedSize))

var abaqus = ucloud.ProductRef{ID: "abaqus", Category: "abaqus", Provider: "example"}

// companion signs a document for a number of slots of the pool abaqus.
func companion(t testing.TB, slots int64, change func(*ucloud.Claims)) []byte {
	t.Helper()
	c := &ucloud.Claims{ID: "c-1", Product: "acme", Issued: noon.Unix(), Resource: abaqus,
		Pools: map[string]ucloud.PoolClaim{"abaqus": {Max: &slots, Scope: "host"}}}
	if change != nil {
		change(c)
	}
	doc, err := ucloud.Sign(c, "v-1", vendor)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func anchors(t testing.TB) []plugin.Anchor {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(vendor.Public())
	if err != nil {
		t.Fatal(err)
	}
	a, err := ucloud.NewAnchor("v-1", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "")
	if err != nil {
		t.Fatal(err)
	}
	return []plugin.Anchor{a}
}

// license returns the terms of companion.
func license(t testing.TB, slots int64, change func(*ucloud.Claims)) *enforcer.License {
	t.Helper()
	l, p := ucloud.Format{}.Verify(companion(t, slots, change), anchors(t))
	if p != nil {
		t.Fatal(p)
	}
	return l
}

// The dialect keeps what every dialect keeps.
func TestDialectKeepsThePromises(t *testing.T) {
	t.Parallel()
	made := func(taken *httptest.ResponseRecorder) string {
		var out ucloud.Responses[ucloud.ID]
		if err := json.Unmarshal(taken.Body.Bytes(), &out); err != nil || len(out.Responses) != 1 {
			return "0"
		}
		return out.Responses[0].ID
	}
	request := func(method, target string, body io.Reader) *http.Request {
		return httptest.NewRequest(method, "http://localhost"+target, body)
	}
	plugintest.Dialect(t, dialect(), plugintest.DialectSamples{
		Headers: []string{"Project"},
		License: license(t, 2, nil), Pool: "abaqus", Slots: 2, NoSlots: ucloud.ErrorNoCredits,
		Take: func(i int) *http.Request {
			return request("POST", "/api/licenses", strings.NewReader(fmt.Sprintf(
				`{"items":[{"product":{"id":"abaqus","category":"abaqus","provider":"example"},`+
					`"labels":{"job":"%d"}}]}`, i+1)))
		},
		Give: func(_ int, taken *httptest.ResponseRecorder) *http.Request {
			return request("DELETE", "/api/licenses", strings.NewReader(`{"items":[{"id":"`+made(taken)+`"}]}`))
		},
		Held: func(_ int, taken *httptest.ResponseRecorder) *http.Request {
			return request("GET", "/api/licenses/retrieve?id="+made(taken), http.NoBody)
		},
		Send:  func(body io.Reader) *http.Request { return request("POST", "/api/licenses", body) },
		Calls: calls(request, made),
		Reads: []string{"/api/licenses/browse?includeOthers=true&includeUpdates=true&includeSupport=true",
			"/api/licenses/retrieve?id=1&includeUpdates=true", "/api/licenses/retrieveProducts",
			"/api/licenses/browse?filterIds=1&itemsPerPage=10&filterLabels=a,b"},
		Refusal: func(w *httptest.ResponseRecorder) error {
			var f map[string]any
			switch err := json.Unmarshal(w.Body.Bytes(), &f); {
			case err != nil:
				return err
			case f["why"] == "" || f["why"] == nil || f["statusCode"] != float64(w.Code):
				return errors.New("no why and statusCode")
			}
			if _, ok := f["errorCode"]; !ok {
				return errors.New("no errorCode")
			}
			return nil
		},
	})
}

func dialect() plugin.Dialect {
	return (&ucloud.Settings{Provider: "example"}).Dialect()
}

// The format keeps what every format keeps.
func TestFormatKeepsThePromises(t *testing.T) {
	t.Parallel()
	good := companion(t, 2, nil)
	rich := companion(t, 2, func(c *ucloud.Claims) {
		c.Licensee, c.Issuer, c.Expires, c.Grace = "Lab", "Example", noon.AddDate(1, 0, 0).Unix(), 3600
		c.CheckIn, c.LicenseID = &ucloud.PeriodClaim{Every: 3600, Grace: 60}, "5123"
	})
	plugintest.Format(t, ucloud.Format{}, plugintest.FormatSamples{Good: [][]byte{good, rich}, Anchors: anchors(t),
		Foreign: [][]byte{[]byte("-----BEGIN USHER LICENSE-----\nabc\n-----END USHER LICENSE-----\n")},
		Broken:  [][]byte{good[:len(good)/2], bytes.Replace(good, []byte("."), []byte("!."), 1)},
		Statement: fmt.Appendf(nil, `{"jti": "c-1", "product": "acme", "iat": %d, "nbf": %d, "exp": %d,
			"resource": {"id": "abaqus", "category": "abaqus", "provider": "example"}, "license_id": "5123",
			"pools": {"abaqus": {"max": 2, "scope": "host"}}, "check_in": {"every_seconds": 3600, "grace_seconds": 60},
			"grace_seconds": 60, "on_expiry": "revoke", "agent_keys": ["%s"]}`, noon.Unix(), noon.Add(time.Hour).Unix(),
			noon.AddDate(1, 0, 0).Unix(), strings.Repeat("A", 43)),
		Sign:   signed,
		Absent: []string{"pools.abaqus.max=<nil>"}})
}

// signed signs any statement.
func signed(statement []byte) ([]byte, error) {
	b64 := base64.RawURLEncoding.EncodeToString
	input := b64([]byte(`{"alg": "EdDSA", "kid": "v-1", "typ": "ucloud-license+jwt"}`)) + "." + b64(statement)
	return []byte(input + "." + b64(ed25519.Sign(vendor, []byte(input)))), nil
}

// calls are the calls of a user and of a provider, with the members that have no default in UCloud's sources.
func calls(request func(method, target string, body io.Reader) *http.Request,
	made func(*httptest.ResponseRecorder) string) (out []plugintest.DialectCall) {
	const spec = `{"product":{"id":"abaqus","category":"abaqus","provider":"example"},"labels":{"job":"7"}}`
	const product = "items.0.product"
	callers := map[bool]*enforcer.Caller{true: {Admin: true}} // an admin is the provider
	for _, c := range []struct {
		method, target, body string // ID in a body is the id of a licence that is there
		required             []string
	}{
		{"POST", "/api/licenses", `{"items":[` + spec + `]}`, []string{"items", "items.0", product, product + ".id",
			product + ".category", product + ".provider"}},
		{"DELETE", "/api/licenses", `{"items":[{"id":"ID"}]}`, []string{"items", "items.0", "items.0.id"}},
		{"POST", "/api/licenses/search", `{"flags":{"includeOthers":true,"filterIds":"ID"},"query":"a",` +
			`"itemsPerPage":10,"sortBy":"id","sortDirection":"ascending"}`, nil},
		{"POST", "/api/licenses/updateAcl", `{"items":[{"id":"ID","added":[{"entity":{"type":"user",` +
			`"username":"u"},"permissions":["READ"]}],"deleted":[{"type":"user","username":"w"}]}]}`,
			[]string{"items", "items.0", "items.0.id", "items.0.added.0.entity",
				"items.0.added.0.entity.type", "items.0.added.0.entity.username", "items.0.added.0.permissions"}},
		{"POST", "/api/licenses/updateLabels", `{"items":[{"id":"ID","labels":{"team":"blue"}}]}`,
			[]string{"items", "items.0", "items.0.id", "items.0.labels"}},
		{"POST", "/api/licenses/control/update", `{"items":[{"id":"ID","update":{"timestamp":1,"state":"READY",` +
			`"status":"s","binding":{"kind":"BIND","job":"7"}}}]}`, []string{"items", "items.0", "items.0.id",
			"items.0.update", "items.0.update.binding.kind", "items.0.update.binding.job"}},
		{"POST", "/api/licenses/control/register", `{"items":[{"spec":` + spec + `,"providerGeneratedId":"g",` +
			`"createdBy":"u","project":"p","projectAllRead":true,"projectAllWrite":false}]}`,
			[]string{"items", "items.0", "items.0.spec", "items.0.spec.product", "items.0.spec.product.id"}},
		{"POST", "/api/licenses/control/updateLabels", `{"items":[{"id":"ID","labels":{"team":"blue"}}]}`,
			[]string{"items", "items.0", "items.0.id", "items.0.labels"}},
		{"POST", "/api/licenses/control/checkCredits", `{"items":[{"id":"ID","chargeId":"c","units":1,"periods":1,` +
			`"performedBy":"u","description":"d"}]}`, []string{"items", "items.0", "items.0.id", "items.0.units"}},
	} {
		out = append(out, plugintest.DialectCall{Name: c.method + " " + c.target, Required: c.required,
			Nullable: []string{"items.0.labels"},
			Body: func(send plugintest.Sender) string {
				if !strings.Contains(c.body, "ID") {
					return c.body
				}
				w := send(request("POST", "/api/licenses", strings.NewReader(`{"items":[`+spec+`]}`)))
				return strings.ReplaceAll(c.body, `ID"`, made(w)+`"`)
			},
			Caller: callers[strings.Contains(c.target, "control")],
			Send:   func(body io.Reader) *http.Request { return request(c.method, c.target, body) }})
	}
	return out
}
