package elastic

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
)

// The codes of the API of Elastic Cloud Enterprise.
const (
	codeInvalidLicense = "license.invalid_license"
	codeNoLicense      = "license.license_not_found"
)

// platformLicense is the calls of GET, PUT and DELETE /platform/license.
var platformLicense = map[string]func(*exchange) *answer{
	http.MethodGet:    (*exchange).platformGet,
	http.MethodPut:    (*exchange).platformPut,
	http.MethodDelete: (*exchange).platformDelete,
}

// ece is the style of Elastic Cloud Enterprise.
type ece struct{}

type eceError struct {
	Code    string   `json:"code"`
	Message string   `json:"message"`
	Fields  []string `json:"fields,omitempty"`
}

type eceErrors struct {
	Errors []eceError `json:"errors"`
}

// failed is an error of the API. The fields are paths such as body.license.uid.
func failed(status int, code, message string, fields ...string) *answer {
	return &answer{status: status, header: http.Header{"X-Cloud-Error-Codes": {code}},
		body: eceErrors{[]eceError{{code, message, fields}}}}
}

func invalidLicense(message string, fields ...string) *answer {
	return failed(http.StatusBadRequest, codeInvalidLicense, message, fields...)
}

func (ece) refuse(r refusal, text string) *answer {
	of := map[refusal]struct {
		status int
		code   string
	}{
		noCredential:  {http.StatusUnauthorized, "root.unauthenticated"},
		badCredential: {http.StatusUnauthorized, "root.unauthenticated"},
		notAdmin:      {http.StatusForbidden, "root.unauthorized"},
		notThere:      {http.StatusNotFound, "root.resource_not_found"},
		noMethod:      {http.StatusMethodNotAllowed, "root.method_not_allowed"},
		tooLarge:      {http.StatusRequestEntityTooLarge, codeInvalidLicense},
		badBody:       {http.StatusBadRequest, codeInvalidLicense},
		noRoom:        {http.StatusServiceUnavailable, "root.storage"},
		internal:      {http.StatusInternalServerError, "root.internal_server_error"},
	}[r]
	if r == notThere {
		text += " /api/v1/platform/license and /api/v1/regions/REGION/platform/license"
	}
	out := failed(of.status, of.code, text)
	if of.status == http.StatusUnauthorized {
		out.header.Set("WWW-Authenticate", "ApiKey")
	}
	return out
}

// platformInfo is the model LicenseInfo. Dates are milliseconds since the Unix epoch.
type platformInfo struct {
	Version          *int64           `json:"version,omitempty"`
	UID              string           `json:"uid"`
	Issuer           string           `json:"issuer"`
	IssuedTo         string           `json:"issued_to"`
	Issued           int64            `json:"issue_date_in_millis"`
	Type             string           `json:"type"`
	SubscriptionType *string          `json:"subscription_type,omitempty"`
	Signature        string           `json:"signature"`
	Start            int64            `json:"start_date_in_millis"`
	Expiry           int64            `json:"expiry_date_in_millis"`
	Allocators       *int64           `json:"max_allocators,omitempty"`
	RAM              *int64           `json:"max_ram_per_allocator_mb,omitempty"`
	Instances        *int64           `json:"max_instances,omitempty"`
	Units            *int64           `json:"max_resource_units,omitempty"`
	OperationMode    *string          `json:"operation_mode,omitempty"`
	Clusters         []jsontext.Value `json:"cluster_licenses"`
}

// platformObject is the model LicenseObject.
type platformObject struct {
	License platformInfo  `json:"license"`
	Usage   platformUsage `json:"usage_stats"`
}

type platformUsage struct {
	Memory int32 `json:"total_connected_memory_total"` // MiB
}

func (n number) pointer() *int64 {
	if !n.set {
		return nil
	}
	return &n.n
}

func (x *exchange) pointer(w word) *string {
	if !w.set {
		return nil
	}
	return new(x.say(w.s))
}

