package keygen_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/keygen"
	"github.com/usher-agent/usher/plugin/keygen/keygentest"
)

// Every relationship of every resource has a link.
func TestDialectLinks(t *testing.T) {
	t.Parallel()
	d := newDesk()
	l := vendorsLicense(t, d.Now(), nil, nil)
	d.Judge(l.License)
	c := newClient(t, d)
	m := c.one(201, "POST", "/v1/machines", beside(machineBody(l.ID, "f", ""), "relationships",
		`"components":{"data":[{"type":"components","attributes":{"fingerprint":"b","name":"board"}}]}`))
	c.one(201, "POST", "/v1/processes", processBody(m.ID, "1", ""))
	for _, licences := range []*enforcer.License{l.License, terms(nil)} {
		d.Judge(licences)
		for _, target := range []string{"/v1/me", "/v1/licenses", "/v1/licenses/" + licences.ID + "/policy",
			"/v1/licenses/" + licences.ID + "/entitlements", "/v1/machines", "/v1/processes", "/v1/components"} {
			r := c.send("GET", target, "")
			for _, o := range resources(t, r) {
				related, _ := o["relationships"].(members) // the vendor's policy may have none
				for name, rel := range related {
					if name == "user" {
						t.Errorf("%s: a relationship has its former name", target)
					}
					links, _ := rel.(members)["links"].(members)
					link, _ := links["related"].(string)
					if !strings.HasPrefix(link, "/v1/accounts/") {
						t.Errorf("%s: %s of %s has no link: %v", target, name, o["type"], rel)
						continue
					}
					// What the file does not have has no resource here.
					data, toOne := rel.(members)["data"]
					lacks := toOne && data == nil
					vendors := name == "account" || name == "environment" || name == "tokens"
					if got := c.send("GET", link, ""); got.status != 200 && !vendors && !lacks {
						t.Errorf("%s: %s of %s: %d %s", link, name, o["type"], got.status, got.body)
					}
				}
			}
		}
	}
}

// resources returns the resources of an answer, one or many.
func resources(t testing.TB, r *reply) (out []members) {
	t.Helper()
	if json.Unmarshal(r.doc.Data, &out) != nil {
		var one members
		if err := json.Unmarshal(r.doc.Data, &one); err != nil {
			t.Fatalf("%d %s", r.status, r.body)
		}
		out = []members{one}
	}
	return out
}

// Answers have the form of the API version that is asked for: each name holds up to its last version.
func TestDialectVersions(t *testing.T) {
	t.Parallel()
	for minor := range 9 {
		for _, former := range []bool{false, true} { // the vendor's file has former names
			versionCase(t, minor, former)
		}
	}
	d := newDesk(terms(nil))
	c := newClient(t, d)
	if r := c.send("GET", "/v1/me", "", "Keygen-Version", "v1.3"); r.status != 200 ||
		r.header.Get("Keygen-Version") != "1.3" {
		t.Errorf("v1.3: %d %s", r.status, r.header.Get("Keygen-Version"))
	}
	for _, bad := range []string{"1.9", "2.0", "1", "v", "1.10", "latest"} {
		c.refused(400, "INVALID_API_VERSION", "GET", "/v1/me", "", "Keygen-Version", bad)
	}
}

// versionedLicense returns a licence whose members have names that changed; former: the file has the former ones.
func versionedLicense(t *testing.T, now time.Time, former bool) *vendors {
	t.Helper()
	l := vendorsLicense(t, now, members{"overageStrategy": "ALWAYS_ALLOW_OVERAGE",
		"processLeasingStrategy": "PER_LICENSE", "machineMatchingStrategy": "MATCH_ALL",
		"machineUniquenessStrategy": "UNIQUE_PER_ACCOUNT"}, func(l *keygentest.License) {
		l.Attributes.RequireHeartbeat = true
	})
	l.attributes()["maxUsers"] = 1.0
	related := l.data["relationships"].(members)
	if former {
		related["user"] = related["owner"]
		delete(related, "owner")
		for now, before := range map[string]string{"processLeasingStrategy": "leasingStrategy",
			"machineMatchingStrategy":   "fingerprintMatchingStrategy",
			"machineUniquenessStrategy": "fingerprintUniquenessStrategy"} {
			l.policy[before] = l.policy[now]
			delete(l.policy, now)
		}
		l.policy["concurrent"] = true
	}
	return l
}

