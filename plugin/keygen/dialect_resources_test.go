package keygen_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/keygen/keygentest"
)

type members = map[string]any

// vendors is a licence as an account wrote it, with a policy, an owner and two users.
type vendors struct {
	*enforcer.License
	data, policy members
}

// vendorsLicense returns a licence file's licence, with the given attributes of its policy.
func vendorsLicense(t testing.TB, now time.Time, policy members, change func(*keygentest.License)) *vendors {
	t.Helper()
	l := file(t, now, change)
	v := &vendors{License: l, data: l.Terms["data"].(members), policy: members{"strict": false, "floating": true}}
	for name, value := range policy {
		v.policy[name] = value
	}
	v.attributes()["protected"] = false
	related := v.data["relationships"].(members)
	related["owner"] = members{"data": members{"type": "users", "id": "user-1"}}
	related["users"] = members{"meta": members{"count": 3.0}}
	related["environment"] = members{"data": members{"type": "environments", "id": "env-1"}}
	user := func(id, email string) members {
		return members{"type": "users", "id": id, "attributes": members{"email": email}}
	}
	l.Terms["included"] = []any{members{"type": "policies", "id": "policy-of-" + l.ID, "attributes": v.policy},
		members{"type": "environments", "id": "env-1", "attributes": members{"code": "production"}},
		user("user-1", "one@example.com"), user("user-2", "two@example.com")}
	return v
}

func (v *vendors) attributes() members { return v.data["attributes"].(members) }

// beside adds members to a request's attributes or relationships.
func beside(body, where, more string) string {
	return strings.Replace(body, `"`+where+`":{`, `"`+where+`":{`+more+`,`, 1)
}

func ownedBy(user string) string { return `"owner":{"data":{"type":"users","id":"` + user + `"}}` }

