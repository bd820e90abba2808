package keygen_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/keygen"
	"github.com/usher-agent/usher/plugin/keygen/keygentest"
)

// terms returns a licence of another system, with changes.
func terms(change func(*enforcer.License)) *enforcer.License {
	pool := func(n enforcer.Limit) enforcer.PoolTerm { return enforcer.PoolTerm{Max: n, Scope: enforcer.ScopeHost} }
	l := &enforcer.License{ID: "lic-1", System: "usher", Product: "acme", Licensee: "Example", Role: enforcer.RoleBase,
		KeyID:  "k",
		Issued: time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC), Expires: time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC),
		Pools:  map[string]enforcer.PoolTerm{"machines": pool(2), "processes": pool(2), "cores": pool(8)},
		Meters: map[string]enforcer.MeterTerm{"uses": {Max: 5, Scope: enforcer.ScopeHost, Adjustable: true}},
		Features: map[string]enforcer.Value{"EXPORT": {Kind: enforcer.KindBool, Bool: true},
			"OFF": {Kind: enforcer.KindBool}}}
	if change != nil {
		change(l)
	}
	return l
}

// file returns a verified licence file of an account's licence, at a time.
func file(t testing.TB, now time.Time, change func(*keygentest.License)) *enforcer.License {
	t.Helper()
	cloud := keygentest.New(func() time.Time { return now })
	created := now.Add(-24 * time.Hour)
	l := keygentest.License{ID: "0b5f5c0e-0000-4000-8000-000000000001", Key: "THE-KEY", Product: "acme",
		HeartbeatDuration: 10 * time.Minute,
		Attributes: keygen.Attributes{Name: new("Example"), MaxMachines: new(int64(1)),
			MaxProcesses: new(int64(2)), Created: &created}}
	if change != nil {
		change(&l)
	}
	cloud.Put(l)
	anchor, err := keygen.NewAnchor("account", []byte(cloud.PublicKey()), "")
	if err != nil {
		t.Fatal(err)
	}
	out, p := keygen.Format{}.Verify(cloud.LicenseFile(l.ID, "base64+ed25519", 30*24*time.Hour),
		[]plugin.Anchor{anchor})
	if p != nil {
		t.Fatal(p.Reason)
	}
	return out
}

