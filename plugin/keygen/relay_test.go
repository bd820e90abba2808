package keygen_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/keygen"
)

// Nodes of Keygen Relay repeat their claims, and always get the whole grant.
func TestRelayNodes(t *testing.T) {
	t.Parallel()
	d := newDesk(terms(nil))
	d.CredentialsFile = []byte("THE-KEY")
	c := newClient(t, d)
	type grant struct {
		File    []byte `json:"license_file"`
		Key     string `json:"license_key"`
		Expires int    `json:"expires_in"`
		Ends    int64  `json:"expires_at"`
		Error   string `json:"error"`
	}
	do := func(status int, method, target string, header ...string) (g grant) {
		t.Helper()
		r := c.send(method, target, "", header...)
		if r.status != status || len(r.body) > 0 && json.Unmarshal(r.body, &g) != nil ||
			status >= 400 && g.Error == "" || r.header.Get("Relay-Clock") == "" {
			t.Errorf("%s %s: %d %s, want %d", method, target, r.status, r.body, status)
		}
		return g
	}
	anchor, err := keygen.NewAnchor("d", []byte(hexKey()), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range []int{201, 202} {
		g := do(status, "PUT", "/v1/nodes/one")
		l, p := keygen.Format{}.Open(g.File, []plugin.Anchor{anchor}, plugin.Secrets{Keys: []string{g.Key}})
		if p != nil || l.ID != "lic-1" || g.Expires != 60 || g.Ends != d.Now().Add(time.Minute).Unix() {
			t.Errorf("the grant is %+v, %v", g, p)
		}
	}
	do(201, "PUT", "/v1/nodes/two")
	said := func(g grant, text string) {
		t.Helper()
		if g.Error != text {
			t.Errorf("the error is %q, want %q", g.Error, text)
		}
	}
	said(do(410, "PUT", "/v1/nodes/three"), "no licenses available")
	said(do(400, "PUT", "/v1/nodes/three", "Relay-Pool", "rivers"), "invalid pool header")
	said(do(400, "DELETE", "/v1/nodes/three", "Relay-Pool", "rivers"), "invalid pool header")
	do(201, "PUT", "/v1/nodes/three", "Relay-Pool", "processes")
	said(do(409, "PUT", "/v1/nodes/three"), "failed to claim license due to conflict")
	said(do(404, "DELETE", "/v1/nodes/three"), "claim not found")
	do(204, "DELETE", "/v1/nodes/three", "Relay-Pool", "processes")
	do(204, "DELETE", "/v1/nodes/two")
	do(404, "DELETE", "/v1/nodes/two")
	do(201, "PUT", "/v1/nodes/three")
	d.Pass(59 * time.Second)
	do(202, "PUT", "/v1/nodes/three")
	d.Pass(2 * time.Second)
	do(404, "DELETE", "/v1/nodes/one") // its claim has lapsed
	if r := c.send("GET", "/v1/health", ""); r.status != 200 || len(r.body) != 0 {
		t.Errorf("health: %d %s", r.status, r.body)
	}
	d.Judge()
	do(410, "PUT", "/v1/nodes/four")

	// A Keygen licence's nodes that show its key get the vendor's own file, which the vendor's key verifies. One that
	// does not show it gets neither, though the credentials file has the key, but a file that the dialect's key
	// verifies.
	d = newDesk()
	d.Judge(file(t, d.Now(), nil))
	d.Documents = map[string][]byte{d.Verdict().Licenses[0].Document: []byte("the vendor's file")}
	c = newClient(t, d)
	d.CredentialsFile = []byte("THE-KEY")
	g := do(201, "PUT", "/v1/nodes/one")
	l, p := keygen.Format{}.Open(g.File, []plugin.Anchor{anchor}, plugin.Secrets{Keys: []string{g.Key}})
	if p != nil || g.Key == "THE-KEY" || strings.Contains(fmt.Sprint(l.Terms), "THE-KEY") {
		t.Errorf("without the key the grant is %+v, %v", g, p)
	}
	if g := do(202, "PUT", "/v1/nodes/one", "Authorization", "License THE-KEY"); string(g.File) !=
		"the vendor's file" || g.Key != "THE-KEY" {
		t.Errorf("the grant is %+v", g)
	}
}
