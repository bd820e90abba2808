package keygen

import (
	"github.com/usher-agent/usher/plugin/redact"
)

// The licence's secrets are for those who know them: a caller who has shown the licence's own key is told all that
// Keygen tells it. To others, but for admins, the key is not said, and what else is a secret or an e-mail address is
// hidden. docs/privacy.md has it.
func (x *exchange) mayKnow() bool { return x.proven || x.caller.Admin }

// discreet is what a licence says under names of its own, as the caller may know it.
func (x *exchange) discreet(o object) object {
	if x.mayKnow() || o == nil {
		return o
	}
	return redact.Value(o).(object)
}

// texts is what a licence says under names that the API knows, as the caller may know it.
func (x *exchange) texts(o object) object {
	if x.mayKnow() || o == nil {
		return o
	}
	return redact.Texts(o).(object)
}

func (x *exchange) text(s *string) any {
	switch {
	case s == nil:
		return nil
	case x.mayKnow():
		return *s
	}
	return redact.Text(*s)
}

// resource is one that Keygen has written, as the caller may know it.
func (x *exchange) resource(o object) object {
	if x.mayKnow() {
		return o
	}
	out := x.texts(o)
	if a, ok := o["attributes"].(object); ok {
		out["attributes"] = x.discreet(a)
	}
	return out
}

// conceal hides what a refusal or a verdict quotes of a licence. What the caller has sent itself, as a scope, stays.
func (x *exchange) conceal(doc object) {
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
