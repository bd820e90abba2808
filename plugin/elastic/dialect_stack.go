package elastic

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
)

// stackVersion is the version of Elasticsearch that the root answers: the first whose license API this is.
const stackVersion = "9.0.0"

// stackCalls is the calls of Elasticsearch, by path.
var stackCalls = map[string]map[string]func(*exchange) *answer{
	"":        {http.MethodGet: (*exchange).root, http.MethodHead: (*exchange).root},
	"/_xpack": {http.MethodGet: (*exchange).xpack},
	"/_license": {
		http.MethodGet:    (*exchange).stackGet,
		http.MethodPut:    (*exchange).stackPut,
		http.MethodPost:   (*exchange).stackPut,
		http.MethodDelete: (*exchange).stackDelete,
	},
	"/_license/start_trial":  {http.MethodPost: (*exchange).startTrial},
	"/_license/start_basic":  {http.MethodPost: (*exchange).startBasic},
	"/_license/trial_status": {http.MethodGet: (*exchange).trialStatus},
	"/_license/basic_status": {http.MethodGet: (*exchange).basicStatus},
}

// stack is the style of Elasticsearch.
type stack struct{}

type stackCause struct {
	Type   string `json:"type"`
	Reason string `json:"reason"`
}

type stackError struct {
	Error struct {
		RootCause []stackCause `json:"root_cause"`
		Type      string       `json:"type"`
		Reason    string       `json:"reason"`
	} `json:"error"`
	Status int `json:"status"`
}

// product is the header without which clients take the server for none of Elastic's.
func product() http.Header { return http.Header{"X-Elastic-Product": {"Elasticsearch"}} }

func exception(status int, typ, reason string) *answer {
	e := stackError{Status: status}
	e.Error.Type, e.Error.Reason = typ, reason
	e.Error.RootCause = []stackCause{{typ, reason}}
	return &answer{status: status, header: product(), body: e}
}

const illegalArgument = "illegal_argument_exception"

func (stack) refuse(r refusal, text string) *answer {
	of := map[refusal]struct {
		status int
		typ    string
	}{
		noCredential:  {http.StatusUnauthorized, "security_exception"},
		badCredential: {http.StatusUnauthorized, "security_exception"},
		notAdmin:      {http.StatusForbidden, "security_exception"},
		notThere:      {http.StatusNotFound, "resource_not_found_exception"},
		noMethod:      {http.StatusMethodNotAllowed, "method_not_allowed_exception"},
		tooLarge:      {http.StatusRequestEntityTooLarge, "content_too_long_exception"},
		badBody:       {http.StatusBadRequest, illegalArgument},
		noRoom:        {http.StatusServiceUnavailable, "storage_exception"},
		internal:      {http.StatusInternalServerError, "internal_exception"},
	}[r]
	if r == notThere {
		text += " /_license and those below it"
	}
	out := exception(of.status, of.typ, text)
	if of.status == http.StatusUnauthorized {
		out.header["Www-Authenticate"] = []string{`Basic realm="security", charset="UTF-8"`, "ApiKey"}
	}
	return out
}

// reply is a success.
func (x *exchange) reply(status int, body any) *answer {
	out := &answer{status: status, header: product(), body: body}
	// Clients of the stack name the version that they are compatible with, and want it back.
	if accept := x.r.Header.Get("Accept"); strings.HasPrefix(accept, vendorType) && len(accept) < 100 &&
		!strings.Contains(accept, ",") {
		out.header.Set("Content-Type", accept)
	}
	return out
}

const vendorType = "application/vnd.elasticsearch+json;"

func (x *exchange) root() *answer {
	host := x.Host(x.r.Context(), "")
	return x.reply(http.StatusOK, ordered{
		{"name", cmp.Or(x.say(host.Name), "usher")},
		{"cluster_name", "usher"},
		{"cluster_uuid", host.AgentKey[:min(22, len(host.AgentKey))]},
		{"version", ordered{
			{"number", stackVersion},
			{"build_flavor", "default"},
			{"build_type", "usher"},
			{"build_hash", "unknown"},
			{"build_date", "2025-04-08T00:00:00.000Z"},
			{"build_snapshot", false},
			{"lucene_version", "10.1.0"},
			{"minimum_wire_compatibility_version", "8.18.0"},
			{"minimum_index_compatibility_version", "8.0.0"},
		}},
		{"tagline", "You Know, for Search"},
	})
}

// ordered is an object whose members have an order.
type ordered []member

type member struct {
	name  string
	value any
}

// MarshalJSONTo writes the object.
func (o ordered) MarshalJSONTo(e *jsontext.Encoder) error {
	if err := e.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	for _, m := range o {
		if err := e.WriteToken(jsontext.String(m.name)); err != nil {
			return err
		}
		if err := json.MarshalEncode(e, m.value); err != nil {
			return err
		}
	}
	return e.WriteToken(jsontext.EndObject)
}

