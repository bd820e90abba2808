package elastic

import (
	"bytes"
	"cmp"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/redact"
)

// Dialect answers locally what ECE answers of its platform licence, and Elasticsearch of its own. Neither API takes
// slots: it installs, shows and removes licences, and tells what is in use.
type Dialect struct{}

var _ plugin.CredentialsChecker = Dialect{}

// System returns "elastic".
func (Dialect) System() string { return System }

// Credential returns "an API key, or a user and password".
func (Dialect) Credential() string { return "an API key, or a user and password" }

// CheckCredentials says which line of a credentials_file is too short to be a credential.
func (Dialect) CheckCredentials(file []byte) error {
	n := 0
	for line := range bytes.Lines(file) {
		n++
		if line = bytes.TrimSpace(line); len(line) > 0 && len(line) < plugin.MinCredential {
			return fmt.Errorf("line %d: a credential has %d bytes, and must have %d at least; `openssl rand -hex 32` "+
				"makes a good one", n, len(line), plugin.MinCredential)
		}
	}
	return nil
}

// Handler answers both APIs; see [plugin.Dialect].
func (Dialect) Handler(desk plugin.Desk) http.Handler { return &local{Desk: desk} }

// local is the APIs of one agent.
type local struct {
	plugin.Desk
	changing sync.Mutex // held while a licence is put or removed, so that each sees what the other has done
}

// exchange is one request and what is known of it.
type exchange struct {
	*local
	r      *http.Request
	caller enforcer.Caller
	proven bool // by a credential
	body   []byte
}

// answer is what a request is answered with.
type answer struct {
	status int
	body   any // to be written as JSON; nil: none
	header http.Header
}

// style is how one of the two APIs says what is the same in both.
type style interface {
	// refuse is a refusal that both APIs have.
	refuse(r refusal, text string) *answer
}

// refusal is why a request is not served, whatever it asks.
type refusal int

const (
	noCredential refusal = iota // nobody knows the caller
	badCredential
	notAdmin
	notThere // there is no such call
	noMethod
	tooLarge
	badBody
	noRoom // it cannot be stored
	internal
)

// route is one call.
type route struct {
	style style
	serve map[string]func(*exchange) *answer // by method
}

// callOf returns the call of a path.
func callOf(path string) route {
	path = strings.TrimSuffix(path, "/")
	if rest, ok := strings.CutPrefix(path, "/api/v1/"); ok {
		parts := strings.Split(rest, "/")
		if len(parts) > 2 && parts[0] == "regions" && parts[1] != "" {
			parts = parts[2:]
		}
		if slices.Equal(parts, []string{"platform", "license"}) {
			return route{ece{}, platformLicense}
		}
		return route{style: ece{}}
	}
	if rest, ok := strings.CutPrefix(path, "/_xpack/license"); ok {
		path = "/_license" + rest
	}
	return route{stack{}, stackCalls[path]}
}

func (s *local) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{local: s, r: r}
	x.answer().write(w)
}

func (x *exchange) answer() *answer {
	rt := callOf(x.r.URL.Path)
	if refused := x.authenticate(rt.style); refused != nil {
		return refused
	}
	serve := rt.serve[x.r.Method]
	switch {
	case rt.serve == nil:
		return rt.style.refuse(notThere, "there is no such call here; the licence calls are")
	case serve == nil:
		out := rt.style.refuse(noMethod, "this cannot be done to it")
		var allowed []string
		for m := range rt.serve {
			allowed = append(allowed, m)
		}
		slices.Sort(allowed)
		out.header.Set("Allow", strings.Join(allowed, ", "))
		return out
	}
	var err error
	if x.body, err = io.ReadAll(x.r.Body); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return rt.style.refuse(tooLarge, fmt.Sprintf("the body has more than %d bytes", large.Limit))
		}
		return rt.style.refuse(badBody, "the body could not be read")
	}
	return serve(x)
}

