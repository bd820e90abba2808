// Package client takes slots from an Usher agent and gives them back. It needs the standard library alone.
//
//	session, err := client.Open(ctx) // USHER_SOCKET, else the default socket
//	if err != nil { … }              // no agent: client.ErrAgentAway
//	defer session.Close()
//
//	lease, err := session.Acquire(ctx, client.Slots("streams", 1))
//	if errors.Is(err, client.ErrNoSlots) { … }
//	defer lease.Close()
//	select {
//	case <-work:
//	case <-lease.Done(): // revoked or lost: see lease.Err
//	}
//
// Most products need no more than this. A lease lives as long as this process: it needs no renewal, and its slots come
// back milliseconds after the process dies, for whatever cause. The session finds the agent again after a restart, and
// its leases stay. With [WithVendor], the agent must prove that the vendor's licence names it. With [FailOpen], the
// product may go on without an agent. A refusal is an [*Error]; [errors.Is] compares it with a [Code]. [Client] speaks
// HTTP, one call at a time, for admins and tools.
package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// DefaultSocket is the path of the agent's socket unless its configuration names another.
const DefaultSocket = "/run/usher/usher.sock"

// SocketOf returns the socket of the agent that a vendor ships under a name of its own, for [New] and [WithSocket]: the
// one in USHER_SOCKET, so that an operator can move it, else /run/NAME/INSTANCE/NAME.sock, as the packages' units have
// it. An empty instance is that of an agent without instances. The name usher is that of the agent's own package.
func SocketOf(name, instance string) string {
	return cmp.Or(bare(os.Getenv("USHER_SOCKET")), path.Join("/run", name, instance, name+".sock"))
}

// Code is the stable code of a problem. It is an error, so that errors.Is(err, client.ErrNoSlots) works.
type Code string

// Error returns the code.
func (c Code) Error() string { return string(c) }

// The codes of an agent's answers.
const (
	ErrNoSlots          Code = "no_slots"
	ErrNotShared        Code = "not_shared"
	ErrMeterEmpty       Code = "meter_empty"
	ErrLicenseMissing   Code = "license_missing"
	ErrLicenseInvalid   Code = "license_invalid"
	ErrLicenseExpired   Code = "license_expired"
	ErrPoolUnknown      Code = "pool_unknown"
	ErrLeaseUnknown     Code = "lease_unknown"
	ErrNotHolder        Code = "not_holder"
	ErrDeniedByPolicy   Code = "denied_by_policy"
	ErrHeldOff          Code = "held_off"
	ErrForbidden        Code = "forbidden"
	ErrTokenReused      Code = "token_reused"
	ErrTooLarge         Code = "too_large"
	ErrBadRequest       Code = "bad_request"
	ErrStorage          Code = "storage"
	ErrDraining         Code = "draining"
	ErrRateLimited      Code = "rate_limited"
	ErrDocumentUnknown  Code = "document_unknown"
	ErrDocumentRefused  Code = "document_refused"
	ErrEmergencyRefused Code = "emergency_refused"
	ErrRouteUnknown     Code = "route_unknown"
	ErrMethodUnknown    Code = "method_unknown"
	ErrInternal         Code = "internal"
	ErrAgentUnknown     Code = "agent_unknown"
	ErrFleetUnavailable Code = "fleet_unavailable"
)

// The codes of the client's own errors.
const (
	ErrAgentAway Code = "agent_away" // no agent answers
	// the agent cannot prove that the vendor's licence names it, or that it granted the lease
	ErrNotProven Code = "not_proven"
	ErrForked    Code = "forked" // the session is the parent's: open one after forking
	ErrClosed    Code = "closed" // the session is closed
)

// Error is a refusal by the agent, or reports that no agent answers.
type Error struct {
	wire.Problem
	cause error
}

// Error returns the detail: one sentence for people.
func (e *Error) Error() string { return e.Detail }

// Is reports whether target is the problem's Code.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && string(c) == e.Code
}

// Unwrap returns the cause, if the agent could not be reached.
func (e *Error) Unwrap() error { return e.cause }

// Client speaks HTTP with one agent. It is safe for concurrent use and keeps connections open; call Close when done.
type Client struct {
	socket string
	http   *http.Client
	within time.Duration // for how long the agent may be silent; 0: for ever
	inVain atomic.Bool   // the last call ended so
}

