package elastic_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin/elastic/elastictest"
)

// stackKeys returns the members of GET /_license's licence, in the order in which they are written.
func (h *house) stackKeys() (keys []string) {
	h.t.Helper()
	w, _ := h.send("GET", "/_license", "")
	d := json.NewDecoder(w.Body)
	depth, value := 0, false
	for {
		t, err := d.Token()
		if err != nil {
			return keys
		}
		switch t := t.(type) {
		case json.Delim:
			if depth++; t == '}' {
				depth -= 2
			}
			value = false
		default:
			if depth == 2 && !value {
				keys = append(keys, t.(string))
			}
			value = !value
		}
	}
}

// A stack licence of each version is put, and shown with the members that Elasticsearch shows.
func TestStackLicense(t *testing.T) {
	h := openAt(t, time.Date(2019, 1, 4, 9, 0, 0, 0, time.UTC))
	older := []string{"status", "uid", "type", "issue_date", "issue_date_in_millis", "expiry_date",
		"expiry_date_in_millis", "max_nodes", "issued_to", "issuer", "start_date_in_millis"}
	for name, want := range map[string]struct {
		keys []string
		typ  string
	}{
		"es-v1-gold": {older, "gold"}, "es-v2-gold": {older, "gold"}, "es-v3-gold-nostart": {older, "gold"},
		"es-v4-trial-start-minus1": {older, "trial"},
		"es-v5-enterprise":         {slices.Insert(slices.Clone(older), 8, "max_resource_units"), "enterprise"},
	} {
		for i, method := range []string{"PUT", "POST"} {
			target := []string{"/_license", "/_license/", "/_xpack/license"}[i] + "?acknowledge=true"
			out := h.ok(method, target, string(file(t, "licences/"+name+".json")))
			if len(out) != 2 || out["acknowledged"] != true || out["license_status"] != "valid" {
				t.Fatalf("%s: %v", name, out)
			}
			license := h.ok("GET", "/_license", "")["license"].(map[string]any)
			if license["status"] != "active" || license["type"] != want.typ || license["start_date_in_millis"] != -1.0 {
				t.Errorf("%s: %v", name, license)
			}
			if keys := h.stackKeys(); !slices.Equal(keys, want.keys) {
				t.Errorf("%s: members %v", name, keys)
			}
			if license["issue_date"] != time.UnixMilli(int64(license["issue_date_in_millis"].(float64))).UTC().
				Format("2006-01-02T15:04:05.000Z") {
				t.Errorf("%s: issued %v", name, license["issue_date"])
			}
		}
	}
	h.Pass(20 * 366 * 24 * time.Hour)
	if s := h.ok("GET", "/_license", "")["license"].(map[string]any)["status"]; s != "expired" {
		t.Errorf("after its end it is %v", s)
	}
	if out := h.ok("DELETE", "/_license", ""); out["acknowledged"] != true || len(h.Documents) != 0 {
		t.Errorf("%v, and %d documents", out, len(h.Documents))
	}
	h.ok("DELETE", "/_license", "")
	if w, out := h.send("GET", "/_license", ""); w.Code != 404 || len(out) != 0 {
		t.Errorf("without one: %d %s", w.Code, w.Body)
	}
}

