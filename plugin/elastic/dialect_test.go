package elastic_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/elastic"
	"github.com/usher-agent/usher/plugin/elastic/elastictest"
	"github.com/usher-agent/usher/plugin/plugintest"
)

const credential = "a-credential-of-a-test"

// house is the dialect on a desk.
type house struct {
	*plugintest.Desk
	t       testing.TB
	signer  elastictest.Signer
	handler http.Handler
	header  http.Header
}

// open returns a house whose caller is an admin, with its clock an hour after the licences' issue.
func open(t testing.TB) *house { return openAt(t, issued.Add(time.Hour)) }

func openAt(t testing.TB, now time.Time) *house {
	h := &house{t: t, signer: elastictest.Shared(), header: http.Header{}}
	trust := append(anchors(t), anchor(t, h.signer))
	h.Desk = plugintest.NewDesk(elastic.System, now)
	h.Sender = &enforcer.Caller{UID: 0, Admin: true}
	h.Check = func(doc []byte) (*enforcer.License, *enforcer.Problem) { return elastic.Format{}.Verify(doc, trust) }
	h.handler = elastic.Dialect{}.Handler(h.Desk)
	return h
}

// send sends a request, and returns the answer with its body decoded.
func (h *house) send(method, target, body string) (*httptest.ResponseRecorder, map[string]any) {
	h.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header = h.header.Clone()
	w := httptest.NewRecorder()
	h.handler.ServeHTTP(w, r)
	var out map[string]any
	if w.Body.Len() > 0 && json.Unmarshal(w.Body.Bytes(), &out) != nil {
		h.t.Fatalf("%s %s: %s is no JSON object", method, target, w.Body)
	}
	return w, out
}

const (
	platform = "/api/v1/platform/license"
	region   = "/api/v1/regions/ece-region/platform/license"
)

// eceRefused checks that an answer is a refusal of ECE with a code and the paths of the fields.
func (h *house) eceRefused(w *httptest.ResponseRecorder, status int, code string, fields ...string) {
	h.t.Helper()
	var out struct {
		Errors []struct {
			Code, Message string
			Fields        []string
		}
	}
	err := json.Unmarshal(w.Body.Bytes(), &out)
	if err != nil || w.Code != status || len(out.Errors) != 1 || out.Errors[0].Code != code ||
		out.Errors[0].Message == "" || !slices.Equal(out.Errors[0].Fields, fields) ||
		w.Header().Get("x-cloud-error-codes") != code {
		h.t.Errorf("%d %s, and not %d %s %v", w.Code, w.Body, status, code, fields)
	}
}

func (h *house) ok(method, target, body string) map[string]any {
	h.t.Helper()
	w, out := h.send(method, target, body)
	if w.Code != http.StatusOK {
		h.t.Fatalf("%s %s: %d %s", method, target, w.Code, w.Body)
	}
	return out
}

// The platform's licence is put, shown, put back and deleted, on both paths, with the answers that clients accept.
func TestPlatformLicense(t *testing.T) {
	h := open(t)
	for _, path := range []string{platform, region, platform + "/"} {
		w, _ := h.send("GET", path, "")
		h.eceRefused(w, 404, "license.license_not_found")
		w, _ = h.send("DELETE", path, "")
		h.eceRefused(w, 404, "license.license_not_found")
		doc := h.signer.Orchestration(elastictest.License{UID: "u-1", Issued: issued, Units: 100,
			Unsigned: map[string]any{"operation_mode": "prod", "version": 4,
				"cluster_licenses": json.RawMessage(`[{"license":{"z":1,"a":12345678901234567890}}]`)}})
		if out := h.ok("PUT", path, string(doc)); len(out) != 0 {
			t.Errorf("a PUT is answered with %v", out)
		}
		w, out := h.send("GET", path, "")
		license := out["license"].(map[string]any)
		if license["uid"] != "u-1" || license["max_resource_units"] != 100.0 || license["type"] != "enterprise" ||
			license["issued_to"] != "Acme & Sons <test>" || license["operation_mode"] != "prod" ||
			license["start_date_in_millis"] != float64(issued.UnixMilli()) || license["signature"] == nil ||
			license["max_instances"] != nil {
			t.Errorf("the licence is %v", license)
		}
		if !strings.Contains(w.Body.String(), `[{"license":{"z":1,"a":12345678901234567890}}]`) ||
			strings.Contains(w.Body.String(), `\u0026`) {
			t.Errorf("numbers and texts are not as they were: %s", w.Body)
		}
		if w.Header().Get("Content-Type") != "application/json" {
			t.Error("the content type is", w.Header().Get("Content-Type"))
		}
		h.ok("PUT", path, w.Body.String()) // with usage_stats, its members in another order
		h.ok("DELETE", path, "")
		if len(h.Documents) != 0 {
			t.Errorf("left behind: %v", h.Documents)
		}
	}
}

