package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/usher"
)

// document is docs/openapi.yaml, checked.
func document(t *testing.T) (*openapi3.T, routers.Router) {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		t.Fatal(err)
	}
	r, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return doc, r
}

// The document has every route, and no other; every code, and no other.
func TestOpenAPIRoutes(t *testing.T) {
	t.Parallel()
	doc, _ := document(t)
	var there, documented []string
	for _, r := range api.Routes() {
		there = append(there, r.Method+" "+r.Path)
	}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			documented = append(documented, method+" "+path)
		}
	}
	slices.Sort(there)
	slices.Sort(documented)
	if !slices.Equal(there, documented) {
		t.Errorf("documented are\n%s\nand there are\n%s", strings.Join(documented, "\n"), strings.Join(there, "\n"))
	}
	var codes, known []string
	for _, c := range doc.Components.Schemas["Problem"].Value.Properties["code"].Value.Enum {
		codes = append(codes, c.(string))
	}
	for c := range api.Codes() {
		known = append(known, string(c))
	}
	slices.Sort(codes)
	slices.Sort(known)
	if !slices.Equal(codes, known) {
		t.Errorf("documented are\n%v\nand there are\n%v", codes, known)
	}
}

// Every shape of the wire has its schema, field by field in both directions.
func TestOpenAPIShapes(t *testing.T) {
	t.Parallel()
	doc, _ := document(t)
	shapes := []any{wire.License{}, wire.Warning{}, wire.Document{}, wire.Finding{}, wire.Feature{},
		wire.NamedFeature{}, wire.Features{}, wire.Host{}, wire.Cores{}, wire.CheckIn{},
		wire.Change{}, wire.Successor{}, wire.Loss{}, wire.Conditions{}, wire.HostBinding{}, wire.Contact{},
		wire.EmergencyTerm{}, wire.Heartbeat{}, wire.Upstream{}, wire.Pool{}, wire.HoldOff{}, wire.Pools{},
		wire.AdjustRequest{},
		wire.Item{},
		wire.AcquireRequest{}, wire.RenewRequest{}, wire.Lease{}, wire.Holder{}, wire.Leases{}, wire.Installed{},
		wire.Component{}, wire.Fingerprint{}, wire.Event{}, wire.Health{}, wire.Clock{}, wire.FirstClock{},
		wire.Setting{},
		wire.Settings{}, wire.Reloaded{}, wire.UpstreamPreview{}, wire.UpstreamRequest{}, wire.UpstreamReport{},
		wire.UpstreamUsage{},
		wire.UpstreamCalls{},
		wire.UpstreamOutcome{},
		wire.UpstreamEmergency{}, wire.EmergencyRequest{}, wire.Emergency{}, wire.EmergencyGrant{}, wire.Emergencies{},
		wire.ReturnRequest{}, wire.Returned{}, wire.ReleaseRequest{}, wire.Released{}, wire.Releases{},
		wire.Waiting{}, wire.Waiter{}, wire.Policies{}, wire.Policy{}, wire.PolicyUse{},
		wire.PolicyExplanation{}, wire.PolicyConcern{},
		wire.DrainRequest{}, wire.Drain{}, wire.Keys{}, wire.Key{}, wire.Verdict{}, wire.Problem{}, wire.HeldBy{},
		wire.Usage{}, wire.UsersDay{}, wire.PoolUsers{}, wire.UserUsage{}, wire.UsageHour{}, wire.PoolUsage{},
		wire.UsageGap{}, wire.UsageMissing{},
		wire.Fleet{}, wire.FleetFault{}, wire.FleetSize{},
		wire.FleetAgent{}, wire.FleetOrder{}, wire.FleetPool{}, wire.FleetShare{},
		wire.FleetDone{}, wire.FleetEviction{}}
	seen := map[string]bool{}
	for _, s := range shapes {
		typ := reflect.TypeOf(s)
		seen[typ.Name()] = true
		schema := doc.Components.Schemas[typ.Name()]
		if schema == nil {
			t.Errorf("%s has no schema", typ.Name())
			continue
		}
		fields := map[string]bool{}
		for _, f := range reflect.VisibleFields(typ) {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				continue
			}
			fields[name] = true
			if schema.Value.Properties[name] == nil {
				t.Errorf("%s.%s is not in the schema", typ.Name(), name)
			}
			request := strings.HasSuffix(typ.Name(), "Request")
			if !request && slices.Contains(schema.Value.Required, name) == strings.Contains(options, "omitempty") {
				t.Errorf("%s.%s: the schema and the shape disagree on whether it is always there", typ.Name(), name)
			}
		}
		for name := range schema.Value.Properties {
			if !fields[name] {
				t.Errorf("%s.%s is in the schema only", typ.Name(), name)
			}
		}
	}
	for name := range doc.Components.Schemas {
		if !seen[name] {
			t.Errorf("schema %s is of no shape", name)
		}
	}
}

