package keygen

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Dialect answers Keygen's API (1.8) locally, for products that use a Keygen SDK. Machines, processes and uses are
// leases of the pools and draws of the meter with those names, for licences of every system.
type Dialect struct{}

var _ plugin.CredentialsChecker = Dialect{}

// CheckCredentials names the line of a credentials_file that is too short for a credential.
func (Dialect) CheckCredentials(file []byte) error {
	n := 0
	for line := range bytes.Lines(file) {
		n++
		if line = bytes.TrimSpace(line); len(line) > 0 && len(line) < plugin.MinCredential {
			return fmt.Errorf(
				"line %d: the credential has %d bytes, and must have at least %d; `openssl rand -hex 32` makes one",
				n, len(line), plugin.MinCredential)
		}
	}
	return nil
}

// System returns "keygen".
func (Dialect) System() string { return System }

// Credential returns "a licence key".
func (Dialect) Credential() string { return "a licence key" }

// Handler answers Keygen's API; see [plugin.Dialect].
func (Dialect) Handler(desk plugin.Desk) http.Handler {
	return &local{Desk: desk, signer: desk.Key(), lastTimes: map[string]times{}}
}

// local is the API of one agent.
type local struct {
	plugin.Desk
	signer ed25519.PrivateKey

	// making is held while a machine or process is made or changes its lease, so that no two get the same fingerprint
	// or pid.
	making sync.Mutex

	timesMu   sync.Mutex       // guards lastTimes; a leaf
	lastTimes map[string]times // by the store's key
}

// request is one request with its caller and licence.
type request struct {
	*local
	r       *http.Request
	body    []byte
	account string // as the path names it; empty: it names none
	path    []string
	args    []string // the parts of the path at the asterisks of the route
	caller  enforcer.Caller
	key     string // the valid licence key that the request showed; empty: none
	proven  bool   // the key is the licence's own, so the caller knows it
	about   *subject
	now     time.Time
	limits  map[string]string // the codes for full pools, of the acquire
}

// route is one call of the API.
type route struct {
	method  string
	pattern string // * is an id, of a licence also its key
	open    bool   // needs no credential
	lasting bool   // is answered also when the licence is suspended or over: it keeps or gives back
	serve   func(*request) *response
}

