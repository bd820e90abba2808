package api

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// access says who may call a route.
type access int

const (
	anyone  access = iota // everybody who may connect, whatever the allow rules say: probes
	allowed               // callers that the allow rules let in
	admin                 // admins
)

// call is one call of one caller.
type call struct {
	http.ResponseWriter
	req        *http.Request
	peer       *peer
	connection *conn // nil: it is none of this server's
	admin      bool
	rights     *rights
	lease      enforcer.LeaseID // that the path names, where that has been read; else zero
	server     *Server
}

type route struct {
	method, path string
	access       access
	handle       func(*Server, *call)
	query        []string // the parameters behind ? that it reads; nil: none
}

// table is every route. docs/openapi.yaml lists the same, and a test says so.
var table = []route{
	{"GET", "/v1/license", allowed, (*Server).getLicense, nil},
	{"PUT", "/v1/license", admin, (*Server).putLicense, []string{"name", "dry_run"}},
	{"POST", "/v1/license/rollback", admin, (*Server).rollback, []string{"name"}},
	{"POST", "/v1/license/return", admin, (*Server).returnLicense, nil},
	{"POST", "/v1/license/release", admin, (*Server).releaseHost, nil},
	{"DELETE", "/v1/license/documents/{name}", admin, (*Server).deleteDocument, nil},
	{"GET", "/v1/features", allowed, (*Server).getFeatures, nil},
	{"GET", "/v1/features/{name}", allowed, (*Server).getFeature, nil},
	{"GET", "/v1/pools", allowed, (*Server).getPools, nil},
	{"GET", "/v1/pools/{name}", allowed, (*Server).getPool, nil},
	{"PUT", "/v1/pools/{name}", admin, (*Server).adjust, nil},
	{"POST", "/v1/leases", allowed, (*Server).acquire, nil},
	{"GET", "/v1/leases", allowed, (*Server).getLeases, []string{"pool", "uid", "limit", "after"}},
	{"GET", "/v1/leases/{id}", allowed, (*Server).getLease, nil},
	{"PUT", "/v1/leases/{id}", allowed, (*Server).renew, nil},
	{"DELETE", "/v1/leases/{id}", allowed, (*Server).release, []string{"force", "hold_off_seconds"}},
	{"GET", "/v1/waiting", allowed, (*Server).getWaiting, nil},
	{"GET", "/v1/policies", admin, (*Server).getPolicies, nil},
	{"GET", "/v1/policies/explain", admin, (*Server).explainPolicies,
		[]string{"pool", "user", "uid", "group", "exe", "cgroup", "pod", "label"}},
	{"GET", "/v1/fingerprint", allowed, (*Server).getFingerprint, []string{"product"}},
	{"GET", "/v1/keys", allowed, (*Server).getKeys, nil},
	{"GET", "/v1/events", allowed, (*Server).events, nil},
	{"GET", "/v1/config", admin, (*Server).getConfig, nil},
	{"POST", "/v1/reload", admin, (*Server).reload, nil},
	{"GET", "/v1/emergency", admin, (*Server).getEmergencies, nil},
	{"POST", "/v1/emergency", admin, (*Server).beginEmergency, nil},
	{"GET", "/v1/upstream", admin, (*Server).getUpstream, nil},
	{"POST", "/v1/upstream", admin, (*Server).callUpstream, nil},
	{"GET", "/v1/drain", admin, (*Server).getDrain, nil},
	{"POST", "/v1/drain", admin, (*Server).drain, nil},
	{"DELETE", "/v1/drain", admin, (*Server).undrain, nil},
	{"GET", "/v1/usage", admin, (*Server).getUsage, []string{"since", "until", "pool", "signed", "nonce", "by"}},
	{"GET", "/v1/fleet", admin, (*Server).getFleet, nil},
	{"POST", "/v1/fleet/agents/{host}/drain", admin, (*Server).drainHost, nil},
	{"DELETE", "/v1/fleet/agents/{host}/drain", admin, (*Server).drainHost, nil},
	{"POST", "/v1/fleet/agents/{host}/eviction", admin, (*Server).evictHost, nil},
	{"DELETE", "/v1/fleet/agents/{host}/eviction", admin, (*Server).evictHost, nil},
	{"GET", "/v1/clock", allowed, func(s *Server, c *call) { s.answer(c, http.StatusOK, s.operations.Clock()) },
		nil},
	{"GET", "/v1/health", anyone, (*Server).getHealth, nil},
	{"GET", "/v1/ready", anyone, (*Server).getReady, nil},
}