// A machine's owner is a user of the licence, by id or address. It is shown as it was given, and validations compare
// it.
func TestDialectOwners(t *testing.T) {
	t.Parallel()
	d := newDesk()
	l := vendorsLicense(t, d.Now(), nil, func(l *keygentest.License) {
		l.Attributes.Floating, l.Attributes.MaxMachines = false, new(int64(1))
	})
	l.Pools["machines"] = enforcer.PoolTerm{Max: 4, Scope: enforcer.ScopeHost}
	d.Judge(l.License)
	c := newClient(t, d)
	c.auth = "License THE-KEY"
	for i, owner := range []string{"user-1", "two@example.com", "user-2"} {
		fingerprint := fmt.Sprintf("f%d", i)
		m := c.one(201, "POST", "/v1/machines", beside(machineBody(l.ID, fingerprint, ""), "relationships",
			ownedBy(owner)))
		if got, _ := m.Relationships["owner"].Data.(members); got["id"] != owner {
			t.Errorf("the owner of %s is %v, want %s", fingerprint, got, owner)
		}
	}
	c.refused(422, "OWNER_INVALID", "POST", "/v1/machines", beside(machineBody(l.ID, "g", ""), "relationships",
		ownedBy("user-9")))
	for scope, want := range map[string]string{
		`{"fingerprint":"f0","user":"user-1"}`:          "VALID",
		`{"fingerprint":"f0","user":"one@example.com"}`: "VALID",
		`{"fingerprint":"f0","user":"two@example.com"}`: "USER_SCOPE_MISMATCH",
		`{"fingerprint":"f1","user":"user-2"}`:          "VALID",
		`{"fingerprint":"f2","user":"two@example.com"}`: "VALID",
		`{"fingerprints":["f1","f2"],"user":"user-2"}`:  "VALID",
		`{"fingerprints":["f0","f2"],"user":"user-2"}`:  "USER_SCOPE_MISMATCH",
		`{"user":null}`:                "USER_SCOPE_MISMATCH",
		`{"environment":"production"}`: "VALID",
		`{"environment":"env-1"}`:      "VALID",
		`{"environment":null}`:         "ENVIRONMENT_SCOPE_MISMATCH",
	} {
		r := c.send("POST", "/v1/licenses/"+l.ID+"/actions/validate", `{"meta":{"scope":`+scope+`}}`)
		if r.status != 200 || r.doc.Meta["code"] != want || r.doc.Meta["detail"] == "" {
			t.Errorf("%s: %d %s, want %s", scope, r.status, r.body, want)
		}
	}
	for _, environment := range []string{"production", "env-1", ""} {
		c.one(200, "GET", "/v1/licenses/"+l.ID, "", "Keygen-Environment", environment)
	}
	for _, environment := range []string{"sandbox", "PRODUCTION", "6f9a0b0e-3f0a-4c8e-9f6a-0d8a52a0b001"} {
		c.refused(400, "ENVIRONMENT_INVALID", "GET", "/v1/licenses/"+l.ID, "", "Keygen-Environment", environment)
		c.refused(400, "ENVIRONMENT_INVALID", "POST", "/v1/licenses/actions/validate-key",
			`{"meta":{"key":"THE-KEY"}}`, "Keygen-Environment", environment)
	}
	// The server finds an environment by its id in either case, and by its code only to the letter.
	const id, other = "6f9a0b0e-3f0a-4c8e-9f6a-0d8a52a0b001", "6F9A0B0E-3F0A-4C8E-9F6A-0D8A52A0B002"
	was := l.data["relationships"].(members)["environment"]
	l.data["relationships"].(members)["environment"] = members{"data": members{"type": "environments", "id": id}}
	d.Judge(l.License)
	c.one(200, "GET", "/v1/licenses/"+l.ID, "", "Keygen-Environment", strings.ToUpper(id))
	c.refused(400, "ENVIRONMENT_INVALID", "GET", "/v1/licenses/"+l.ID, "", "Keygen-Environment", other)
	l.data["relationships"].(members)["environment"] = was
	d.Judge(l.License)
	for _, null := range []string{"product", "policy", "machine", "fingerprint", "fingerprints", "components",
		"entitlements", "checksum", "version"} {
		c.refused(400, "", "POST", "/v1/licenses/"+l.ID+"/actions/validate", `{"meta":{"scope":{"`+null+`":null}}}`)
	}
	c.refused(400, "", "POST", "/v1/licenses/"+l.ID+"/actions/validate", `{"meta":{"scope":{"components":[null]}}}`)
	l.attributes()["maxUsers"] = 2.0 // the licence has three, of which the file names two
	d.Judge(l.License)
	if r := c.send("GET", "/v1/licenses/"+l.ID+"/actions/validate", ""); r.doc.Meta["code"] != "TOO_MANY_USERS" {
		t.Errorf("three users of two: %s", r.body)
	}
}