var routes = []route{
	{"GET", "ping", true, true, func(*request) *response { return &response{status: http.StatusOK} }},
	{"GET", "health", true, true, (*request).relayHealth},
	{"GET", "me", false, false, (*request).me},
	{"POST", "licenses/actions/validate-key", true, true, (*request).validateKey},
	{"GET", "licenses", false, false, (*request).listLicenses},
	{"GET", "licenses/*", false, false, (*request).showLicense},
	{"GET", "licenses/*/actions/validate", false, false, (*request).validateQuick},
	{"POST", "licenses/*/actions/validate", false, false, (*request).validateScoped},
	{"POST", "licenses/*/actions/check-in", false, false, (*request).checkInNow},
	{"GET", "licenses/*/actions/check-out", false, false, (*request).checkOutLicense},
	{"POST", "licenses/*/actions/check-out", false, false, (*request).checkOutLicense},
	{"POST", "licenses/*/actions/increment-usage", false, false, (*request).increment},
	{"POST", "licenses/*/actions/decrement-usage", false, false, (*request).decrement},
	{"POST", "licenses/*/actions/reset-usage", false, false, (*request).resetUsage},
	{"POST", "licenses/*/actions/renew", false, false, notHere(
		"licences are renewed by the vendor: put the renewed licence into the licence folder, or let the upstream " +
			"bring it")},
	{"POST", "licenses/*/actions/suspend", false, false, notHere("only the vendor suspends licences")},
	{"POST", "licenses/*/actions/reinstate", false, false, notHere("only the vendor reinstates licences")},
	{"POST", "licenses", false, false, notHere(
		"licences are made by the vendor: put the document into the licence folder")},
	{"PATCH", "licenses/*", false, false, notHere("a licence's terms are signed, and only the vendor changes them")},
	{"DELETE", "licenses/*", false, false,
		notHere("licences are revoked by the vendor; take one out of use on the agent's host with `license remove`")},
	{"DELETE", "licenses/*/actions/revoke", false, false,
		notHere("licences are revoked by the vendor; take one out of use on the agent's host with `license remove`")},
	{"GET", "licenses/*/machines", false, false, (*request).listMachines},
	{"GET", "licenses/*/entitlements", false, false, (*request).listEntitlements},
	{"GET", "licenses/*/entitlements/*", false, false, (*request).showEntitlement},
	{"GET", "licenses/*/policy", false, false, (*request).showPolicy},
	{"GET", "licenses/*/product", false, false, (*request).showProduct},
	{"GET", "licenses/*/owner", false, false, (*request).showOwner},
	{"GET", "licenses/*/user", false, false, (*request).showOwner}, // its name until version 1.5
	{"GET", "licenses/*/users", false, false, (*request).listUsers},
	{"GET", "policies/*", false, false, (*request).showPolicyByID},
	{"GET", "policies/*/product", false, false, (*request).showProduct},
	{"GET", "machines", false, false, (*request).listMachines},
	{"POST", "machines", false, false, (*request).createMachine},
	{"GET", "machines/*", false, true, (*request).showMachine},
	{"DELETE", "machines/*", false, true, (*request).deleteMachine},
	{"PATCH", "machines/*", false, false, (*request).updateMachine},
	{"POST", "machines/*/actions/ping", false, true, (*request).pingMachine},
	{"POST", "machines/*/actions/ping-heartbeat", false, true, (*request).pingMachine},
	{"POST", "machines/*/actions/reset", false, true, (*request).resetMachine},
	{"POST", "machines/*/actions/reset-heartbeat", false, true, (*request).resetMachine},
	{"GET", "machines/*/actions/check-out", false, false, (*request).checkOutMachine},
	{"POST", "machines/*/actions/check-out", false, false, (*request).checkOutMachine},
	{"GET", "machines/*/processes", false, true, (*request).listProcesses},
	{"GET", "machines/*/components", false, true, (*request).listComponents},
	{"GET", "machines/*/license", false, false,
		ofResource((*request).askedMachine, noMachineOf, (*request).licenseOf)},
	{"GET", "machines/*/product", false, false,
		ofResource((*request).askedMachine, noMachineOf, (*request).productOf)},
	{"GET", "machines/*/owner", false, false, ofResource((*request).askedMachine, noMachineOf, (*request).ownerOf)},
	{"GET", "components", false, true, (*request).listComponents},
	{"GET", "components/*", false, true, (*request).showComponent},
	{"GET", "components/*/machine", false, true,
		ofResource((*request).askedComponent, noComponentOf, (*request).machineOf)},
	{"GET", "components/*/license", false, false,
		ofResource((*request).askedComponent, noComponentOf, (*request).licenseOf)},
	{"GET", "components/*/product", false, false,
		ofResource((*request).askedComponent, noComponentOf, (*request).productOf)},
	{"GET", "processes", false, true, (*request).listProcesses},
	{"GET", "processes/*/machine", false, true,
		ofResource((*request).askedProcess, noProcessOf, (*request).machineOf)},
	{"GET", "processes/*/license", false, false,
		ofResource((*request).askedProcess, noProcessOf, (*request).licenseOf)},
	{"GET", "processes/*/product", false, false,
		ofResource((*request).askedProcess, noProcessOf, (*request).productOf)},
	{"POST", "processes", false, false, (*request).createProcess},
	{"GET", "processes/*", false, true, (*request).showProcess},
	{"DELETE", "processes/*", false, true, (*request).deleteProcess},
	{"POST", "processes/*/actions/ping", false, true, (*request).pingProcess},
	{"PUT", "nodes/*", false, true, (*request).claimNode},
	{"DELETE", "nodes/*", false, true, (*request).releaseNode},
}

func notHere(why string) func(*request) *response {
	return func(*request) *response { return forbidden("", why) }
}