// New returns a client of the agent on a socket; empty means the one in USHER_SOCKET, else [DefaultSocket]. It connects
// at the first call.
func New(socket string) *Client {
	socket = socketOr(socket)
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute,
	}}}
}

// socketOr returns path or, if it is empty, the default socket.
func socketOr(path string) string {
	return cmp.Or(path, bare(os.Getenv("USHER_SOCKET")), DefaultSocket)
}

// bare takes off a variable's value what shells and files of variables leave around it: white space, a carriage return,
// a pair of quotes.
func bare(s string) string {
	s = strings.TrimSpace(s)
	if n := len(s); n > 1 && s[0] == s[n-1] && (s[0] == '"' || s[0] == '\'') {
		s = strings.TrimSpace(s[1 : n-1])
	}
	return s
}

// Socket returns the path of the agent's socket.
func (c *Client) Socket() string { return c.socket }

// Close closes the connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// maxAnswer is the greatest number of bytes that the client reads of one answer.
const maxAnswer = 256 << 20

// do makes one call. in is the body: nil for none, []byte unchanged, anything else as JSON. out receives the answer
// unless it is nil.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	res, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body := io.LimitReader(res.Body, maxAnswer)
	if raw, ok := out.(*[]byte); ok {
		if *raw, err = io.ReadAll(body); err != nil {
			return cmp.Or(c.unheard(res), c.away(err))
		}
		return nil
	}
	if res.StatusCode == http.StatusNoContent {
		return nil
	}
	if out == nil {
		out = new(any) // an answer that broke off, or is another program's, says nothing of what has happened
	}
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return cmp.Or(c.unheard(res), c.away(fmt.Errorf("its answer to %s %s cannot be read: %w", method, path, err)))
	}
	return nil
}