// Attributes and components that no machine may have are refused, with the place of each.
func TestDialectRefusesWhatIsUnfit(t *testing.T) {
	t.Parallel()
	c := newClient(t, newDesk(terms(nil)))
	parts := func(all ...string) string {
		return beside(machineBody("lic-1", "f", ""), "relationships",
			`"components":{"data":[`+strings.Join(all, ",")+`]}`)
	}
	part := func(attributes string) string { return `{"type":"components","attributes":{` + attributes + `}}` }
	many := make([]string, 21)
	for i := range many {
		many[i] = part(fmt.Sprintf(`"fingerprint":"c%d","name":"n"`, i))
	}
	const at = "/data/relationships/components/data"
	for body, want := range map[string]struct {
		status      int
		code, place string
	}{
		machineBody("lic-1", "f", `,"cores":0`):          {422, "CORES_INVALID", "/data/attributes/cores"},
		machineBody("lic-1", "f", `,"cores":2147483648`): {422, "CORES_INVALID", "/data/attributes/cores"},
		machineBody("lic-1", "f", `,"memory":-1`):        {422, "MEMORY_INVALID", "/data/attributes/memory"},
		machineBody("lic-1", "f", `,"memory":"1"`):       {400, "", "/data/attributes"},
		machineBody("lic-1", "f", `,"disk":-1`):          {422, "DISK_INVALID", "/data/attributes/disk"},
		machineBody("lic-1", "f", `,"disk":1.5`):         {400, "", "/data/attributes"},
		machineBody("lic-1", "f", `,"metadata":[1]`):     {400, "", "/data/attributes/metadata"},
		parts(many...):                             {400, "", at},
		parts("null"):                              {400, "", at + "/0"},
		parts(`{"type":"machines"}`):               {400, "", at + "/0/type"},
		parts(part(`"name":"n"`)):                  {400, "", at + "/0/attributes/fingerprint"},
		parts(many[0], part(`"fingerprint":"c1"`)): {400, "", at + "/1/attributes/name"},
		parts(many[0], many[1], many[0]): {422, "COMPONENTS_FINGERPRINT_TAKEN",
			at + "/2/attributes/fingerprint"},
		machineBody("lic-1", strings.Repeat("f", 4097), ""): {422, "FINGERPRINT_TOO_LONG",
			"/data/attributes/fingerprint"},
	} {
		r := c.send("POST", "/v1/machines", body)
		if r.status != want.status || len(r.doc.Errors) != 1 || r.doc.Errors[0].Code != want.code ||
			r.doc.Errors[0].Source["pointer"] != want.place {
			t.Errorf("%.200s: %d %s, want %+v", body, r.status, r.body, want)
		}
	}
	m := c.one(201, "POST", "/v1/machines", strings.Replace(parts(many[:20]...), `"type":"machines"`,
		`"type":"machine"`, 1))
	if got := c.list("/v1/machines/" + m.ID + "/components?limit=100"); len(got) != 20 {
		t.Errorf("it has %d components", len(got))
	}
	for _, body := range []string{processBody(m.ID, "", ""),
		strings.Replace(processBody(m.ID, "1", ""), `"pid":"1"`, `"pid":1`, 1),
		strings.Replace(processBody(m.ID, "1", ""), `"pid":"1"`, `"pid":null`, 1)} {
		c.refused(400, "", "POST", "/v1/processes", body)
	}
	for _, body := range []string{`{"meta":{"increment":null}}`, `{"meta":{"increment":"1"}}`,
		`{"meta":{"increment":1.5}}`} {
		c.refused(400, "", "POST", "/v1/licenses/lic-1/actions/increment-usage", body)
	}
	c.refused(404, "NOT_FOUND", "POST", "/v1/machines/"+m.ID+"/actions/explode", "")
	// A refusal for a limit says which, and how many.
	r := c.send("POST", "/v1/machines", machineBody("lic-1", "g", `,"cores":9`))
	if r.status != 422 || !strings.Contains(r.doc.Errors[0].Detail, "machine core count has exceeded maximum") ||
		!strings.Contains(r.doc.Errors[0].Detail, "(8; 0 in use)") {
		t.Errorf("%s", r.body)
	}
}

// Components are unique as far as the policy says.
func TestDialectComponentsAreUnique(t *testing.T) {
	t.Parallel()
	for strategy, status := range map[string]int{"": 201, "UNIQUE_PER_MACHINE": 201, "UNIQUE_PER_LICENSE": 422,
		"UNIQUE_PER_ACCOUNT": 422} {
		d := newDesk()
		l := vendorsLicense(t, d.Now(), members{"componentUniquenessStrategy": strategy}, nil)
		l.Pools["machines"] = enforcer.PoolTerm{Max: 4, Scope: enforcer.ScopeHost}
		d.Judge(l.License)
		c := newClient(t, d)
		with := func(fingerprint string) string {
			return beside(machineBody(l.ID, fingerprint, ""), "relationships",
				`"components":{"data":[{"type":"components","attributes":{"fingerprint":"b","name":"board"}}]}`)
		}
		c.one(201, "POST", "/v1/machines", with("f"))
		if r := c.send("POST", "/v1/machines", with("g")); r.status != status {
			t.Errorf("%s: %d %s", strategy, r.status, r.body)
		}
	}
}

