package keygen_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/keygen/keygentest"
	"github.com/usher-agent/usher/plugin/plugintest"
)

// A user, and all users together, have few machines without a slot, and those of licences that are away are forgotten
// where the store would be full of them.
func TestExpiredLicenceActivatesFew(t *testing.T) {
	t.Parallel()
	d := newDesk()
	many := func(l *keygentest.License) { l.Attributes.MaxMachines, l.Attributes.MaxCores = nil, nil }
	l, _ := lapsing(t, d, 2000, nil, many)
	c := newClient(t, d)
	for user := range 10 {
		d.Sender = &enforcer.Caller{UID: uint32(1000 + user)}
		for i := range 50 {
			c.one(201, "POST", "/v1/machines", machineBody(l.ID, fmt.Sprint("f", i), ""))
		}
		c.refused(422, "MACHINE_LIMIT_EXCEEDED", "POST", "/v1/machines", machineBody(l.ID, "more", ""))
	}
	d.Sender = &enforcer.Caller{UID: 2000}
	c.refused(422, "MACHINE_LIMIT_EXCEEDED", "POST", "/v1/machines", machineBody(l.ID, "f", ""))
	l, _ = lapsing(t, d, 2000, nil, func(l *keygentest.License) {
		many(l)
		l.ID = "0b5f5c0e-0000-4000-8000-000000000002"
	})
	c.one(201, "POST", "/v1/machines", machineBody(l.ID, "f", ""))
	if n := d.Stored(); n != 1 {
		t.Errorf("%d records are stored", n)
	}
}

// lapsing returns a licence for n machines of 8 cores in all, which has expired, and what renews it.
func lapsing(t testing.TB, d *plugintest.Desk, n int64, policy members,
	change func(*keygentest.License)) (l *vendors, renew func(max enforcer.Limit)) {
	t.Helper()
	end := d.Now().Add(-time.Hour)
	l = vendorsLicense(t, d.Now(), policy, func(l *keygentest.License) {
		l.Attributes.Floating, l.Attributes.MaxMachines, l.Attributes.Expiry = true, &n, &end
		l.Attributes.MaxCores = new(int64(8))
		if change != nil {
			change(l)
		}
	})
	pools := func(n enforcer.Limit) {
		l.Pools = map[string]enforcer.PoolTerm{"machines": {Max: n, Scope: enforcer.ScopeHost},
			"cores": {Max: 8, Scope: enforcer.ScopeHost}, "processes": {Max: 4, Scope: enforcer.ScopeHost}}
	}
	pools(enforcer.Limit(n))
	d.Judge(l.License)
	return l, func(n enforcer.Limit) {
		pools(n)
		l.License.Expires = d.Now().Add(300 * 24 * time.Hour)
		l.attributes()["expiry"] = l.License.Expires.Format(time.RFC3339)
		d.Judge(l.License)
	}
}

// Under RESTRICT_ACCESS an expired licence activates machines, as on the server, within its limits. They are counted,
// shown, pinged, changed and deleted, also after a restart, and have no slot. After the renewal each gets one while
// there are some; one beyond is never valid.
func TestExpiredLicenceActivates(t *testing.T) {
	t.Parallel()
	d := newDesk()
	l, renew := lapsing(t, d, 3, nil, nil)
	c := newClient(t, d)
	c.auth = "License THE-KEY"
	for i := range 3 {
		d.Pass(time.Second)
		m := c.one(201, "POST", "/v1/machines", machineBody(l.ID, fmt.Sprintf("f%d", i), `,"cores":2`))
		if m.Attributes["heartbeatStatus"] != "NOT_STARTED" || m.Attributes["created"] == nil {
			t.Errorf("made: %+v", m)
		}
	}
	c.refused(422, "FINGERPRINT_TAKEN", "POST", "/v1/machines", machineBody(l.ID, "f0", ""))
	c.refused(422, "MACHINE_LIMIT_EXCEEDED", "POST", "/v1/machines", machineBody(l.ID, "f3", ""))
	if r := c.send("DELETE", "/v1/machines/f2", ""); r.status != http.StatusNoContent {
		t.Errorf("deleted: %d %s", r.status, r.body)
	}
	c.refused(422, "MACHINE_CORE_LIMIT_EXCEEDED", "POST", "/v1/machines", machineBody(l.ID, "f2", `,"cores":5`))
	c.one(201, "POST", "/v1/machines", machineBody(l.ID, "f2", `,"cores":4`))
	c.one(200, "PATCH", "/v1/machines/f1", `{"data":{"type":"machines","attributes":{"name":"n"}}}`)
	c = newClient(t, d) // after a restart
	c.auth = "License THE-KEY"
	c.one(200, "POST", "/v1/machines/f1/actions/ping", "")
	m := c.one(200, "GET", "/v1/machines/f1", "")
	if m.Attributes["heartbeatStatus"] != "ALIVE" || m.Attributes["name"] != "n" || len(c.list("/v1/machines")) != 3 {
		t.Errorf("pinged: %+v", m)
	}
	c.refused(403, "LICENSE_EXPIRED", "POST", "/v1/processes", processBody(m.ID, "1", ""))
	c.refused(403, "", "POST", "/v1/machines/f1/actions/check-out", "")
	validate := func(scope, code string, valid bool) {
		t.Helper()
		r := c.send("POST", "/v1/licenses/"+l.ID+"/actions/validate", `{"meta":{"scope":`+scope+`}}`)
		if r.doc.Meta["code"] != code || r.doc.Meta["valid"] != valid {
			t.Errorf("%s: %s, want %s", scope, r.body, code)
		}
	}
	validate(`{"fingerprint":"f1"}`, "EXPIRED", false)
	validate(`{"fingerprint":"f9"}`, "FINGERPRINT_SCOPE_MISMATCH", false)
	if n := d.InUse("machines"); n > 0 {
		t.Fatalf("%d slots of an expired licence are in use", n)
	}

	renew(2) // by now for two
	validate(`{"fingerprint":"f0"}`, "VALID", true)
	validate(`{"fingerprint":"f2"}`, "TOO_MANY_MACHINES", false)
	validate(`{}`, "TOO_MANY_MACHINES", false)
	f2 := c.one(200, "GET", "/v1/machines/f2", "").ID
	c.refused(422, "MACHINE_LIMIT_EXCEEDED", "POST", "/v1/processes", processBody(f2, "1", ""))
	c.refused(422, "MACHINE_LIMIT_EXCEEDED", "POST", "/v1/machines/f2/actions/check-out", "")
	if again := c.one(200, "GET", "/v1/machines/f1", ""); again.ID != m.ID || d.InUse("machines") != 2 ||
		d.InUse("cores") != 4 || again.Attributes["created"] != m.Attributes["created"] {
		t.Errorf("renewed: %+v, %d machines and %d cores are in use", again, d.InUse("machines"), d.InUse("cores"))
	}
	c.send("DELETE", "/v1/machines/f0", "")
	validate(`{"fingerprint":"f2"}`, "VALID", true)
	if n, all := d.InUse("machines"), c.list("/v1/machines"); n != 2 || len(all) != 2 {
		t.Errorf("%d slots for %+v", n, all)
	}
}

