package keygen

import (
	"cmp"
	"crypto/subtle"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// subject is the licence that a request is about.
type subject struct {
	verdict  *enforcer.Verdict
	judged   *enforcer.Judged
	license  *enforcer.License
	id       string
	key      string // the licence key, as it was shown; empty: none was
	digest   string // of the licence key, where the licence knows it; empty: it does not
	terms    Object
	raw      object   // the licence as Keygen has written it; nil: it is made up from other terms
	included []object // what Keygen has written beside it
}

// subject returns the licence that a key is of, or else the one in force, or else the best that there is; nil: none can
// be read.
func (x *exchange) subject(key string) *subject {
	v := x.Verdict()
	if v == nil {
		return nil
	}
	var best *subject
	for i := range v.Licenses {
		j := &v.Licenses[i]
		if j.License == nil || j.Role == enforcer.RoleAddOn || j.Role == enforcer.RoleNotice {
			continue
		}
		s := newSubject(v, j)
		switch {
		case key != "" && s.opens(key) && (best == nil || !best.opens(key)):
			best = s
		case best == nil:
			best = s
		}
	}
	return best
}

func newSubject(v *enforcer.Verdict, j *enforcer.Judged) *subject {
	s := &subject{verdict: v, judged: j, license: j.License, id: j.License.ID}
	if j.License.System == System {
		s.read()
	}
	if s.raw == nil {
		s.makeUp()
	}
	if strings.ContainsFunc(s.id, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune("-._~", r))
	}) {
		s.id = namedID("license", s.id) // the SDKs put it into paths as it is
	}
	if end := j.License.Terminates(); j.License.Grace > 0 && !end.IsZero() {
		s.terms.Attributes.Expiry = &end // its grace is part of the time that it is good for
	}
	return s
}

// read takes what Keygen has written of the licence from its terms.
func (s *subject) read() {
	s.digest, _ = s.license.Terms["key"].(string)
	b, err := json.Marshal(s.license.Terms)
	if err != nil {
		return
	}
	set, err := parseDataset(b)
	if err != nil {
		return
	}
	var all struct {
		Data     object   `json:"data"`
		Included []object `json:"included"`
	}
	if json.Unmarshal(b, &all) != nil {
		return
	}
	about, raw := &set.Data, all.Data
	if about.Type == "machines" {
		about, raw = set.one("licenses", set.Data.related("license")), nil
		for _, o := range all.Included {
			if about != nil && o["type"] == "licenses" && o["id"] == about.ID {
				raw = o
			}
		}
	}
	if about == nil || about.Type != "licenses" || raw == nil {
		return
	}
	if s.terms, err = set.object(about); err != nil {
		return
	}
	s.raw, s.included = raw, all.Included
	if a, _ := raw["attributes"].(object); a != nil {
		s.digest, _ = a["key"].(string)
	}
}

// makeUp says in Keygen's words what a licence of another system, or a key alone, permits.
func (s *subject) makeUp() {
	l, a := s.license, &s.terms.Attributes
	name := cmp.Or(l.Licensee, l.ID)
	a.Name, a.Suspended, a.Floating, a.Created = &name, l.Suspended, true, &l.Issued
	if !l.Expires.IsZero() {
		a.Expiry = &l.Expires
	}
	if l.Banned {
		a.Status = string(CodeBanned)
	}
	pool := func(name string) *int64 {
		g, known := s.verdict.Pools[name]
		switch {
		case !known:
			return new(int64(0))
		case g.Limit == enforcer.Unlimited:
			return nil
		}
		return new(int64(g.Limit))
	}
	a.MaxMachines, a.MaxProcesses, a.MaxUsers = pool(PoolMachines), pool(PoolProcesses), nil
	for _, p := range []struct {
		name string
		to   **int64
	}{{PoolUsers, &a.MaxUsers}, {PoolCores, &a.MaxCores}, {PoolMemory, &a.MaxMemory}, {PoolDisk, &a.MaxDisk}} {
		if _, known := s.verdict.Pools[p.name]; known {
			*p.to = pool(p.name)
		}
	}
	if a.MaxMachines != nil && *a.MaxMachines == 1 {
		a.Floating = false
	}
	if m, known := s.verdict.Meters[MeterUses]; known && m.Limit != enforcer.Unlimited {
		a.MaxUses = new(int64(m.Limit))
	}
	s.terms.ID = l.ID
	s.terms.Policy.settle()
}