// Dead machines and processes are kept, revived and refused as the policy says; a heartbeat begins as it says.
func TestDialectDeadAreKept(t *testing.T) {
	t.Parallel()
	for revive, good := range map[string]map[time.Duration]bool{ // by the time after the last ping
		"NO_REVIVE":       {9 * time.Minute: true, 11 * time.Minute: false},
		"5_MINUTE_REVIVE": {14 * time.Minute: true, 16 * time.Minute: false},
		"ALWAYS_REVIVE":   {16 * time.Minute: true, 400 * time.Hour: true},
	} {
		for after, want := range good {
			d := newDesk()
			l := vendorsLicense(t, d.Now(), members{"heartbeatCullStrategy": "KEEP_DEAD",
				"heartbeatResurrectionStrategy": revive}, func(l *keygentest.License) {
				l.Attributes.RequireHeartbeat = true
			})
			d.Judge(l.License)
			c := newClient(t, d)
			m := c.one(201, "POST", "/v1/machines", machineBody(l.ID, "f", ""))
			p := c.one(201, "POST", "/v1/processes", processBody(m.ID, "1", ""))
			d.Pass(after)
			l.Expires = d.Now().Add(time.Hour)
			d.Judge(l.License)
			life := "ALIVE"
			if after > 10*time.Minute {
				life = "DEAD"
			}
			if got := c.one(200, "GET", "/v1/machines/f", ""); got.ID != m.ID ||
				got.Attributes["heartbeatStatus"] != life || got.Attributes["requireHeartbeat"] != true {
				t.Errorf("%s after %s: %+v", revive, after, got)
			}
			c.refused(422, "MACHINE_LIMIT_EXCEEDED", "POST", "/v1/machines", machineBody(l.ID, "g", ""))
			for target, code := range map[string]string{"/v1/machines/f": "MACHINE_HEARTBEAT_DEAD",
				"/v1/processes/" + p.ID: "PROCESS_HEARTBEAT_DEAD"} {
				if !want {
					c.refused(422, code, "POST", target+"/actions/ping", "")
					continue
				}
				c.one(200, "POST", target+"/actions/ping", "")
			}
			if !want {
				continue
			}
			if got := c.one(200, "GET", "/v1/machines/f", ""); got.Attributes["heartbeatStatus"] != "ALIVE" {
				t.Errorf("%s after %s and a ping: %+v", revive, after, got)
			}
		}
	}
	d := newDesk()
	l := vendorsLicense(t, d.Now(), members{"heartbeatBasis": "FROM_FIRST_PING",
		"heartbeatResurrectionStrategy": "5_MINUTE_REVIVE"}, func(l *keygentest.License) {
		l.Attributes.RequireHeartbeat = true
	})
	d.Judge(l.License)
	c := newClient(t, d)
	m := c.one(201, "POST", "/v1/machines", machineBody(l.ID, "f", ""))
	if m.Attributes["heartbeatStatus"] != "NOT_STARTED" || m.Attributes["lastHeartbeat"] != nil {
		t.Errorf("before the first ping: %+v", m)
	}
	r := c.send("POST", "/v1/licenses/"+l.ID+"/actions/validate", `{"meta":{"scope":{"fingerprint":"f"}}}`)
	if r.doc.Meta["code"] != "HEARTBEAT_NOT_STARTED" {
		t.Errorf("before the first ping: %s", r.body)
	}
	d.Pass(11 * time.Minute)
	d.Judge(l.License)
	if got := c.one(200, "GET", "/v1/machines/f", ""); got.Attributes["heartbeatStatus"] != "DEAD" {
		t.Errorf("without a first ping: %+v", got)
	}
	c.refused(422, "MACHINE_HEARTBEAT_DEAD", "POST", "/v1/machines/f/actions/ping", "")
	c.send("DELETE", "/v1/machines/f", "")
	c.one(201, "POST", "/v1/machines", machineBody(l.ID, "f", ""))
	if got := c.one(200, "POST", "/v1/machines/f/actions/ping", ""); got.Attributes["heartbeatStatus"] != "ALIVE" {
		t.Errorf("after the first ping: %+v", got)
	}
}