// A licence is shown with every attribute and relationship that the API has, whichever system it is of.
func TestDialectLicense(t *testing.T) {
	t.Parallel()
	now := newDesk().Now()
	for name, l := range map[string]*enforcer.License{"native": terms(nil), "keygen": file(t, now, nil)} {
		c := newClient(t, newDesk(l))
		for _, target := range []string{"/v1/me", "/v1/accounts/acc/me", "/v1/licenses/" + l.ID,
			"/v1/accounts/acc/licenses/" + l.ID} {
			got := c.one(200, "GET", target, "")
			if got.ID != l.ID || got.Type != "licenses" || got.Attributes["status"] != "ACTIVE" ||
				got.Attributes["name"] != "Example" {
				t.Errorf("%s: GET %s: %+v", name, target, got)
			}
			for _, a := range strings.Fields(
				`name key expiry status uses protected version suspended scheme encrypted strict floating
				maxMachines maxProcesses maxUsers maxCores maxMemory maxDisk maxUses requireHeartbeat
				requireCheckIn lastValidated lastCheckIn nextCheckIn lastCheckOut permissions metadata
				created updated`) {
				if _, ok := got.Attributes[a]; !ok {
					t.Errorf("%s: GET %s has no attribute %s", name, target, a)
				}
			}
			for _, r := range strings.Fields("account product policy group owner users machines tokens entitlements") {
				if _, ok := got.Relationships[r]; !ok {
					t.Errorf("%s: GET %s has no relationship %s", name, target, r)
				}
			}
		}
		if all := c.list("/v1/licenses"); len(all) != 1 {
			t.Errorf("%s: the licences are %+v", name, all)
		}
		policy := c.one(200, "GET", "/v1/licenses/"+l.ID+"/policy", "")
		if again := c.one(200, "GET", "/v1/policies/"+policy.ID, ""); again.Type != "policies" {
			t.Errorf("%s: the policy is %+v", name, again)
		}
		c.refused(404, "NOT_FOUND", "GET", "/v1/licenses/another", "")
		c.refused(404, "NOT_FOUND", "GET", "/v1/policies/another", "")
		c.refused(404, "NOT_FOUND", "GET", "/v2/me", "")
		c.refused(404, "NOT_FOUND", "GET", "/", "")
		c.refused(405, "", "PUT", "/v1/me", "")
		for _, a := range []string{"POST /v1/licenses/ID/actions/renew", "POST /v1/licenses/ID/actions/suspend",
			"POST /v1/licenses/ID/actions/reinstate", "PATCH /v1/licenses/ID", "DELETE /v1/licenses/ID"} {
			method, target, _ := strings.Cut(a, " ")
			c.refused(403, "", method, strings.Replace(target, "ID", l.ID, 1), "")
		}
		c.refused(422, "", "POST", "/v1/licenses/"+l.ID+"/actions/check-in", "") // no duty
	}
	c := newClient(t, newDesk(terms(nil)))
	if e := c.list("/v1/licenses/lic-1/entitlements"); len(e) != 1 || e[0].Attributes["code"] != "EXPORT" {
		t.Errorf("the entitlements are %+v", e)
	} else if one := c.one(200, "GET", "/v1/licenses/lic-1/entitlements/"+e[0].ID, ""); one.ID != e[0].ID {
		t.Errorf("the entitlement is %+v", one)
	}
	r := c.send("GET", "/v1/ping", "")
	if r.status != 200 || len(r.body) != 0 {
		t.Errorf("ping: %d %s", r.status, r.body)
	}
}

// The status follows Keygen's order and bounds.
func TestStatus(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for _, c := range []struct {
		want string
		a    keygen.Attributes
		used time.Duration // ago
	}{
		{"BANNED", keygen.Attributes{Status: "BANNED", Suspended: true}, 0},
		{"SUSPENDED", keygen.Attributes{Suspended: true, Expiry: new(now.Add(-day))}, 0},
		{"EXPIRED", keygen.Attributes{Expiry: new(now.Add(-time.Second))}, 100 * day},
		{"EXPIRING", keygen.Attributes{Expiry: new(now.Add(3*day - time.Second))}, 100 * day},
		{"INACTIVE", keygen.Attributes{Expiry: new(now.Add(3 * day)), Status: "ACTIVE"}, 90*day + time.Second},
		{"ACTIVE", keygen.Attributes{Status: "INACTIVE"}, 90 * day},
	} {
		if got := (&keygen.Object{Attributes: c.a}).Status(now, now.Add(-c.used)); got != c.want {
			t.Errorf("%+v, used %s ago: %s, want %s", c.a, c.used, got, c.want)
		}
	}
}