// opens reports whether a licence key is this licence's.
func (s *subject) opens(key string) bool {
	return s.digest != "" && subtle.ConstantTimeCompare([]byte(s.digest), []byte(KeyDigest(key))) == 1
}

// own reports whether a key that was shown is the licence's own: it opens it or, where the licence knows of none, the
// credentials file has it.
func (s *subject) own(key string, listed bool) bool {
	return s != nil && (s.opens(key) || s.digest == "" && listed)
}

// related returns the id that Keygen has written of a relationship to one.
func (s *subject) related(name string) string {
	all, _ := s.raw["relationships"].(object)
	r, _ := all[name].(object)
	d, _ := r["data"].(object)
	id, _ := d["id"].(string)
	return id
}

func (s *subject) productID() string { return cmp.Or(s.related("product"), s.license.Product) }

func (s *subject) policyID() string {
	return cmp.Or(s.related("policy"), namedID("policy", s.license.ID))
}

func (s *subject) found(c enforcer.Code) bool {
	return slices.ContainsFunc(s.judged.Findings, func(f enforcer.Finding) bool { return f.Code == c })
}

// shut says why nobody may speak with this licence's key; nil: he may. It is what the server does on authentication.
func (s *subject) shut() *response {
	a := &s.terms.Attributes
	switch {
	case a.Status == string(CodeBanned) || s.found(enforcer.Banned):
		return forbidden("LICENSE_BANNED", "License is banned")
	case a.Suspended || a.Status == string(CodeSuspended) || s.found(enforcer.Suspended):
		return forbidden("LICENSE_SUSPENDED", "License is suspended")
	case s.found(enforcer.Expired) && s.terms.Policy.ExpirationStrategy == expiryRevoke:
		return forbidden("LICENSE_EXPIRED", "License is expired")
	}
	return nil
}

// Keygen's bounds of a licence's status.
const (
	expiringWithin = 3 * 24 * time.Hour
	inactiveAfter  = 90 * 24 * time.Hour
)

// Status returns a licence's status at a glance, in Keygen's order; used is the last time that it was made, validated,
// checked out or checked in.
func (o *Object) Status(now, used time.Time) string {
	a := &o.Attributes
	switch {
	case a.Status == string(CodeBanned):
		return string(CodeBanned)
	case a.Suspended || a.Status == string(CodeSuspended):
		return string(CodeSuspended)
	case a.Expiry != nil && a.Expiry.Before(now):
		return "EXPIRED"
	case a.Expiry != nil && a.Expiry.Before(now.Add(expiringWithin)):
		return "EXPIRING"
	case used.Before(now.Add(-inactiveAfter)):
		return "INACTIVE"
	}
	return "ACTIVE"
}

// validatedKey is where the store has when a licence was last validated.
func (s *subject) validatedKey() string { return "validated/" + namedID("license", s.license.ID) }

// lastValidated returns when the licence was last validated here, to a day; zero: never.
func (x *exchange) lastValidated() (t time.Time) {
	if b, ok := x.Store().Get(x.about.validatedKey()); ok {
		t, _ = time.Parse(time.RFC3339, string(b))
	}
	return t
}

// noteValidated keeps that the licence has been validated. The status needs it to some days, so that it is written once
// a day.
func (x *exchange) noteValidated() {
	if x.now.Sub(x.lastValidated()).Abs() < 24*time.Hour {
		return
	}
	value := []byte(x.now.UTC().Format(time.RFC3339))
	if err := x.Store().Apply(plugin.Change{Key: x.about.validatedKey(), Value: value}); err != nil {
		x.Log().Warn("that a licence was validated cannot be kept", "error", err)
	}
}

// uses returns what has been used, before the licence's document was made and since.
func (x *exchange) uses() int64 {
	n := max(0, x.about.terms.Attributes.Uses)
	for _, p := range x.Pools() {
		if p.Meter && p.Name == MeterUses {
			n += p.InUse
		}
	}
	return n
}

// path returns where a resource is.
func (x *exchange) at(parts ...string) string {
	return "/v1/accounts/" + x.accountID() + "/" + strings.Join(parts, "/")
}