// A machine that was made before its licence had a heartbeat duty begins its heartbeat with its first ping.
func TestDialectDutyThatCameLater(t *testing.T) {
	t.Parallel()
	d := newDesk()
	l := vendorsLicense(t, d.Now(), nil, nil)
	d.Judge(l.License)
	c := newClient(t, d)
	c.one(201, "POST", "/v1/machines", machineBody(l.ID, "f", ""))
	d.Pass(time.Hour)
	l.attributes()["requireHeartbeat"] = true
	d.Judge(l.License)
	if got := c.one(200, "POST", "/v1/machines/f/actions/ping", ""); got.Attributes["heartbeatStatus"] != "ALIVE" {
		t.Errorf("%+v", got)
	}
	d.Pass(9 * time.Minute)
	if got := c.one(200, "GET", "/v1/machines/f", ""); got.Attributes["heartbeatStatus"] != "ALIVE" {
		t.Errorf("%+v", got)
	}
}

// A licence changes what describes its machines, unless the vendor alone manages them.
func TestDialectPatch(t *testing.T) {
	t.Parallel()
	d := newDesk()
	l := vendorsLicense(t, d.Now(), nil, nil)
	d.Judge(l.License)
	c := newClient(t, d)
	m := c.one(201, "POST", "/v1/machines", machineBody(l.ID, "f", `,"name":"a","hostname":"h","ip":"10.0.0.1"`))
	d.Pass(time.Minute)
	patch := func(attributes string) string {
		return `{"data":{"type":"machines","attributes":{` + attributes + `}}}`
	}
	got := c.one(200, "PATCH", "/v1/machines/"+m.ID, patch(`"name":"b","ip":null`))
	if got.Attributes["name"] != "b" || got.Attributes["ip"] != nil || got.Attributes["hostname"] != "h" ||
		got.Attributes["updated"] == m.Attributes["updated"] || got.Attributes["created"] != m.Attributes["created"] {
		t.Errorf("changed: %+v", got)
	}
	if again := c.one(200, "GET", "/v1/machines/f", ""); again.Attributes["name"] != "b" {
		t.Errorf("the change is not kept: %+v", again)
	}
	for _, name := range []string{"cores", "memory", "disk", "metadata", "fingerprint", "status"} {
		c.refused(400, "", "PATCH", "/v1/machines/"+m.ID, patch(`"`+name+`":null`))
	}
	l.attributes()["protected"] = true
	d.Judge(l.License)
	c.refused(403, "", "PATCH", "/v1/machines/"+m.ID, patch(`"name":"c"`))
}