// status returns the word that Elasticsearch has for a licence at a time.
func (in *installed) status(now time.Time) string {
	switch f := in.fields; {
	case in.judged.Code == enforcer.Expired, !f.neverExpires() && f.expiry.n < now.UnixMilli():
		return "expired"
	case f.issue.n > now.UnixMilli(), in.judged.Code.State() == enforcer.StateInvalid &&
		in.judged.Code != enforcer.Superseded:
		return "invalid"
	default:
		return "active"
	}
}

// date is a date as Elasticsearch writes it.
func date(millis int64) string {
	return time.UnixMilli(millis).UTC().Format("2006-01-02T15:04:05.000Z")
}

// noLicense is the answer where none is installed.
func (x *exchange) noLicense() *answer { return x.reply(http.StatusNotFound, struct{}{}) }

func (x *exchange) stackGet() *answer {
	switch v := x.r.URL.Query().Get("accept_enterprise"); v {
	case "", "true":
	default:
		return exception(http.StatusBadRequest, illegalArgument,
			"the parameter accept_enterprise is not supported with another value than true")
	}
	all := x.shows(KindStack)
	if len(all) == 0 {
		return x.noLicense()
	}
	in := all[0]
	f, version := in.fields, in.blob.version
	out := ordered{
		{"status", in.status(x.Now())},
		{"uid", f.uid.s},
		{"type", typeShown(f, version)},
		{"issue_date", date(f.issue.n)},
		{"issue_date_in_millis", f.issue.n},
	}
	if !f.neverExpires() {
		out = append(out, member{"expiry_date", date(f.expiry.n)}, member{"expiry_date_in_millis", f.expiry.n})
	}
	if version >= enterpriseSignature {
		out = append(out, member{"max_nodes", f.nodes.pointer()}, member{"max_resource_units", f.units.pointer()})
	} else {
		out = append(out, member{"max_nodes", f.nodes.n})
	}
	start := int64(noStart)
	if version >= startSignedSince {
		start = f.startOrNone()
	}
	out = append(out, member{"issued_to", x.say(f.issuedTo.s)}, member{"issuer", x.say(f.issuer.s)},
		member{"start_date_in_millis", start})
	return x.reply(http.StatusOK, ordered{{"license", out}})
}

// typeShown is a licence's type: that of version 1 is its subscription's.
func typeShown(f *fields, version int32) string {
	if version == 1 {
		return f.subscription.s
	}
	return f.typ.s
}

// put is the answer to a PUT of a licence: 200 whatever became of it.
func (x *exchange) put(acknowledged bool, status string, acknowledge ordered) *answer {
	out := ordered{{"acknowledged", acknowledged}, {"license_status", status}}
	if acknowledge != nil {
		out = append(out, member{"acknowledge", acknowledge})
	}
	return x.reply(http.StatusOK, out)
}

// stackPut installs a stack licence, in the order of checks that Elasticsearch has.
func (x *exchange) stackPut() *answer {
	acknowledged, err := flag(x.r.URL.Query()["acknowledge"])
	switch {
	case err != nil:
		return exception(http.StatusBadRequest, illegalArgument, err.Error())
	case !x.MayInstall(x.r, x.caller):
		return stack{}.refuse(notAdmin, mayNotChange)
	case len(strings.TrimSpace(string(x.body))) == 0:
		return exception(http.StatusBadRequest, illegalArgument, "The license must be provided in the request body")
	}
	all, err := parse(x.body)
	if err != nil {
		return exception(http.StatusBadRequest, illegalArgument, "the license cannot be read: "+err.Error())
	}
	now := x.Now()
	f := newest(all, now)
	document, err := asDocument(f.raw)
	if err != nil {
		return exception(http.StatusBadRequest, illegalArgument, "the license cannot be written down")
	}
	x.changing.Lock()
	defer x.changing.Unlock()
	file := x.name(KindStack)
	j := x.Would(document, file)
	switch {
	case f.issue.n > now.UnixMilli(), f.startOrNone() > now.UnixMilli():
		return x.put(true, "invalid", nil)
	case j.Problem != nil || j.License == nil:
		x.Log().Info("a license that was put is not good", "reason", j.Reason)
		return x.put(true, "invalid", nil)
	case j.License.Terms["kind"] != KindStack:
		return exception(http.StatusBadRequest, illegalArgument, "this is an orchestration licence; put it with "+
			"PUT /api/v1/platform/license")
	case j.License.Features["tier"].Text == typeBasic:
		return exception(http.StatusBadRequest, illegalArgument, "Installing basic licenses is no longer allowed. Use "+
			"the POST /_license/start_basic API to install a basic license that does not expire.")
	case j.Code == enforcer.Expired:
		return x.put(true, "expired", nil)
	}
	if !acknowledged {
		if asks := x.acknowledge(j.License); asks != nil {
			return x.put(false, "valid", asks)
		}
	}
	if !j.InForce {
		return exception(http.StatusBadRequest, illegalArgument, "the license would not count here: "+x.say(j.Reason))
	}
	if denial := x.Install(x.r.Context(), x.caller, document, file); denial != nil {
		if denial.Code == enforcer.Storage {
			return stack{}.refuse(noRoom, denial.Detail)
		}
		return exception(http.StatusBadRequest, illegalArgument, denial.Detail)
	}
	x.Log().Info("a license was put", "license", j.License.ID, "document", cmp.Or(file, j.Document))
	return x.put(true, "valid", nil)
}