// What a PUT may not install says so in the body, or is no request at all; what is in force stays.
func TestStackRefusals(t *testing.T) {
	h := open(t)
	s := h.signer
	hour := time.Hour
	h.ok("PUT", "/_license", string(s.Stack(elastictest.License{UID: "good", Type: "gold", Issued: issued, Nodes: 1})))
	l := func(change func(*elastictest.License)) string {
		l := elastictest.License{UID: "x", Type: "gold", Issued: issued, Nodes: 1}
		change(&l)
		return string(s.Stack(l))
	}
	self := struct {
		Cases []struct{ Licence json.RawMessage }
	}{}
	vectors(t, "self-generated.json", &self)
	for name, c := range map[string]struct {
		body, status string
		code         int
	}{
		"changed": {strings.Replace(l(func(*elastictest.License) {}), `"max_nodes":1`, `"max_nodes":9`, 1),
			"invalid", 200},
		"issued later":   {l(func(l *elastictest.License) { l.Issued = issued.Add(2 * hour) }), "invalid", 200},
		"starts later":   {l(func(l *elastictest.License) { l.Starts = issued.Add(2 * hour) }), "invalid", 200},
		"expired":        {l(func(l *elastictest.License) { l.Expires = issued.Add(hour / 2) }), "expired", 200},
		"self-generated": {string(self.Cases[0].Licence), "invalid", 200},
		"basic":          {l(func(l *elastictest.License) { l.Type = "basic" }), "no longer allowed", 400},
		"nothing":        {"", "must be provided in the request body", 400},
		"no JSON":        {"{", "cannot be read", 400},
		"of a platform": {string(s.Orchestration(elastictest.License{UID: "o", Issued: issued, Units: 1})),
			"orchestration", 400},
	} {
		w, out := h.send("PUT", "/_license?acknowledge=true", c.body)
		switch says := fmt.Sprint(out["license_status"], reason(out)); {
		case w.Code != c.code || !strings.Contains(says, c.status):
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		case c.code == 200 && out["acknowledged"] != true:
			t.Errorf("%s: %s", name, w.Body)
		}
		if uid := h.ok("GET", "/_license", "")["license"].(map[string]any)["uid"]; uid != "good" {
			t.Fatalf("%s: %v is in force", name, uid)
		}
	}
	if w, out := h.send("PUT", "/_license?acknowledge=maybe", l(func(*elastictest.License) {})); w.Code != 400 ||
		!strings.Contains(reason(out), "acknowledge") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// What takes something away is installed only when that is acknowledged.
func TestAcknowledge(t *testing.T) {
	h := open(t)
	l := func(uid, tier string, hours int) string {
		l := elastictest.License{UID: uid, Type: tier, Issued: issued.Add(time.Duration(hours) * time.Hour), Nodes: 1}
		if tier == "enterprise" {
			l.Units = 1
		}
		return string(h.signer.Stack(l))
	}
	h.ok("PUT", "/_license", l("a", "platinum", -5))
	for _, c := range []struct {
		uid, tier string
		hours     int
		asks      []string
	}{
		{"b", "platinum", -6, []string{"license"}},
		{"c", "gold", -4, []string{"features"}},
		{"d", "standard", -9, []string{"features", "license"}},
		{"e", "enterprise", -2, nil},
		{"f", "trial", -1, nil},
		{"g", "gold", 0, []string{"features"}},
	} {
		out := h.ok("PUT", "/_license", l(c.uid, c.tier, c.hours))
		acknowledge, _ := out["acknowledge"].(map[string]any)
		delete(acknowledge, "message")
		if out["license_status"] != "valid" || out["acknowledged"] != (c.asks == nil) ||
			!slices.Equal(slices.Sorted(maps.Keys(acknowledge)), c.asks) {
			t.Errorf("%+v: %v", c, out)
		}
		uid := h.ok("GET", "/_license", "")["license"].(map[string]any)["uid"]
		if (uid == c.uid) != (c.asks == nil) {
			t.Errorf("%+v: %v is in force", c, uid)
		}
		h.ok("PUT", "/_license?acknowledge=true", l(c.uid, c.tier, c.hours))
		if uid := h.ok("GET", "/_license", "")["license"].(map[string]any)["uid"]; uid != c.uid {
			t.Errorf("%+v, acknowledged: %v is in force", c, uid)
		}
	}
}

// Of several licences in a body the latest issued that has not expired is installed.
func TestStackList(t *testing.T) {
	h := open(t)
	one := func(uid string, issue, end time.Duration) string {
		b := string(h.signer.Stack(elastictest.License{UID: uid, Type: "gold", Issued: issued.Add(issue),
			Expires: issued.Add(end), Nodes: 1}))
		return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(b), `{"license":`), "}")
	}
	h.ok("POST", "/_license", `{"licenses":[`+one("a", -5*time.Hour, 9*time.Hour)+","+
		one("b", -3*time.Hour, 9*time.Hour)+","+one("c", -2*time.Hour, -time.Hour)+`]}`)
	if uid := h.ok("GET", "/_license", "")["license"].(map[string]any)["uid"]; uid != "b" {
		t.Errorf("%v is in force", uid)
	}
}

// What clients ask besides is answered: the root, the short form of the licence, and that no trial can be started.
func TestStackSmallCalls(t *testing.T) {
	h := open(t)
	h.header.Set("Accept", "application/vnd.elasticsearch+json;compatible-with=9")
	w, root := h.send("GET", "/", "")
	version, _ := root["version"].(map[string]any)
	if w.Header().Get("X-Elastic-Product") != "Elasticsearch" || root["tagline"] != "You Know, for Search" ||
		version["number"] != "9.0.0" || version["build_flavor"] != "default" ||
		w.Header().Get("Content-Type") != "application/vnd.elasticsearch+json;compatible-with=9" {
		t.Errorf("%v %s", w.Header(), w.Body)
	}
	if w, _ := h.send("HEAD", "/", ""); w.Code != 200 {
		t.Error(w.Code)
	}
	if out := h.ok("GET", "/_xpack", ""); out["license"] != nil {
		t.Errorf("%v", out)
	}
	h.ok("PUT", "/_license", string(h.signer.Stack(elastictest.License{UID: "a", Type: "silver", Issued: issued,
		Nodes: 1})))
	if l := h.ok("GET", "/_xpack", "")["license"].(map[string]any); l["mode"] != "gold" || l["type"] != "silver" ||
		l["status"] != "active" || l["uid"] != "a" {
		t.Errorf("%v", l)
	}
	for target, word := range map[string]string{"/_license/start_trial?acknowledge=true": "trial_was_started",
		"/_xpack/license/start_basic": "basic_was_started"} {
		if w, out := h.send("POST", target, ""); w.Code != http.StatusForbidden || out[word] != false ||
			!strings.HasPrefix(out["error_message"].(string), "Operation failed: ") {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	if h.ok("GET", "/_license/trial_status", "")["eligible_to_start_trial"] != false ||
		h.ok("GET", "/_license/basic_status", "")["eligible_to_start_basic"] != false {
		t.Error("a trial or a basic licence can be started")
	}
	if w, out := h.send("GET", "/_license?accept_enterprise=false", ""); w.Code != 400 || reason(out) == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	h.ok("GET", "/_license?accept_enterprise=true", "")
}