// find returns the route of a request, or the status of the refusal.
func find(method string, path []string) (rt *route, args []string, status int) {
	status = http.StatusNotFound
	for i := range routes {
		parts := strings.Split(routes[i].pattern, "/")
		if len(parts) != len(path) {
			continue
		}
		var found []string
		ok := true
		for j, p := range parts {
			if p == "*" {
				found = append(found, path[j])
			} else if p != path[j] {
				ok = false
			}
		}
		switch {
		case !ok:
		case routes[i].method == method:
			return &routes[i], found, 0
		default:
			status = http.StatusMethodNotAllowed
		}
	}
	return nil, nil, status
}

// split parses a path into its account, which may be missing, and the parts after it. ok is false outside of /v1.
func split(escaped string) (account string, parts []string, ok bool) {
	rest, ok := strings.CutPrefix(escaped, "/v1/")
	if !ok {
		return "", nil, false
	}
	for p := range strings.SplitSeq(strings.TrimSuffix(rest, "/"), "/") {
		if p, err := url.PathUnescape(p); err == nil {
			parts = append(parts, p)
		}
	}
	if len(parts) > 2 && parts[0] == "accounts" {
		account, parts = parts[1], parts[2:]
	}
	// A signed licence key contains a "/": key/D.S.
	if len(parts) > 2 && parts[0] == "licenses" && parts[1] == "key" {
		parts = append([]string{parts[0], "key/" + parts[2]}, parts[3:]...)
	}
	return account, parts, true
}

func (s *local) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &request{local: s, r: r, now: s.Now()}
	a := x.answer()
	x.write(w, a)
}

func (x *request) answer() *response {
	var ok bool
	if x.account, x.path, ok = split(x.r.URL.EscapedPath()); !ok {
		return notFound("The requested endpoint was not found")
	}
	if v, ok := askedVersion(x.r); !ok {
		return problem(http.StatusBadRequest, "INVALID_API_VERSION",
			"unsupported API version: "+plugin.Short(v)+" (here it is one of "+strings.Join(versions, ", ")+")",
			"header",
			"Keygen-Version")
	}
	rt, args, status := find(x.r.Method, x.path)
	if rt == nil {
		if status == http.StatusMethodNotAllowed {
			return problem(status, "", "the resource does not support this method", "", "")
		}
		return notFound("The requested endpoint was not found")
	}
	x.args = args
	var err error
	if x.body, err = io.ReadAll(x.r.Body); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return problem(http.StatusRequestEntityTooLarge, "", "the request body is too large", "", "")
		}
		return problem(http.StatusBadRequest, "", "the request body could not be read", "", "")
	}
	if !rt.open {
		if a := x.authenticate(rt.lasting); a != nil {
			return a
		}
		if !rt.lasting {
			if a := cmp.Or(x.elsewhere(), x.about.shut()); a != nil {
				return a
			}
		}
		if x.path[0] == "licenses" && len(args) > 0 && args[0] != x.about.id && (x.key == "" || args[0] != x.key) &&
			!x.about.opens(args[0]) {
			return notFound("The requested license '" + plugin.Short(args[0]) + "' was not found")
		}
		x.seat()
	}
	return rt.serve(x)
}

// shown returns the credential of a request. The kind is "license" or "token"; empty: there is none.
func shown(r *http.Request) (kind, secret string) {
	of := func(kind, secret string) (string, string) {
		switch strings.ToLower(kind) {
		case "license":
			return "license", secret
		case "token", "bearer":
			return "token", secret
		}
		return "", ""
	}
	if user, password, ok := r.BasicAuth(); ok {
		return of(user, password)
	}
	if h := r.Header.Get("Authorization"); h != "" {
		scheme, rest, _ := strings.Cut(h, " ")
		return of(scheme, strings.TrimSpace(rest))
	}
	if q := r.URL.Query().Get("auth"); q != "" {
		kind, secret, _ := strings.Cut(q, ":")
		return of(kind, secret)
	}
	return "", ""
}

