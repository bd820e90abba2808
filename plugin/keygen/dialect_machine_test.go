package keygen_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/keygen/keygentest"
)

func machineBody(license, fingerprint, more string) string {
	return fmt.Sprintf(
		`{"data":{"type":"machines","attributes":{"fingerprint":%q%s},`+
			`"relationships":{"license":{"data":{"type":"licenses","id":%q}}}}}`, fingerprint, more, license)
}

func processBody(machine, pid, id string) string {
	return fmt.Sprintf(
		`{"data":{"type":"processes"%s,"attributes":{"pid":%q},`+
			`"relationships":{"machine":{"data":{"type":"machines","id":%q}}}}}`, id, pid, machine)
}

// Machines hold slots, by fingerprint and id, with the refusals of the official server.
func TestDialectMachines(t *testing.T) {
	t.Parallel()
	d := newDesk(terms(nil))
	c := newClient(t, d)
	parts := `,"cores":4,"hostname":"h","metadata":{"a":1}`
	m := c.one(201, "POST", "/v1/accounts/acc/machines", machineBody("lic-1", "f/1", parts))
	if m.Type != "machines" || m.Attributes["fingerprint"] != "f/1" ||
		m.Attributes["heartbeatStatus"] != "NOT_STARTED" || m.Attributes["heartbeatDuration"] != 600.0 ||
		m.Attributes["requireHeartbeat"] != false || m.Attributes["cores"] != 4.0 ||
		m.Attributes["metadata"].(map[string]any)["a"] != 1.0 {
		t.Errorf("the machine is %+v", m)
	}
	for _, by := range []string{m.ID, url.PathEscape("f/1")} {
		if got := c.one(200, "GET", "/v1/machines/"+by, ""); got.ID != m.ID {
			t.Errorf("by %s: %+v", by, got)
		}
	}
	refuse := func(status int, code, body string) { t.Helper(); c.refused(status, code, "POST", "/v1/machines", body) }
	refuse(422, "FINGERPRINT_TAKEN", machineBody("lic-1", "f/1", ""))
	refuse(422, "FINGERPRINT_CONFLICT", machineBody("lic-1", m.ID, ""))
	refuse(422, "FINGERPRINT_NOT_ALLOWED", machineBody("lic-1", "actions", ""))
	refuse(422, "LICENSE_NOT_FOUND", machineBody("another", "g", ""))
	refuse(422, "CORES_INVALID", machineBody("lic-1", "g", `,"cores":0`))
	refuse(422, "MACHINE_CORE_LIMIT_EXCEEDED", machineBody("lic-1", "g", `,"cores":5`))
	refuse(422, "", machineBody("lic-1", "g", `,"name":"`+strings.Repeat("x", 5000)+`"`))
	for _, bad := range []string{"", "{", "[]", `{"data":null}`, `{"data":{"type":"licenses"}}`,
		machineBody("lic-1", "", ""), machineBody("", "g", ""), machineBody("lic-1", "g", `,"cores":"x"`)} {
		refuse(400, "", bad)
	}
	d.Pass(time.Second)
	const id = `11111111-2222-4333-8444-555555555555`
	chosen := strings.Replace(machineBody("lic-1", "g", ""), `"type":"machines"`, `"type":"machines","id":"`+id+`"`, 1)
	if got := c.one(201, "POST", "/v1/machines", chosen); got.ID != id {
		t.Errorf("the chosen id is %s", got.ID)
	}
	refuse(422, "ID_CONFLICT", strings.Replace(chosen, `"fingerprint":"g"`, `"fingerprint":"other"`, 1))
	refuse(422, "FINGERPRINT_TAKEN", chosen)
	refuse(422, "MACHINE_LIMIT_EXCEEDED", machineBody("lic-1", "h", ""))
	if all := c.list("/v1/licenses/lic-1/machines?limit=100"); len(all) != 2 {
		t.Errorf("the machines are %+v", all)
	}
	if page := c.list("/v1/machines?page[size]=1&page[number]=2"); len(page) != 1 || page[0].ID != id {
		t.Errorf("the second page is %+v", page)
	}
	c.refused(400, "", "PATCH", "/v1/machines/"+id, "")
	if r := c.send("DELETE", "/v1/machines/g", ""); r.status != 204 || len(r.body) != 0 {
		t.Errorf("deleted: %d %s", r.status, r.body)
	}
	c.refused(404, "NOT_FOUND", "DELETE", "/v1/machines/g", "")
	c.refused(404, "NOT_FOUND", "POST", "/v1/machines/"+id+"/actions/ping", "")
	withComponents := strings.Replace(machineBody("lic-1", "h", ""), `"relationships":{`,
		`"relationships":{"components":{"data":[{"type":"components","attributes":{"fingerprint":"b",`+
			`"name":"board"}}]},`, 1)
	h := c.one(201, "POST", "/v1/machines", withComponents)
	parts1 := c.list("/v1/machines/" + h.ID + "/components")
	if len(parts1) != 1 || parts1[0].Attributes["name"] != "board" {
		t.Fatalf("the components are %+v", parts1)
	}
	if got := c.one(200, "GET", "/v1/components/"+parts1[0].ID, ""); got.Attributes["fingerprint"] != "b" {
		t.Errorf("the component is %+v", got)
	}
	refuse(422, "COMPONENTS_FINGERPRINT_TAKEN", strings.Replace(withComponents, `"name":"board"}}`,
		`"name":"board"}},{"type":"components","attributes":{"fingerprint":"b","name":"c"}}`, 1))
}

