package brainframe

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/redact"
)

// version is the version of BrainFrame whose API this is.
const version = "0.30.5"

// Dialect answers BrainFrame's API for licences and for the analysis of streams, for clients of a BrainFrame server. A
// stream under analysis is a slot of the pool streams, for licences of every system.
type Dialect struct {
	Inclusive bool // a licence is good on its expiration_date
}

var (
	_ plugin.CredentialsChecker = Dialect{}
	_ plugin.Refuser            = Dialect{}
)

// System returns "brainframe".
func (Dialect) System() string { return System }

// Credential returns "a user and password".
func (Dialect) Credential() string { return "a user and password" }

// Handler answers BrainFrame's API; see [plugin.Dialect].
func (d Dialect) Handler(desk plugin.Desk) http.Handler {
	return &server{Desk: desk, inclusive: d.Inclusive, sessions: newSessions(desk.Key())}
}

// server is the API of one agent.
type server struct {
	plugin.Desk
	inclusive bool
	sessions  sessions
	streams   streams
	shown     atomic.Pointer[shown]
}

// shown is what is shown of a verdict: clients ask for it without a pause.
type shown struct {
	verdict *enforcer.Verdict
	body    []byte
}

// request is one request with its caller.
type request struct {
	*server
	r *http.Request
	w http.ResponseWriter
	// caller owns the streams; user is the caller with the rights of the user by whose credential the request came.
	caller, user enforcer.Caller
	stream       int64 // of the path
}

// route is a call of the API: a method and the parts of its path after "api". {id} is a stream's id.
type route struct {
	method, path string
	serve        func(*request) *answer
}

var routes = []route{
	{http.MethodGet, "version", func(*request) *answer { return &answer{body: []byte(`"` + version + `"`)} }},
	{http.MethodGet, "license", (*request).license},
	{http.MethodPut, "license", (*request).putLicense},
	{http.MethodGet, "streams/{id}/analyze", (*request).analyzing},
	{http.MethodPut, "streams/{id}/analyze", (*request).analyze},
	{http.MethodGet, "cloud_user", func(*request) *answer {
		return failed(http.StatusNotFound, CloudUserNotFound, "no user of a cloud is known here")
	}},
}

// ServeHTTP answers a request. The API may stand below any path, and slashes may be doubled, as clients send them.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &request{server: s, r: r, w: w}
	x.answer().write(w)
}

func (a *answer) write(w http.ResponseWriter) {
	body := a.body
	if a.fault != nil {
		said := Fault{a.fault.Title, redact.Text(strings.ToValidUTF8(a.fault.Description, "?"))}
		body, _ = json.Marshal(said) // of two valid texts it does not fail
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if a.status != 0 {
		w.WriteHeader(a.status)
	}
	_, _ = w.Write(body) // nobody can be told that the caller is gone
}

func (x *request) answer() *answer {
	var parts []string
	for p := range strings.SplitSeq(x.r.URL.Path, "/") {
		if p != "" {
			parts = append(parts, p)
		}
	}
	at := slices.Index(parts, "api")
	if at < 0 {
		return failed(http.StatusNotFound, NotImplemented, "BrainFrame's API stands below api/")
	}
	serve, a := x.find(parts[at+1:])
	if serve == nil {
		return a
	}
	if a := x.authenticate(); a != nil {
		return a
	}
	return serve(x)
}

// find returns what serves a path and the request's method.
func (x *request) find(parts []string) (func(*request) *answer, *answer) {
	status := http.StatusNotFound
	for _, rt := range routes {
		if !x.matches(strings.Split(rt.path, "/"), parts) {
			continue
		}
		if rt.method == x.r.Method {
			return rt.serve, nil
		}
		status = http.StatusMethodNotAllowed
	}
	return nil, failed(status, NotImplemented, "this agent answers the licence and the analysis of streams alone")
}

func (x *request) matches(pattern, parts []string) bool {
	if len(pattern) != len(parts) {
		return false
	}
	for i, p := range pattern {
		if p == parts[i] {
			continue
		}
		id, ok := streamID(parts[i])
		if p != "{id}" || !ok {
			return false
		}
		x.stream = id
	}
	return true
}

// verdict returns the verdict of this instant; nil: there has been none.
func (s *server) verdict() *enforcer.Verdict {
	v := s.Verdict()
	if v == nil || v.Until.IsZero() {
		return v
	}
	now := s.Now()
	next := v.Next
	for len(next) > 0 && !next[0].JudgedAt.After(now) {
		v, next = next[0], next[1:]
	}
	return v
}

// license shows the licence: its state, and the terms that are in force together.
func (s *server) license() *answer {
	v := s.verdict()
	if c := s.shown.Load(); c != nil && c.verdict == v && v != nil {
		return &answer{body: c.body}
	}
	b, err := json.Marshal(infoOf(v, s.inclusive))
	if err != nil {
		s.Log().Error("the licence cannot be shown", "error", err)
		return failed(http.StatusInternalServerError, UnknownError, "the licence cannot be shown; the agent's log "+
			"says more")
	}
	s.shown.Store(&shown{v, b})
	return &answer{body: b}
}

func (x *request) license() *answer { return x.server.license() }

// large reports whether reading a body failed because the body is too large.
func large(err error) bool {
	var e *http.MaxBytesError
	return errors.As(err, &e)
}
