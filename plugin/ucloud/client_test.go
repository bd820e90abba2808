package ucloud_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/plugintest"
	"github.com/usher-agent/usher/plugin/ucloud"
)

// core is a UCloud with canned answers: by path, or by path?next=….
type core struct {
	mu      sync.Mutex
	answers map[string]canned
	seen    []*http.Request
}

type canned struct {
	status int
	body   string
}

func (c *core) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, r)
	key := r.URL.Path
	if next := r.URL.Query().Get("next"); next != "" {
		key += "?next=" + next
	}
	a, ok := c.answers[key]
	if !ok {
		a = canned{404, "404 page not found"}
	}
	w.WriteHeader(a.status)
	io.WriteString(w, a.body)
}

func (c *core) set(answers map[string]canned) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers, c.seen = answers, nil
}

func (c *core) requests() []*http.Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

const (
	browsePath   = "/api/licenses/browse"
	retrievePath = "/api/licenses/retrieve"
)

// resource is a licence as a generation of the platform writes it.
func resource(generation, id, state string) string {
	product := `"product":{"id":"abaqus","category":"abaqus","provider":"example"}`
	if generation == "G" {
		return fmt.Sprintf(`{"id":%q,"specification":{%s,"labels":{}},"owner":{"createdBy":"user"},`+
			`"createdAt":1635170395571,"status":{"state":%q,"boundTo":null,"resolvedSupport":{"product":{"type":`+
			`"license"},"support":{"product":{},"features":null}}},"permissions":{"myself":["READ"],"others":[]}}`, id,
			product, state)
	}
	return fmt.Sprintf(`{"id":%q,"specification":{%s},"owner":{"createdBy":"user","project":null},`+
		`"createdAt":1635170395571,"status":{"state":%q,"resolvedSupport":null,"resolvedProduct":null,"boundTo":[]},`+
		`"updates":[{"timestamp":null,"state":null}],"permissions":null}`, id, product, state)
}

func list(next string, items ...string) canned {
	return canned{200, fmt.Sprintf(`{"itemsPerPage":250,"items":[%s],"next":%s}`, strings.Join(items, ","), next)}
}

