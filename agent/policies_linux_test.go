package agent_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// reloadWith has the agent read its configuration again with more lines, and returns what usher reload says.
func (c *crashing) reloadWith(more string) (int, string) {
	c.t.Helper()
	if err := os.WriteFile(c.path("usher.yaml"), []byte(c.config+more), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return c.tool("reload")
}

// The site's rules hold from the reload on, for what is held already, too, and after a crash of the agent: what they
// need of holders is in the journal. A file with a fault leaves them in force, and the denials, the metrics and the
// command line tell of them.
func TestPoliciesOfTheSite(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		lacks(t, "only root can call as another user")
	}
	if _, err := exec.LookPath("curl"); err != nil {
		lacks(t, "there is no curl")
	}
	c := openCrashing(t, 4, nil)
	c.openFolders(t)
	const one = `{"pool":"streams","lifetime":"held"}`
	expect(t, c.as(somebody, "POST", "/v1/leases", one), "201 ") // before there are rules
	rules := fmt.Sprintf(`
policies:
  - name: few
    match: {group: ["%[1]d"]}
    pools: [str*]
    max: 1
    text: ask the CAD desk
  - name: own
    match: {uid: [%[1]d]}
    max: 1
    priority: 4
  - name: first
    match: {uid: [0]}
    reserve: 2
`, somebody)
	if code, out := c.reloadWith(rules); code != 0 {
		t.Fatalf("%d %s", code, out)
	}
	denied := []string{"403 ", `"code":"denied_by_policy"`, `"rule":"few"`, `"limit":1`, `"in_use":1`,
		"ask the CAD desk"}
	expect(t, c.as(somebody, "POST", "/v1/leases", one), denied...)
	expect(t, c.as(somebody+1, "POST", "/v1/leases", `{"pool":"streams","n":2}`), "403 ", `"rule":"first"`,
		"of the free ones 2 are reserved for others")
	for _, line := range []string{`usher_denials_total{code="denied_by_policy",pool="streams"} 2`,
		`usher_slots_reserved{pool="streams"} 2`, `usher_config_last_reload_successful 1`} {
		if !c.metric(line) {
			t.Errorf("the metrics have no line %s", line)
		}
	}
	conn := c.dialAs(somebody)
	waiter := lineOf(t, conn)
	waiter.say(`{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams","wait_seconds":600,` +
		`"labels":{"job":"ann@example.org"}}}`)
	c.eventually("one waits", func() bool {
		p, err := c.Pool(t.Context(), "streams")
		return err == nil && p.Waiting == 1
	})
	_, out := c.tool("leases", "--waiting")
	expect(t, out, "rule own", fmt.Sprintf("uid %d", somebody), "(job=ann@example.org)", "not known")
	expect(t, c.as(somebody+1, "GET", "/v1/waiting", ""), `{"waiting":[]}`)
	expect(t, c.as(somebody, "GET", "/v1/waiting", ""), `"position":1,"priority":4,`, `"rule":"own"`,
		fmt.Sprintf(`"uid":%d`, somebody), `"labels":{"job":"ann@example.org"}`)
	expect(t, c.as(somebody+1, "POST", "/v1/leases", `{"pool":"streams"}`), "201 ") // passes the waiter
	_, out = c.tool("policies", "list")
	expect(t, out, "few", "at most 1", "1 of 1", "first", "reserves 2")
	_, out = c.tool("policies", "explain", "--pool", "streams", "--group", fmt.Sprint(somebody))
	expect(t, out, "few", "yes", "first", "no", "could have nothing of streams now: ")
	expect(t, c.as(somebody, "GET", "/v1/policies", ""), "403 ")
	conn.Close()
	c.faultyRules(t, rules, one, denied)
}

// faultyRules has rules with a fault leave those in force that were, also after a crash, until there are none.
func (c *crashing) faultyRules(t *testing.T, rules, one string, denied []string) {
	t.Helper()
	code, out := c.reloadWith(strings.Replace(rules, "max: 1", "max: one", 1))
	if code == 0 || !strings.Contains(out, "policies[0].max is \"one\"") {
		t.Errorf("a file with a fault: %d %s", code, out)
	}
	if !c.metric(`usher_config_last_reload_successful 0`) {
		t.Error("the metrics do not tell of the fault")
	}
	expect(t, c.as(somebody, "POST", "/v1/leases", one), denied...)
	if code, out := c.reloadWith(rules); code != 0 {
		t.Fatalf("%d %s", code, out)
	}
	c.kill()
	c.run()
	c.openFolders(t)
	expect(t, c.as(somebody, "POST", "/v1/leases", one), denied...)
	if code, out := c.reloadWith(""); code != 0 {
		t.Fatalf("%d %s", code, out)
	}
	expect(t, c.as(somebody, "POST", "/v1/leases", one), "201 ")
}
