package ucloud_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/ucloud"
)

// Licences are seen and changed by their owner, and by those that the owner shares them with.
func TestDialectACL(t *testing.T) {
	t.Parallel()
	c := newCounter(t, 2, ucloud.Settings{})
	id := c.create()
	share := func(permissions string) string {
		return `{"items":[{"id":"1","added":[{"entity":{"type":"user","username":"local:uid-2000"},"permissions":[` +
			permissions + `]}],"deleted":[]}]}`
	}
	c.as(2000, false)
	c.send(404, "POST", "/api/licenses/updateAcl", share(`"READ"`))
	c.send(404, "GET", "/api/licenses/retrieve?id="+id, "")
	c.send(404, "DELETE", "/api/licenses", `{"items":[{"id":"1"}]}`)
	c.as(1000, false)
	c.send(200, "POST", "/api/licenses/updateAcl", share(`"READ"`))
	c.as(2000, false)
	c.says(c.send(200, "GET", "/api/licenses/retrieve?includeOthers=true&id="+id, ""), `"myself":["READ"]`,
		`{"entity":{"type":"user","username":"local:uid-2000"},"permissions":["READ"]}`)
	c.bind(404, id, "BIND", "1")
	c.create()
	c.says(c.send(400, "DELETE", "/api/licenses", `{"items":[{"id":"2"},{"id":"1"}]}`), "Permission denied.")
	c.send(200, "GET", "/api/licenses/retrieve?id=2", "")
	c.as(1000, false)
	c.send(200, "POST", "/api/licenses/updateAcl", share(`"READ","EDIT"`))
	c.bind(200, id, "BIND", "7")
	c.as(2000, false)
	c.bind(200, id, "BIND", "8")
	c.says(c.send(200, "GET", "/api/licenses/retrieve?id="+id, ""), `"boundTo":["7","8"]`)
	c.as(1000, false)
	c.says(c.send(200, "GET", "/api/licenses/retrieve?id="+id, ""), `"boundTo":["7","8"]`)
	c.send(200, "POST", "/api/licenses/updateAcl",
		`{"items":[{"id":"1","added":null,"deleted":[{"type":"user","username":"local:uid-2000"}]}]}`)
	c.as(2000, false)
	c.send(404, "GET", "/api/licenses/retrieve?id="+id, "")
	c.as(1000, false)
	for _, bad := range []string{`"ADMIN"`, `"PROVIDER"`, ``} {
		c.says(c.send(403, "POST", "/api/licenses/updateAcl", share(bad)), "Bad ACL update supplied")
	}
	c.send(403, "POST", "/api/licenses/updateAcl",
		`{"items":[{"id":"1","added":[{"entity":{"type":"project_group","projectId":"p"},"permissions":["READ"]}]}]}`)
}

// The record of a product is the configuration's, with each of its members. A product that is neither free nor credited
// cannot be had, and one under a maintenance without service neither.
func TestDialectProducts(t *testing.T) {
	t.Parallel()
	balance, usable := int64(0), int64(7)
	p := ucloud.ProductSettings{Pool: "abaqus", ID: "abaqus-2026", Category: "cae", Description: "FEM", Price: 3,
		ChargeType: "DIFFERENTIAL_QUOTA", UnitOfPrice: "UNITS_PER_DAY", AllocationsFrom: "PROJECT",
		Tags: []string{"fem"}, Balance: &balance, MaxUsableBalance: &usable, Hidden: true, Version: 2, Priority: 9,
		Maintenance: ucloud.MaintenanceSettings{Description: "move", Availability: ucloud.NoService,
			StartsAt: noon.Add(25 * time.Hour), EstimatedEndsAt: noon.Add(26 * time.Hour)}}
	c := newCounter(t, 2, ucloud.Settings{Products: []ucloud.ProductSettings{p}})
	c.says(c.send(200, "GET", "/api/licenses/retrieveProducts", ""), `{"product":{"balance":0,"name":"abaqus-2026",`+
		`"pricePerUnit":3,"category":{"name":"cae","provider":"example"},"description":"FEM","priority":9,`+
		`"tags":["fem"],"version":2,"freeToUse":false,"allowAllocationRequestsFrom":"PROJECT",`+
		`"unitOfPrice":"UNITS_PER_DAY","chargeType":"DIFFERENTIAL_QUOTA","hiddenInGrantApplications":true,`+
		`"productType":"LICENSE","maxUsableBalance":7,"type":"license"}`, fmt.Sprintf(
		`"maintenance":{"description":"move","availability":"NO_SERVICE","startsAt":%d,"estimatedEndsAt":%d}`,
		noon.Add(25*time.Hour).UnixMilli(), noon.Add(26*time.Hour).UnixMilli()))
	make := `{"items":[{"product":{"id":"abaqus-2026","category":"cae","provider":"example"}}]}`
	c.says(c.send(402, "POST", "/api/licenses", make), "You are missing allocations for: abaqus-2026")
	balance = 1
	c.send(200, "POST", "/api/licenses", make)
	c.says(c.send(402, "POST", "/api/licenses", item), "You are missing allocations for: abaqus")
	c.desk.Pass(90 * time.Minute)
	c.says(c.send(404, "POST", "/api/licenses", make), "Service is currently undergoing maintenance.")
	c.bind(404, "1", "BIND", "1")
	c.desk.Pass(time.Hour)
	c.bind(200, "1", "BIND", "1")
}