// Route is one line of the table, for tests and documentation.
type Route struct {
	Method, Path string
	Admin        bool
	Query        []string // its parameters behind ?
}

// Routes returns every route, GET /metrics included.
func Routes() []Route {
	var out []Route
	for _, r := range table {
		out = append(out, Route{r.method, r.path, r.access == admin, r.query})
	}
	return append(out, Route{Method: "GET", Path: "/metrics"})
}

// routes makes the handler of the table.
func (s *Server) routes(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	methods := map[string][]string{}
	add := func(r route) {
		mux.HandleFunc(r.method+" "+r.path, func(w http.ResponseWriter, req *http.Request) {
			s.guard(&r, enforcer.LeaseID{}, w, req)
		})
		methods[r.path] = append(methods[r.path], r.method)
	}
	for _, r := range table {
		add(r)
	}
	if metrics != nil {
		add(route{"GET", "/metrics", allowed, func(_ *Server, c *call) { metrics.ServeHTTP(c.ResponseWriter, c.req) },
			[]string{anyQuery}})
	}
	for path, known := range methods {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", strings.Join(known, ", "))
			s.answerDenial(w, &enforcer.Denial{Code: MethodUnknown,
				Detail: fmt.Sprintf("%s is not for %s", plugin.Short(r.Method), plugin.Short(r.URL.Path)),
				Hint:   "use " + strings.Join(known, " or ")})
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.answerDenial(w, &enforcer.Denial{Code: RouteUnknown,
			Detail: fmt.Sprintf("there is no route %s", plugin.Short(r.URL.Path)),
			Hint:   "docs/api.md lists the routes; they begin with /v1/"})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if r, id := commonRoute(req); r != nil {
			s.guard(r, id, w, req)
			return
		}
		mux.ServeHTTP(w, req)
	})
}

// guard lets a caller through to a route, or says why not. id is the lease that the path names, where that is known;
// else zero.
func (s *Server) guard(r *route, id enforcer.LeaseID, w http.ResponseWriter, req *http.Request) {
	k, _ := req.Context().Value(connKey{}).(*conn)
	p, ok := peerOf(req.Context(), k)
	if !ok {
		s.answerDenial(w, &enforcer.Denial{Code: enforcer.Forbidden, Detail: "nothing vouches for the caller"})
		return
	}
	defer func() {
		if e := recover(); e != nil {
			s.recovered(w, r.method+" "+r.path, e)
		}
	}()
	// No browser has business here; a lured one would say where it comes from.
	if first(req.Header["Origin"]) != "" || first(req.Header["Sec-Fetch-Site"]) != "" {
		s.answerDenial(w, &enforcer.Denial{Code: enforcer.Forbidden, Detail: "calls from web pages are refused"})
		return
	}
	may := s.rightsOf(k, p)
	c := &call{w, req, p, k, may.admin, may, id, s}
	switch {
	case r.access == anyone:
	case r.access == admin && !c.admin:
		s.answerDenial(w, &enforcer.Denial{Code: enforcer.Forbidden,
			Detail: fmt.Sprintf("%s %s is for admins, and uid %d is not one", r.method, r.path, p.uid),
			Hint:   "ask as root, as the agent's user, or by a rule under socket.admin"})
		return
	case !may.allowed:
		s.answerDenial(w, notAllowed(p))
		return
	}
	if req.URL.RawQuery != "" {
		if d := r.checkQuery(req.URL.RawQuery); d != nil {
			s.answerDenial(w, d)
			return
		}
	}
	r.handle(s, c)
}