// checked is a caller whose every request and answer is held against the document.
type checked struct {
	t      *testing.T
	router routers.Router
	http   *http.Client
	called map[string]bool // method and path, as documented
}

func newChecked(t *testing.T, socket string) *checked {
	_, router := document(t)
	c := &checked{t: t, router: router, called: map[string]bool{},
		http: &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context,
			_, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}}}
	t.Cleanup(c.http.CloseIdleConnections)
	return c
}

// call makes a call and returns status and body. good says that the document must allow the request.
func (c *checked) call(good bool, method, path, kind string, body []byte) (int, string, http.Header) {
	c.t.Helper()
	request := func() *http.Request {
		r := httptest.NewRequest(method, "http://usher"+path, bytes.NewReader(body))
		r.RequestURI = ""
		if body == nil {
			r.Body, r.ContentLength = nil, 0
		}
		if kind != "" {
			r.Header.Set("Content-Type", kind)
		}
		return r
	}
	res, err := c.http.Do(request())
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	var text []byte
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		text = make([]byte, 64)
		if _, err = io.ReadFull(res.Body, text); err == nil {
			c.called[method+" "+path] = true
			return res.StatusCode, string(text), res.Header
		}
	} else {
		text, err = io.ReadAll(res.Body)
	}
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	route, params, err := c.router.FindRoute(request())
	if err != nil {
		if good || res.StatusCode != 404 && res.StatusCode != 405 {
			c.t.Errorf("%s %s: not documented, and answered with %d", method, path, res.StatusCode)
		}
		return res.StatusCode, string(text), res.Header
	}
	if good {
		c.called[method+" "+route.Path] = true
	}
	options := &openapi3filter.Options{IncludeResponseStatus: true}
	options.WithCustomSchemaErrorFunc(func(e *openapi3.SchemaError) string {
		return strings.Join(e.JSONPointer(), ".") + ": " + e.Reason
	})
	in := &openapi3filter.RequestValidationInput{Request: request(), PathParams: params, Route: route, Options: options}
	if err := openapi3filter.ValidateRequest(context.Background(), in); good && err != nil {
		c.t.Errorf("%s %s: the document forbids what the agent takes: %v", method, path, err)
	}
	if good == (res.StatusCode >= 400) {
		c.t.Errorf("%s %s: %d %s", method, path, res.StatusCode, text)
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: res.StatusCode,
		Header: res.Header, Options: options}
	out.SetBodyBytes(text)
	if err := openapi3filter.ValidateResponse(context.Background(), out); err != nil {
		c.t.Errorf("%s %s: an answer that is not documented: %v\n%s", method, path, err, text)
	}
	return res.StatusCode, string(text), res.Header
}

const asJSON = "application/json"

// noFleet calls the routes of a fleet where there is none. TestFleetOperated has one.
func (c *checked) noFleet() {
	const agent = "/v1/fleet/agents/h/"
	c.call(false, "GET", "/v1/fleet", "", nil)
	c.call(false, "POST", agent+"drain", "", nil)
	c.call(false, "DELETE", agent+"drain", "", nil)
	c.call(false, "POST", agent+"eviction", asJSON, []byte(`{"wait_seconds":1}`))
	c.call(false, "DELETE", agent+"eviction", "", nil)
	for _, what := range []string{"drain", "eviction"} {
		c.called["POST /v1/fleet/agents/{host}/"+what], c.called["DELETE /v1/fleet/agents/{host}/"+what] = true, true
	}
	c.called["GET /v1/fleet"] = true
}