func versionCase(t *testing.T, minor int, former bool) {
	t.Helper()
	version := fmt.Sprintf("1.%d", minor)
	d := newDesk()
	l := versionedLicense(t, d.Now(), former)
	d.Judge(l.License)
	c := newClient(t, d)
	get := func(method, target, body string) *reply {
		return c.send(method, target, body, "Keygen-Version", version)
	}
	has := func(in any, name string, want bool) {
		t.Helper()
		if _, there := in.(members)[name]; there != want {
			t.Errorf("%s (former names %v): %s is there: %v", version, former, name, there)
		}
	}
	me := resources(t, get("GET", "/v1/me", ""))[0]
	has(me["relationships"], "user", minor <= 5)
	has(me["relationships"], "owner", minor > 5)
	policy := resources(t, get("GET", "/v1/licenses/"+l.ID+"/policy", ""))[0]["attributes"]
	for name, last := range map[string]int{"leasingStrategy": 6, "fingerprintMatchingStrategy": 3,
		"fingerprintUniquenessStrategy": 3, "concurrent": 1} {
		has(policy, name, minor <= last)
	}
	for name, last := range map[string]int{"processLeasingStrategy": 6, "machineMatchingStrategy": 3,
		"machineUniquenessStrategy": 3} {
		has(policy, name, minor > last)
	}
	made := get("POST", "/v1/machines",
		machineBody(l.ID, "f", `,"metadata":{"myKey":{"innerKey":12345678901234567890}}`))
	m := resources(t, made)[0]
	has(m["relationships"], "user", minor <= 5)
	inner := m["attributes"].(members)["metadata"].(members)["myKey"]
	has(inner, "inner_key", minor <= 4)
	has(inner, "innerKey", minor > 4)
	if !strings.Contains(string(made.body), "12345678901234567890") {
		t.Errorf("%s: a number is changed: %s", version, made.body)
	}
	life := map[bool]string{true: "NOT_STARTED", false: "ALIVE"}[minor <= 2]
	if got := m["attributes"].(members)["heartbeatStatus"]; got != life {
		t.Errorf("%s: a new machine is %v", version, got)
	}
	verdict := get("GET", "/v1/licenses/"+l.ID+"/actions/validate", "").doc.Meta
	has(verdict, "constant", minor <= 1)
	has(verdict, "code", minor > 1)
	if verdict["valid"] != (minor > 1) {
		t.Errorf("%s: an overage is valid: %v", version, verdict["valid"])
	}
	suffix := map[bool]string{true: "-Id", false: ""}[minor <= 3]
	if made.header.Get("Keygen-Account"+suffix) == "" || made.header.Get("Keygen-Version") != version {
		t.Errorf("%s: the header is %v", version, made.header)
	}
	file := c.one(200, "POST", "/v1/licenses/"+l.ID+"/actions/check-out", "", "Keygen-Version", version)
	anchor, err := keygen.NewAnchor("d", []byte(hexKey()), "")
	if err != nil {
		t.Fatal(err)
	}
	var inside struct{ Data members }
	plain := keygen.Plaintext([]byte(file.Attributes["certificate"].(string)), []plugin.Anchor{anchor},
		plugin.Secrets{})
	if err := json.Unmarshal(plain, &inside); err != nil {
		t.Fatalf("%v: %s", err, plain)
	}
	has(inside.Data["relationships"], "user", minor <= 5)
}

// A caller that accepts plain JSON alone gets it.
func TestDialectMedia(t *testing.T) {
	t.Parallel()
	c := newClient(t, newDesk(terms(nil)))
	for accept, want := range map[string]string{"": "application/vnd.api+json", "*/*": "application/vnd.api+json",
		"application/json": "application/json", "application/vnd.api+json": "application/vnd.api+json",
		"application/json;q=0.9, text/plain":         "application/json",
		"application/vnd.api+json, application/json": "application/vnd.api+json"} {
		var header []string
		if accept != "" {
			header = []string{"Accept", accept}
		}
		r := c.send("GET", "/v1/me", "", header...)
		if got, _, _ := strings.Cut(r.header.Get("Content-Type"), ";"); r.status != http.StatusOK || got != want ||
			!json.Valid(r.body) {
			t.Errorf("%q: %d %s", accept, r.status, got)
		}
	}
}