// A machine that must keep a heartbeat, and one that began to ping, lose their slot when they stop. A reset ends the
// heartbeat of the latter.
func TestDialectHeartbeats(t *testing.T) {
	t.Parallel()
	d := newDesk()
	l := file(t, d.Now(), func(l *keygentest.License) { l.Attributes.RequireHeartbeat = true })
	l.Terms["included"] = []any{map[string]any{"type": "policies", "id": "policy-of-" + l.ID,
		"attributes": map[string]any{"heartbeatResurrectionStrategy": "2_MINUTE_REVIVE"}}}
	d.Judge(l)
	pass := func(by time.Duration) { // the upstream hears of the agent, whatever becomes of its machines
		d.Pass(by)
		d.Judge(l)
	}
	c := newClient(t, d)
	license := c.one(200, "GET", "/v1/me", "").ID
	m := c.one(201, "POST", "/v1/machines", machineBody(license, "f", ""))
	if m.Attributes["requireHeartbeat"] != true || m.Attributes["heartbeatStatus"] != "ALIVE" {
		t.Errorf("the machine is %+v", m)
	}
	c.refused(403, "", "POST", "/v1/machines/f/actions/reset", "")
	pass(9 * time.Minute)
	c.one(200, "POST", "/v1/machines/f/actions/ping", "")
	pass(9 * time.Minute)
	if got := c.one(200, "POST", "/v1/machines/"+m.ID+"/actions/ping-heartbeat",
		""); got.Attributes["heartbeatStatus"] != "ALIVE" {
		t.Errorf("pinged in time: %+v", got.Attributes)
	}
	pass(11 * time.Minute)
	if got := c.one(200, "GET", "/v1/machines/f", ""); got.Attributes["heartbeatStatus"] != "DEAD" {
		t.Errorf("a ping missed: %+v", got.Attributes)
	}
	if r := c.send("POST", "/v1/licenses/"+license+"/actions/validate",
		`{"meta":{"scope":{"fingerprint":"f"}}}`); r.doc.Meta["code"] != "HEARTBEAT_DEAD" {
		t.Errorf("a ping missed: %s", r.body)
	}
	if got := c.one(200, "POST", "/v1/machines/f/actions/ping", ""); got.Attributes["heartbeatStatus"] !=
		"RESURRECTED" {
		t.Errorf("within the time to revive: %+v", got.Attributes)
	}
	c.refused(422, "MACHINE_LIMIT_EXCEEDED", "POST", "/v1/machines", machineBody(license, "g", ""))
	pass(13 * time.Minute)
	c.refused(404, "NOT_FOUND", "POST", "/v1/machines/f/actions/ping", "")

	d = newDesk(terms(func(l *enforcer.License) {
		l.Pools["machines"] = enforcer.PoolTerm{Max: 1, Scope: enforcer.ScopeHost}
	}))
	c = newClient(t, d)
	made := c.one(201, "POST", "/v1/machines", machineBody("lic-1", "f", ""))
	d.Pass(time.Hour)
	got := c.one(200, "POST", "/v1/machines/f/actions/ping", "") // the pool is full, with itself
	if got.ID != made.ID || got.Attributes["heartbeatStatus"] != "ALIVE" ||
		got.Attributes["requireHeartbeat"] != true || got.Attributes["created"] != made.Attributes["created"] {
		t.Errorf("the first ping: %+v", got)
	}
	d.Pass(9 * time.Minute)
	if got := c.one(200, "POST", "/v1/machines/"+made.ID+"/actions/reset", ""); got.ID != made.ID ||
		got.Attributes["heartbeatStatus"] != "NOT_STARTED" {
		t.Errorf("reset: %+v", got)
	}
	d.Pass(24 * time.Hour)
	c.one(200, "POST", "/v1/machines/f/actions/ping", "")
	d.Pass(10*time.Minute + time.Second)
	c.one(201, "POST", "/v1/machines", machineBody("lic-1", "g", ""))
}

