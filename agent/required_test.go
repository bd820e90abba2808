package agent_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/usher-agent/usher/client/wire"
)

// sample makes a value that a schema allows.
func sample(s *openapi3.Schema) any {
	switch {
	case len(s.Enum) > 0:
		return s.Enum[0]
	case s.Type.Is("string"):
		return "x"
	case s.Type.Is("integer"), s.Type.Is("number"):
		return 1
	case s.Type.Is("boolean"):
		return true
	case s.Type.Is("array"):
		return []any{sample(s.Items.Value)}
	case s.Type.Is("object"):
		m := map[string]any{}
		for name, p := range s.Properties {
			if slices.Contains(s.Required, name) {
				m[name] = sample(p.Value)
			}
		}
		return m
	}
	return nil
}

// spoilt is a body that the document forbids, and the member at fault.
type spoilt struct {
	what, field string
	body        any
}

// spoil returns the bodies that lack a required member of an object, or have null for it, or 0 where a number must be
// more; and those of the objects in its lists.
func spoil(s *openapi3.Schema, above string, within func(any) any) (out []spoilt) {
	with := func(name string, v any) map[string]any {
		m := sample(s).(map[string]any)
		if m[name] = v; v == nil {
			m[name] = nil
		}
		return m
	}
	for _, name := range s.Required {
		without := sample(s).(map[string]any)
		delete(without, name)
		out = append(out, spoilt{"without", above + name, within(without)},
			spoilt{"null for", above + name, within(with(name, nil))})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[name].Value
		if p.ExclusiveMin.IsSet() {
			out = append(out, spoilt{"0 for", above + name, within(with(name, 0))})
		}
		if p.Type.Is("array") && p.Items.Value.Type.Is("object") {
			out = append(out, spoil(p.Items.Value, above+name+".0.", func(v any) any {
				return within(with(name, []any{v}))
			})...)
		}
	}
	return out
}

// A body that lacks what the document requires, has null for it, or 0 where there must be more, is refused by its name
// on every route.
func TestRequiredIsRequired(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("L1", 3, nil))
	h.until("the licence", func(l *wire.License) bool { return l.State == "valid" })
	doc, _ := document(t)
	caller := newChecked(t, h.path("s"))
	tried := 0
	for _, path := range slices.Sorted(maps.Keys(doc.Paths.Map())) {
		for method, op := range doc.Paths.Find(path).Operations() {
			if op.RequestBody == nil || op.RequestBody.Value.Content[asJSON] == nil {
				continue
			}
			at := strings.NewReplacer("{name}", "streams", "{id}", strings.Repeat("0", 32)).Replace(path)
			schema := op.RequestBody.Value.Content[asJSON].Schema.Value
			for _, s := range spoil(schema, "", func(v any) any { return v }) {
				tried++
				body, err := json.Marshal(s.body)
				if err != nil {
					t.Fatal(err)
				}
				status, answer, _ := caller.call(false, method, at, asJSON, body)
				if status != http.StatusBadRequest || !strings.Contains(answer, fmt.Sprintf(`"field":%q`, s.field)) {
					t.Errorf("%s %s %s %s: %d %s\n%s", method, at, s.what, s.field, status, answer, body)
				}
			}
		}
	}
	if tried < 12 {
		t.Errorf("only %d bodies were tried", tried)
	}
}