// Callers over TCP show a token, signed with the one configured key, for this audience and time. Its user owns what it
// makes, its membership opens projects, and its role says which side of the API it may use.
func TestDialectTokens(t *testing.T) {
	t.Parallel()
	der, err := x509.MarshalPKIXPublicKey(rsaKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	for alg, file := range map[string][]byte{"HS512": []byte(secret + "\n"), "RS256": public} {
		c := newCounter(t, 2, ucloud.Settings{})
		c.desk.Sender, c.desk.CredentialsFile = nil, file
		show := func(claims map[string]any) { c.header.Set("Authorization", "Bearer "+token(t, alg, claims)) }
		c.send(401, "GET", "/api/licenses/browse", "")
		c.header.Set("Authorization", "Bearer ")
		c.send(401, "GET", "/api/licenses/browse", "")
		show(nil)
		id := c.create()
		c.says(c.send(200, "GET", "/api/licenses/retrieve?id="+id, ""), `"createdBy":"alice"`)
		c.send(403, "POST", "/api/licenses/control/update", binding(id, "BIND", "1"))
		for what, claims := range map[string]map[string]any{"another issuer": {"iss": "x"}, "no end": {"exp": nil},
			"over": {"exp": noon.Unix()}, "from the future": {"iat": noon.Add(48 * time.Hour).Unix()},
			"another audience": {"aud": []string{"x"}}, "no role": {"role": "GOD"}, "no subject": {"sub": ""},
			"a local name": {"sub": "local:uid-0"}, "no issue": {"iat": nil}} {
			show(claims)
			if got := c.send(401, "GET", "/api/licenses/browse", ""); !strings.Contains(got, "Unauthorized") {
				t.Errorf("%s: %s", what, got)
			}
		}
		other := map[string]string{"HS512": "RS256", "RS256": "HS512"}[alg]
		c.header.Set("Authorization", "Bearer "+token(t, other, nil))
		c.send(401, "GET", "/api/licenses/browse", "")
		c.header.Set("Authorization", "Bearer "+token(t, "none", nil))
		c.send(401, "GET", "/api/licenses/browse", "")
		show(map[string]any{"sub": "bob"})
		c.send(404, "GET", "/api/licenses/retrieve?id="+id, "")
		show(map[string]any{"sub": "#P_example", "role": "PROVIDER"})
		c.send(403, "GET", "/api/licenses/browse", "")
		c.bind(200, id, "BIND", "5")
		c.says(c.send(200, "GET", "/api/licenses/control/browse?includeOthers=true", ""), `"boundTo":["5"]`,
			`"myself":["READ","PROVIDER"]`)
		show(map[string]any{"sub": "#P_other", "role": "PROVIDER"})
		c.send(403, "GET", "/api/licenses/control/browse", "")
		show(nil)
		c.says(c.send(200, "GET", "/api/licenses/retrieve?id="+id, ""), `"boundTo":["5"]`)
		c.header.Set("Project", "p-1")
		c.says(c.send(403, "GET", "/api/licenses/browse", ""), "Bad token supplied")
		show(map[string]any{"membership": map[string]string{"p-1": "USER"}})
		c.says(c.send(200, "GET", "/api/licenses/browse", ""), `"items":[]`)
		mine := c.create()
		show(map[string]any{"sub": "boss", "membership": map[string]string{"p-1": "PI"}})
		c.says(c.send(200, "GET", "/api/licenses/retrieve?id="+mine, ""), `"project":"p-1"`)
		show(map[string]any{"sub": "carl", "membership": map[string]string{"p-1": "USER"}})
		c.send(404, "GET", "/api/licenses/retrieve?id="+mine, "")
	}
	for _, bad := range []string{"", "short", "two lines of a secret\nare no secret",
		"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if (ucloud.Dialect{}).CheckCredentials([]byte(bad)) == nil {
			t.Errorf("%q passes for a key", bad)
		}
	}
}