// Validations answer with Keygen's codes, nonce and scope.
func TestDialectValidation(t *testing.T) {
	t.Parallel()
	d := newDesk(terms(nil))
	c := newClient(t, d)
	d.CredentialsFile = []byte("THE-KEY\n")
	code := func(method, target, body string, want keygen.Code, valid bool) map[string]any {
		t.Helper()
		r := c.send(method, target, body)
		if r.status != 200 || r.doc.Meta["code"] != string(want) || r.doc.Meta["valid"] != valid ||
			r.doc.Meta["ts"] == nil || r.doc.Meta["detail"] == "" {
			t.Errorf("%s %s %s: %d %s, want %s", method, target, body, r.status, r.body, want)
		}
		return r.doc.Meta
	}
	const by = "/v1/licenses/lic-1/actions/validate"
	code("GET", by, "", keygen.CodeValid, true)
	code("POST", by, "", keygen.CodeValid, true)
	code("POST", by, `{"meta":{"scope":{"product":"acme"}}}`, keygen.CodeValid, true)
	code("POST", by, `{"meta":{"scope":{"product":""}}}`, keygen.CodeProductMismatch, false)
	code("POST", by, `{"meta":{"scope":{"entitlements":["EXPORT"]}}}`, keygen.CodeValid, true)
	code("POST", by, `{"meta":{"scope":{"entitlements":["OFF"]}}}`, keygen.CodeEntitlementsMissing, false)
	meta := code("POST", by, `{"meta":{"nonce":12345,"scope":{"fingerprint":"f"}}}`, keygen.CodeNoMachines, false)
	if scope, _ := meta["scope"].(map[string]any); meta["nonce"] != 12345.0 || scope["fingerprint"] != "f" {
		t.Errorf("meta is %+v", meta)
	}
	c.one(201, "POST", "/v1/machines", machineBody("lic-1", "f", ""))
	code("POST", by, `{"meta":{"scope":{"fingerprint":"f"}}}`, keygen.CodeValid, true)
	code("POST", by, `{"meta":{"scope":{"fingerprint":"g"}}}`, keygen.CodeFingerprintMismatch, false)
	code("POST", by, `{"meta":{"scope":{"fingerprints":["g","f"]}}}`, keygen.CodeValid, true)
	c.refused(400, "", "POST", by, `{"meta":{"scope":{"fingerprint":1}}}`)
	c.refused(400, "", "POST", by, `{`)

	const key = "/v1/licenses/actions/validate-key"
	meta = code("POST", key, `{"meta":{"key":"THE-KEY","nonce":7,"scope":{"fingerprint":"f"}}}`, keygen.CodeValid, true)
	if meta["nonce"] != 7.0 {
		t.Errorf("meta is %+v", meta)
	}
	r := c.send("POST", key, `{"meta":{"key":"ANOTHER"}}`)
	if r.status != 200 || string(r.doc.Data) != "null" || r.doc.Meta["code"] != "NOT_FOUND" {
		t.Errorf("an unknown key: %d %s", r.status, r.body)
	}
	c.refused(400, "", "POST", key, `{}`)

	// The answers follow the judge's findings.
	d.Judge(terms(func(l *enforcer.License) { l.Suspended = true }))
	code("POST", key, `{"meta":{"key":"THE-KEY"}}`, keygen.CodeSuspended, false)
	c.refused(403, "LICENSE_SUSPENDED", "GET", "/v1/me", "")
	d.Judge(terms(func(l *enforcer.License) { l.Expires = d.Now().Add(-time.Hour) }))
	code("GET", by, "", keygen.CodeExpired, false)
	d.Judge(terms(func(l *enforcer.License) { l.Expires, l.Grace = d.Now().Add(-time.Hour), 24*time.Hour }))
	code("GET", by, "", keygen.CodeValid, true) // its grace runs
	d.Judge(terms(func(l *enforcer.License) {
		l.Hosts = []enforcer.HostBinding{{Components: map[string][]string{"x": {"y"}}}}
	}))
	code("GET", by, "", keygen.CodeNotFound, false) // another host's
}

