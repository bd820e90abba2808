package keygen

import (
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// scopes is the meta of a validation.
type scopes struct {
	Key   string         `json:"key"`
	Nonce *int64         `json:"nonce"`
	Scope jsontext.Value `json:"scope"`
}

func (x *request) validateKey() *response {
	var in scopes
	if a := x.meta(&in); a != nil {
		return a
	}
	if in.Key == "" {
		return problem(http.StatusBadRequest, "", "is missing", "pointer", "/meta/key")
	}
	_, vouched := x.Caller(x.r)
	about, known, listed, err := x.known(in.Key, vouched)
	if err != nil {
		return problem(http.StatusInternalServerError, "",
			"the listener's credentials_file cannot be read; the agent's log says more", "", "")
	}
	if !known || about == nil {
		return reply(object{"data": nil, "meta": x.verdictOf(&in, Result{Code: CodeNotFound}, CodeNotFound.Detail())})
	}
	about.key, x.key, x.proven = in.Key, in.Key, about.own(in.Key, listed)
	x.about, x.caller = about, x.CallerBy(x.r, in.Key)
	if a := x.elsewhere(); a != nil {
		return a
	}
	x.seat()
	return x.validate(&in, true)
}

func (x *request) validateScoped() *response {
	var in scopes
	if a := x.meta(&in); a != nil {
		return a
	}
	return x.validate(&in, true)
}

func (x *request) validateQuick() *response { return x.validate(&scopes{}, false) }

// environmentCode returns the code of the licence's environment; empty: it has none, or the file does not name it.
func (s *subject) environmentCode() string {
	for _, o := range s.included {
		if a, _ := o["attributes"].(object); o["type"] == "environments" && o["id"] == s.related("environment") {
			return textOf(a["code"])
		}
	}
	return ""
}

// elsewhere returns the refusal of a request for another environment than the licence's, which is the only one that is
// known here; nil: it is for that one, or for none. The server compares codes to the letter, and ids in either case. A
// code cannot be compared where the file does not name it, and a licence without an environment is in every shared one.
func (x *request) elsewhere() *response {
	asked, own := x.r.Header.Get("Keygen-Environment"), x.about.related("environment")
	code := x.about.environmentCode()
	_, isID := parseUUID(strings.ToLower(asked))
	if asked == "" || own == "" || asked == code || asked == own || isID && strings.EqualFold(asked, own) ||
		code == "" && !isID {
		return nil
	}
	return problem(http.StatusBadRequest, "ENVIRONMENT_INVALID", "is invalid", "header", "Keygen-Environment")
}

// situation returns the licence's situation as a validation takes it.
func (x *request) situation() *Situation {
	s := x.about
	out := &Situation{Object: &s.terms, Findings: s.judged.Findings, Now: x.now, Product: s.productID(),
		PolicyID: s.policyID(), Environment: s.related("environment"), Owner: s.related("owner"),
		Machines: x.machines()}
	for _, u := range s.users() {
		out.Users = append(out.Users, u.id)
	}
	for _, u := range s.users() {
		if u.email != "" { // those with an address come first
			out.Users = append(out.Users, u.email)
		}
	}
	out.UserCount = s.userCount()
	out.EnvironmentCode = s.environmentCode()
	for _, e := range x.entitlements() {
		a, _ := e["attributes"].(object)
		out.Entitlements = append(out.Entitlements, textOf(a["code"]))
	}
	return out
}

// validate answers a validation. The verdict decides on the licence, and Keygen's rules decide on the scope.
func (x *request) validate(in *scopes, scoped bool) *response {
	var scope *Scope
	if scoped {
		scope = &Scope{}
		if len(in.Scope) > 0 && in.Scope.Kind() != 'n' {
			if err := json.Unmarshal(in.Scope, scope); err != nil {
				return problem(http.StatusBadRequest, "", plugin.JSONFault(err, "member").Error(), "pointer",
					"/meta/scope")
			}
		}
		for _, name := range scope.Null {
			if name != "user" && name != "environment" { // null asks for a licence without one
				return problem(http.StatusBadRequest, "", "cannot be null", "pointer", "/meta/scope/"+name)
			}
		}
	}
	s := x.about
	situation := x.situation()
	r, detail := Explain(situation, scope)
	if r.Valid && !s.verdict.Good() {
		r, detail = Result{Code: outOfForce(s.verdict.Code)}, s.verdict.Reason
	} else if r.Valid && !s.judged.InForce {
		r, detail = Result{Code: outOfForce(s.judged.Code)}, s.judged.Reason
	}
	if r.Valid && x.unseated(scope) {
		r, detail = Result{Code: CodeTooManyMachines}, CodeTooManyMachines.Detail()
	}
	x.noteTime(func(t *times) { t.Validated = x.now }, validatedEvery)
	return reply(object{"data": x.licenseObject(), "meta": x.verdictOf(in, r, detail)})
}

// outOfForce returns Keygen's code for a licence that is not in force. Where Keygen has no such code, its clients are
// told that there is no licence.
func outOfForce(c enforcer.Code) Code {
	for _, same := range Codes() {
		if string(same) == string(c) && same != CodeValid {
			return same
		}
	}
	switch c {
	case enforcer.Revoked:
		return CodeBanned
	case enforcer.ProductMismatch:
		return CodeProductMismatch
	}
	return CodeNotFound
}

func (x *request) verdictOf(in *scopes, r Result, detail string) object {
	out := object{"ts": stamp(x.now), "valid": r.Valid, "detail": detail, "code": string(r.Code)}
	if in.Nonce != nil {
		out["nonce"] = *in.Nonce
	}
	if len(in.Scope) > 0 && string(in.Scope) != "null" {
		out["scope"] = in.Scope
	}
	return out
}