// A ping succeeds as long as the lease stands: if the journal cannot be written, if the licence is suspended, and if
// there is none any more.
func TestDialectPingsAreGood(t *testing.T) {
	t.Parallel()
	d := newDesk(terms(nil))
	c := newClient(t, d)
	held := c.one(201, "POST", "/v1/machines", machineBody("lic-1", "f", ""))
	p := c.one(201, "POST", "/v1/processes", processBody(held.ID, "1", ""))
	watched := c.one(201, "POST", "/v1/machines", machineBody("lic-1", "g", ""))
	c.one(200, "POST", "/v1/machines/g/actions/ping", "")
	good := func(when string) {
		t.Helper()
		for _, target := range []string{"/v1/machines/" + held.ID, "/v1/processes/" + p.ID,
			"/v1/machines/" + watched.ID} {
			if r := c.send("POST", target+"/actions/ping", ""); r.status != 200 {
				t.Errorf("%s: %s: %d %s", when, target, r.status, r.body)
			}
		}
	}
	d.Full = true
	good("the disk is full")
	d.Full = false
	d.Judge(terms(func(l *enforcer.License) { l.ID, l.Issued = "lic-2", l.Issued.Add(time.Hour) }))
	good("another licence")
	d.Judge(terms(func(l *enforcer.License) { l.Suspended, l.OnExpiry = true, enforcer.Keep }))
	good("suspended")
	d.Judge()
	good("no licence")
	for _, target := range []string{"/v1/processes/" + p.ID, "/v1/machines/f", "/v1/machines/g"} {
		if r := c.send("DELETE", target, ""); r.status != 204 {
			t.Errorf("DELETE %s without a licence: %d %s", target, r.status, r.body)
		}
	}
}

