package agent_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A denial for want of slots names who holds them: to an admin all users, to others their own leases, and nobody
// else's; the command line prints the same.
func TestDenialsNameHolders(t *testing.T) {
	if os.Getuid() != 0 {
		lacks(t, "only root can call as another user")
	}
	if _, err := exec.LookPath("curl"); err != nil {
		lacks(t, "there is no curl")
	}
	c := openCrashing(t, 2, nil)
	c.openFolders(t)
	const one = `{"pool":"streams","lifetime":"held","labels":{"job":"secret"}}`
	for _, uid := range []uint32{somebody, 0} {
		expect(t, c.as(uid, "POST", "/v1/leases", one), "201 ")
	}
	own, root := fmt.Sprintf(`"uid":%d,`, somebody), `"uid":0,`
	all := c.as(0, "POST", "/v1/leases", one)
	expect(t, all, "409 ", `"code":"no_slots"`, `"holders":[`, own, root, `"since":`)
	if strings.Index(all, own) > strings.Index(all, root) {
		t.Errorf("the oldest does not come first: %s", all)
	}
	mine := c.as(somebody, "POST", "/v1/leases", one)
	expect(t, mine, "409 ", `"holders":[`, own)
	if strings.Contains(mine, root) || strings.Contains(mine, "secret") {
		t.Errorf("a user that is no admin is told %s", mine)
	}
	if others := c.as(somebody+1, "POST", "/v1/leases", one); strings.Contains(others, "holders") {
		t.Errorf("a user that holds nothing is told %s", others)
	}
	code, out := c.tool("acquire", "--pool", "streams")
	expect(t, out, fmt.Sprintf("held by: uid %d", somebody), "held by: uid 0")
	if code != 75 {
		t.Errorf("usher acquire ends with %d", code)
	}
	conn := c.dialAs(somebody)
	defer conn.Close()
	session := lineOf(t, conn)
	session.say(`{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams"}}`)
	if said := session.hear(); !strings.Contains(said, own) || strings.Contains(said, root) {
		t.Errorf("a session hears %s", said)
	}
}