// Each request that was recorded of the vendor's Go client is answered as that client accepts.
func TestPlatformTranscript(t *testing.T) {
	var transcript struct {
		Exchanges []struct {
			Step    string
			Request json.RawMessage
			Body    json.RawMessage
			Answer  struct {
				Status  int
				Headers map[string]string
			} `json:"response"`
		}
	}
	vectors(t, "ece-client-transcript.json", &transcript)
	h := openAt(t, time.Date(2020, 12, 1, 0, 0, 0, 0, time.UTC))
	external := string(file(t, "licences/eck-v4-enterprise-external.json"))
	last := ""
	for _, e := range transcript.Exchanges {
		var request struct{ Method, Path string }
		body := ""
		if json.Unmarshal(e.Request, &request) != nil { // in words: as the one before
			request.Method, request.Path = "PUT", region
		}
		if request.Method == "PUT" {
			if body = external; strings.Contains(e.Step, "refused") {
				body = strings.Replace(external, `"signature":"AAAABA`, `"signature":"BBBBBA`, 1)
			} else if strings.Contains(e.Step, "just read") {
				body = last
			}
		}
		w, _ := h.send(request.Method, request.Path, body)
		if w.Code != e.Answer.Status {
			t.Errorf("%s: %d %s, and not %d", e.Step, w.Code, w.Body, e.Answer.Status)
		}
		for name, want := range e.Answer.Headers {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %s is %q, and not %q", e.Step, name, got, want)
			}
		}
		last = w.Body.String()
	}
}

// A licence that is not to be installed is refused, with the fields that are wrong, and what is in force stays.
func TestPlatformRefusals(t *testing.T) {
	h := open(t)
	s := h.signer
	one := elastictest.License{UID: "good", Issued: issued, Units: 10}
	h.ok("PUT", platform, string(s.Orchestration(one)))
	day := 24 * time.Hour
	with := func(change func(*elastictest.License)) string {
		l := one
		l.UID = "other"
		change(&l)
		return string(s.Orchestration(l))
	}
	unsigned := func(pairs ...any) string {
		return with(func(l *elastictest.License) {
			l.Unsigned = map[string]any{}
			for i := 0; i < len(pairs); i += 2 {
				l.Unsigned[pairs[i].(string)] = pairs[i+1]
			}
		})
	}
	path := func(names ...string) (out []string) {
		for _, n := range names {
			out = append(out, "body.license."+n)
		}
		return out
	}
	for name, c := range map[string]struct {
		body   string
		fields []string
	}{
		"nothing":           {"", []string{"body.license"}},
		"null":              {"null", []string{"body.license"}},
		"a licence of null": {`{"license":null}`, []string{"body.license"}},
		"no members": {`{"license":{}}`, path("uid", "type", "issuer", "issued_to", "issue_date_in_millis",
			"start_date_in_millis", "expiry_date_in_millis", "signature")},
		"null members": {`{"license":{"uid":5}}`, path("uid")},
		"a list of licences": {strings.Replace(with(func(*elastictest.License) {}), `"license":`, `"licenses":[`, 1),
			[]string{"body.license"}},
		"changed":     {strings.Replace(string(s.Orchestration(one)), `:10,`, `:11,`, 1), path("signature")},
		"another key": {string(elastictest.New().Orchestration(one)), path("signature")},
		"a stack licence": {string(s.Stack(elastictest.License{UID: "x", Type: "platinum", Issued: issued,
			Starts: issued,
			Nodes:  1})), path("type")},
		"a stack licence of type enterprise": {string(s.Stack(elastictest.License{UID: "x", Type: "enterprise",
			Issued: issued, Starts: issued, Units: 1})), path("type")},
		"expired": {with(func(l *elastictest.License) {
			l.Issued = issued.Add(-60 * day)
		}), path("expiry_date_in_millis")},
		"not yet good": {with(func(l *elastictest.License) {
			l.Starts = issued.Add(2 * day)
		}), path("start_date_in_millis")},
		"allocators and units": {unsigned("max_allocators", 3),
			path("max_allocators", "max_resource_units")},
		"instances and units": {with(func(l *elastictest.License) { l.Instances = 3 }),
			path("max_instances", "max_resource_units")},
		"units in version 3": {unsigned("version", 3), path("max_resource_units")},
		"units in version 2": {unsigned("version", 2), path("max_resource_units")},
		"instances in version 4": {with(func(l *elastictest.License) {
			l.Units, l.Instances, l.Unsigned = 0, 1, map[string]any{"version": 4}
		}), path("max_instances")},
		"allocators of version 2": {with(func(l *elastictest.License) {
			l.Units, l.Unsigned = 0, map[string]any{"version": 2, "max_allocators": 1}
		}), path("max_allocators")},
	} {
		w, _ := h.send("PUT", platform, c.body)
		t.Log(name)
		h.eceRefused(w, 400, "license.invalid_license", c.fields...)
		if out := h.ok("GET", platform, ""); out["license"].(map[string]any)["uid"] != "good" {
			t.Fatalf("%s: it is in force", name)
		}
	}
}