// Files are checked out in both encodings, signed by the dialect's key, read back by the format, and end with the
// licence.
func TestDialectCheckOut(t *testing.T) {
	t.Parallel()
	d := newDesk(terms(nil))
	c := newClient(t, d)
	d.CredentialsFile = []byte("THE-KEY")
	c.auth = "License THE-KEY"
	c.one(201, "POST", "/v1/machines", machineBody("lic-1", "f", ""))
	anchor, err := keygen.NewAnchor("d", []byte(hexKey()), "")
	if err != nil {
		t.Fatal(err)
	}
	read := func(what, text string, secrets plugin.Secrets) *enforcer.License {
		t.Helper()
		l, p := keygen.Format{}.Open([]byte(text), []plugin.Anchor{anchor}, secrets)
		if p != nil {
			t.Fatalf("%s: %s\n%s", what, p.Reason, text)
		}
		return l
	}
	secrets := plugin.Secrets{Keys: []string{"THE-KEY"}, Fingerprint: "f"}
	for _, query := range []string{"?encrypt=true", "?encrypt=false", "?algorithm=base64%2Bed25519",
		"?algorithm=aes-256-gcm%2Bed25519&ttl=86400", "?ttl=&include=policy,product"} {
		got := c.one(200, "POST", "/v1/licenses/lic-1/actions/check-out"+query, `{}`)
		l := read(query, got.Attributes["certificate"].(string), secrets)
		if got.Type != "license-files" || l.ID != "lic-1" || l.Product != "acme" || l.Pools["machines"].Max != 2 ||
			!l.Issued.Equal(d.Now()) {
			t.Errorf("%s: %+v, %+v", query, got, l)
		}
		if query == "?ttl=&include=policy,product" && (got.Attributes["expiry"] != "2026-09-01T00:00:00.000Z" ||
			!l.Expires.Equal(time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC))) {
			t.Errorf("%s: it ends %v", query, got.Attributes["expiry"])
		}
		m := c.one(200, "POST", "/v1/machines/f/actions/check-out"+
			strings.Replace(query, "include=policy,product", "include=license,license.policy", 1),
			`{"meta":{"include":["license"]}}`)
		if l := read(query, m.Attributes["certificate"].(string), secrets); m.Type != "machine-files" ||
			l.ID != "lic-1" || len(l.Hosts) != 1 {
			t.Errorf("%s: %+v, %+v", query, m, l)
		}
		bare := c.send("GET", "/v1/licenses/lic-1/actions/check-out"+query, "")
		if read(query, string(bare.body), secrets); bare.header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("%s: the bare file comes as %s", query, bare.header.Get("Content-Type"))
		}
	}
	for _, bad := range []struct {
		query, code string
	}{{"?ttl=60", "CHECKOUT_TTL_INVALID"}, {"?ttl=x", "CHECKOUT_TTL_INVALID"},
		{"?include=machines", "CHECKOUT_INCLUDE_INVALID"},
		{"?algorithm=base64%2Brsa-sha256", "CHECKOUT_ALGORITHM_INVALID"}} {
		c.refused(400, bad.code, "POST", "/v1/licenses/lic-1/actions/check-out"+bad.query, "")
	}
	d.Judge(terms(func(l *enforcer.License) { l.Expires = d.Now().Add(-time.Hour) }))
	c.refused(403, "", "POST", "/v1/licenses/lic-1/actions/check-out", "")
}

