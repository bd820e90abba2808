package brainframe_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/brainframe"
	"github.com/usher-agent/usher/plugin/plugintest"
	"github.com/usher-agent/usher/plugin/usher"
)

// environment is what an agent lends the client. One file can be read.
func environment(password string) plugin.Environment {
	return plugin.Environment{Transport: &http.Transport{}, Now: time.Now, Anchors: anchors,
		Verify: func(doc []byte) (*enforcer.License, *enforcer.Problem) { return format().Verify(doc, anchors()) },
		ReadFile: func(path string) ([]byte, error) {
			if path != "/password" {
				return nil, os.ErrNotExist
			}
			return []byte(password), nil
		}}
}

func client(t *testing.T, url, day string) plugin.Upstream {
	t.Helper()
	s := &brainframe.Settings{URL: url, User: "admin", PasswordFile: "/password", ExpirationDay: day}
	s.Check(func(key, text string) { t.Errorf("%s: %s", key, text) })
	c, err := s.Open(environment("a-password-of-a-test\n"))
	if err != nil || !s.Used() {
		t.Fatal(err)
	}
	return c
}

// serve answers each request with a status and a body.
func serve(t *testing.T, status int, body string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); r.URL.Path != "/base/api/license" || user != "admin" ||
			password != "a-password-of-a-test" || r.Method != http.MethodGet {
			w.WriteHeader(http.StatusTeapot)
		}
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/base/"
}

func request(doc []byte) func() *plugin.Request {
	return func() *plugin.Request {
		return &plugin.Request{System: brainframe.System, LicenseID: "L1", Document: doc, Product: "brainframe"}
	}
}

