package keygen

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/plugin"
)

func (x *request) componentObject(k *kept, c *part) object {
	return object{"type": "components", "id": c.ID,
		"attributes": object{"fingerprint": c.Fingerprint, "name": c.Name, "metadata": metadata(c.Metadata),
			"created": stamp(k.Made), "updated": stamp(k.Made)},
		"relationships": object{"account": x.ofAccount(),
			"product": x.relate("products", x.about.productID(), "components", c.ID, "product"),
			"license": x.relate("licenses", x.about.id, "components", c.ID, "license"),
			"machine": x.relate("machines", k.ID, "components", c.ID, "machine")},
		"links": object{"self": x.at("components", c.ID)}}
}

// atComponent is the place of a component's attribute in a request.
func atComponent(i int, name string) string {
	return "/data/relationships/components/data/" + strconv.Itoa(i) + "/attributes/" + name
}

// parts reads the components in a machine's relationships.
func parts(r *resource) ([]part, *response) {
	const at = "/data/relationships/components/data"
	raw := r.Relationships["components"].Data
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var all []*resource
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, problem(http.StatusBadRequest, "", plugin.JSONFault(err, "member").Error(), "pointer", at)
	}
	if len(all) > maxComponents {
		return nil, problem(http.StatusBadRequest, "",
			fmt.Sprintf("length must be less than or equal to %d (there are %d)", maxComponents, len(all)), "pointer",
			at)
	}
	var out []part
	for i, r := range all {
		c := part{}
		place := at + "/" + strconv.Itoa(i)
		switch {
		case r == nil:
			return nil, problem(http.StatusBadRequest, "", "cannot be null", "pointer", place)
		case r.Type != "components" && r.Type != singular["components"]:
			return nil, problem(http.StatusBadRequest, "", "type mismatch (expected components)", "pointer",
				place+"/type")
		}
		if err := r.attributes(&c); err != nil {
			return nil, problem(http.StatusBadRequest, "", err.Error(), "pointer", place+"/attributes")
		}
		for name, value := range map[string]string{"fingerprint": c.Fingerprint, "name": c.Name} {
			if value == "" {
				return nil, problem(http.StatusBadRequest, "", "is missing", "pointer", atComponent(i, name))
			}
		}
		switch {
		case len(c.Fingerprint) > maxFingerprint:
			return nil, invalid("COMPONENTS_FINGERPRINT_TOO_LONG", "is too long (maximum is 4096 characters)",
				atComponent(i, "fingerprint"))
		case slices.ContainsFunc(out, func(o part) bool { return o.Fingerprint == c.Fingerprint }):
			return nil, invalid("COMPONENTS_FINGERPRINT_TAKEN", "has already been taken",
				atComponent(i, "fingerprint"))
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
	return noComponentOf(x.args[0])
}

func noComponentOf(id string) *response {
	return notFound("The requested component '" + plugin.Short(id) + "' was not found")
}
