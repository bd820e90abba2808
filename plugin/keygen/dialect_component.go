package keygen

import (
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/plugin"
)

func (x *request) componentObject(k *kept, c *part) object {
	return object{"type": "components", "id": c.ID,
		"attributes": object{"fingerprint": c.Fingerprint, "name": c.Name, "metadata": metadata(c.Metadata),
			"created": stamp(k.Made), "updated": stamp(k.Made)},
		"relationships": object{"account": relate("accounts", x.accountID()),
			"product": relate("products", x.about.productID()), "license": relate("licenses", x.about.id),
			"machine": relate("machines", k.ID)}, "links": object{"self": x.at("components", c.ID)}}
}

// parts reads the components in a machine's relationships.
func parts(r *resource) ([]part, *response) {
	const at = "/data/relationships/components/data"
	raw := r.Relationships["components"].Data
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var all []resource
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, problem(http.StatusBadRequest, "", plugin.JSONFault(err, "member").Error(), "pointer", at)
	}
	if len(all) > maxComponents {
		return nil, problem(http.StatusBadRequest, "", "must have at most 20 components", "pointer", at)
	}
	var out []part
	for _, r := range all {
		c := part{}
		if err := r.attributes(&c); err != nil || c.Fingerprint == "" {
			return nil, problem(http.StatusBadRequest, "", "each component needs a fingerprint and a name", "pointer",
				at)
		}
		if slices.ContainsFunc(out, func(o part) bool { return o.Fingerprint == c.Fingerprint }) {
			return nil, invalid("COMPONENTS_FINGERPRINT_TAKEN", "has already been taken", at)
		}
		c.ID = newID()
		out = append(out, c)
	}
	return out, nil
}

func (x *request) listComponents() *response {
	out := []object{}
	for _, k := range x.all(recordMachine) {
		if len(x.args) > 0 && k.ID != x.args[0] && k.Fingerprint != x.args[0] {
			continue
		}
		for i := range k.Components {
			out = append(out, x.componentObject(k, &k.Components[i]))
		}
	}
	if len(x.args) > 0 && len(out) == 0 && x.machine(x.args[0]) == nil {
		return noMachineOf(x.args[0])
	}
	return x.page(out)
}

func (x *request) showComponent() *response {
	for _, k := range x.all(recordMachine) {
		for i := range k.Components {
			if c := &k.Components[i]; c.ID == x.args[0] || c.Fingerprint == x.args[0] {
				return show(x.componentObject(k, c))
			}
		}
	}
	return notFound("The requested component '" + plugin.Short(x.args[0]) + "' was not found")
}
