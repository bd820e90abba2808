package ucloud

import (
	"crypto/rsa"
	"errors"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Dialect answers UCloud's licence API (users, provider's control, and the provider's local socket) for licences of
// every system. Each pool is a product. A licence resource holds no slot by itself: each job that is bound to it holds
// one.
type Dialect struct {
	Provider string            // its id; empty: DefaultProvider
	Products []ProductSettings // the records of pools; a pool without one is a product of its own name
}

var (
	_ plugin.CredentialsChecker = Dialect{}
	_ plugin.Refuser            = Dialect{}
	_ plugin.Labeller           = Dialect{}
)

// System returns "ucloud".
func (Dialect) System() string { return System }

// Label returns "job": a lease that bears it is of a job.
func (Dialect) Label() string { return labelJob }

// Credential returns "a UCloud token".
func (Dialect) Credential() string { return "a UCloud token" }

// CheckCredentials reports a credentials_file that holds no key for tokens.
func (Dialect) CheckCredentials(file []byte) error {
	_, err := parseKey(file)
	return err
}

// Handler answers the API; see [plugin.Dialect].
func (d Dialect) Handler(desk plugin.Desk) http.Handler {
	return &local{Desk: desk, dialect: d}
}

// tokenKey checks tokens: exactly one of the two is set.
type tokenKey struct {
	secret []byte         // HS512
	public *rsa.PublicKey // RS256
}

// local is the API of one agent.
type local struct {
	plugin.Desk
	dialect Dialect

	// making is held while licences change, so that no two get the same id and no job is bound twice.
	making sync.Mutex
}

// request is one request with its caller.
type request struct {
	*local
	r    *http.Request
	body []byte
	who  *identity
	jobs map[holder][]bound // the leases by holder, read once for a request
	live map[int64][]string // the jobs that hold slots by licence, read once for a request; nil: not read yet
	// granted says that the request was granted a slot, whose grant is looked at again before the answer.
	granted bool
	undo    []func()
}

// route is one call of the API.
type route struct {
	control bool // for providers
	serve   func(*request) (any, *Fault)
}

const (
	userBase    = "/api/licenses"
	controlBase = userBase + "/control"
)

var routes = map[string]route{
	"GET " + userBase + "/browse":            {false, (*request).browse},
	"GET " + userBase + "/retrieve":          {false, (*request).retrieve},
	"GET " + userBase + "/retrieveProducts":  {false, (*request).retrieveProducts},
	"POST " + userBase + "/search":           {false, (*request).search},
	"POST " + userBase:                       {false, (*request).create},
	"DELETE " + userBase:                     {false, (*request).delete},
	"POST " + userBase + "/init":             {false, func(*request) (any, *Fault) { return Empty{}, nil }},
	"POST " + userBase + "/updateAcl":        {false, (*request).updateACL},
	"POST " + userBase + "/updateLabels":     {false, (*request).updateLabels},
	"GET " + controlBase + "/browse":         {true, (*request).browse},
	"GET " + controlBase + "/retrieve":       {true, (*request).retrieve},
	"POST " + controlBase + "/update":        {true, (*request).update},
	"POST " + controlBase + "/register":      {true, (*request).register},
	"POST " + controlBase + "/updateLabels":  {true, (*request).updateLabels},
	"POST " + controlBase + "/chargeCredits": {true, (*request).chargeCredits},
	"POST " + controlBase + "/checkCredits":  {true, (*request).checkCredits},
}

func (s *local) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &request{local: s, r: r}
	if op, ok := operation(r); ok {
		x.ipc(w, op)
		return
	}
	out, f := x.answer()
	if f == nil && x.granted {
		if d := x.Late(r); d != nil {
			f = denied(d, "")
		}
	}
	if f != nil {
		write(w, f.Status, f)
		return
	}
	write(w, http.StatusOK, out)
}

// Refuse answers what the agent refuses before the handler is asked; see [plugin.Refuser].
func (Dialect) Refuse(w http.ResponseWriter, r *http.Request, status int, d *enforcer.Denial) {
	f := refuse(status, d.Detail)
	if status == http.StatusUnauthorized {
		f.Why = "Unauthorized: " + d.Detail
	}
	if _, ok := operation(r); ok {
		w.Header().Set(ErrorHeader, f.Why)
	}
	write(w, status, f)
}

// operation returns the operation of the provider's socket that a request asks for.
func operation(r *http.Request) (op string, ok bool) {
	op, ok = strings.CutPrefix(path.Clean("/"+r.URL.Path), "/licenses.")
	return op, ok && r.Method == http.MethodPost
}

// write writes an answer.
func write(w http.ResponseWriter, status int, out any) {
	b, err := json.Marshal(out, json.Deterministic(true))
	if err != nil { // of none of the types here
		status, b = http.StatusInternalServerError, []byte(`{"statusCode":500,"why":"Internal error","errorCode":null}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(b) // a caller that has gone needs no answer
}

func (x *request) answer() (any, *Fault) {
	if serve, ok := x.orchestrated(x.r); ok {
		return x.answerCore(serve)
	}
	// A base address that ends in / makes //api/… of the path.
	rt, ok := routes[x.r.Method+" "+path.Clean("/"+x.r.URL.Path)]
	if !ok {
		return nil, errGone
	}
	if f := x.read(); f != nil {
		return nil, f
	}
	var f *Fault
	if x.who, f = x.identify(); f != nil {
		return nil, f
	}
	if provider := x.who.role == ProviderRole; x.who.token && provider != rt.control && x.who.role != roleService {
		return nil, refuse(http.StatusForbidden, "Forbidden")
	}
	return rt.serve(x)
}

// read reads the body.
func (x *request) read() *Fault {
	var err error
	if x.body, err = io.ReadAll(x.r.Body); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return refuse(http.StatusRequestEntityTooLarge, "The request is too large")
		}
		return errBad
	}
	return nil
}

// maxBulk is how many items a bulk request may have.
const maxBulk = 1000

// bulk reads the items of a bulk request.
func bulk[T any](x *request) ([]T, *Fault) {
	var in Bulk[T]
	if f := decode(x.body, &in); f != nil {
		return nil, f
	}
	switch n := len(in.Items); {
	case n == 0:
		return nil, refuse(http.StatusBadRequest, "Request must not be empty")
	case n > maxBulk:
		return nil, refuse(http.StatusBadRequest, "Request must not have more than 1000 items")
	}
	return in.Items, nil
}