// A licence that is older, or of the same uid, takes the place of the present one; another document that was issued
// later keeps it out.
func TestPlatformReplacement(t *testing.T) {
	h := open(t)
	put := func(uid string, hours int) *httptest.ResponseRecorder {
		w, _ := h.send("PUT", platform, string(h.signer.Orchestration(elastictest.License{UID: uid,
			Issued: issued.Add(time.Duration(hours) * time.Hour), Units: 10})))
		return w
	}
	for _, p := range []struct {
		uid   string
		hours int
	}{{"a", -5}, {"a", -5}, {"a", -3}, {"a", -4}, {"b", -9}} {
		if w := put(p.uid, p.hours); w.Code != 200 {
			t.Errorf("%+v: %d %s", p, w.Code, w.Body)
		}
		license := h.ok("GET", platform, "")["license"].(map[string]any)
		if license["uid"] != p.uid || license["issue_date_in_millis"] !=
			float64(issued.Add(time.Duration(p.hours)*time.Hour).UnixMilli()) {
			t.Errorf("after %+v it is %v", p, license)
		}
	}
	if len(h.Documents) != 1 {
		t.Errorf("%d documents lie there", len(h.Documents))
	}
	other := h.signer.Stack(elastictest.License{UID: "c", Type: "gold", Issued: issued.Add(-time.Hour), Nodes: 1})
	if d := h.Install(t.Context(), *h.Sender, other, "other.json"); d != nil {
		t.Fatal(d)
	}
	h.eceRefused(put("d", -6), 400, "license.invalid_license", "body.license.issue_date_in_millis")
	h.eceRefused(put("b", -9), 400, "license.invalid_license", "body.license.issue_date_in_millis")
}