func (x *exchange) platformGet() *answer {
	all := x.shows(KindOrchestration)
	if len(all) == 0 {
		return x.noPlatformLicense()
	}
	f := all[0].fields
	out := platformObject{Usage: platformUsage{x.memory()}, License: platformInfo{
		Version: f.version.pointer(), UID: f.uid.s, Issuer: x.say(f.issuer.s), IssuedTo: x.say(f.issuedTo.s),
		Issued: f.issue.n, Type: f.typ.s, SubscriptionType: x.pointer(f.subscription), Signature: f.signature.s,
		Start: f.start.n, Expiry: f.expiry.n, Allocators: f.allocators.pointer(), RAM: f.ram.pointer(),
		Instances: f.instances.pointer(), Units: f.units.pointer(), OperationMode: x.pointer(f.operation),
		Clusters: f.clusters}}
	if out.License.Clusters == nil {
		out.License.Clusters = []jsontext.Value{}
	}
	if !x.mayKnow() {
		out.License.Signature, out.License.Clusters = hidden, []jsontext.Value{}
	}
	return &answer{status: http.StatusOK, body: out}
}

// hidden stands for a signature that the caller may not have: with it the licence could be installed elsewhere.
const hidden = "(hidden)"

// memory returns how much memory is held, in MiB: to the MiB where leases hold parts of units or instances.
func (x *exchange) memory() int32 {
	var total int64
	for _, p := range x.Pools() {
		of := map[string]int64{PoolUnits: unitMiB, PoolInstances: instanceMiB}[p.Name]
		switch {
		case of == 0 || p.Meter:
		case p.Quantum == of:
			total += min(p.Parts, math.MaxInt32)
		default: // another system's pool of that name
			total += min(p.InUse, math.MaxInt32/of) * of
		}
	}
	return int32(min(total, math.MaxInt32))
}

func (x *exchange) noPlatformLicense() *answer {
	why := "put one with PUT, or into the licence folder"
	if v := x.Verdict(); v != nil && v.State != enforcer.StateValid && v.Code != enforcer.NotFound {
		why = "what is in the licence folder is none: " + x.say(v.Reason)
	}
	return failed(http.StatusNotFound, codeNoLicense, "no platform licence is installed; "+why)
}

// platformPut installs an orchestration licence. One that is expired, not yet good, or older than another document that
// counts is refused, and what is in force stays.
func (x *exchange) platformPut() *answer {
	if !x.MayInstall(x.r, x.caller) {
		return ece{}.refuse(notAdmin, mayNotChange)
	}
	name, license, ok := find(x.body)
	if whole(x.body) != nil || !ok || name != "license" || license.Kind() != '{' {
		return invalidLicense("the body is no object with a licence as its member license", "body.license")
	}
	f, err := parseFields(license)
	if err != nil {
		return invalidLicense(err.Error(), field(err))
	}
	if wrong := f.wrongForPlatform(); wrong != nil {
		return wrong
	}
	x.changing.Lock()
	defer x.changing.Unlock()
	document, err := asDocument(license)
	if err != nil {
		return invalidLicense("the licence cannot be written down", "body.license")
	}
	file := x.name(KindOrchestration)
	j := x.Would(document, file)
	switch {
	case j.Problem != nil:
		return invalidLicense("the licence is not good: "+j.Problem.Reason, "body.license.signature")
	case j.License == nil || j.License.Terms["kind"] != KindOrchestration:
		return invalidLicense(stackForPlatform, "body.license.type")
	case j.Code == enforcer.Expired:
		return invalidLicense("the licence has expired: "+j.Reason, "body.license.expiry_date_in_millis")
	case j.Code == enforcer.NotYetValid:
		return invalidLicense("the licence is not good yet: "+j.Reason, "body.license.start_date_in_millis")
	case j.Code == enforcer.Superseded || j.Spare:
		return invalidLicense("a licence that was issued later lies in the licence folder and counts: "+j.Reason,
			"body.license.issue_date_in_millis")
	case !j.InForce:
		return invalidLicense("the licence would not count here: "+j.Reason, "body.license")
	}
	if denial := x.Install(x.r.Context(), x.caller, document, file); denial != nil {
		return x.notInstalled(denial)
	}
	x.Log().Info("a platform licence was put", "license", j.License.ID, "document", cmp.Or(file, j.Document))
	return &answer{status: http.StatusOK, body: struct{}{}}
}

const stackForPlatform = "this is a licence of the stack, for Elasticsearch; a platform takes an orchestration licence"