func newClient(t testing.TB, token string) (*core, *ucloud.Client) {
	t.Helper()
	c := &core{}
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	client, err := ucloud.NewClient(ucloud.Config{URL: s.URL + "/", Token: func() (string, error) {
		return token, nil
	}, Project: "p-1",
		Anchors: func() []plugin.Anchor { return anchors(t) }, Now: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	return c, client
}

func askAbout(document []byte) *plugin.Request {
	return &plugin.Request{System: ucloud.System, LicenseID: "c-1", Document: document, Product: "acme",
		Nonce: make([]byte, 16)}
}

// The upstream keeps what every upstream keeps.
func TestUpstreamKeepsThePromises(t *testing.T) {
	t.Parallel()
	c, client := newClient(t, "uc1-secret")
	c.set(map[string]canned{browsePath: list("null", resource("G", "7", "READY"))})
	plugintest.Upstream(t, client, plugintest.UpstreamSamples{
		Request: func() *plugin.Request { return askAbout(companion(t, 2, nil)) },
		Refused: func() *plugin.Request {
			return askAbout(companion(t, 2, func(c *ucloud.Claims) { c.Resource.ID = "ansys" }))
		},
	})
}

// Each answer of the platform means what it means, in both generations, with and without a stated resource. A lone 403
// or 404 proves nothing.
func TestUpstreamAnswers(t *testing.T) {
	t.Parallel()
	const ok = "ok"
	maintenance := `{"id":"7","specification":{"product":{"id":"abaqus","category":"abaqus","provider":"example"}},` +
		`"status":{"state":"READY","resolvedSupport":{"support":{"maintenance":{"description":"moving",` +
		`"availability":"NO_SERVICE","startsAt":1777600000000,"estimatedEndsAt":%s}}}}}`
	for name, x := range map[string]struct {
		id      string
		answers map[string]canned
		want    string
	}{
		"ready, older": {"", map[string]canned{browsePath: list("null", resource("K", "7", "READY"))}, ok},
		"ready, newer": {"", map[string]canned{browsePath: list("null", resource("G", "7", "READY"))}, ok},
		"retrieved":    {"7", map[string]canned{retrievePath: {200, resource("K", "7", "READY")}}, ok},
		"preparing": {"", map[string]canned{browsePath: list("null", resource("K", "7", "PREPARING"))},
			"PREPARING"},
		"unavailable": {"", map[string]canned{browsePath: list("null", resource("K", "7", "UNAVAILABLE"))},
			"UNAVAILABLE"},
		"an unknown word": {"", map[string]canned{browsePath: list("null", resource("K", "7", "GONE"))}, "transient"},
		"the best of several": {"", map[string]canned{browsePath: list("null", resource("K", "6", "UNAVAILABLE"),
			resource("K", "7", "READY"))}, ok},
		"on the last page, after an empty one": {"", map[string]canned{browsePath: list(`"1"`),
			browsePath + "?next=1": list(`"2"`), browsePath + "?next=2": list("null", resource("K", "7", "READY"))},
			ok},
		"a list without end": {"", map[string]canned{browsePath: list(`"1"`), browsePath + "?next=1": list(`"1"`)},
			"transient"},
		"absent": {"", map[string]canned{browsePath: list("null")}, "REVOKED"},
		"retrieve 404, listed": {"7", map[string]canned{retrievePath: {404, `{"why":"Not found"}`},
			browsePath: list("null", resource("K", "7", "READY"))}, ok},
		"retrieve 403, listed": {"7", map[string]canned{retrievePath: {403, `{"why":"Write permission is required"}`},
			browsePath: list("null", resource("G", "7", "READY"))}, ok},
		"retrieve 404, absent": {"7", map[string]canned{retrievePath: {404, `{}`}, browsePath: list("null")},
			"REVOKED"},
		"another resource": {"7", map[string]canned{retrievePath: {404, `{}`},
			browsePath: list("null", resource("K", "8", "READY"))}, "REVOKED"},
		"retrieve 404, list 403": {"7", map[string]canned{retrievePath: {404, `{}`}, browsePath: {403, `{}`}},
			"UNAVAILABLE"},
		"list 404": {"", map[string]canned{}, "transient"},
		"list 401": {"", map[string]canned{browsePath: {401, `{"why":"Unauthorized"}`}}, "UNAVAILABLE"},
		"maintenance as 404": {"7", map[string]canned{retrievePath: {404,
			`{"why":"Service is currently undergoing maintenance."}`}, browsePath: list("null")}, "transient"},
		"no credit":    {"", map[string]canned{browsePath: {402, `{"why":"No funds"}`}}, "SUSPENDED"},
		"449":          {"", map[string]canned{browsePath: {449, ``}}, "transient"},
		"502":          {"", map[string]canned{browsePath: {502, `{"why":"Could not validate"}`}}, "transient"},
		"an empty 200": {"", map[string]canned{browsePath: {200, ``}}, "transient"},
		"204":          {"", map[string]canned{browsePath: {204, ``}}, "transient"},
		"no items":     {"", map[string]canned{browsePath: {200, `{}`}}, "transient"},
		"a redirect":   {"", map[string]canned{browsePath: {302, ``}}, "transient"},
		"under maintenance": {"", map[string]canned{browsePath: list("null", fmt.Sprintf(maintenance, "null"))},
			"UNAVAILABLE"},
		"after a maintenance": {"", map[string]canned{browsePath: list("null", fmt.Sprintf(maintenance,
			"1777600000001"))}, ok},
	} {
		c, client := newClient(t, "uc1-secret")
		c.set(x.answers)
		_, err := client.CheckIn(t.Context(), askAbout(companion(t, 2,
			func(c *ucloud.Claims) { c.LicenseID = x.id })))
		got := ok
		var e *plugin.Error
		if errors.As(err, &e) {
			if got = string(e.Class); e.Class == plugin.Refused {
				got = string(e.Code)
			}
			if *e.Checked() != *e {
				t.Errorf("%s: the error is not one that counts: %+v", name, e)
			}
		}
		if got != x.want {
			t.Errorf("%s: %s (%v), and it should be %s", name, got, err, x.want)
		}
		for _, r := range c.requests() {
			if r.Header.Get("Authorization") != "Bearer uc1-secret" || r.Header.Get("Project") != "p-1" {
				t.Errorf("%s: the headers are %v", name, r.Header)
			}
		}
	}
}

// A refresh token brings access tokens, each used until shortly before its end, and replaced once when it is refused.
func TestUpstreamRefreshes(t *testing.T) {
	t.Parallel()
	c, client := newClient(t, "refresh-me")
	access := func(life time.Duration) canned {
		return canned{200, fmt.Sprintf(`{"accessToken":%q,"csrfToken":""}`,
			token(t, "HS512", map[string]any{"exp": noon.Add(life).Unix()}))}
	}
	calls := func(life time.Duration, browse canned) (out string) {
		c.set(map[string]canned{"/auth/refresh": access(life), browsePath: browse})
		client.CheckIn(t.Context(), askAbout(companion(t, 2, nil)))
		for _, r := range c.requests() {
			out += r.URL.Path + " "
			if refreshes := r.URL.Path == "/auth/refresh"; refreshes != (r.Header.Get("Authorization") ==
				"Bearer refresh-me") || refreshes && r.Method != "POST" {
				t.Errorf("%s %s: %s", r.Method, r.URL, r.Header.Get("Authorization"))
			}
		}
		return strings.TrimSpace(out)
	}
	good := list("null", resource("K", "7", "READY"))
	for i, x := range []struct {
		life   time.Duration
		answer canned
		want   string
	}{
		{10 * time.Minute, good, "/auth/refresh " + browsePath},
		{2 * time.Minute, good, browsePath},
		{2 * time.Minute, canned{403, `{"why":"Forbidden"}`}, browsePath + " /auth/refresh " + browsePath},
		{10 * time.Minute, good, "/auth/refresh " + browsePath}, // the last one is near its end
		{10 * time.Minute, good, browsePath},
	} {
		if got := calls(x.life, x.answer); got != x.want {
			t.Errorf("step %d: %s, and it should be %s", i+1, got, x.want)
		}
	}
	// A list that is refused to a new access token proves that access has been taken away.
	for _, status := range []int{401, 403} {
		c.set(map[string]canned{"/auth/refresh": access(10 * time.Minute), browsePath: {status, `{"why":"Forbidden"}`}})
		_, err := client.CheckIn(t.Context(), askAbout(companion(t, 2, nil)))
		var e *plugin.Error
		if !errors.As(err, &e) || e.Class != plugin.Refused || e.Code != enforcer.Revoked {
			t.Errorf("%d to a new access token: %v", status, err)
		}
	}
	c.set(map[string]canned{"/auth/refresh": {401, `{"why":"Unauthorized"}`}})
	_, fresh := newClient(t, "other")
	_, err := fresh.CheckIn(t.Context(), askAbout(companion(t, 2, nil)))
	var e *plugin.Error
	if !errors.As(err, &e) || e.Class != plugin.Misconfigured {
		t.Errorf("a refresh token that is refused: %v", err)
	}
}

// The state comes from the platform, and the slots from the document alone: no answer changes a term.
func TestSlotsComeFromTheDocument(t *testing.T) {
	t.Parallel()
	c, client := newClient(t, "uc1-secret")
	c.set(map[string]canned{browsePath: list("null", strings.Replace(resource("G", "7", "READY"), `"boundTo":null`,
		`"boundTo":["1","2","3"],"slots":99`, 1))})
	r, err := client.CheckIn(t.Context(), askAbout(companion(t, 2, nil)))
	if err != nil || r.Document != nil || !r.Time.IsZero() {
		t.Errorf("%+v, %v", r, err)
	}
	if l := license(t, 2, nil); l.Pools["abaqus"].Max != enforcer.Limit(2) {
		t.Errorf("%+v", l.Pools)
	}
}

// FuzzVerify feeds documents to the format.
func FuzzVerify(f *testing.F) {
	f.Add(companion(f, 2, nil))
	f.Add([]byte("eyJ0eXAiOiJ1Y2xvdWQtbGljZW5zZSJ9.e30."))
	trusted := anchors(f)
	f.Fuzz(func(t *testing.T, doc []byte) {
		f := ucloud.Format{}
		f.Recognise(doc)
		l, p := f.Verify(doc, trusted)
		if l == nil && p == nil || l != nil && p == nil && l.Validate() != nil {
			t.Errorf("%+v, %+v", l, p)
		}
	})
}

// FuzzDialect feeds requests to the dialect.
func FuzzDialect(f *testing.F) {
	f.Add("POST", "/api/licenses", item)
	f.Add("POST", "/api/licenses/control/update", binding("1", "BIND", "1"))
	f.Add("GET", "/api/licenses/browse?filterIds=1&next=9", "")
	f.Add("POST", "/licenses.retrieve", `"1"`)
	f.Fuzz(func(t *testing.T, method, target, body string) {
		r, err := http.NewRequest(method, "http://localhost"+target, strings.NewReader(body))
		if err != nil {
			t.Skip()
		}
		c := newCounter(t, 2, ucloud.Settings{})
		c.create()
		w := httptest.NewRecorder()
		c.h.ServeHTTP(w, r)
		if w.Code < 200 || w.Body.Len() == 0 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}