// segment returns a name as one segment of a path. Dots alone would lead elsewhere.
func segment(name string) string {
	if name == "." || name == ".." {
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}

// send makes one call and returns the answer, or the problem as an error.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	if plain, _, _ := strings.Cut(path, "?"); strings.HasSuffix(plain, "/") || strings.Contains(plain, "//") {
		return nil, &Error{Problem: wire.Problem{Code: string(ErrBadRequest), Title: "Bad request",
			Status: http.StatusBadRequest, Detail: "a name or an id is empty", Hint: "state it"}}
	}
	var body io.Reader
	kind := "application/json"
	switch in := in.(type) {
	case nil:
	case []byte:
		body, kind = bytes.NewReader(in), "application/octet-stream"
	default:
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("write the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	var rest time.Duration
	if path == eventsPath {
		rest = streamRest
	}
	ctx, heard, over := c.watched(ctx, rest)
	req, err := http.NewRequestWithContext(ctx, method, "http://usher"+path, body)
	if err != nil {
		return nil, fmt.Errorf("write the request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	res, err := c.http.Do(req)
	if err != nil {
		defer over()
		if ctx.Err() != nil {
			return nil, ended(ctx)
		}
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, c.away(err)
	}
	if c.within > 0 {
		heard()
		res.Body = &heardBody{res.Body, heard, over}
	}
	if res.StatusCode < 300 || res.StatusCode == http.StatusServiceUnavailable && path == "/v1/ready" {
		return res, nil
	}
	defer res.Body.Close()
	e := &Error{}
	kind, _, _ = mime.ParseMediaType(res.Header.Get("Content-Type"))
	b, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if kind != "application/problem+json" || json.Unmarshal(b, &e.Problem) != nil {
		e.Problem = wire.Problem{Status: res.StatusCode, Code: string(ErrInternal),
			Detail: "the agent answered " + res.Status}
	}
	return nil, e
}

// away returns the error for an agent that cannot be reached.
func (c *Client) away(err error) error { return away(c.socket, err) }

func away(socket string, err error) error {
	hint := "check that it runs, and that --socket or USHER_SOCKET names its socket"
	if errors.Is(err, os.ErrPermission) {
		hint = "only the socket's owner and group may connect: `ls -l " + socket + "` shows the group, and " +
			"`usermod --append --groups GROUP USER` adds a user, from the next login on; see socket.group and " +
			"socket.mode"
	}
	return &Error{cause: err, Problem: wire.Problem{Code: string(ErrAgentAway), Title: "Agent away", Hint: hint,
		Detail: fmt.Sprintf("no agent answers on %s: %v", socket, err)}}
}

func forked(parent int) error {
	return &Error{Problem: wire.Problem{Code: string(ErrForked), Title: "Forked",
		Detail: fmt.Sprintf("process %d opened the session, and this process is its child", parent),
		Hint:   "open a session after forking; lease.join shares a lease"}}
}

// License returns the verdict and the documents it rests on.
func (c *Client) License(ctx context.Context) (*wire.License, error) {
	return get[wire.License](ctx, c, "/v1/license")
}

func get[T any](ctx context.Context, c *Client, path string) (*T, error) {
	out := new(T)
	if err := c.do(ctx, "GET", path, nil, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Features returns the features that the licence names.
func (c *Client) Features(ctx context.Context) (map[string]wire.Feature, error) {
	out, err := get[wire.Features](ctx, c, "/v1/features")
	if err != nil {
		return nil, err
	}
	return out.Features, nil
}

// Feature returns one feature; one that the licence does not name is not enabled.
func (c *Client) Feature(ctx context.Context, name string) (wire.Feature, error) {
	out, err := get[wire.NamedFeature](ctx, c, "/v1/features/"+segment(name))
	if err != nil {
		return wire.Feature{}, err
	}
	return out.Feature, nil
}

// Pools returns every pool and meter.
func (c *Client) Pools(ctx context.Context) ([]wire.Pool, error) {
	out, err := get[wire.Pools](ctx, c, "/v1/pools")
	if err != nil {
		return nil, err
	}
	return out.Pools, nil
}

// Pool returns one pool or meter; [ErrPoolUnknown].
func (c *Client) Pool(ctx context.Context, name string) (*wire.Pool, error) {
	return get[wire.Pool](ctx, c, "/v1/pools/"+segment(name))
}

// Adjust sets the number of draws from a meter in its present period. Admins only.
func (c *Client) Adjust(ctx context.Context, meter string, drawn int64) (*wire.Pool, error) {
	out := new(wire.Pool)
	if err := c.do(ctx, "PUT", "/v1/pools/"+segment(meter), wire.AdjustRequest{Drawn: drawn}, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Acquire asks for slots. The caller must renew a lease with a time to live; [Session.Acquire] renews by itself. Where
// the request names a process, that process holds the lease: see [Client.AcquireFor].
func (c *Client) Acquire(ctx context.Context, r wire.AcquireRequest) (*wire.Lease, error) {
	if r.PID != 0 {
		p, err := OpenProcess(int(r.PID))
		if err != nil {
			return nil, err
		}
		defer p.Close()
		return c.AcquireFor(ctx, p, r)
	}
	out := new(wire.Lease)
	call := func(ctx context.Context) error { return c.do(ctx, "POST", "/v1/leases", r, out) }
	if err := c.waiting(ctx, r.WaitSeconds, call); err != nil {
		return nil, err
	}
	return out, nil
}

// Renew extends a ttl lease to ttl from now; zero means the ttl of the acquire.
func (c *Client) Renew(ctx context.Context, id string, ttl time.Duration) (*wire.Lease, error) {
	out := new(wire.Lease)
	if err := c.do(ctx, "PUT", "/v1/leases/"+segment(id), wire.RenewRequest{TTLSeconds: ttl.Seconds()},
		out); err != nil {
		return nil, err
	}
	return out, nil
}

// Release gives a lease back. With force, an admin ends anybody's.
func (c *Client) Release(ctx context.Context, id string, force bool) error {
	path := "/v1/leases/" + segment(id)
	if force {
		path += "?force=true"
	}
	return c.do(ctx, "DELETE", path, nil, nil)
}

// HoldOff ends anybody's lease by force, and its holder gets no slots of the lease's pools for d (1 s to 7 days): it is
// denied [ErrHeldOff]. Of a lease that was ended so, it sets how much longer that lasts; 0 lifts it. Admins only.
func (c *Client) HoldOff(ctx context.Context, lease string, d time.Duration) error {
	return c.do(ctx, "DELETE", fmt.Sprintf("/v1/leases/%s?force=true&hold_off_seconds=%g", segment(lease),
		d.Seconds()), nil, nil)
}

// Lease returns one lease; [ErrLeaseUnknown], [ErrNotHolder].
func (c *Client) Lease(ctx context.Context, id string) (*wire.Lease, error) {
	return get[wire.Lease](ctx, c, "/v1/leases/"+segment(id))
}

// Fingerprint returns the fingerprint of the agent's host for a product; empty means the agent's own product.
func (c *Client) Fingerprint(ctx context.Context, product string) (*wire.Fingerprint, error) {
	return get[wire.Fingerprint](ctx, c, "/v1/fingerprint?product="+url.QueryEscape(product))
}

// Keys returns the agent's public key and the documents that vouch for it, and the keys of its dialects.
func (c *Client) Keys(ctx context.Context) (*wire.Keys, error) {
	return get[wire.Keys](ctx, c, "/v1/keys")
}

// Health returns the agent's state.
func (c *Client) Health(ctx context.Context) (*wire.Health, error) {
	return get[wire.Health](ctx, c, "/v1/health")
}

// Clock returns the licence time and its origin.
func (c *Client) Clock(ctx context.Context) (*wire.Clock, error) {
	return get[wire.Clock](ctx, c, "/v1/clock")
}

// Ready reports whether the agent listens and has a first verdict.
func (c *Client) Ready(ctx context.Context) (bool, error) {
	res, err := c.send(ctx, "GET", "/v1/ready", nil)
	if err != nil {
		return false, err
	}
	return res.StatusCode == http.StatusOK, res.Body.Close()
}

// Metrics returns the metrics in Prometheus's text form.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	var out []byte
	err := c.do(ctx, "GET", "/metrics", nil, &out)
	return out, err
}

// Install puts a licence document into the agent's folder. An empty name means one made from its id. With dryRun, it
// only reports what would change. Admins only.
func (c *Client) Install(ctx context.Context, document []byte, name string, dryRun bool) (*wire.Installed, error) {
	out := new(wire.Installed)
	q := url.Values{}
	if name != "" {
		q.Set("name", name)
	}
	if dryRun {
		q.Set("dry_run", "true")
	}
	if err := c.do(ctx, "PUT", "/v1/license?"+q.Encode(), document, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Remove removes a document from the agent's folder. Admins only.
func (c *Client) Remove(ctx context.Context, name string) error {
	return c.do(ctx, "DELETE", "/v1/license/documents/"+segment(name), nil, nil)
}

// Rollback undoes the last Install or Remove of a document, or of any if name is empty. Admins only.
func (c *Client) Rollback(ctx context.Context, name string) (*wire.Installed, error) {
	out := new(wire.Installed)
	if err := c.do(ctx, "POST", "/v1/license/rollback?name="+url.QueryEscape(name), nil, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Return stops a licence on this host permanently, and returns the receipt that the agent signs for the vendor. Admins
// only.
func (c *Client) Return(ctx context.Context, license string) (*wire.Returned, error) {
	out := new(wire.Returned)
	if err := c.WhileAnswering(ctx, longest, func(ctx context.Context) error {
		return c.do(ctx, "POST", "/v1/license/return", wire.ReturnRequest{License: license}, out)
	}); err != nil {
		return nil, err
	}
	return out, nil
}

// BeginEmergency begins one of the emergencies that the licence grants; [ErrEmergencyRefused]. Admins only.
func (c *Client) BeginEmergency(ctx context.Context, reason string) (*wire.Emergency, error) {
	out := new(wire.Emergency)
	if err := c.do(ctx, "POST", "/v1/emergency", wire.EmergencyRequest{Reason: reason}, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Emergencies returns the emergencies that operators began, and those that the licences still grant. Admins only.
func (c *Client) Emergencies(ctx context.Context) (*wire.Emergencies, error) {
	return get[wire.Emergencies](ctx, c, "/v1/emergency")
}

// Config returns the agent's configuration, with secrets redacted. Admins only.
func (c *Client) Config(ctx context.Context) ([]wire.Setting, error) {
	out, err := get[wire.Settings](ctx, c, "/v1/config")
	if err != nil {
		return nil, err
	}
	return out.Settings, nil
}

// Reload makes the agent read its configuration again. Admins only.
func (c *Client) Reload(ctx context.Context) (*wire.Reloaded, error) {
	out := new(wire.Reloaded)
	if err := c.do(ctx, "POST", "/v1/reload", nil, out); err != nil {
		return nil, err
	}
	return out, nil
}