// The provider's socket keeps licence servers. Their keys are for admins, and for callers that hold a slot.
func TestDialectServers(t *testing.T) {
	t.Parallel()
	c := newCounter(t, 2, ucloud.Settings{})
	id := c.create()
	fail := func(status int, op, body, text string) {
		t.Helper()
		w := httptest.NewRecorder()
		c.h.ServeHTTP(w, httptest.NewRequest("POST", "http://ucloud.internal/licenses."+op, strings.NewReader(body)))
		if w.Code != status || w.Header().Get(ucloud.ErrorHeader) != text {
			t.Errorf("%s %s: %d %q, and it should be %d %q", op, body, w.Code, w.Header(), status, text)
		}
	}
	row := `{"Name":"abaqus","Address":"host","Port":27000,"License":"K"}`
	fail(403, "update", row, "This is for admins of the agent")
	fail(403, "browse", "{}", "This is for admins of the agent")
	fail(403, "retrieve", `"`+id+`"`, "Only a caller that holds a slot of the licence is told its server")
	c.as(0, true)
	fail(404, "retrieve", `"77"`, "Unable to find product for license")
	fail(404, "retrieve", `"`+id+`"`, "Unable to find license details")
	if got := c.send(200, "POST", "/licenses.update", row); got != "{}" {
		t.Errorf("update: %s", got)
	}
	c.send(200, "POST", "/licenses.update", `{"Name":"void","Address":null,"Port":null,"License":null}`)
	if got := c.send(200, "POST", "/licenses.browse", "{}"); got != "["+row+
		`,{"Name":"void","Address":null,"Port":null,"License":null}]` {
		t.Errorf("browse: %s", got)
	}
	c.as(1000, false)
	c.bind(200, id, "BIND", "1")
	c.says(c.send(200, "POST", "/licenses.retrieve", `"`+id+`"`), `"Port":27000`, `"Parameter":"host:27000/K"`)
	c.as(0, true)
	c.send(200, "POST", "/licenses.remove", `"abaqus"`)
	c.send(200, "POST", "/licenses.remove", `"abaqus"`)
	fail(404, "retrieve", `"`+id+`"`, "Unable to find license details")
	fail(400, "update", `{"Name":"x","Port":99999}`, "Port 99999 is none")
	fail(404, "unknown", "{}", "Not found")
}

// What a job gets as a parameter has "null" for what is missing.
func TestParameter(t *testing.T) {
	t.Parallel()
	host, key, port := "host", "ABC-123", int64(27000)
	for want, s := range map[string]ucloud.Server{"host:27000/ABC-123": {Address: &host, Port: &port, License: &key},
		"null:null/ABC-123": {License: &key}, "null:null": {}, "host:27000": {Address: &host, Port: &port}} {
		if got := s.Parameter(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// No user of the host fills the store so that others find no room.
func TestDialectBounds(t *testing.T) {
	t.Parallel()
	c := newCounter(t, 2, ucloud.Settings{})
	one := `{"product":{"id":"abaqus","category":"abaqus","provider":"example"}}`
	batch := `{"items":[` + strings.TrimSuffix(strings.Repeat(one+",", 250), ",") + `]}`
	for range 4 {
		c.send(200, "POST", "/api/licenses", batch)
	}
	c.says(c.send(507, "POST", "/api/licenses", item), "There are too many licences")
	c.as(2000, false)
	c.create()
	for range 200 { // updates are forgotten, the oldest first
		c.send(200, "POST", "/api/licenses/control/update",
			`{"items":[{"id":"1001","update":{"status":"`+strings.Repeat("é", 4000)+`"}}]}`)
	}
	if n := strings.Count(c.send(200, "GET", "/api/licenses/retrieve?includeUpdates=true&id=1001", ""),
		`"timestamp"`); n == 0 || n > 64 {
		t.Errorf("%d updates are kept", n)
	}
}

// What the agent refuses before it asks the dialect has the form of the API, and of the provider's socket.
func TestDialectRefuses(t *testing.T) {
	t.Parallel()
	d := &enforcer.Denial{Code: enforcer.TooLarge, Detail: "the body is too large"}
	for target, header := range map[string]string{"/api/licenses": "", "//licenses.update": d.Detail} {
		w := httptest.NewRecorder()
		ucloud.Dialect{}.Refuse(w, httptest.NewRequest("POST", "http://localhost"+target, nil), 413, d)
		if want := `{"statusCode":413,"why":"the body is too large","errorCode":null}`; w.Code != 413 ||
			w.Body.String() != want || w.Header().Get(ucloud.ErrorHeader) != header {
			t.Errorf("%s: %d %v %s", target, w.Code, w.Header(), w.Body)
		}
	}
	w := httptest.NewRecorder()
	ucloud.Dialect{}.Refuse(w, httptest.NewRequest("GET", "http://localhost/api/licenses/browse", nil), 401,
		&enforcer.Denial{Detail: "no token"})
	if !strings.Contains(w.Body.String(), `"why":"Unauthorized: no token"`) {
		t.Errorf("%s", w.Body)
	}
}

// A grant that is over when its answer is to be written is refused.
func TestDialectLate(t *testing.T) {
	t.Parallel()
	c := newCounter(t, 2, ucloud.Settings{})
	id := c.create()
	c.desk.OnLate = func() *enforcer.Denial { return &enforcer.Denial{Code: enforcer.Draining, Detail: "stopped"} }
	c.bind(http.StatusServiceUnavailable, id, "BIND", "1")
}
