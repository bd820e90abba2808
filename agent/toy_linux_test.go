package agent_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/usher-agent/usher/agent"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// toy is a dialect whose API is the desk itself, in JSON.
type toy struct{ system string }

func (d toy) System() string { return d.system }

func (d toy) Handler(desk plugin.Desk) http.Handler { return &toyHandler{desk} }

// toyKeys is a toy that knows its callers by a header, too.
type toyKeys struct{ toy }

func (toyKeys) Credential() string { return "a toy key" }

type toyHandler struct{ plugin.Desk }

// toyRequest is the body of every request.
type toyRequest struct {
	Pool     string            `json:"pool"`
	N        int64             `json:"n"`
	Lifetime enforcer.Lifetime `json:"lifetime"`
	TTL      float64           `json:"ttl"`
	Wait     float64           `json:"wait"`
	Until    time.Time         `json:"until,omitzero"`
	Token    string            `json:"token"`
	Data     string            `json:"data"`
	By       int64             `json:"by"`
	Changes  []plugin.Change   `json:"changes"`
	Text     string            `json:"text"`
}

// toyReply is what every request is answered.
type toyReply struct {
	Code     enforcer.DenialCode `json:"code,omitempty"`
	Detail   string              `json:"detail,omitempty"`
	ID       string              `json:"id,omitempty"`
	N        int64               `json:"n,omitempty"`
	Expires  time.Time           `json:"expires,omitzero"`
	Data     string              `json:"data,omitempty"`
	Replayed bool                `json:"replayed,omitempty"`
	Leases   []toyReply          `json:"leases,omitempty"`
	Drawn    int64               `json:"drawn,omitempty"`
	Error    string              `json:"error,omitempty"`
	Keys     []string            `json:"keys,omitempty"`
	Value    string              `json:"value,omitempty"`
	Found    bool                `json:"found,omitempty"`
	Signed   []byte              `json:"signed,omitempty"`
	Host     plugin.Host         `json:"host,omitzero"`
	Echo     map[string]string   `json:"echo,omitempty"`
}

func (h *toyHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in toyRequest
	if r.ContentLength != 0 {
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			var large *http.MaxBytesError
			if errors.As(err, &large) {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				return
			}
			w.WriteHeader(http.StatusBadRequest)
			return
		}
	}
	caller, vouched := h.Caller(r)
	if key := r.Header.Get("Toy-Key"); key != "" {
		known, err := h.Credentials(r)
		if err != nil || known != nil && !slices.Contains(strings.Fields(string(known)), key) {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		caller, vouched = h.CallerBy(r, key), true
	}
	out := toyReply{}
	if !vouched && !strings.HasPrefix(r.URL.Path, "/echo") {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	what, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch r.Method + " " + what {
	case "GET panic":
		if _, _, d := h.Acquire(r.Context(),
			&enforcer.Acquire{Caller: caller, Pool: "streams", N: 1, Lifetime: enforcer.LifetimeHeld}, nil); d != nil {
			w.WriteHeader(http.StatusConflict)
			return
		}
		panic("a toy is broken")
	case "POST lease", "PUT lease", "PATCH lease", "DELETE lease", "GET lease", "GET leases":
		out = h.leases(r, what, rest, caller, &in)
	default:
		var known bool
		if out, known = h.others(r, what, rest, caller, &in); !known {
			out.Echo = map[string]string{"method": r.Method, "target": r.RequestURI, "host": r.Host,
				"authorization": r.Header.Get("Authorization"),
				"uid":           fmt.Sprint(caller.UID), "pid": fmt.Sprint(caller.PID), "credential": caller.Credential,
				"vouched": fmt.Sprint(vouched)}
		}
	}
	w.Header().Set("Toy-Target", r.RequestURI)
	json.NewEncoder(w).Encode(out)
}

// leases answers a request about leases.
func (h *toyHandler) leases(r *http.Request, what, rest string, caller enforcer.Caller, in *toyRequest) (out toyReply) {
	id, _ := enforcer.ParseLeaseID(rest)
	denied := func(d *enforcer.Denial) {
		if d != nil {
			out = toyReply{Code: d.Code, Detail: d.Detail}
		}
	}
	switch r.Method + " " + what {
	case "POST lease":
		l, replayed, d := h.Acquire(r.Context(), &enforcer.Acquire{Caller: caller, Pool: in.Pool, N: in.N,
			Lifetime: in.Lifetime, TTL: span(in.TTL), Wait: span(in.Wait),
			Until: in.Until, Token: in.Token}, []byte(in.Data))
		if out.Replayed = replayed; l != nil {
			out = toyLease(l)
			out.Replayed = replayed
		}
		denied(d)
	case "PUT lease":
		l, d := h.Renew(&enforcer.Renew{ID: id, Caller: caller, TTL: span(in.TTL)})
		if l != nil {
			out = toyLease(l)
		}
		denied(d)
	case "PATCH lease":
		denied(h.SetData(id, caller, []byte(in.Data)))
	case "DELETE lease":
		// a cause is not the dialect's to say
		denied(h.Release(&enforcer.Release{ID: id, Caller: caller, Cause: enforcer.CauseForced}))
	case "GET lease":
		if l, ok := h.Lease(id, caller); ok {
			out = toyLease(l)
			out.Found = true
		}
	case "GET leases":
		for _, l := range h.Leases(caller) {
			out.Leases = append(out.Leases, toyLease(l))
		}
	}
	return out
}

// others answers a request about anything else, or says that it is none.
func (h *toyHandler) others(r *http.Request, what, rest string, caller enforcer.Caller, in *toyRequest) (
	out toyReply, known bool) {
	denied := func(d *enforcer.Denial) {
		if d != nil {
			out = toyReply{Code: d.Code, Detail: d.Detail}
		}
	}
	switch r.Method + " " + what {
	case "POST adjust":
		drawn, d := h.Adjust(in.Pool, in.By, caller)
		out.Drawn = drawn
		denied(d)
	case "POST store":
		if err := h.Store().Apply(in.Changes...); err != nil {
			out.Error = err.Error()
		}
	case "GET store":
		v, ok := h.Store().Get(rest)
		out.Value, out.Found = string(v), ok
		h.Store().Range(rest, func(k string, _ []byte) bool { out.Keys = append(out.Keys, k); return true })
	case "POST sign":
		out.Signed = ed25519.Sign(h.Key(), []byte(in.Text))
	case "GET host":
		out.Host = h.Host(r.Context(), in.Pool)
	case "GET document":
		out.Value = string(h.Document(h.Verdict().Licenses[0].Document))
	case "PUT document":
		denied(h.Install(r.Context(), caller, []byte(in.Text), ""))
	case "DELETE document":
		denied(h.Remove(r.Context(), caller, rest))
	default:
		return out, false
	}
	return out, true
}

func toyLease(l *enforcer.Lease) toyReply {
	return toyReply{ID: l.ID.String(), N: l.Items[0].N, Expires: l.ExpiresAt, Data: string(l.Data.Bytes)}
}

func span(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

// toyAgent is the environment variable that makes an agent with toys of this test program: the path of its
// configuration file.
const toyAgent = "TOY_AGENT_CONFIG"

var toys = []plugin.Dialect{toy{"toy"}, toy{"other"}, toyKeys{toy{"keys"}}}

func init() {
	testDialects = toys
	file := os.Getenv(toyAgent)
	if file == "" {
		return
	}
	cfg, err := config.Load(config.Source{File: file})
	var a *agent.Agent
	if err == nil {
		a, err = agent.New(agent.Options{Config: cfg, Dialects: toys, Version: "test"})
	}
	if err == nil {
		ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		err = a.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