// Processes hold slots until a ping is missed, and go with their machine.
func TestDialectProcesses(t *testing.T) {
	t.Parallel()
	d := newDesk(terms(nil))
	c := newClient(t, d)
	m := c.one(201, "POST", "/v1/machines", machineBody("lic-1", "f", ""))
	p := c.one(201, "POST", "/v1/processes", processBody(m.ID, "1", ""))
	if p.Type != "processes" || p.Attributes["pid"] != "1" || p.Attributes["status"] != "ALIVE" ||
		p.Attributes["interval"] != 600.0 {
		t.Errorf("the process is %+v", p)
	}
	refuse := func(status int, code, body string) {
		t.Helper()
		c.refused(status, code, "POST", "/v1/processes", body)
	}
	refuse(422, "PID_TAKEN", processBody(m.ID, "1", ""))
	refuse(422, "MACHINE_NOT_FOUND", processBody("another", "2", ""))
	refuse(400, "", processBody(m.ID, "", ""))
	refuse(400, "", processBody(m.ID, "2", `,"id":"no uuid"`))
	const id = `,"id":"11111111-2222-4333-8444-555555555555"`
	c.one(201, "POST", "/v1/processes", processBody(m.ID, "2", id))
	refuse(422, "ID_CONFLICT", processBody(m.ID, "3", id))
	refuse(422, "MACHINE_PROCESS_LIMIT_EXCEEDED", processBody(m.ID, "3", ""))
	if all := c.list("/v1/machines/f/processes"); len(all) != 2 {
		t.Errorf("the processes are %+v", all)
	}
	if got := c.one(200, "GET", "/v1/processes/"+p.ID, ""); got.ID != p.ID {
		t.Errorf("the process is %+v", got)
	}
	d.Pass(9 * time.Minute)
	c.one(200, "POST", "/v1/processes/"+p.ID+"/actions/ping", "")
	d.Pass(2 * time.Minute)
	if all := c.list("/v1/processes"); len(all) != 1 || all[0].ID != p.ID {
		t.Errorf("after a missed ping: %+v", all)
	}
	c.one(201, "POST", "/v1/processes", processBody(m.ID, "2", id))
	if r := c.send("DELETE", "/v1/processes/"+p.ID, ""); r.status != 204 {
		t.Errorf("deleted: %d %s", r.status, r.body)
	}
	c.refused(404, "NOT_FOUND", "DELETE", "/v1/processes/"+p.ID, "")
	c.send("DELETE", "/v1/machines/f", "")
	if all := c.list("/v1/processes"); len(all) != 0 {
		t.Errorf("without their machine: %+v", all)
	}
}

// Uses are draws up to the licence's limit, and can be taken back.
func TestDialectUsage(t *testing.T) {
	t.Parallel()
	d := newDesk(terms(nil))
	c := newClient(t, d)
	do := func(action, body string, want float64) {
		t.Helper()
		if got := c.one(200, "POST", "/v1/licenses/lic-1/actions/"+action+"-usage", body); got.Attributes["uses"] !=
			want {
			t.Errorf("%s %s: %v uses, want %v", action, body, got.Attributes["uses"], want)
		}
	}
	do("increment", "", 1)
	do("increment", `{"meta":{"increment":3}}`, 4)
	c.refused(422, "USES_LIMIT_EXCEEDED", "POST", "/v1/licenses/lic-1/actions/increment-usage",
		`{"meta":{"increment":2}}`)
	c.refused(422, "USES_LIMIT_EXCEEDED", "POST", "/v1/licenses/lic-1/actions/increment-usage",
		`{"meta":{"increment":2147483647}}`)
	for _, bad := range []string{`{"meta":{"increment":0}}`, `{"meta":{"increment":-1}}`,
		`{"meta":{"increment":2147483648}}`, `{"meta":{"increment":"1"}}`} {
		c.refused(400, "", "POST", "/v1/licenses/lic-1/actions/increment-usage", bad)
	}
	do("decrement", `{"meta":{"decrement":2}}`, 2)
	c.refused(422, "USES_INVALID", "POST", "/v1/licenses/lic-1/actions/decrement-usage", `{"meta":{"decrement":3}}`)
	do("reset", "", 0)
	d.Judge(terms(func(l *enforcer.License) { l.Meters = nil }))
	c.refused(403, "", "POST", "/v1/licenses/lic-1/actions/increment-usage", "")
	d.Judge(terms(func(l *enforcer.License) {
		l.Meters["uses"] = enforcer.MeterTerm{Max: 5, Scope: enforcer.ScopeHost}
	}))
	do("increment", "", 1)
	c.refused(403, "", "POST", "/v1/licenses/lic-1/actions/decrement-usage", "")
}