// The upstream keeps what every upstream keeps.
func TestUpstreamKeepsThePromises(t *testing.T) {
	t.Parallel()
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}))
	t.Cleanup(silent.Close)
	good := request(key(t, nil))
	plugintest.Upstream(t, client(t, serve(t, 200, fourTerms), "exclusive"), plugintest.UpstreamSamples{Request: good,
		Away: client(t, silent.URL, "exclusive")})
	for _, body := range []string{`{"state":"expired","terms":null}`, noLicence} {
		u := client(t, serve(t, 200, body), "exclusive")
		_, err := u.CheckIn(t.Context(), good())
		var e *plugin.Error
		if !errors.As(err, &e) || e.Class != plugin.Refused || *e.Checked() != *e {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// What a server says, and what becomes of it. An outage, a strange answer and "invalid" are no refusals.
func TestServersAnswers(t *testing.T) {
	t.Parallel()
	bounded := key(t, nil)
	perpetual := key(t, func(c *usher.Claims) { c.Expires, c.Pools = 0, nil })
	terms := func(streams, end string) string {
		return fmt.Sprintf(`{"state":"valid","terms":{"online_checkin":true,"max_streams":%s,`+
			`"journal_max_allowed_age":1,"expiration_date":%s,"more":[]}}`, streams, end)
	}
	for _, c := range []struct {
		doc    []byte
		status int
		body   string
		class  plugin.Class // empty: it is good
		code   enforcer.Code
	}{
		{bounded, 200, fourTerms, "", ""},
		{bounded, 200, terms("null", "null"), "", ""},
		{bounded, 200, terms("5", `"2027-02-01"`), "", ""},
		{perpetual, 200, terms("0", "null"), "", ""},
		{bounded, 200, terms("3", "null"), plugin.Misconfigured, ""},
		{bounded, 200, terms("4", `"2027-01-30"`), plugin.Misconfigured, ""},
		{perpetual, 200, terms("4", `"2099-01-30"`), plugin.Misconfigured, ""},
		{bounded, 200, `{"state":"valid","terms":null}`, plugin.Misconfigured, ""},
		{bounded, 200, `{"state":"expired","terms":null}`, plugin.Refused, enforcer.Expired},
		{bounded, 200, noLicence, plugin.Refused, enforcer.NotFound},
		{bounded, 200, `{"state":"invalid","terms":null}`, plugin.Transient, ""},
		{bounded, 200, "", plugin.Transient, ""},
		{bounded, 200, "null", plugin.Transient, ""},
		{bounded, 200, "{}", plugin.Transient, ""},
		{bounded, 200, strings.Replace(fourTerms, "valid", "VALID", 1), plugin.Transient, ""},
		{bounded, 200, strings.Replace(fourTerms, "max_streams", "streams", 1), plugin.Transient, ""},
		{bounded, 200, terms("4", `"2027-01-31T00:00:00Z"`), plugin.Transient, ""},
		{bounded, 200, terms("4", `""`), plugin.Transient, ""},
		{bounded, 200, strings.Repeat(" ", 70_000) + fourTerms, plugin.Transient, ""},
		{bounded, 204, "", plugin.Misconfigured, ""},
		{bounded, 307, "", plugin.Misconfigured, ""},
		{bounded, 401, `{"title":"UnauthorizedError","description":"no"}`, plugin.Misconfigured, ""},
		{bounded, 500, `{"title":"InsufficientRoleError","description":"no"}`, plugin.Misconfigured, ""},
		{bounded, 404, "404 page not found", plugin.Misconfigured, ""},
		{bounded, 429, "", plugin.Transient, ""},
		{bounded, 502, "bad gateway", plugin.Transient, ""},
		{[]byte("no key"), 200, fourTerms, plugin.Misconfigured, ""},
	} {
		_, err := client(t, serve(t, c.status, c.body), "exclusive").CheckIn(t.Context(), request(c.doc)())
		var e *plugin.Error
		if errors.As(err, &e) != (c.class != "") || c.class != "" && (e.Class != c.class || e.Code != c.code ||
			*e.Checked() != *e || strings.Contains(e.Error(), "password-of")) {
			t.Errorf("%d %.100s: %v", c.status, c.body, err)
		}
	}
}

// A server that cannot be reached is an outage, and the day of the end means the same at both ends.
func TestServerAway(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	_, err := client(t, s.URL, "exclusive").CheckIn(t.Context(), request(key(t, nil))())
	var e *plugin.Error
	if !errors.As(err, &e) || e.Class != plugin.Transient {
		t.Errorf("%v", err)
	}
	for _, day := range []string{brainframe.Exclusive, brainframe.Inclusive} {
		desk := plugintest.NewDesk(brainframe.System, issued.Add(time.Hour), licence(t, nil))
		other := httptest.NewServer((&brainframe.Settings{ExpirationDay: day}).Dialect().Handler(desk))
		t.Cleanup(other.Close)
		if _, err := client(t, other.URL, day).CheckIn(context.Background(), request(key(t, nil))()); err != nil {
			t.Errorf("%s: %v", day, err)
		}
	}
}

// Each fault of the configuration names its key.
func TestSettings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		s    brainframe.Settings
		want string
	}{
		"nothing":   {brainframe.Settings{}, ""},
		"loopback":  {brainframe.Settings{URL: "http://127.0.0.1:8080/base"}, ""},
		"localhost": {brainframe.Settings{URL: "http://localhost"}, ""},
		"https": {brainframe.Settings{URL: "https://brainframe.example.com", User: "a", PasswordFile: "/p"},
			""},
		"http":          {brainframe.Settings{URL: "http://brainframe.example.com"}, "upstream.brainframe.url is http"},
		"a user in it":  {brainframe.Settings{URL: "https://a:b@example.com"}, "upstream.brainframe.url must be"},
		"no url":        {brainframe.Settings{User: "a", PasswordFile: "/p"}, "upstream.brainframe.url is missing"},
		"half":          {brainframe.Settings{URL: "https://example.com", User: "a"}, "go together"},
		"a colon":       {brainframe.Settings{URL: "https://example.com", User: "a:b", PasswordFile: "/p"}, "user"},
		"another day":   {brainframe.Settings{ExpirationDay: "noon"}, "upstream.brainframe.expiration_day"},
		"another thing": {brainframe.Settings{URL: "ftp://example.com"}, "upstream.brainframe.url must be"},
	} {
		if c.s.ExpirationDay == "" {
			c.s.ExpirationDay = brainframe.Exclusive
		}
		var said []string
		c.s.Check(func(_, text string) { said = append(said, text) })
		if text := strings.Join(said, "; "); (text == "") != (c.want == "") || !strings.Contains(text, c.want) {
			t.Errorf("%s: %s", name, text)
		}
	}
	for name, password := range map[string]string{"/password": "", "/gone": "x"} {
		s := brainframe.Settings{URL: "https://example.com", User: "a", PasswordFile: name}
		if _, err := s.Open(environment(password)); err == nil || !strings.Contains(err.Error(), "password_file") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzParseLicenseInfo fuzzes servers' answers: whatever is read has one of the four states.
func FuzzParseLicenseInfo(f *testing.F) {
	for _, s := range []string{fourTerms, noLicence, `{"state":"valid","terms":{}}`, "[]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := brainframe.ParseLicenseInfo(b)
		if err != nil {
			return
		}
		switch info.State {
		case "valid", "expired", "invalid", "missing":
		default:
			t.Errorf("a state is %q", info.State)
		}
	})
}
