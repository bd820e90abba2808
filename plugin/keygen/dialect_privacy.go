package keygen

import (
	"github.com/usher-agent/usher/plugin/redact"
)

// mayKnow reports whether the caller may see the licence's secrets: it has shown the licence's own key, or is an admin.
// Others see neither the key nor other secrets and e-mail addresses. docs/privacy.md has the table.
func (x *request) mayKnow() bool { return x.proven || x.caller.Admin }

// discreet returns members of a licence with names of its own, as far as the caller may see them.
func (x *request) discreet(o object) object {
	if x.mayKnow() || o == nil {
		return o
	}
	return redact.Value(o).(object)
}

// texts returns members of a licence with names of the API's, as far as the caller may see them.
func (x *request) texts(o object) object {
	if x.mayKnow() || o == nil {
		return o
	}
	return redact.Texts(o).(object)
}

func (x *request) text(s *string) any {
	switch {
	case s == nil:
		return nil
	case x.mayKnow():
		return *s
	}
	return redact.Text(*s)
}

// resource returns a resource that Keygen wrote, as far as the caller may see it.
func (x *request) resource(o object) object {
	if x.mayKnow() {
		return o
	}
	out := x.texts(o)
	if a, ok := o["attributes"].(object); ok {
		out["attributes"] = x.discreet(a)
	}
	return out
}

// conceal hides the quotations of a licence in a refusal or a verdict. The caller's own scope stays.
func (x *request) conceal(doc object) {
	if x.mayKnow() || doc == nil {
		return
	}
	if errors, ok := doc["errors"].([]object); ok {
		for i := range errors {
			errors[i] = x.texts(errors[i])
		}
	}
	for _, of := range []object{doc, asObject(doc["meta"])} {
		for _, name := range []string{"error", "detail"} {
			if s, ok := of[name].(string); ok {
				of[name] = redact.Text(s)
			}
		}
	}
}

func asObject(v any) object { o, _ := v.(object); return o }
