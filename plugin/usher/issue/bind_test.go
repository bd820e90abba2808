package issue_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

// A request as `usher fingerprint --request` writes it.
func request(product, agentKey string, components string) []byte {
	return fmt.Appendf(nil, `{"product":%q,"agent_key":%q,"components":[%s],"cores":{"physical":4}}`, product, agentKey,
		components)
}

func component(name, note string) string {
	return fmt.Sprintf(`{"name":%q,"values":[%q],"note":%q}`, name, hash, note)
}

func TestBind(t *testing.T) {
	c := claims()
	parts := component("machine-id", "") + "," + component("product-uuid", "the container's own") +
		`,{"name":"tpm-ek","values":[]}`
	if err := issue.Bind(c, "request.json", request("transcoder", thumb, parts), "any"); err != nil {
		t.Fatal(err)
	}
	if len(c.Hosts) != 1 || c.Hosts[0].Strategy != "any" || len(c.Hosts[0].Components) != 1 ||
		c.Hosts[0].Components["machine-id"][0] != hash {
		t.Errorf("hosts: %+v", c.Hosts)
	}
	if len(c.AgentKeys) != 1 || c.AgentKeys[0] != thumb {
		t.Errorf("agent keys: %q", c.AgentKeys)
	}
	// A second host, whose agent has not told its key.
	if err := issue.Bind(c, "second.json", request("transcoder", "", component("machine-id", "")), ""); err != nil {
		t.Fatal(err)
	}
	if len(c.Hosts) != 2 || c.Hosts[1].Strategy != "" || len(c.AgentKeys) != 1 {
		t.Errorf("two hosts: %+v, %q", c.Hosts, c.AgentKeys)
	}
	// In a container there may be the agent's key alone.
	c = claims()
	if err := issue.Bind(c, "request.json",
		request("transcoder", thumb, component("machine-id", "the container's own")), ""); err != nil {
		t.Fatal(err)
	}
	if len(c.Hosts) != 0 || len(c.AgentKeys) != 1 {
		t.Errorf("agent key alone: %+v, %q", c.Hosts, c.AgentKeys)
	}
}

func TestBindRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		data []byte
		want []string
	}{
		"another product": {request("player", thumb, component("machine-id", "")),
			[]string{"request.json", `"player"`, "--product transcoder"}},
		"nothing to bind": {request("transcoder", "", component("machine-id", "the container's own")),
			[]string{"neither a lasting component", "agent's key"}},
		"no hash": {request("transcoder", "", `{"name":"machine-id","values":["4c4c4544"]}`),
			[]string{"machine-id", "HMAC-SHA-256"}},
		"capital hash": {request("transcoder", "", `{"name":"machine-id","values":["`+strings.ToUpper(hash)+`"]}`),
			[]string{"HMAC-SHA-256"}},
		"empty":     {nil, []string{"request.json", "usher fingerprint --request"}},
		"a licence": {[]byte("-----BEGIN USHER LICENSE-----"), []string{"usher fingerprint --request"}},
		"a list":    {[]byte("[]"), []string{"usher fingerprint --request"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := claims()
			refused(t, issue.Bind(c, "request.json", test.data, ""), test.want...)
			if len(c.Hosts)+len(c.AgentKeys) > 0 {
				t.Errorf("bound all the same: %+v", c)
			}
		})
	}
	// Signing checks what Bind does not look at.
	private, _ := makeKey(t, "k", "")
	s, err := issue.LoadSigner(private, "")
	if err != nil {
		t.Fatal(err)
	}
	for strategy, key := range map[string]string{"half": thumb, "": "short"} {
		c := claims()
		if err := issue.Bind(c, "request.json", request("transcoder", key, component("machine-id", "")),
			strategy); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Sign(c); err == nil {
			t.Errorf("strategy %q, agent key %q are signed", strategy, key)
		}
	}
}

// A request is written on the customer's host: what its configuration states under the name of a measured component, or
// of one by which a system names a host, is left out.
func TestBindLeavesOutWhatOnlyLooksMeasured(t *testing.T) {
	hash := strings.Repeat("a", 64)
	stated := `{"name":%q,"configured":true,"values":[%q]}`
	request := fmt.Sprintf(`{"product":"acme","components":[{"name":"machine-id","values":[%q]},`+stated+`,`+stated+
		`,`+stated+`]}`, hash, "mac", hash, "cluster", hash, "toy-fingerprint", hash)
	c := &usher.Claims{Product: "acme"}
	if err := issue.Bind(c, "request.json", []byte(request), "", "toy-fingerprint"); err != nil {
		t.Fatal(err)
	}
	if got := c.Hosts[0].Components; len(got) != 2 || got["mac"] != nil || got["cluster"] == nil {
		t.Errorf("%v", got)
	}
}