// authenticate finds out who asks; nil: it is known. Where the kernel or the listener vouches for the caller, a
// credential that it shows as well decides nothing: clients cannot be made without one.
func (x *exchange) authenticate(s style) *answer {
	if c, ok := x.Caller(x.r); ok {
		x.caller = c
		return nil
	}
	secrets := shown(x.r.Header.Get("Authorization"))
	if len(secrets) == 0 {
		return s.refuse(noCredential, "no credential is shown: give an API key, or a user and password")
	}
	file, err := x.Credentials(x.r)
	if err != nil {
		x.Log().Error("no credential can be checked", "error", err)
		return s.refuse(internal, "the listener's credentials_file cannot be read; the agent's log says more")
	}
	for line := range bytes.Lines(file) {
		line = bytes.TrimSpace(line)
		for _, secret := range secrets {
			if len(line) >= plugin.MinCredential && subtle.ConstantTimeCompare(line, []byte(secret)) == 1 {
				// The user, or the id of an API key, names the caller; a key without an id is a name of its own.
				name, _, _ := strings.Cut(secret, ":")
				x.caller, x.proven = x.CallerBy(x.r, name), true
				return nil
			}
		}
	}
	return s.refuse(badCredential, "the credential is none that is known here")
}

// shown returns the credentials that an Authorization header can mean: what it says, and what that is the base64 of. An
// API key of Elasticsearch and Basic credentials are sent so.
func shown(header string) []string {
	scheme, secret, _ := strings.Cut(header, " ")
	secret = strings.TrimSpace(secret)
	known := []string{"apikey", "bearer", "basic"}
	if secret == "" || !slices.Contains(known, strings.ToLower(scheme)) {
		return nil
	}
	out := []string{secret}
	if raw, err := base64.StdEncoding.DecodeString(secret); err == nil {
		out = append(out, string(raw))
	}
	return out
}

// mayKnow reports whether the caller may have the document itself. To others its signature is not said, and what are
// secrets and e-mail addresses is hidden: docs/privacy.md has it.
func (x *exchange) mayKnow() bool { return x.proven || x.MayInstall(x.r, x.caller) }

// say is a text of the licence as the caller may know it.
func (x *exchange) say(s string) string {
	if x.mayKnow() {
		return s
	}
	return redact.Text(s)
}

// mayNotChange is why a caller changes no licence.
const mayNotChange = "licences are changed by admins, on a Unix socket (root, the agent's user, or a rule under " +
	"socket.admin), and over TCP by credentials that the listener names under installers"

func (a *answer) write(w http.ResponseWriter) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	var b []byte
	if a.body != nil {
		var err error
		if b, err = json.Marshal(a.body); err != nil {
			a.status, b = http.StatusInternalServerError, []byte("{}")
		}
		b = append(b, '\n')
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(a.status)
	w.Write(b)
}

// installed is a licence of one kind that lies in the folder.
type installed struct {
	judged enforcer.Judged
	fields *fields // as the document says it
	blob   *blob
}

// shows returns the licences of a kind that verify, the one that counts first: in force, else good, else the latest
// issued.
func (x *exchange) shows(kind string) (out []installed) {
	v := x.Verdict()
	if v == nil {
		return nil
	}
	for _, j := range v.Licenses {
		if j.License == nil || j.License.System != System || j.License.Terms["kind"] != kind ||
			j.Problem != nil && !j.Problem.Stale {
			continue
		}
		in := installed{judged: j}
		if all, err := parse(x.Document(j.Document)); err == nil {
			in.fields = latest(all)
			if in.blob, err = parseBlob(in.fields.signature.s); err != nil || in.fields.uid.s != j.License.ID {
				in.fields = nil
			}
		}
		if in.fields != nil { // else its file is being replaced
			out = append(out, in)
		}
	}
	slices.SortStableFunc(out, func(a, b installed) int {
		return cmp.Or(before(a.judged.InForce, b.judged.InForce),
			before(a.judged.Code.State() == enforcer.StateValid, b.judged.Code.State() == enforcer.StateValid),
			b.judged.License.Issued.Compare(a.judged.License.Issued))
	})
	return out
}

func before(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	default:
		return 1
	}
}

// name is what a new licence of a kind is called in the folder: what the one is that it takes the place of.
func (x *exchange) name(kind string) string {
	for _, in := range x.shows(kind) {
		if in.judged.Document != "" {
			return in.judged.Document
		}
	}
	return ""
}
