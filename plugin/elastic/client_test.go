package elastic_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/elastic"
	"github.com/usher-agent/usher/plugin/elastic/elastictest"
	"github.com/usher-agent/usher/plugin/plugintest"
)

// upstream opens the client of a platform.
func upstream(t *testing.T, s *elastic.Settings) plugin.Upstream {
	t.Helper()
	s.Check(func(key, text string) { t.Errorf("%s: %s", key, text) })
	trust := []plugin.Anchor{anchor(t, elastictest.Shared())}
	u, err := s.Open(plugin.Environment{Now: func() time.Time { return issued.Add(time.Hour) },
		Anchors: func() []plugin.Anchor { return trust }, ReadFile: os.ReadFile})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func request(doc []byte) *plugin.Request {
	return &plugin.Request{System: elastic.System, LicenseID: "a", Document: doc, Product: "elastic"}
}

// class returns the class of a call's error.
func class(t *testing.T, err error) plugin.Class {
	t.Helper()
	var e *plugin.Error
	if err != nil && !errors.As(err, &e) {
		t.Fatalf("%v is no error of the contract", err)
	}
	if e == nil {
		return ""
	}
	if e.Code != "" {
		t.Errorf("an answer that nobody signed changes a verdict: %v", e)
	}
	return e.Class
}

// The client keeps what every upstream keeps, towards both kinds of platforms.
func TestUpstreamKeepsThePromises(t *testing.T) {
	s := elastictest.Shared()
	docs := map[string][]byte{
		elastic.KindOrchestration: s.Orchestration(elastictest.License{UID: "a", Issued: issued, Units: 1}),
		elastic.KindStack:         s.Stack(elastictest.License{UID: "a", Type: "gold", Issued: issued, Nodes: 1}),
	}
	hang := make(chan struct{})
	away := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	t.Cleanup(away.Close)
	t.Cleanup(func() { close(hang) })
	for kind, doc := range docs {
		p := &elastictest.Platform{}
		p.Put(doc)
		server := httptest.NewServer(p)
		t.Cleanup(server.Close)
		plugintest.Upstream(t, upstream(t, &elastic.Settings{URL: server.URL, Kind: kind}),
			plugintest.UpstreamSamples{Request: func() *plugin.Request { return request(bytes.Clone(doc)) },
				Away: upstream(t, &elastic.Settings{URL: away.URL, Kind: kind})})
	}
}

// The credential is sent as each platform wants it, to the path that the settings mean.
func TestUpstreamCredentials(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte("k3y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		set         elastic.Settings
		sent, asked string
	}{
		{elastic.Settings{Kind: elastic.KindOrchestration, SecretFile: key}, "ApiKey k3y", "/api/v1/platform/license"},
		{elastic.Settings{Kind: elastic.KindOrchestration, SecretFile: key, Region: "ece-region"}, "ApiKey k3y",
			"/api/v1/regions/ece-region/platform/license"},
		{elastic.Settings{Kind: elastic.KindStack, User: "u", SecretFile: key}, "Basic dTprM3k=", "/es/_license"},
	} {
		s := elastictest.Shared()
		doc := s.Orchestration(elastictest.License{UID: "a", Issued: issued, Units: 1})
		p := &elastictest.Platform{Authorization: c.sent}
		p.Put(doc)
		server := httptest.NewServer(p)
		t.Cleanup(server.Close)
		c.set.URL = server.URL
		if c.set.Kind == elastic.KindStack {
			c.set.URL += "/es"
		}
		u := upstream(t, &c.set)
		if _, err := u.CheckIn(t.Context(), request(doc)); err != nil || !slices.Equal(p.Calls(), []string{c.asked}) {
			t.Errorf("%+v: %v, asked for %v", c.set, err, p.Calls())
		}
		if err := os.WriteFile(key, []byte("another\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := u.CheckIn(t.Context(), request(doc)); class(t, err) != plugin.Misconfigured ||
			strings.Contains(err.Error(), "another") {
			t.Errorf("with another credential: %v", err)
		}
		if err := os.WriteFile(key, []byte("k3y\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A platform's later licence is brought, whatever its id; all else that it answers changes nothing.
func TestUpstreamAnswers(t *testing.T) {
	s := elastictest.Shared()
	l := func(uid string, hours int) []byte {
		return s.Orchestration(elastictest.License{UID: uid, Issued: issued.Add(time.Duration(hours) * time.Hour),
			Expires: issued.AddDate(1, 0, 0), Units: 1})
	}
	held := l("a", 0)
	p := &elastictest.Platform{}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	u := upstream(t, &elastic.Settings{URL: server.URL, Kind: elastic.KindOrchestration})
	for name, c := range map[string]struct {
		doc    []byte
		status int
		class  plugin.Class
		brings string
	}{
		"the same":             {held, 0, "", ""},
		"a later one":          {l("a", 5), 0, "", "a"},
		"a later one's own id": {l("b", 5), 0, "", "b"},
		"an earlier one":       {l("b", -5), 0, plugin.Misconfigured, ""},
		"none":                 {nil, 0, plugin.Misconfigured, ""},
		"one of another key": {elastictest.New().Orchestration(elastictest.License{UID: "c", Units: 1}), 0,
			plugin.Misconfigured, ""},
		"one of the stack": {s.Stack(elastictest.License{UID: "c", Type: "gold", Nodes: 1}), 0,
			plugin.Misconfigured, ""},
		"an overload":           {held, 503, plugin.Transient, ""},
		"too many requests":     {held, 429, plugin.Transient, ""},
		"a redirect":            {held, 302, plugin.Misconfigured, ""},
		"another refusal":       {held, 403, plugin.Misconfigured, ""},
		"an unexpected success": {held, 204, plugin.Misconfigured, ""},
	} {
		p.Put(c.doc)
		p.Answer(c.status)
		r, err := u.CheckIn(t.Context(), request(held))
		if class(t, err) != c.class {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.brings == "" {
			if r != nil && r.Document != nil {
				t.Errorf("%s: it brings %s", name, r.Document)
			}
			continue
		}
		if is := good(t, r.Document); is.ID != c.brings {
			t.Errorf("%s: it brings %s", name, is.ID)
		} else if !u.(plugin.Replacer).Replaces(good(t, held), is) {
			t.Errorf("%s: it replaces nothing", name)
		}
	}
	server.Close()
	if _, err := u.CheckIn(t.Context(), request(held)); class(t, err) != plugin.Transient {
		t.Errorf("a platform that cannot be reached: %v", err)
	}
}

// Where no licence is at hand, that of an ECE is fetched; Elasticsearch gives none away.
func TestUpstreamFetch(t *testing.T) {
	s := elastictest.Shared()
	p := &elastictest.Platform{}
	doc := s.Orchestration(elastictest.License{UID: "a", Issued: issued, Units: 1})
	p.Put(doc)
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	u, ok := upstream(t, &elastic.Settings{URL: server.URL, Kind: elastic.KindOrchestration}).(plugin.Refetcher)
	if !ok || !u.Refetches(good(t, doc)) {
		t.Fatal("an ECE's licence is not fetched")
	}
	if r, err := u.Fetch(t.Context(), request(nil)); err != nil || good(t, r.Document).ID != "a" {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := u.Fetch(t.Context(), request(doc)); class(t, err) != plugin.Transient {
		t.Errorf("the one that is there already: %v", err)
	}
	if _, ok := upstream(t, &elastic.Settings{URL: server.URL, Kind: elastic.KindStack}).(plugin.Fetcher); ok {
		t.Error("a licence is fetched of Elasticsearch, which shows none with its signature")
	}
}

// No answer, however large or strange, does harm.
func TestUpstreamStrangeAnswers(t *testing.T) {
	held := elastictest.Shared().Orchestration(elastictest.License{UID: "a", Issued: issued, Units: 1})
	body := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }))
	t.Cleanup(server.Close)
	u := upstream(t, &elastic.Settings{URL: server.URL, Kind: elastic.KindOrchestration})
	for name, is := range map[string]string{"nothing": "", "a page": "<html>", "no licence": "{}",
		"a licence of null":         `{"license":null}`,
		"too much":                  `{"license":"` + strings.Repeat("a", plugin.MaxDocument) + `"}`,
		"a licence without members": `{"license":{}}`, "members of another kind": `{"license":{"uid":[]}}`} {
		body = is
		if _, err := u.CheckIn(t.Context(), request(held)); class(t, err) == "" || class(t, err) == plugin.Refused {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is wrong with the settings is said with the key.
func TestSettings(t *testing.T) {
	for _, c := range []struct {
		s    elastic.Settings
		says string
	}{
		{elastic.Settings{Kind: "stack", User: "u"}, "url is missing"},
		{elastic.Settings{URL: "ftp://x", Kind: "stack"}, "url must be"},
		{elastic.Settings{URL: "https://u:p@x", Kind: "stack"}, "url must be"},
		{elastic.Settings{URL: "https://x", Kind: "cluster"}, "kind is"},
		{elastic.Settings{URL: "https://x", Kind: "stack", Region: "r"}, "region is of an ECE"},
		{elastic.Settings{URL: "https://x", Kind: "stack", User: "u"}, "secret_file is missing"},
	} {
		var said []string
		c.s.Check(func(_, text string) { said = append(said, text) })
		if len(said) != 1 || !strings.Contains(said[0], c.says) {
			t.Errorf("%+v: %q", c.s, said)
		}
	}
	none := elastic.Provide().Settings()
	none.Check(func(_, text string) { t.Errorf("nothing configured: %s", text) })
	if none.Used() {
		t.Error("nothing is configured, and it is used")
	}
	s := elastic.Settings{URL: "https://x", Kind: "stack", User: "u", SecretFile: filepath.Join(t.TempDir(), "f")}
	if _, err := s.Open(plugin.Environment{ReadFile: os.ReadFile}); err == nil ||
		!strings.Contains(err.Error(), "upstream.elastic.secret_file") {
		t.Error(err)
	}
}