// flag reads a query parameter that is on or off.
func flag(values []string) (bool, error) {
	if len(values) == 0 {
		return false, nil
	}
	if values[0] == "" {
		return true, nil
	}
	on, err := strconv.ParseBool(values[0])
	if err != nil || values[0] != "true" && values[0] != "false" {
		return false, fmt.Errorf("the parameter acknowledge is %q, and can only be true or false", values[0])
	}
	return on, nil
}

// newest returns the licence of several that Elasticsearch takes: the latest issued that has not expired, else the
// latest issued.
func newest(all []*fields, now time.Time) *fields {
	lasting := slices.DeleteFunc(slices.Clone(all), func(f *fields) bool {
		return !f.neverExpires() && f.expiry.n < now.UnixMilli()
	})
	if len(lasting) > 0 {
		return latest(lasting)
	}
	return latest(all)
}

// acknowledge returns what a client has to acknowledge before a licence takes the place of the present one; nil:
// nothing.
func (x *exchange) acknowledge(l *enforcer.License) ordered {
	all := x.shows(KindStack)
	if len(all) == 0 || all[0].judged.Code.State() != enforcer.StateValid {
		return nil
	}
	is := all[0].judged.License
	var out ordered
	if is.Issued.After(l.Issued) {
		out = append(out, member{"license", []string{"the new license is older than the one that is installed"}})
	}
	had, has := is.Features["tier"].Text, l.Features["tier"].Text
	if rank(has) < rank(had) {
		var lost []string
		for _, t := range Tiers() {
			if rank(t) > rank(has) && rank(t) <= rank(had) {
				lost = append(lost, "what needs a "+t+" license will no longer be available")
			}
		}
		out = append(out, member{"features", lost})
	}
	if out == nil {
		return nil
	}
	return append(ordered{{"message", "this license takes something away. Read the messages, and put it again with " +
		"the parameter acknowledge=true to install it all the same"}}, out...)
}

// stackDelete takes every stack licence out of the folder. That there is none is no error.
func (x *exchange) stackDelete() *answer {
	if !x.MayInstall(x.r, x.caller) {
		return stack{}.refuse(notAdmin, mayNotChange)
	}
	x.changing.Lock()
	defer x.changing.Unlock()
	all := x.shows(KindStack)
	slices.Reverse(all) // the one that counts goes last, so that no other comes into force meanwhile
	for _, in := range all {
		if denial := x.Remove(x.r.Context(), x.caller, in.judged.Document); denial != nil {
			return stack{}.refuse(noRoom, fmt.Sprintf("document %s cannot be removed: %s", in.judged.Document,
				denial.Detail))
		}
		x.Log().Info("a license was removed", "license", in.judged.License.ID, "document", in.judged.Document)
	}
	return x.reply(http.StatusOK, ordered{{"acknowledged", true}})
}

// notStarted refuses what would have the agent make a licence for itself.
func (x *exchange) notStarted(what string) *answer {
	return x.reply(http.StatusForbidden, ordered{{"acknowledged", true}, {what + "_was_started", false},
		{"error_message",
			"Operation failed: an agent makes no licence for itself; install one that Elastic has signed"}})
}

func (x *exchange) startTrial() *answer { return x.notStarted("trial") }
func (x *exchange) startBasic() *answer { return x.notStarted("basic") }

func (x *exchange) trialStatus() *answer {
	return x.reply(http.StatusOK, ordered{{"eligible_to_start_trial", false}})
}

func (x *exchange) basicStatus() *answer {
	return x.reply(http.StatusOK, ordered{{"eligible_to_start_basic", false}})
}

// xpack is what Kibana asks to learn the licence: the shorter form of it.
func (x *exchange) xpack() *answer {
	var license any
	if all := x.shows(KindStack); len(all) > 0 {
		in := all[0]
		tier := in.judged.License.Features["tier"].Text
		out := ordered{{"uid", in.fields.uid.s}, {"type", typeShown(in.fields, in.blob.version)}, {"mode", tier},
			{"status", in.status(x.Now())}}
		if !in.fields.neverExpires() {
			out = append(out, member{"expiry_date_in_millis", in.fields.expiry.n})
		}
		license = out
	}
	return x.reply(http.StatusOK, ordered{{"build", ordered{{"hash", "unknown"}, {"date", "2025-04-08T00:00:00.000Z"}}},
		{"license", license}, {"features", ordered{}}, {"tagline", "You know, for X"}})
}