// Every route, called with what it takes, answers as the document says.
func TestOpenAPIAnswers(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	c := newChecked(t, h.Socket())
	get := func(path string) { c.call(true, "GET", path, "", nil) }
	for _, path := range []string{"/v1/license", "/v1/pools", "/v1/health", "/v1/ready"} {
		get(path) // before any licence
	}
	doc := h.sign("a", 3, func(u *usher.Claims) {
		u.Features = map[string]usher.Feature{"hd": {}}
		u.Licensee, u.Expires, u.Grace = "Example Ltd", time.Now().Add(24*time.Hour).Unix(), 60
		u.Meters = map[string]usher.Meter{"renders": {Max: new(int64(9)), Scope: "host"}}
		u.Pools["seats"] = usher.Pool{Scope: "host", Unit: "seat"}
	})
	c.call(true, "PUT", "/v1/license?dry_run=true", "application/octet-stream", doc)
	c.call(true, "PUT", "/v1/license?name=a.lic", "text/plain", doc)
	h.drop("b.lic", []byte("broken"))
	h.until("the broken one", func(l *wire.License) bool { return len(l.Licenses) == 2 })
	id := regexp.MustCompile(`"id":"([0-9a-f]{32})"`)
	acquire := func(body string) string {
		_, text, header := c.call(true, "POST", "/v1/leases", asJSON, []byte(body))
		m := id.FindStringSubmatch(text)
		if m == nil || header.Get("Location") != "/v1/leases/"+m[1] {
			t.Fatalf("no id, or another location: %s %v", text, header)
		}
		return m[1]
	}
	first := acquire(`{"pool":"streams"}`)
	acquire(`{"items":[{"pool":"streams","n":1},{"pool":"seats","n":5}],"lifetime":"held","labels":{"a":"b"}}`)
	token := `{"pool":"streams","n":2,"min_n":1,"ttl_seconds":5.5,"client_token":"t","version":"1.0"}`
	if one, two := acquire(token), acquire(token); one != two {
		t.Error("one client token got two leases")
	}
	for _, path := range []string{"/v1/license", "/v1/features", "/v1/features/hd", "/v1/features/none", "/v1/pools",
		"/v1/pools/streams", "/v1/pools/renders", "/v1/leases", "/v1/leases?pool=seats",
		"/v1/leases/" + first, "/v1/fingerprint", "/v1/fingerprint?product=other", "/v1/keys", "/v1/events",
		"/v1/config", "/v1/usage", "/v1/usage?pool=streams&since=2027-01-01T00:00:00Z&until=2027-01-02T00:00:00Z",
		"/v1/usage?signed=true&nonce=n", "/v1/waiting", "/v1/policies",
		"/v1/policies/explain?pool=streams&user=root&group=0&label=a=b", "/v1/upstream", "/v1/emergency", "/v1/clock",
		"/v1/health", "/v1/ready",
		"/metrics"} {
		get(path)
	}
	for _, query := range []string{"since=yesterday", "since=2027-01-02T00:00:00Z&until=2027-01-01T00:00:00Z",
		"signed=perhaps", "signed=true&pool=streams", "since=1970-01-01T00:00:00Z"} {
		c.call(false, "GET", "/v1/usage?"+query, "", nil)
	}
	c.call(true, "PUT", "/v1/leases/"+first, "", nil)
	c.call(true, "PUT", "/v1/leases/"+first, asJSON, []byte(`{"ttl_seconds":30}`))
	c.call(true, "DELETE", "/v1/leases/"+first, "", nil)
	c.call(true, "PUT", "/v1/pools/renders", asJSON, []byte(`{"drawn":5}`))
	c.call(true, "POST", "/v1/reload", "", nil)
	c.call(true, "POST", "/v1/upstream", "", nil)
	c.call(true, "DELETE", "/v1/license/documents/b.lic", "", nil)
	c.call(true, "POST", "/v1/license/rollback?name=b.lic", "", nil)
	h.drop("a.lic", h.sign("a", 3, func(u *usher.Claims) {
		u.Issued = time.Now().Unix()
		u.Expires, u.Emergency = time.Now().Add(-time.Hour).Unix(), &usher.Emergency{Length: 60, PerYear: 1}
	}))
	h.until("an expired one", func(l *wire.License) bool { return l.State == "expired" })
	c.call(true, "POST", "/v1/emergency", asJSON, []byte(`{"reason":"the shop is on fire"}`))
	c.call(false, "POST", "/v1/emergency", asJSON, []byte(`{"reason":"again"}`))
	get("/v1/emergency")
	c.call(true, "POST", "/v1/license/release", "", nil)
	c.call(false, "POST", "/v1/license/release", asJSON, []byte(`{"license":"a"}`))
	c.call(true, "POST", "/v1/drain", asJSON, []byte(`{"wait_seconds":0.01}`))
	c.call(false, "POST", "/v1/drain", asJSON, []byte(`{"wait_seconds":-1}`))
	get("/v1/drain")
	c.call(true, "DELETE", "/v1/drain", "", nil)
	c.call(true, "POST", "/v1/license/return", asJSON, []byte(`{"license":"a"}`))
	c.noFleet()
	for _, r := range api.Routes() {
		if !c.called[r.Method+" "+r.Path] {
			t.Errorf("%s %s was never called", r.Method, r.Path)
		}
	}
}

