package issue

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/textual"
	"github.com/usher-agent/usher/plugin/usher"
)

// request is the part of `usher fingerprint --request` that binding needs.
type request struct {
	Product    string `json:"product"`
	AgentKey   string `json:"agent_key"`
	Components []struct {
		Name   string   `json:"name"`
		Values []string `json:"values"`
		Note   string   `json:"note"`
		// Configured says that the host's configuration states it.
		Configured bool `json:"configured"`
	} `json:"components"`
}

var hashRule = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Bind adds the host of a fingerprint request to the claims, and its agent's key where the request names one. It leaves
// out components whose note says that they are a container's own: they change with every restart. It also leaves out
// components that the host's configuration states under the name of a measured one, or under a reserved name. An empty
// strategy means the default, most. Bind several requests one after the other for a licence that is good on each of
// those hosts.
func Bind(c *usher.Claims, name string, data []byte, strategy string, reserved ...string) error {
	var r request
	if err := json.Unmarshal(textual.JSON(data), &r); err != nil {
		return fmt.Errorf("request %s: it is not what `usher fingerprint --request` writes: %w", name, err)
	}
	if r.Product != c.Product {
		return fmt.Errorf(
			"request %s: it was made for product %q, and the licence is for %q; make it again with --product %s", name,
			r.Product, c.Product, c.Product)
	}
	h := usher.Host{Components: map[string][]string{}, Strategy: strategy}
	for _, k := range r.Components {
		if k.Note != "" || len(k.Values) == 0 ||
			k.Configured && (enforcer.IsMeasured(k.Name) || slices.Contains(reserved, k.Name)) {
			continue
		}
		for _, v := range k.Values {
			if !hashRule.MatchString(v) {
				return fmt.Errorf("request %s: component %s has a value that is not an HMAC-SHA-256 in hex", name,
					k.Name)
			}
		}
		h.Components[k.Name] = k.Values
	}
	switch {
	case len(h.Components) > 0:
		c.Hosts = append(c.Hosts, h)
	case r.AgentKey == "":
		return fmt.Errorf(
			"request %s: it names neither a lasting component of the host nor an agent's key; make it while the "+
				"agent runs, or give the agent the host's /sys and /etc", name)
	}
	if r.AgentKey != "" {
		c.AgentKeys = append(c.AgentKeys, r.AgentKey)
	}
	return nil
}