// licenseObject is the licence as the API shows it.
func (x *exchange) licenseObject() object {
	s := x.about
	a := &s.terms.Attributes
	attributes := object{"protected": false, "version": nil, "scheme": nil, "encrypted": false, "lastValidated": nil,
		"lastCheckIn": nil, "nextCheckIn": nil,
		"lastCheckOut": nil, "permissions": []any{}, "metadata": object{}, "created": stamp(s.license.Issued),
		"updated": stamp(s.license.Issued),
		"name":    x.text(a.Name), "expiry": stamp(timeOf(a.Expiry)), "suspended": a.Suspended, "floating": a.Floating,
		"strict": a.Strict, "maxMachines": a.MaxMachines,
		"maxProcesses": a.MaxProcesses, "maxUsers": a.MaxUsers, "maxCores": a.MaxCores, "maxMemory": a.MaxMemory,
		"maxDisk": a.MaxDisk, "maxUses": a.MaxUses,
		"requireHeartbeat": a.RequireHeartbeat, "requireCheckIn": a.RequireCheckIn}
	if said, _ := s.raw["attributes"].(object); said != nil {
		maps.Copy(attributes, x.discreet(said))
	} else if scheme, ok := s.license.Terms["scheme"].(string); ok && s.license.System == System && s.key != "" {
		attributes["scheme"] = scheme
		if scheme == "SIGN" { // a key tells no more; its algorithm does
			attributes["scheme"] = map[string]string{algEd25519: "ED25519_SIGN", algECDSA: "ECDSA_P256_SIGN",
				algPSS: "RSA_2048_PKCS1_PSS_SIGN_V2",
				algRSA: "RSA_2048_PKCS1_SIGN_V2"}[textOf(s.license.Terms["algorithm"])]
		}
	}
	attributes["key"] = nil
	if k := s.secret(); k != "" {
		attributes["key"] = strings.ToValidUTF8(k, "?")
	}
	attributes["uses"] = x.uses()
	used := timeOf(a.Created)
	validated := x.lastValidated()
	for _, t := range []time.Time{validated, instantOf(attributes["lastValidated"]),
		instantOf(attributes["lastCheckOut"]), instantOf(attributes["lastCheckIn"]), s.license.Issued} {
		if t.After(used) {
			used = t
		}
	}
	if validated.After(instantOf(attributes["lastValidated"])) {
		attributes["lastValidated"] = stamp(validated)
	}
	attributes["status"] = s.terms.Status(x.now, used)
	self := func(parts ...string) string { return x.at(append([]string{"licenses", s.id}, parts...)...) }
	machines := x.machines()
	var cores, memory, disk int64
	for _, m := range machines {
		cores, memory, disk = cores+m.Cores, memory+m.Memory, disk+m.Disk
	}
	related := object{"account": relate("accounts", x.accountID()), "product": relate("products", s.productID()),
		"policy": relate("policies", s.policyID()),
		"group":  relate("", ""), "owner": relate("", ""), "users": object{"meta": object{"count": 0}},
		"tokens": object{"links": object{"related": self("tokens")}}}
	if said, _ := s.raw["relationships"].(object); said != nil {
		maps.Copy(related, x.texts(said))
	}
	related["machines"] = object{"links": object{"related": self("machines")},
		"meta": object{"count": len(machines), "cores": cores, "memory": memory, "disk": disk}}
	related["entitlements"] = object{"links": object{"related": self("entitlements")}}
	return object{"type": "licenses", "id": s.id, "attributes": attributes, "relationships": related,
		"links": object{"self": self()}}
}

// secret is what stands as the licence's key, and files are encrypted with: the one that was shown, or, of a licence
// that knows of none, its id.
func (s *subject) secret() string {
	if s.key == "" && s.digest == "" {
		return s.id
	}
	return s.key
}

func textOf(v any) string { s, _ := v.(string); return s }

// instantOf reads a time of an attribute; zero: there is none.
func instantOf(v any) time.Time {
	t, _ := time.Parse(time.RFC3339, textOf(v))
	return t
}

func (x *exchange) me() *response { return show(x.licenseObject()) }

func (x *exchange) showLicense() *response { return show(x.licenseObject()) }

func (x *exchange) listLicenses() *response { return x.page([]object{x.licenseObject()}) }

func (x *exchange) machineLicense() *response {
	if m := x.machine(x.args[0]); m == nil {
		return noMachineOf(x.args[0])
	}
	return show(x.licenseObject())
}

