package agent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/usher-agent/usher/plugin/usher"
)

const keygenListeners = `listeners:
  - {address: "unix:%[1]s/keygen", dialect: keygen}
  - {address: "127.0.0.1:0", dialect: keygen, credentials_file: %[1]s/keys}
`

// withKeygen makes a house whose agent speaks Keygen's API, with a licence for a number of machines and processes.
func withKeygen(t *testing.T, machines, processes int64) *house {
	dir, err := os.MkdirTemp(tempDir(), "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(dir+"/keys", []byte("THE-KEY-OF-A-TEST\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := open(t, fmt.Sprintf(keygenListeners, dir))
	h.drop("a.lic", h.sign("a", 1, func(c *usher.Claims) {
		c.Pools = map[string]usher.Pool{"machines": {Max: &machines, Scope: "host"},
			"processes": {Max: &processes, Scope: "host"}}
		c.Meters = map[string]usher.Meter{"uses": {Max: new(int64(9)), Scope: "host"}}
	}))
	h.until("dropped", inForce("a"))
	return h
}

// keygenAnswer is what the dialect answers of one resource.
type keygenAnswer struct {
	Data struct {
		ID         string         `json:"id"`
		Attributes map[string]any `json:"attributes"`
	} `json:"data"`
	Errors []struct {
		Code string `json:"code"`
	} `json:"errors"`
}

// keygen sends a request to the dialect, which must be answered with a status.
func (c *caller) keygen(status int, method, target, body string) (out keygenAnswer) {
	c.t.Helper()
	res, b := c.send(method, target, []byte(body))
	if res.StatusCode != status || len(b) > 0 && json.Unmarshal(b, &out) != nil {
		c.t.Fatalf("%s %s: %s %s", method, target, res.Status, b)
	}
	if res.Header.Get("Keygen-Signature") == "" {
		c.t.Errorf("%s %s: the answer is not signed", method, target)
	}
	return out
}

func (c *caller) keygenMachine(status int, fingerprint string) keygenAnswer {
	c.t.Helper()
	return c.keygen(status, "POST", "/v1/machines", fmt.Sprintf(
		`{"data":{"type":"machines","attributes":{"fingerprint":%q},`+
			`"relationships":{"license":{"data":{"type":"licenses","id":"a"}}}}}`, fingerprint))
}

// Machines, watched and not, processes and uses of the Keygen dialect outlast any kill of the agent.
func TestKeygenDialectSurvivesKill(t *testing.T) {
	t.Parallel()
	h := withKeygen(t, 4, 2)
	h.stop()
	if err := os.WriteFile(h.path("usher.yaml"), []byte(h.config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &toyProcess{house: h}
	p.run()
	t.Cleanup(p.kill)
	who := func() []*caller {
		at := p.listening()
		return []*caller{callerOf(t, at[0].Address),
			callerOf(t, at[1].Address, "Authorization", "License THE-KEY-OF-A-TEST")}
	}
	type state struct{ still, watched, process keygenAnswer }
	var states []state
	for i, c := range who() {
		s := state{still: c.keygenMachine(201, fmt.Sprint("still-", i)),
			watched: c.keygenMachine(201, fmt.Sprint("watched-", i))}
		c.keygen(200, "POST", "/v1/machines/"+s.watched.Data.ID+"/actions/ping", "")
		s.process = c.keygen(201, "POST", "/v1/processes", fmt.Sprintf(
			`{"data":{"type":"processes","attributes":{"pid":"1"},`+
				`"relationships":{"machine":{"data":{"type":"machines","id":%q}}}}}`, s.still.Data.ID))
		c.keygen(200, "POST", "/v1/licenses/a/actions/increment-usage", "")
		states = append(states, s)
	}
	for range 2 {
		p.kill()
		p.run()
		for i, c := range who() {
			s := states[i]
			if m := c.keygen(200, "GET", fmt.Sprint("/v1/machines/still-", i), ""); m.Data.ID != s.still.Data.ID ||
				m.Data.Attributes["heartbeatStatus"] != "NOT_STARTED" {
				t.Errorf("the machine is found again as %+v", m)
			}
			if m := c.keygen(200, "POST", "/v1/machines/"+s.watched.Data.ID+"/actions/ping",
				""); m.Data.Attributes["heartbeatStatus"] != "ALIVE" || m.Data.Attributes["requireHeartbeat"] != true {
				t.Errorf("the watched machine is found again as %+v", m)
			}
			c.keygen(200, "POST", "/v1/processes/"+s.process.Data.ID+"/actions/ping", "")
			if e := c.keygenMachine(422, "more"); e.Errors[0].Code != "MACHINE_LIMIT_EXCEEDED" {
				t.Errorf("one too many: %+v", e)
			}
			if l := c.keygen(200, "GET", "/v1/me", ""); l.Data.Attributes["uses"] != 2.0 {
				t.Errorf("%v uses, and 2 were counted", l.Data.Attributes["uses"])
			}
		}
	}
	for i, c := range who() {
		c.keygen(204, "DELETE", fmt.Sprint("/v1/machines/still-", i), "")
		c.keygen(204, "DELETE", fmt.Sprint("/v1/machines/watched-", i), "")
	}
	for _, pool := range []string{"machines", "processes"} {
		if s, err := p.Pool(context.Background(), pool); err != nil || s.InUse != 0 {
			t.Errorf("all is given back: %+v, %v", s, err)
		}
	}
}