// No other expired licence activates: one that the policy revokes, one of another system, and one that is suspended,
// too. Another user's machines are neither seen nor exceeded. A machine that must ping, and does not, is gone.
func TestExpiredLicenceActivatesNothingMore(t *testing.T) {
	t.Parallel()
	d := newDesk()
	l, _ := lapsing(t, d, 2, members{"expirationStrategy": "REVOKE_ACCESS"}, nil)
	c := newClient(t, d)
	c.auth = "License THE-KEY"
	c.refused(403, "LICENSE_EXPIRED", "POST", "/v1/machines", machineBody(l.ID, "f", ""))
	l, _ = lapsing(t, d, 2, nil, func(l *keygentest.License) { l.Attributes.Suspended = true })
	c.refused(403, "LICENSE_SUSPENDED", "POST", "/v1/machines", machineBody(l.ID, "f", ""))
	d.Judge(terms(func(l *enforcer.License) { l.Expires = d.Now().Add(-time.Hour) }))
	c.auth = ""
	c.refused(403, "LICENSE_EXPIRED", "POST", "/v1/machines", machineBody("lic-1", "f", ""))

	l, renew := lapsing(t, d, 2, nil, func(l *keygentest.License) { l.Attributes.RequireHeartbeat = true })
	c.one(201, "POST", "/v1/machines", machineBody(l.ID, "f", ""))
	d.Sender = &enforcer.Caller{UID: 1001}
	if all := c.list("/v1/machines"); len(all) != 0 {
		t.Errorf("another user sees %+v", all)
	}
	c.one(201, "POST", "/v1/machines", machineBody(l.ID, "f", ""))
	c.refused(422, "MACHINE_LIMIT_EXCEEDED", "POST", "/v1/machines", machineBody(l.ID, "g", ""))
	d.Pass(6 * time.Minute)
	c.one(200, "POST", "/v1/machines/f/actions/ping", "")
	d.Pass(6 * time.Minute)
	vouch(d, true)
	c.refused(404, "NOT_FOUND", "POST", "/v1/machines/f/actions/ping", "")
	c.one(201, "POST", "/v1/machines", machineBody(l.ID, "g", "")) // in the place of the one that is gone
	if n := d.Stored(); n > 2 {
		t.Errorf("the store still has the one that is gone: %d", n)
	}
	c.send("DELETE", "/v1/machines/g", "")
	renew(2)
	c.list("/v1/machines")
	d.Sender = &enforcer.Caller{UID: 1001}
	if m := c.one(200, "GET", "/v1/machines/f", ""); m.Attributes["heartbeatStatus"] != "ALIVE" ||
		d.InUse("machines") != 1 {
		t.Errorf("renewed: %+v, %d in use", m, d.InUse("machines"))
	}
	d.Pass(11 * time.Minute)
	c.refused(404, "NOT_FOUND", "GET", "/v1/machines/f", "")
}