// What is in use of the licence is told in MiB, and what a client says of it is not believed.
func TestUsageStats(t *testing.T) {
	h := open(t)
	for _, c := range []struct {
		l    elastictest.License
		pool string
		want float64
	}{
		{elastictest.License{UID: "a", Issued: issued, Units: 10}, "resource_units", 3 * 65536},
		{elastictest.License{UID: "b", Issued: issued, Instances: 10}, "instances", 3 * 32768},
	} {
		doc := h.signer.Orchestration(c.l)
		h.ok("PUT", platform, strings.TrimSuffix(strings.TrimSpace(string(doc)), "}")+
			`,"usage_stats":{"total_connected_memory_total":77}}`)
		usage := func() any {
			return h.ok("GET", platform, "")["usage_stats"].(map[string]any)["total_connected_memory_total"]
		}
		if usage() != 0.0 {
			t.Errorf("%v is in use at first", usage())
		}
		d := h.Do(&enforcer.Acquire{ID: enforcer.LeaseID{byte(c.want)}, Pool: c.pool, N: 3,
			Caller: enforcer.Caller{UID: 5}, Lifetime: enforcer.LifetimeHeld})
		if d.Denial != nil || usage() != c.want {
			t.Errorf("%v is in use, and not %v (%v)", usage(), c.want, d.Denial)
		}
		more := enforcer.LeaseID{1, byte(c.want)}
		h.Do(&enforcer.Acquire{ID: more, Pool: c.pool, N: 1500, Of: int64(c.want) / 3, Caller: enforcer.Caller{UID: 5},
			Lifetime: enforcer.LifetimeHeld})
		if usage() != c.want+1500 {
			t.Errorf("with 1500 MiB more %v is in use", usage())
		}
		h.Do(&enforcer.Release{ID: more, Caller: enforcer.Caller{UID: 5}})
		h.Do(&enforcer.Release{ID: enforcer.LeaseID{byte(c.want)}, Caller: enforcer.Caller{UID: 5}})
	}
}

// A caller who is no admin may read, without the signature, and change nothing; over TCP it needs a credential.
func TestCallers(t *testing.T) {
	h := open(t)
	doc := string(h.signer.Orchestration(elastictest.License{UID: "a", Issued: issued, Units: 10,
		IssuedTo: "jane@example.com"}))
	h.ok("PUT", platform, doc)
	h.Sender = &enforcer.Caller{UID: 1000}
	license := h.ok("GET", platform, "")["license"].(map[string]any)
	if license["signature"] != "(hidden)" || strings.Contains(license["issued_to"].(string), "jane") {
		t.Errorf("a caller who is no admin is told %v", license)
	}
	for _, method := range []string{"PUT", "DELETE"} {
		w, _ := h.send(method, platform, doc)
		h.eceRefused(w, 403, "root.unauthorized")
		if w, out := h.send(method, "/_license", doc); w.Code != 403 || reason(out) == "" {
			t.Errorf("%s: %d %s", method, w.Code, w.Body)
		}
	}
	h.Sender = nil
	h.CredentialsFile = []byte("short\n" + credential + "\n elastic:" + credential + " \n")
	basic := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for header, known := range map[string]bool{
		"": false, "ApiKey": false, "ApiKey x": false, "ApiKey short": false, "Basic " + basic("elastic:x"): false,
		"Digest " + credential: false,
		"ApiKey " + credential: true, "APIKey " + credential: true, "Bearer " + credential: true,
		"Basic " + basic("elastic:"+credential): true, "ApiKey " + basic("elastic:"+credential): true,
	} {
		h.header = http.Header{"Authorization": {header}}
		w, _ := h.send("GET", platform, "")
		if !known {
			h.eceRefused(w, 401, "root.unauthenticated")
		} else if w.Code != 200 || !strings.Contains(w.Body.String(), "jane") {
			t.Errorf("%q: %d %s", header, w.Code, w.Body)
		}
		if w, _ := h.send("GET", "/_license", ""); w.Code != map[bool]int{true: 404, false: 401}[known] {
			t.Errorf("%q: %d %s", header, w.Code, w.Body)
		}
	}
	// A credential that the listener names may change licences, another may not.
	h.Installers = []string{"elastic"}
	for secret, status := range map[string]int{"elastic:" + credential: 200, credential: 403} {
		h.header = http.Header{"Authorization": {"ApiKey " + secret}}
		if w, _ := h.send("PUT", platform, doc); w.Code != status {
			t.Errorf("by %s: %d %s", secret, w.Code, w.Body)
		}
	}
	if err := (elastic.Dialect{}).CheckCredentials([]byte("\nshort\n")); err == nil ||
		!strings.Contains(err.Error(), "line 2") || strings.Contains(err.Error(), "short") {
		t.Error(err)
	}
}