// checkInNow answers a check-in. Whether the licence is overdue is between the agent and the vendor's account; a
// product that checks in here is told how that stands.
func (x *exchange) checkInNow() *response {
	if !x.about.terms.Attributes.RequireCheckIn {
		return invalid("", "cannot be checked in because the policy does not require it", "/data")
	}
	return show(x.licenseObject())
}

// entitlements returns those of the licence: as Keygen has written them, or its features.
func (x *exchange) entitlements() []object {
	s := x.about
	out := []object{}
	known := map[string]bool{}
	for _, o := range s.included {
		if a, _ := o["attributes"].(object); o["type"] == "entitlements" && a != nil {
			out = append(out, x.resource(o))
			known[featureName(textOf(a["code"]))] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.verdict.Features)) {
		if known[name] || !s.verdict.Features[name].Enabled() || !s.judged.InForce {
			continue
		}
		id := namedID("entitlement", s.license.ID, name)
		out = append(out, object{"type": "entitlements", "id": id,
			"attributes": object{"name": x.text(&name), "code": x.text(&name), "metadata": object{},
				"created": stamp(s.license.Issued), "updated": stamp(s.license.Issued)},
			"relationships": object{"account": relate("accounts", x.accountID())},
			"links":         object{"self": x.at("entitlements", id)}})
	}
	return out
}

func (x *exchange) listEntitlements() *response { return x.page(x.entitlements()) }

func (x *exchange) showEntitlement() *response {
	for _, e := range x.entitlements() {
		if e["id"] == x.args[1] {
			return show(e)
		}
	}
	return notFound("The requested entitlement '" + plugin.Short(x.args[1]) + "' was not found")
}

// policyObject is the licence's policy: as Keygen has written it, or what the licence tells of it.
func (x *exchange) policyObject() object {
	s := x.about
	for _, o := range s.included {
		if o["type"] == "policies" && o["id"] == s.policyID() {
			return x.resource(o)
		}
	}
	a, p := &s.terms.Attributes, &s.terms.Policy
	id := s.policyID()
	attributes := object{"name": s.productID(), "duration": nil, "strict": a.Strict, "floating": a.Floating,
		"scheme": nil, "protected": false, "encrypted": false,
		"requireProductScope": false, "requirePolicyScope": false, "requireMachineScope": false,
		"requireFingerprintScope": false, "requireComponentsScope": false,
		"requireUserScope": false, "requireChecksumScope": false, "requireVersionScope": false,
		"requireCheckIn": a.RequireCheckIn, "checkInInterval": nil,
		"checkInIntervalCount": nil, "usePool": false, "maxMachines": a.MaxMachines, "maxProcesses": a.MaxProcesses,
		"maxUsers": a.MaxUsers, "maxCores": a.MaxCores,
		"maxMemory": a.MaxMemory, "maxDisk": a.MaxDisk, "maxUses": a.MaxUses, "requireHeartbeat": a.RequireHeartbeat,
		"heartbeatDuration":     x.heartbeatSeconds(),
		"heartbeatCullStrategy": "DEACTIVATE_DEAD", "heartbeatResurrectionStrategy": cmp.Or(p.HeartbeatResurrection,
			"NO_REVIVE"), "heartbeatBasis": "FROM_CREATION",
		"machineUniquenessStrategy":   "UNIQUE_PER_LICENSE",
		"machineMatchingStrategy":     cmp.Or(p.MachineMatching, "MATCH_ANY"),
		"componentUniquenessStrategy": "UNIQUE_PER_MACHINE",
		"componentMatchingStrategy":   cmp.Or(p.ComponentMatching, "MATCH_ANY"),
		"expirationStrategy":          cmp.Or(p.ExpirationStrategy, "RESTRICT_ACCESS"),
		"expirationBasis":             "FROM_CREATION", "renewalBasis": "FROM_EXPIRY",
		"authenticationStrategy": "LICENSE", "machineLeasingStrategy": cmp.Or(p.MachineLeasing, "PER_LICENSE"),
		"processLeasingStrategy": p.ProcessLeasing,
		"overageStrategy":        cmp.Or(p.OverageStrategy, "NO_OVERAGE"), "transferStrategy": "KEEP_EXPIRY",
		"metadata": object{},
		"created":  stamp(s.license.Issued), "updated": stamp(s.license.Issued)}
	return object{"type": "policies", "id": id, "attributes": attributes,
		"relationships": object{"account": relate("accounts", x.accountID()),
			"product": relate("products", s.productID())}, "links": object{"self": x.at("policies", id)}}
}

