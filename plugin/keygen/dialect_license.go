package keygen

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// Keygen's bounds of a licence's status.
const (
	expiringWithin = 3 * 24 * time.Hour
	inactiveAfter  = 90 * 24 * time.Hour
)

// Status returns a licence's status by Keygen's rules, in Keygen's order. used is the last time that it was made,
// validated, checked out or checked in.
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

// uses returns all uses, those before the licence's document was made and those since.
func (x *request) uses() int64 {
	n := max(0, x.about.terms.Attributes.Uses)
	for _, p := range x.Pools() {
		if p.Meter && p.Name == MeterUses {
			n += p.InUse
		}
	}
	return n
}

// at returns the path of a resource.
func (x *request) at(parts ...string) string {
	return "/v1/accounts/" + x.accountID() + "/" + strings.Join(parts, "/")
}

// licenseObject returns the licence in the API's form.
func (x *request) licenseObject() object {
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
		if scheme == "SIGN" { // the key's form tells no more; its algorithm does
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
	for name, t := range x.times(attributes) {
		attributes[name] = stamp(t)
		if name != "nextCheckIn" && t.After(used) {
			used = t
		}
	}
	if s.license.Issued.After(used) {
		used = s.license.Issued
	}
	attributes["status"] = s.terms.Status(x.now, used)
	self := func(parts ...string) string { return x.at(append([]string{"licenses", s.id}, parts...)...) }
	machines := x.machines()
	var cores, memory, disk int64
	for _, m := range machines {
		cores, memory, disk = cores+m.Cores, memory+m.Memory, disk+m.Disk
	}
	to := func(kind, id, name string) object { return x.relate(kind, id, "licenses", s.id, name) }
	related := object{"account": x.ofAccount(), "product": to("products", s.productID(), "product"),
		"policy": to("policies", s.policyID(), "policy"), "group": to("", "", "group"), "owner": to("", "", "owner"),
		"users":  object{"meta": object{"count": 0}, "links": object{"related": self("users")}},
		"tokens": object{"links": object{"related": self("tokens")}}}
	if said, _ := s.raw["relationships"].(object); said != nil {
		for name, r := range x.texts(said) {
			if name == "user" {
				name = "owner" // its name until version 1.5
			}
			related[name] = r
		}
	}
	related["machines"] = object{"links": object{"related": self("machines")},
		"meta": object{"count": len(machines), "cores": cores, "memory": memory, "disk": disk}}
	related["entitlements"] = object{"links": object{"related": self("entitlements")}}
	return object{"type": "licenses", "id": s.id, "attributes": attributes, "relationships": related,
		"links": object{"self": self()}}
}

// linked returns a relationship that Keygen wrote, with a link to the related resource.
func linked(r object, path string) object {
	out := object{"links": object{"related": path}}
	maps.Copy(out, r)
	return out
}

func textOf(v any) string { s, _ := v.(string); return s }

// instantOf reads a time of an attribute; zero: there is none.
func instantOf(v any) time.Time {
	t, _ := time.Parse(time.RFC3339, textOf(v))
	return t
}

func (x *request) me() *response { return show(x.licenseObject()) }

func (x *request) showLicense() *response { return show(x.licenseObject()) }

func (x *request) listLicenses() *response { return x.page([]object{x.licenseObject()}) }

// checkInNow answers a product's check-in with the licence and its next time. The duty to the vendor's account stays
// the agent's: it checks in there by itself, and the verdict says OVERDUE where it could not.
func (x *request) checkInNow() *response {
	if !x.about.terms.Attributes.RequireCheckIn {
		return invalid("", "cannot be checked in because the policy does not require it", "/data")
	}
	x.noteTime(func(t *times) { t.CheckedIn = x.now }, 0)
	return show(x.licenseObject())
}

// entitlements returns the licence's entitlements as Keygen wrote them, and its other features.
func (x *request) entitlements() []object {
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
			"relationships": object{"account": x.ofAccount()},
			"links":         object{"self": x.at("entitlements", id)}})
	}
	return out
}

func (x *request) listEntitlements() *response { return x.page(x.entitlements()) }

func (x *request) showEntitlement() *response {
	for _, e := range x.entitlements() {
		if e["id"] == x.args[1] {
			return show(e)
		}
	}
	return notFound("The requested entitlement '" + plugin.Short(x.args[1]) + "' was not found")
}

// policyObject returns the licence's policy as Keygen wrote it, or as the licence's attributes imply it.
func (x *request) policyObject() object {
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
		"relationships": object{"account": x.ofAccount(),
			"product": x.relate("products", s.productID(), "policies", id, "product")},
		"links": object{"self": x.at("policies", id)}}
}

func (x *request) showPolicy() *response { return show(x.policyObject()) }

func (x *request) showPolicyByID() *response {
	if x.args[0] != x.about.policyID() {
		return notFound("The requested policy '" + plugin.Short(x.args[0]) + "' was not found")
	}
	return show(x.policyObject())
}