// What is no call of either API is refused in the form of the one that it seems to be meant for.
func TestOtherCalls(t *testing.T) {
	h := open(t)
	w, _ := h.send("GET", "/api/v1/deployments", "")
	h.eceRefused(w, 404, "root.resource_not_found")
	w, _ = h.send("POST", region, "{}")
	h.eceRefused(w, 405, "root.method_not_allowed")
	if w.Header().Get("Allow") != "DELETE, GET, PUT" {
		t.Error("allowed:", w.Header().Get("Allow"))
	}
	for target, status := range map[string]int{"/_search": 404, "/_license/start_trial": 405, "/_license/x": 404} {
		if w, out := h.send("GET", target, ""); w.Code != status || reason(out) == "" ||
			w.Header().Get("X-Elastic-Product") != "Elasticsearch" {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
}

// reason is the reason of an error of Elasticsearch.
func reason(out map[string]any) string {
	e, _ := out["error"].(map[string]any)
	if e == nil || e["root_cause"] == nil || e["type"] == nil {
		return ""
	}
	s, _ := e["reason"].(string)
	return s
}

// The dialect keeps what every dialect keeps that takes no slots, by either API.
func TestDialectKeepsThePromises(t *testing.T) {
	s := elastictest.Shared()
	ece := func(w *httptest.ResponseRecorder) error {
		var out struct {
			Errors []struct{ Code, Message string }
		}
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
			return err
		}
		if len(out.Errors) != 1 || out.Errors[0].Code == "" || out.Errors[0].Message == "" {
			return errors.New("it has not one error with code and message")
		}
		return nil
	}
	stack := func(w *httptest.ResponseRecorder) error {
		var out map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
			return err
		}
		if w.Code != 404 && reason(out) == "" {
			return errors.New("it has no error with a reason")
		}
		return nil
	}
	reads := map[string][]string{platform: {platform, "/api/v1/platform"}, "/_license": {"/_license", "/_xpack",
		"/_license/trial_status", "/_license/basic_status", "/"}}
	for path, c := range map[string]struct {
		doc     []byte
		refusal func(*httptest.ResponseRecorder) error
	}{
		platform:    {s.Orchestration(elastictest.License{UID: "a", Issued: issued, Units: 10}), ece},
		"/_license": {s.Stack(elastictest.License{UID: "a", Type: "gold", Issued: issued, Nodes: 10}), stack},
	} {
		plugintest.Dialect(t, elastic.Dialect{}, plugintest.DialectSamples{
			License: good(t, c.doc),
			Prepare: func(d *plugintest.Desk) {
				d.Documents["a.lic"] = bytes.Clone(c.doc)
				d.Sender = &enforcer.Caller{Admin: true}
				d.Check = func(doc []byte) (*enforcer.License, *enforcer.Problem) {
					return elastic.Format{}.Verify(doc, []plugin.Anchor{anchor(t, s)})
				}
			},
			Read: func() *http.Request { return httptest.NewRequest("GET", path, http.NoBody) },
			Send: func(body io.Reader) *http.Request { return httptest.NewRequest("PUT", path, body) },
			Calls: []plugintest.DialectCall{{Name: "PUT " + path, Required: []string{"license"},
				Body: func(plugintest.Sender) string { return string(c.doc) },
				Send: func(body io.Reader) *http.Request {
					return httptest.NewRequest("PUT", path+"?acknowledge=true", body)
				}}},
			Reads:   reads[path],
			Refusal: c.refusal,
		})
	}
}

// No body crashes the dialect, and what is refused is in its form.
func FuzzPut(f *testing.F) {
	f.Add(file(f, "licences/eck-v4-enterprise-external.json"), true)
	f.Add(file(f, "licences/es-v5-enterprise.json"), false)
	f.Add([]byte(`{"usage_stats":{},"license":{"uid":"a","cluster_licenses":[{}]}}`), true)
	f.Fuzz(func(t *testing.T, body []byte, ece bool) {
		h := open(t)
		target := "/_license?acknowledge=true"
		if ece {
			target = platform
		}
		w, _ := h.send("PUT", target, string(body))
		if w.Code != 200 && (w.Code < 400 || w.Code >= 500) {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	})
}

var _ plugin.CredentialsChecker = elastic.Dialect{}