func (x *exchange) showPolicy() *response { return show(x.policyObject()) }

func (x *exchange) showPolicyByID() *response {
	if x.args[0] != x.about.policyID() {
		return notFound("The requested policy '" + plugin.Short(x.args[0]) + "' was not found")
	}
	return show(x.policyObject())
}

// scopes is the meta of a validation.
type scopes struct {
	Key   string         `json:"key"`
	Nonce *int64         `json:"nonce"`
	Scope jsontext.Value `json:"scope"`
}

// scopeOf is a scope as it is asked; nil: it is not given.
type scopeOf struct {
	Product      *string   `json:"product"`
	Policy       *string   `json:"policy"`
	User         *string   `json:"user"`
	Machine      *string   `json:"machine"`
	Fingerprint  *string   `json:"fingerprint"`
	Fingerprints *[]string `json:"fingerprints"`
	Components   *[]string `json:"components"`
	Entitlements *[]string `json:"entitlements"`
	Checksum     *string   `json:"checksum"`
	Version      *string   `json:"version"`
	Environment  *string   `json:"environment"`
}

func (x *exchange) validateKey() *response {
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
	return x.validate(&in, true)
}

func (x *exchange) validateScoped() *response {
	var in scopes
	if a := x.meta(&in); a != nil {
		return a
	}
	return x.validate(&in, true)
}

func (x *exchange) validateQuick() *response { return x.validate(&scopes{}, false) }

// validate answers a validation: what the licence permits by the judge, and what the scope asks by Keygen's rules.
func (x *exchange) validate(in *scopes, scoped bool) *response {
	var scope *Scope
	if scoped {
		var said scopeOf
		if len(in.Scope) > 0 {
			if err := json.Unmarshal(in.Scope, &said); err != nil {
				return problem(http.StatusBadRequest, "", plugin.JSONFault(err, "member").Error(), "pointer",
					"/meta/scope")
			}
		}
		scope = &Scope{Product: said.Product, Policy: said.Policy, User: said.User, Machine: said.Machine,
			Fingerprint: said.Fingerprint, Checksum: said.Checksum,
			Version: said.Version, Environment: said.Environment, Fingerprints: said.Fingerprints,
			Components: said.Components, Entitlements: said.Entitlements}
	}
	s := x.about
	situation := &Situation{Object: &s.terms, Findings: s.judged.Findings, Now: x.now, Product: s.productID(),
		PolicyID: s.policyID(), Environment: s.related("environment"),
		Owner: s.related("owner"), Machines: x.machines()}
	if situation.Owner != "" {
		situation.Users, situation.UserCount = []string{situation.Owner}, 1
	}
	for _, o := range s.included {
		if o["type"] == "users" {
			a, _ := o["attributes"].(object)
			situation.Users = append(situation.Users, textOf(o["id"]), textOf(a["email"]))
		}
	}
	for _, e := range x.entitlements() {
		a, _ := e["attributes"].(object)
		situation.Entitlements = append(situation.Entitlements, textOf(a["code"]))
	}
	r := Validate(situation, scope)
	detail := r.Code.Detail()
	if r.Valid && !s.verdict.Good() {
		r, detail = Result{Code: outOfForce(s.verdict.Code)}, s.verdict.Reason
	} else if r.Valid && !s.judged.InForce {
		r, detail = Result{Code: outOfForce(s.judged.Code)}, s.judged.Reason
	}
	x.noteValidated()
	return reply(object{"data": x.licenseObject(), "meta": x.verdictOf(in, r, detail)})
}

// outOfForce is Keygen's word for why a licence is not in force. What it has no word for is, to its clients, no
// licence.
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

func (x *exchange) verdictOf(in *scopes, r Result, detail string) object {
	out := object{"ts": stamp(x.now), "valid": r.Valid, "detail": detail, "code": string(r.Code)}
	if in.Nonce != nil {
		out["nonce"] = *in.Nonce
	}
	if len(in.Scope) > 0 && string(in.Scope) != "null" {
		out["scope"] = in.Scope
	}
	return out
}