// The times of calls are those of the last call, also after a restart, and the next check-in follows by the calendar.
func TestDialectTimes(t *testing.T) {
	t.Parallel()
	d := newDesk()
	d.Pass(30*24*time.Hour - 2*time.Hour) // 31 May 2026, 10:00
	l := vendorsLicense(t, d.Now(), members{"requireCheckIn": true, "checkInInterval": "month",
		"checkInIntervalCount": 1.0}, func(l *keygentest.License) { l.Attributes.RequireCheckIn = true })
	l.attributes()["requireCheckIn"], l.attributes()["lastCheckIn"] = true, "2026-05-01T10:00:00.000Z"
	l.attributes()["nextCheckIn"] = "2026-06-01T10:00:00.000Z"
	d.Judge(l.License)
	c := newClient(t, d)
	c.auth = "License THE-KEY"
	at := func(name string) any { t.Helper(); return c.one(200, "GET", "/v1/me", "").Attributes[name] }
	if at("nextCheckIn") != "2026-06-01T10:00:00.000Z" || at("lastValidated") != nil || at("lastCheckOut") != nil {
		t.Errorf("before: %v, %v, %v", at("nextCheckIn"), at("lastValidated"), at("lastCheckOut"))
	}
	got := c.one(200, "POST", "/v1/licenses/"+l.ID+"/actions/check-in", "")
	if got.Attributes["lastCheckIn"] != "2026-05-31T10:00:00.000Z" ||
		got.Attributes["nextCheckIn"] != "2026-06-30T10:00:00.000Z" {
		t.Errorf("checked in: %v, %v", got.Attributes["lastCheckIn"], got.Attributes["nextCheckIn"])
	}
	for _, want := range []string{"2026-05-31T10:00:01.000Z", "2026-05-31T10:00:02.000Z", "2026-05-31T10:02:02.000Z"} {
		d.Pass(time.Second)
		if strings.Contains(want, ":02:") {
			d.Pass(2*time.Minute - time.Second)
		}
		c.send("GET", "/v1/licenses/"+l.ID+"/actions/validate", "")
		if at("lastValidated") != want {
			t.Errorf("validated at %v, want %s", at("lastValidated"), want)
		}
	}
	c.one(200, "POST", "/v1/licenses/"+l.ID+"/actions/check-out", "")
	c.one(201, "POST", "/v1/machines", machineBody(l.ID, "f", ""))
	c.one(200, "POST", "/v1/machines/f/actions/check-out", "")
	c = newClient(t, d) // after a restart
	c.auth = "License THE-KEY"
	const now = "2026-05-31T10:02:02.000Z"
	if at("lastCheckOut") != now || at("lastValidated") != now || at("nextCheckIn") != "2026-06-30T10:00:00.000Z" {
		t.Errorf("after a restart: %v, %v, %v", at("lastCheckOut"), at("lastValidated"), at("nextCheckIn"))
	}
	if m := c.one(200, "GET", "/v1/machines/f", ""); m.Attributes["lastCheckOut"] != now {
		t.Errorf("the machine: %+v", m)
	}
}

// A file lasts by the calendar, as the server's do.
func TestDialectFilesLastByTheCalendar(t *testing.T) {
	t.Parallel()
	d := newDesk(terms(func(l *enforcer.License) { l.Expires = time.Time{} }))
	c := newClient(t, d)
	for ttl, want := range map[string]string{
		"2629746":  "2026-06-01T12:00:00.000Z",
		"31556952": "2027-05-01T12:00:00.000Z",
		"31536000": "2027-05-01T16:39:54.000Z", // 11 months, 30 days, 4:39:54
		"86400":    "2026-05-02T12:00:00.000Z",
		"3600":     "2026-05-01T13:00:00.000Z",
		"null":     "",
	} {
		got := c.one(200, "POST", "/v1/licenses/lic-1/actions/check-out", `{"meta":{"ttl":`+ttl+`}}`)
		if expiry, _ := got.Attributes["expiry"].(string); expiry != want {
			t.Errorf("a time to live of %s ends at %s, want %s", ttl, expiry, want)
		}
	}
}

// A reset is to 0, or is refused; an expired licence activates nothing, and says that it has expired.
func TestDialectResetAndExpiry(t *testing.T) {
	t.Parallel()
	d := newDesk(terms(nil))
	c := newClient(t, d)
	for range 2 { // the second finds nothing to take back
		if got := c.one(200, "POST", "/v1/licenses/lic-1/actions/reset-usage", ""); got.Attributes["uses"] != 0.0 {
			t.Errorf("reset: %v", got.Attributes["uses"])
		}
	}
	l := vendorsLicense(t, d.Now(), nil, nil)
	l.attributes()["uses"] = 3.0
	d.Judge(l.License)
	c.refused(403, "", "POST", "/v1/licenses/"+l.ID+"/actions/reset-usage", "")
	d.Judge(terms(func(l *enforcer.License) { l.Expires = d.Now().Add(-time.Hour) }))
	c.refused(403, "LICENSE_EXPIRED", "POST", "/v1/machines", machineBody("lic-1", "f", ""))
}