// A caller needs a key that the licence or the listener's file has, or the kernel's word. Callers do not see each
// other's machines.
func TestDialectCredentials(t *testing.T) {
	t.Parallel()
	d := newDesk(terms(nil))
	d.Sender = nil
	c := newClient(t, d)
	try := func(auth string, status int, code string) {
		t.Helper()
		c.auth = auth
		r := c.send("GET", "/v1/me", "")
		if r.status != status || status != 200 && r.doc.Errors[0].Code != code {
			t.Errorf("%q: %d %s, want %d %s", auth, r.status, r.body, status, code)
		}
	}
	try("", 401, "TOKEN_MISSING")
	try("License any", 401, "LICENSE_INVALID") // no list or digest has it
	d.CredentialsFile = []byte(" one \ntwo\n")
	for _, auth := range []string{"License one", "license two", "Bearer one", "Token one", "Basic bGljZW5zZTpvbmU="} {
		try(auth, 200, "")
	}
	try("License three", 401, "LICENSE_INVALID")
	try("Bearer three", 401, "TOKEN_INVALID")
	try("License ", 401, "TOKEN_MISSING")
	c.auth = ""
	if got := c.one(200, "GET", "/v1/me?auth=license:one", ""); got.Attributes["key"] != "one" {
		t.Errorf("by query: %+v", got.Attributes)
	}
	c.auth = "License one"
	m := c.one(201, "POST", "/v1/machines", machineBody("lic-1", "f", ""))
	c.auth = "License two"
	c.refused(404, "NOT_FOUND", "DELETE", "/v1/machines/"+m.ID, "")
	d.CredentialsFile = []byte{}
	try("License one", 401, "LICENSE_INVALID")
	c.auth = "License one" // calls that keep or give back still work for the holder
	c.one(200, "POST", "/v1/machines/f/actions/ping", "")

	d = newDesk()
	d.Judge(file(t, d.Now(), nil))
	for _, does := range []bool{false, true} {
		vouch(d, does)
		c = newClient(t, d)
		try("License THE-KEY", 200, "")
		try("License another", 401, "LICENSE_INVALID")
	}
	try("", 200, "")

	c = newClient(t, newDesk()) // there is no licence, and the answer says so
	try("", 401, "LICENSE_INVALID")
	try("License any", 401, "LICENSE_INVALID")
	c = newClient(t, newDesk(terms(nil)))
	try("License \xff", 200, "")
	c.refused(400, "INVALID_API_VERSION", "GET", "/v1/me", "", "Keygen-Version", "9.9")
}

func hexKey() string { return fmt.Sprintf("%x", newDesk().Key().Public()) }

// Whatever a document says, the answer is signed JSON of the API's form, and never a fault of the server.
func FuzzDialect(f *testing.F) {
	for _, body := range []string{"", "{}", machineBody("lic-1", "f", `,"cores":1`), processBody("f", "1", ""),
		`{"meta":{"key":"k","nonce":1,"scope":{"fingerprints":["a"],"components":[]}}}`,
		`{"meta":{"increment":1}}`,
		`{"meta":{"ttl":null,"include":["license"],"encrypt":true,"algorithm":"base64+ed25519"}}`,
		`{"data":{"type":"machines","attributes":[],"relationships":{"components":{"data":[{}]}}}}`} {
		for i := range fuzzed {
			f.Add(uint8(i), body)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		d := newDesk(terms(nil))
		c := newClient(t, d)
		c.one(201, "POST", "/v1/machines", machineBody("lic-1", "m", ""))
		target := fuzzed[int(which)%len(fuzzed)]
		r := c.send("POST", target, body)
		switch {
		case r.status >= 500:
			t.Errorf("POST %s %q: %d %s", target, body, r.status, r.body)
		case r.status >= 400 && len(r.doc.Errors) != 1, r.status < 400 && !json.Valid(r.doc.Data):
			t.Errorf("POST %s %q: %d %s", target, body, r.status, r.body)
		}
	})
}

var fuzzed = []string{"/v1/machines", "/v1/processes", "/v1/licenses/actions/validate-key",
	"/v1/licenses/lic-1/actions/validate", "/v1/licenses/lic-1/actions/check-out",
	"/v1/machines/m/actions/check-out", "/v1/licenses/lic-1/actions/increment-usage",
	"/v1/licenses/lic-1/actions/decrement-usage", "/v1/machines/m/actions/ping"}

// What is over when its answer is about to be written is denied, in the API's words.
func TestDialectAnswersLate(t *testing.T) {
	t.Parallel()
	d := newDesk(terms(nil))
	c := newClient(t, d)
	d.OnLate = func() *enforcer.Denial {
		return &enforcer.Denial{Code: enforcer.NotShared, Pool: "machines", Detail: "it was over before it answered"}
	}
	c.refused(422, "MACHINE_LIMIT_EXCEEDED", "POST", "/v1/machines", machineBody("lic-1", "f/1", ""))
	if r := c.send("PUT", "/v1/nodes/one", ""); r.status != 410 {
		t.Errorf("a node: %d", r.status)
	}
}