// Two answers that say the same are the same, so that a person or a script can compare them.
func TestAnswersAreStable(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 3, func(c *usher.Claims) {
		c.Features = map[string]usher.Feature{}
		for i := range 8 {
			name := string(rune('a' + i))
			c.Pools[name], c.Features[name] = c.Pools["streams"],
				usher.Feature{Value: enforcer.Value{Kind: enforcer.KindBool, Bool: true}}
		}
	}))
	h.until("dropped", inForce("a"))
	c := newChecked(t, h.Socket())
	for _, path := range []string{"/v1/license", "/v1/features"} {
		_, first, _ := c.call(true, "GET", path, "", nil)
		for range 5 {
			if _, next, _ := c.call(true, "GET", path, "", nil); next != first {
				t.Fatalf("%s answers\n%sand then\n%s", path, first, next)
			}
		}
	}
}

// What is wrong is refused with the code, the field and the words that a person needs; every refusal is as documented.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 3, nil))
	h.until("dropped", inForce("a"))
	c := newChecked(t, h.Socket())
	lease, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Release(t.Context(), lease.ID, false); err != nil {
		t.Fatal(err)
	}
	for _, test := range badRequests(lease.ID) {
		t.Run(test.name, func(t *testing.T) {
			c.t = t
			body := []byte(test.body)
			if test.body == "" {
				body = nil
			}
			status, text, header := c.call(false, test.method, test.path, test.kind, body)
			if status != test.status || header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%d %s, want %d", status, header.Get("Content-Type"), test.status)
			}
			for _, w := range test.want {
				if !strings.Contains(text, w) {
					t.Errorf("got  %swant %s", text, w)
				}
			}
		})
	}
	if p, err := h.Pool(t.Context(), "streams"); err != nil || p.InUse != 0 {
		t.Errorf("a slot has leaked: %+v, %v", p, err)
	}
}

// speak sends bytes to the socket and returns what comes back until the agent closes or is silent.
func speak(t *testing.T, socket, text string) string {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(text)); err != nil {
		return "" // closed already
	}
	if err := c.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(c)
	return string(b)
}

// A grant whose answer cannot be delivered is undone, unless it had a token by which it can be asked for again.
func TestUndelivered(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 1000, nil))
	h.until("dropped", inForce("a"))
	h.stop()
	// All hang up before the first is heard: of whoever does so later it is not known whether he has read his answer.
	run := h.startLater()
	hangUp := func(body string) {
		c, err := net.Dial("unix", h.Socket())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(c,
			"POST /v1/leases HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			len(body), body); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	for range 100 {
		hangUp(`{"pool":"streams","lifetime":"held"}`)
	}
	run()
	deadline, rest := time.Now().Add(60*time.Second), pause()
	for {
		p, err := h.Pool(t.Context(), "streams")
		if err != nil {
			t.Fatal(err)
		}
		m, err := h.Metrics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if p.InUse == 0 && strings.Contains(string(m), `usher_releases_total{cause="undelivered",pool="streams"} `) &&
			!strings.Contains(string(m), `cause="undelivered",pool="streams"} 0`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 60 s %d slots are held by nobody", p.InUse)
		}
		rest()
	}
}