// asDocument is a licence as it lies in the licence folder.
func asDocument(license jsontext.Value) ([]byte, error) {
	return json.Marshal(map[string]jsontext.Value{"license": license})
}

// field is the path of what is wrong with a licence in a body.
func field(err error) string {
	var f *fault
	if errors.As(err, &f) && f.member != "" {
		return "body.license." + f.member
	}
	return "body.license"
}

// wrongForPlatform checks what the API's model demands, and that no limits of different versions are mixed; nil: it is
// right.
func (f *fields) wrongForPlatform() *answer {
	var missing []string
	for _, m := range []struct {
		name string
		has  bool
	}{{"uid", f.uid.s != ""}, {"type", f.typ.s != ""}, {"issuer", f.issuer.set}, {"issued_to", f.issuedTo.set},
		{"issue_date_in_millis", f.issue.set}, {"start_date_in_millis", f.start.set},
		{"expiry_date_in_millis", f.expiry.set}, {"signature", f.signature.s != ""}} {
		if !m.has {
			missing = append(missing, "body.license."+m.name)
		}
	}
	if len(missing) > 0 {
		return invalidLicense("the licence lacks what each has", missing...)
	}
	if !orchestrates(f.typ.s) {
		return invalidLicense(stackForPlatform, "body.license.type")
	}
	// The limits by the version that has them: allocators and memory below 3, instances at 3, units above.
	present := []struct {
		name   string
		has    bool
		fits   func(version int64) bool
		family int
	}{
		{"max_allocators", f.allocators.n != 0, func(v int64) bool { return v < 3 }, 1},
		{"max_ram_per_allocator_mb", f.ram.n != 0, func(v int64) bool { return v < 3 }, 1},
		{"max_instances", f.instances.n != 0, func(v int64) bool { return v == 3 }, 2},
		{"max_resource_units", f.units.n != 0, func(v int64) bool { return v > 3 }, 3},
	}
	var mixed, unfit []string
	families := map[int]bool{}
	for _, p := range present {
		if !p.has {
			continue
		}
		families[p.family] = true
		mixed = append(mixed, "body.license."+p.name)
		if f.version.set && !p.fits(f.version.n) {
			unfit = append(unfit, "body.license."+p.name)
		}
	}
	const rule = "max_allocators and max_ram_per_allocator_mb are of licences before version 3, max_instances of " +
		"version 3, max_resource_units of later ones"
	switch {
	case len(families) > 1:
		return invalidLicense("the licence mixes limits of different versions: "+rule, mixed...)
	case len(unfit) > 0:
		return invalidLicense(fmt.Sprintf("the licence is of version %d, and has a limit of another: %s", f.version.n,
			rule), unfit...)
	case families[1]:
		return invalidLicense(tooOld().Reason, mixed...)
	}
	return nil
}

// notInstalled is what keeps a licence that was found good from being put.
func (x *exchange) notInstalled(denial *enforcer.Denial) *answer {
	text := strings.TrimSuffix(denial.Detail+"; "+denial.Hint, "; ")
	switch denial.Code {
	case enforcer.Forbidden:
		return ece{}.refuse(notAdmin, text)
	case enforcer.Storage:
		return ece{}.refuse(noRoom, text)
	default:
		return invalidLicense(text, "body.license")
	}
}

// platformDelete takes every orchestration licence out of the folder.
func (x *exchange) platformDelete() *answer {
	if !x.MayInstall(x.r, x.caller) {
		return ece{}.refuse(notAdmin, mayNotChange)
	}
	x.changing.Lock()
	defer x.changing.Unlock()
	all := x.shows(KindOrchestration)
	if len(all) == 0 {
		return x.noPlatformLicense()
	}
	slices.Reverse(all) // the one that counts goes last, so that no other comes into force meanwhile
	for _, in := range all {
		if denial := x.Remove(x.r.Context(), x.caller, in.judged.Document); denial != nil {
			return ece{}.refuse(noRoom, fmt.Sprintf("document %s cannot be removed: %s", in.judged.Document,
				denial.Detail))
		}
		x.Log().Info("a platform licence was removed", "license", in.judged.License.ID, "document",
			in.judged.Document)
	}
	return &answer{status: http.StatusOK, body: struct{}{}}
}
