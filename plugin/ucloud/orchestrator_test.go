package ucloud_test

import (
	"strings"
	"testing"

	"github.com/usher-agent/usher/plugin/ucloud"
)

// A UCloud speaks with the provider: it hands licences over, asks whether they are good, shares and labels them, and
// takes them back. A call that is repeated does nothing twice. Nobody else may.
func TestPlatformSpeaksWithProvider(t *testing.T) {
	t.Parallel()
	c := newCounter(t, 2, ucloud.Settings{})
	c.desk.CredentialsFile = []byte(secret)
	service := token(t, "HS512", map[string]any{"sub": "_UCloud", "role": "SERVICE"})
	as := func(claims map[string]any) {
		c.header.Set("Authorization", "Bearer "+token(t, "HS512", claims))
	}
	c.header.Set("Authorization", "Bearer "+service)
	base := "/ucloud/example/licenses"
	full := func(id, product string) string {
		return `{"id":"` + id + `","specification":{"product":{"id":"` + product + `","category":"` + product +
			`","provider":"example"},"labels":null},"owner":{"createdBy":"alice","project":null},` +
			`"createdAt":1635170395571,"status":{"state":"PREPARING","resolvedSupport":null,"resolvedProduct":null,` +
			`"boundTo":null},"updates":[],"permissions":{"myself":["READ"],"others":[]}}`
	}
	items := func(list ...string) string { return `{"items":[` + strings.Join(list, ",") + `]}` }
	c.says(c.send(200, "GET", base+"/retrieveProducts", ""),
		`{"responses":[{"product":{"id":"abaqus","category":"abaqus","provider":"example"},"maintenance":null}]}`)
	c.says(c.send(200, "POST", base+"/init", `{"principal":{"type":"user","username":"alice"}}`), "{}")
	for range 2 {
		c.says(c.send(200, "POST", base, items(full("5123", "abaqus"), full("5124", "abaqus"))),
			`{"responses":[{"id":"1"},{"id":"2"}]}`)
	}
	c.says(c.send(402, "POST", base, items(full("5125", "abaqus"), full("5126", "other"))), ucloud.ErrorNoCredits)
	c.says(c.send(200, "POST", base+"/verify", items(full("5123", "abaqus"))), "{}")
	c.says(c.send(404, "POST", base+"/verify", items(full("5125", "abaqus"))), "License is no longer valid")
	c.says(c.send(200, "POST", base+"/updateAcl", `{"items":[{"resource":`+full("5123", "abaqus")+
		`,"added":[{"entity":{"type":"user","username":"bob"},"permissions":["READ"]}],"deleted":null}]}`), `[{}]`)
	c.send(403, "POST", base+"/updateAcl", `{"items":[{"resource":`+full("5123", "abaqus")+
		`,"added":[{"entity":{"type":"user","username":"bob"},"permissions":["ADMIN"]}],"deleted":null}]}`)
	c.says(c.send(200, "POST", base+"/onUpdatedLabels", `{"items":[{"id":"5123","labels":{"a":"b"}}]}`), `[{}]`)
	as(map[string]any{"sub": "alice"})
	c.says(c.send(200, "GET", "/api/licenses/retrieve?id=1", ""), `"createdBy":"alice"`, `"a":"b"`, `"READY"`)
	as(map[string]any{"sub": "bob"})
	c.send(200, "GET", "/api/licenses/retrieve?id=1", "")
	c.send(404, "GET", "/api/licenses/retrieve?id=2", "")
	for _, claims := range []map[string]any{{"sub": "alice"}, {"sub": "#P_example", "role": "PROVIDER"}} {
		as(claims)
		for _, call := range []string{"POST ", "DELETE ", "POST /verify", "GET /retrieveProducts", "POST /init"} {
			method, rest, _ := strings.Cut(call, " ")
			c.send(403, method, base+rest, items(full("5123", "abaqus")))
		}
	}
	as(map[string]any{"sub": "#P_example", "role": "PROVIDER"})
	c.bind(200, "1", "BIND", "42")
	c.inUse(1)
	c.header.Set("Authorization", "Bearer "+service)
	c.send(404, "POST", "/ucloud/another/licenses", items(full("5123", "abaqus")))
	c.send(404, "GET", base+"/browse", "")
	c.send(400, "POST", base, `{"items":[]}`)
	c.restart()
	for range 2 {
		c.says(c.send(200, "DELETE", base, items(full("5123", "abaqus"), full("5124", "abaqus"))), `[{},{}]`)
	}
	c.inUse(0)
	c.send(404, "POST", base+"/verify", items(full("5123", "abaqus")))
	c.header.Del("Authorization")
	c.desk.CredentialsFile = nil
	c.as(1000, false)
	c.send(403, "POST", base, items(full("9", "abaqus")))
	c.as(0, true)
	c.send(200, "POST", base, items(full("9", "abaqus")))
}

// The deprecated calls about credit say what the credit of the configuration covers, charge nothing, and refuse what
// would have to be paid in UCloud's own words.
func TestCredits(t *testing.T) {
	t.Parallel()
	charge := func(id, more string) string {
		return `{"items":[{"id":"` + id + `","chargeId":"c-1","performedBy":null,"description":null,` + more + `}]}`
	}
	const control = "/api/licenses/control"
	none := `{"insufficientFunds":[],"duplicateCharges":[]}`
	for name, x := range map[string]struct {
		product ucloud.ProductSettings
		units   string
		status  int  // of a charge
		lacks   bool // the credit
	}{
		"free":        {ucloud.ProductSettings{FreeToUse: true, Price: 9}, `"units":5`, 200, false},
		"covered":     {ucloud.ProductSettings{Balance: new(int64(10)), Price: 2}, `"units":5`, 400, false},
		"not covered": {ucloud.ProductSettings{Balance: new(int64(10)), Price: 2}, `"units":6`, 200, true},
		"by periods":  {ucloud.ProductSettings{Balance: new(int64(10)), Price: 2}, `"units":3,"periods":2`, 200, true},
		"huge": {ucloud.ProductSettings{Balance: new(int64(10)), Price: 1 << 62},
			`"units":1048576,"periods":1048576`, 200, true},
		"nothing": {ucloud.ProductSettings{Balance: new(int64(10)), Price: 2}, `"units":0,"periods":null`, 200, false},
	} {
		x.product.Pool = "abaqus"
		c := newCounter(t, 2, ucloud.Settings{Products: []ucloud.ProductSettings{x.product}})
		c.as(0, true)
		id := c.create()
		want := none
		if x.lacks {
			want = `{"insufficientFunds":[{"id":"` + id + `"}],"duplicateCharges":[]}`
		}
		if got := c.send(200, "POST", control+"/checkCredits", charge(id, x.units)); got != want {
			t.Errorf("%s: a check says %s", name, got)
		}
		got := c.send(x.status, "POST", control+"/chargeCredits", charge(id, x.units))
		if x.status != 200 {
			want = `"errorCode":"FEATURE_NOT_SUPPORTED_BY_PROVIDER"`
		}
		if c.says(got, want); !strings.Contains(got, want) {
			t.Errorf("%s: a charge says %s", name, got)
		}
		c.send(400, "POST", control+"/chargeCredits", charge(id, `"units":-1`))
		c.send(400, "POST", control+"/checkCredits", charge(id, `"units":1,"periods":0`))
		c.send(404, "POST", control+"/checkCredits", charge("77", `"units":1`))
	}
}
