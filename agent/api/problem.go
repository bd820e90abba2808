package api

import (
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/agent/naming"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// Codes of problems that are the API's own, beside the enforcer's.
const (
	RouteUnknown  enforcer.DenialCode = "route_unknown"
	MethodUnknown enforcer.DenialCode = "method_unknown"
	Internal      enforcer.DenialCode = "internal"
	// Unauthenticated: on a listener over TCP, nothing vouches for the caller.
	Unauthenticated enforcer.DenialCode = "unauthenticated"
	// AgentUnknown: a fleet has no agent of that name.
	AgentUnknown enforcer.DenialCode = "agent_unknown"
	// FleetUnavailable: there is no fleet, or its store does not do what was asked.
	FleetUnavailable enforcer.DenialCode = "fleet_unavailable"
)

// statuses is the HTTP status of every code.
var statuses = map[enforcer.DenialCode]int{
	enforcer.NoSlots: 409, enforcer.NotShared: 409, enforcer.MeterEmpty: 409, enforcer.TokenReused: 409,
	enforcer.LicenseMissing: 403, enforcer.LicenseInvalid: 403, enforcer.LicenseExpired: 403,
	enforcer.PoolUnknown: 404, enforcer.LeaseUnknown: 404,
	enforcer.NotHolder: 403, enforcer.DeniedByPolicy: 403, enforcer.HeldOff: 409, enforcer.Forbidden: 403,
	enforcer.TooLarge: 413, enforcer.BadRequest: 400, enforcer.Storage: 507, enforcer.Draining: 503,
	enforcer.RateLimited: 429,
	RouteUnknown:         404, MethodUnknown: 405, enforcer.DocumentUnknown: 404, enforcer.DocumentRefused: 422,
	enforcer.EmergencyRefused: 409,
	Internal:                  500, Unauthenticated: 401, AgentUnknown: 404, FleetUnavailable: 503,
}

// titles is one short phrase for every code (RFC 9457 §3.1.3).
var titles = map[enforcer.DenialCode]string{
	enforcer.NoSlots: "No slots free", enforcer.NotShared: "Not provably shared", enforcer.MeterEmpty: "Meter empty",
	enforcer.TokenReused:    "Client token reused",
	enforcer.LicenseMissing: "No licence", enforcer.LicenseInvalid: "Licence not valid",
	enforcer.LicenseExpired: "Licence expired",
	enforcer.PoolUnknown:    "Unknown pool", enforcer.LeaseUnknown: "Unknown lease",
	enforcer.NotHolder: "Not the holder", enforcer.DeniedByPolicy: "Denied by policy", enforcer.HeldOff: "Held off",
	enforcer.Forbidden: "Forbidden",
	enforcer.TooLarge:  "Too large", enforcer.BadRequest: "Bad request", enforcer.Storage: "Not stored",
	enforcer.Draining: "Shutting down", enforcer.RateLimited: "Too much at once",
	RouteUnknown: "Unknown route", MethodUnknown: "Unknown method", enforcer.DocumentUnknown: "Unknown document",
	enforcer.DocumentRefused: "Document refused", enforcer.EmergencyRefused: "No emergency", Internal: "Internal error",
	Unauthenticated: "Not authenticated", AgentUnknown: "Unknown agent", FleetUnavailable: "Fleet not available",
}

// Codes returns the HTTP status of every code that a problem may have.
func Codes() map[enforcer.DenialCode]int {
	out := make(map[enforcer.DenialCode]int, len(statuses))
	for c, s := range statuses {
		out[c] = s
	}
	return out
}

// ProblemPage is the page that explains problems; with the code behind it, it is a problem's type (RFC 9457 §3.1.1).
const ProblemPage = "https://github.com/usher-agent/usher/blob/main/docs/errors.md#"

// now returns licence time. All times of denials, leases and events are in it.
func (s *Server) now() time.Time { return s.operations.Clock().Time }

// problem puts a denial into its wire form.
func (s *Server) problem(d *enforcer.Denial) *wire.Problem {
	status := statuses[d.Code]
	if status == 0 {
		status = http.StatusInternalServerError
	}
	p := &wire.Problem{Type: ProblemPage + string(d.Code), Title: titles[d.Code],
		Status: status,
		Code:   string(d.Code), Detail: d.Detail, Field: d.Field, Hint: d.Hint, Rule: d.Rule}
	if d.HasUsage {
		p.Limit, p.InUse = count(d.Limit), new(d.InUse)
	}
	if d.Code == enforcer.NoSlots || d.Code == enforcer.DeniedByPolicy && d.Waited > 0 {
		p.WaitedSeconds = new(d.Waited.Seconds())
	}
	if !d.Next.IsZero() {
		p.RetryAfterSeconds = new(max(0, math.Ceil(d.Next.Sub(s.now()).Seconds())))
	}
	if v := d.Verdict; v != nil {
		p.Verdict = &wire.Verdict{State: string(v.State), Code: string(v.Code), Reason: v.Reason,
			Until: Instant(v.Until)}
	}
	return p
}

// marshal writes a shape as JSON, equal ones byte by byte alike. Bytes that are no UTF-8, as a file's name or an
// executable's path may have them, become U+FFFD. What is said of the program bears its
// name.
func marshal(shape any) ([]byte, error) {
	b, err := json.Marshal(shape, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	return naming.Bytes(b), err
}

// answerDenial writes a denial as a problem (RFC 9457).
func (s *Server) answerDenial(w http.ResponseWriter, d *enforcer.Denial) {
	p := s.problem(d)
	c, ok := w.(*call)
	if ok {
		p.Holders = s.holdersOf(d, c.peer, c.admin)
	}
	if !ok || !c.admin {
		conceal(p)
	}
	b, err := marshal(p)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	b = append(b, '\n') // for people who read it in a terminal
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	if d.Code == Unauthenticated {
		h.Set("WWW-Authenticate", `Bearer realm="usher"`)
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	if p.RetryAfterSeconds != nil {
		h.Set("Retry-After", strconv.Itoa(int(*p.RetryAfterSeconds)))
	}
	w.WriteHeader(p.Status)
	w.Write(b)
}

// answer writes a shape as JSON. It returns an error where the kernel says that the caller does not have it.
func (s *Server) answer(w http.ResponseWriter, status int, shape any) error {
	var b []byte
	var err error
	switch shape := shape.(type) {
	case wire.Lease:
		b = appendLease(make([]byte, 0, 512), &shape)
	default:
		if c, ok := w.(*call); ok {
			shape = shown(c.admin, shape)
		}
		b, err = marshal(shape)
	}
	if err != nil {
		s.log.Error("an answer cannot be written as JSON", "error", err)
		s.answerDenial(w, &enforcer.Denial{Code: Internal, Detail: "the answer cannot be written"})
		return nil
	}
	b = append(b, '\n')
	h := w.Header()
	h["Content-Type"] = jsonType
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, err = w.Write(b)
	return err
}

var jsonType = []string{"application/json"}

// Instant is a time as the wire has it: in UTC, and absent where it is zero.
func Instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}

func count(l enforcer.Limit) *int64 {
	if l == enforcer.Unlimited {
		return nil
	}
	return new(int64(l))
}