// authenticate finds the caller and the licence; nil: it has found both. A lasting call needs no licence, and accepts a
// key that leases were taken with while it was good.
func (x *request) authenticate(lasting bool) *response {
	kind, secret := shown(x.r)
	caller, vouched := x.Caller(x.r)
	if secret == "" && !vouched {
		return unauthorized("TOKEN_MISSING", "You must be authenticated to complete the request")
	}
	if secret == "" {
		x.caller, x.about = caller, x.subject("")
	} else {
		about, ok, listed, err := x.known(secret, vouched)
		switch {
		case err != nil:
			x.Log().Error("the credentials file cannot be read", "error", err)
			return problem(http.StatusInternalServerError, "",
				"the listener's credentials_file cannot be read; the agent's log says more", "", "")
		case !ok && lasting && len(x.Leases(x.CallerBy(x.r, secret))) > 0:
		case !ok && kind == "token":
			return unauthorized("TOKEN_INVALID", "Token is invalid")
		case !ok:
			return unauthorized("LICENSE_INVALID", "License key is invalid")
		}
		x.caller, x.about = x.CallerBy(x.r, secret), about
		if kind == "license" {
			x.key, x.proven = secret, about.own(secret, listed)
		}
	}
	if x.about == nil && lasting {
		x.about = &subject{verdict: &enforcer.Verdict{}, judged: &enforcer.Judged{}, license: &enforcer.License{}}
	}
	if x.about != nil {
		x.about.key = x.key
	} else {
		return unauthorized("LICENSE_INVALID", "There is no licence here: "+x.reason())
	}
	return nil
}

// known reports whether a credential is good, and returns its licence; nil: there is none. A licence that states its
// key's digest accepts that key. Other keys are good if the credentials file lists them. Without such a file, a caller
// that the agent knows anyway may show any key, unless the licence states a digest. listed says that the credentials
// file has the key.
func (x *request) known(secret string, vouched bool) (s *subject, ok, listed bool, err error) {
	if s := x.subject(secret); s != nil && s.opens(secret) {
		return s, true, false, nil
	}
	lines, err := x.Credentials(x.r)
	if err != nil {
		return nil, false, false, err
	}
	s = x.subject("")
	if lines != nil {
		right := 0
		for line := range bytes.Lines(lines) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				right |= subtle.ConstantTimeCompare(line, []byte(secret))
			}
		}
		return s, right == 1, right == 1, nil
	}
	return s, vouched && (s == nil || s.digest == ""), false, nil
}

// reason explains why there is no licence.
func (x *request) reason() string {
	if v := x.Verdict(); v != nil && v.Reason != "" {
		return v.Reason
	}
	return "the licence folder has not been read yet"
}

// incoming is a request's document.
type incoming struct {
	Data *resource      `json:"data"`
	Meta jsontext.Value `json:"meta"`
}

// document reads the request's document. An empty body is an empty document.
func (x *request) document() (*incoming, *response) {
	in := &incoming{}
	if len(bytes.TrimSpace(x.body)) == 0 {
		return in, nil
	}
	if err := json.Unmarshal(x.body, in); err != nil {
		return nil, problem(http.StatusBadRequest, "",
			"the request could not be parsed: "+plugin.JSONFault(err, "member").Error(), "",
			"")
	}
	return in, nil
}

// meta reads the document's meta into to.
func (x *request) meta(to any) *response {
	in, a := x.document()
	if a != nil || len(in.Meta) == 0 || string(in.Meta) == "null" {
		return a
	}
	if err := json.Unmarshal(in.Meta, to); err != nil {
		return problem(http.StatusBadRequest, "", plugin.JSONFault(err, "member").Error(), "pointer", "/meta")
	}
	return nil
}

// page cuts a list to the page that was asked for: limit, or page[size] and page[number].
func (x *request) page(all []object) *response {
	q := x.r.URL.Query()
	number := func(name string, usual, most int) int {
		n, err := strconv.Atoi(cmp.Or(q.Get(name), strconv.Itoa(usual)))
		if err != nil {
			return usual
		}
		return max(1, min(n, most))
	}
	size := number("limit", 10, 100)
	from := 0
	if q.Has("page[size]") || q.Has("page[number]") {
		size = number("page[size]", 10, 100)
		from = (number("page[number]", 1, 1<<20) - 1) * size
	}
	from = min(from, len(all))
	all = all[from:min(len(all), from+size)]
	if all == nil {
		all = []object{}
	}
	return reply(object{"data": all, "links": object{"self": strings.ToValidUTF8(x.r.URL.RequestURI(), "?")}})
}