func notAllowed(p *peer) *enforcer.Denial {
	exe := p.exe
	if exe == "" {
		exe = "an executable that cannot be read"
	}
	return &enforcer.Denial{Code: enforcer.Forbidden,
		Detail: fmt.Sprintf("uid %d with %s is not allowed to call", p.uid, exe), Hint: "add a rule under socket.allow"}
}

// peerOf returns the caller of a request. k is the request's connection; nil: it is none of this server's.
func peerOf(ctx context.Context, k *conn) (*peer, bool) {
	if k != nil {
		return &k.peer, true
	}
	p, ok := ctx.Value(peerKey{}).(*peer)
	return p, ok
}

// recovered answers a call that ended in a panic e; nil: it did not.
func (s *Server) recovered(w http.ResponseWriter, what string, e any) {
	if s.fell(what, e) {
		s.answerDenial(w, fallen)
	}
}

// fallen is the answer to a call that ended in a panic.
var fallen = &enforcer.Denial{Code: Internal, Detail: "the agent could not answer; its log says more"}

// fell logs a panic e, and reports whether there was one.
func (s *Server) fell(what string, e any) bool {
	if e == nil {
		return false
	}
	if e == http.ErrAbortHandler { // net/http looks for the value itself
		panic(e)
	}
	s.log.Error("a call ended in a panic; please report it", "route", what, "panic", fmt.Sprint(e), "stack",
		string(debug.Stack()))
	return true
}

// OpsHandler answers operators' tools where the caller is not known: /metrics, /healthz and /readyz.
func OpsHandler(p Probes, metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	probe := func(ok func() bool) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			if !ok() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			health := p.Health()
			fmt.Fprintln(w, health.Status)
			for _, u := range health.Unready {
				fmt.Fprintln(w, u.Part+": "+u.Reason)
			}
		}
	}
	mux.HandleFunc("GET /healthz", probe(func() bool { return true }))
	mux.HandleFunc("GET /readyz", probe(p.Ready))
	return mux
}

func (s *Server) getHealth(c *call) { s.answer(c, http.StatusOK, s.operations.Health()) }

func (s *Server) getReady(c *call) {
	status := http.StatusOK
	if !s.operations.Ready() {
		status = http.StatusServiceUnavailable
	}
	s.answer(c, status, s.operations.Health())
}

func (s *Server) getKeys(c *call) { s.answer(c, http.StatusOK, s.operations.Keys(c.admin)) }

func (s *Server) getConfig(c *call) {
	s.answer(c, http.StatusOK, wire.Settings{Settings: s.operations.Settings()})
}

func (s *Server) reload(c *call) {
	out, d := s.operations.Reload(c.req.Context())
	if d != nil {
		s.answerDenial(c, d)
		return
	}
	s.answer(c, http.StatusOK, out)
}

func (s *Server) getUpstream(c *call) {
	s.answer(c, http.StatusOK, wire.UpstreamPreview{Requests: s.operations.Preview()})
}

func (s *Server) callUpstream(c *call) {
	if d := s.wait(c, upstreamWithin); d != nil {
		s.answerDenial(c, d)
		return
	}
	s.answer(c, http.StatusOK, s.operations.CallUpstream(c.req.Context()))
}

func (s *Server) getFingerprint(c *call) {
	product := c.req.URL.Query().Get("product")
	if len(product) > 256 {
		s.answerDenial(c, badRequest("product", "", "product has %d bytes, and the most is 256", len(product)))
		return
	}
	if product != "" { // measuring another product's fingerprint reads disks
		done, err := s.measuring.take(c.req.Context(), c.peer.key())
		if err != nil {
			return // it has hung up
		}
		defer done()
	}
	s.answer(c, http.StatusOK, s.operations.Fingerprint(c.req.Context(), product))
}
