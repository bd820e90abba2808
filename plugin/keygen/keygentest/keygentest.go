// Package keygentest is a Keygen server for tests: the part of the API that the agent uses, with the codes, checks and
// signatures of the real server (keygen-api 1.8, after its source and its published answers). It keeps all data in
// memory.
package keygentest

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/usher-agent/usher/plugin/keygen"
)

// License is a licence with the terms of its policy.
type License struct {
	ID, Key, Token, Product string
	Attributes              keygen.Attributes
	Policy                  keygen.Policy
	Entitlements            []string
	Versions                []string // released, and accessible
	Banned                  bool
	KeyMayNotAuthenticate   bool          // authenticationStrategy TOKEN
	MayReadPolicy           bool          // the permission policy.read: files may include the policy
	CheckInEvery            time.Duration // requireCheckIn
	HeartbeatDuration       time.Duration
	Revive                  time.Duration // heartbeatResurrectionStrategy; 0: NO_REVIVE
	KeepDead                bool          // heartbeatCullStrategy
	FileTTL                 time.Duration // 0: a month
}

// Machine is a machine.
type Machine struct {
	ID, License, Fingerprint, Hostname string
	Cores, Memory, Disk                int64
	Components                         []string
	LastHeartbeat                      time.Time // zero: not started
}

// Process is a process.
type Process struct {
	ID, Machine, PID string
	LastHeartbeat    time.Time
}

// Cloud is an account. Make one with New.
type Cloud struct {
	Account string
	key     ed25519.PrivateKey

	mu       sync.Mutex // guards all below
	now      func() time.Time
	licences map[string]*License
	machines map[string]*Machine
	procs    map[string]*Process
	serial   int
	calls    []string // method and path within the account
	fault    func(*http.Request) (status int, header http.Header)
	tamper   func(header http.Header, body []byte) []byte
}

// New returns an account without licences.
func New(now func() time.Time) *Cloud {
	return &Cloud{Account: "1fddcec8-8dd3-4d8d-9b16-215cac0f9b52",
		key: ed25519.NewKeyFromSeed([]byte(strings.Repeat("c", 32))), now: now,
		licences: map[string]*License{}, machines: map[string]*Machine{}, procs: map[string]*Process{}}
}

// PublicKey returns the account's key, as the dashboard shows it.
func (c *Cloud) PublicKey() string {
	return hex.EncodeToString(c.key.Public().(ed25519.PublicKey))
}

// Put adds a licence, or changes it.
func (c *Cloud) Put(l License) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.Attributes.LastCheckIn == nil && l.CheckInEvery > 0 {
		l.Attributes.LastCheckIn = new(c.now())
	}
	c.licences[l.ID] = &l
}

// Change changes a licence.
func (c *Cloud) Change(id string, f func(*License)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c.licences[id])
}

// Forget deletes a licence.
func (c *Cloud) Forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.licences, id)
}

// Machines returns all machines, in the order of their ids.
func (c *Cloud) Machines() (out []Machine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.machines {
		out = append(out, *m)
	}
	slices.SortFunc(out, func(a, b Machine) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// Delete deletes a machine as an account's admin would.
func (c *Cloud) Delete(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.machines, id)
}

// Calls returns the requests since the last Calls.
func (c *Cloud) Calls() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.calls
	c.calls = nil
	return out
}

// Fail makes a proxy before the server answer requests with a status, unsigned; nil ends that.
func (c *Cloud) Fail(f func(*http.Request) (status int, header http.Header)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = f
}

// Tamper changes answers on their way; nil ends that.
func (c *Cloud) Tamper(f func(header http.Header, body []byte) []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tamper = f
}

type object = map[string]any

// reply is an answer before it is signed.
type reply struct {
	status int
	body   any
}

func failed(status int, code, title, detail string) reply {
	e := object{"title": title, "detail": detail}
	if code != "" {
		e["code"] = code
	}
	return reply{status, object{"meta": object{"id": "req"}, "errors": []any{e}}}
}

func notFound() reply {
	return failed(404, "NOT_FOUND", "Not found", "The requested resource was not found")
}

// ServeHTTP answers one request of the API.
func (c *Cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	path, ok := strings.CutPrefix(r.URL.Path, "/v1/accounts/"+c.Account+"/")
	c.calls = append(c.calls, r.Method+" "+path)
	if c.fault != nil {
		if status, header := c.fault(r); status != 0 {
			for k, v := range header {
				w.Header()[k] = v
			}
			w.WriteHeader(status)
			return
		}
	}
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	c.cull()
	out := c.serve(r, path, body)
	var b []byte
	if out.body != nil {
		b, _ = json.Marshal(out.body)
	}
	c.sign(w.Header(), r, b)
	if c.tamper != nil {
		b = c.tamper(w.Header(), b)
	}
	w.Header().Set("Content-Type", "application/vnd.api+json")
	w.WriteHeader(out.status)
	_, _ = w.Write(b)
}

// sign signs an answer, with the host's name without its port.
func (c *Cloud) sign(h http.Header, r *http.Request, body []byte) {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	sum := sha256.Sum256(body)
	date, digest := c.now().UTC().Format(http.TimeFormat), "sha-256="+base64.StdEncoding.EncodeToString(sum[:])
	text := fmt.Sprintf("(request-target): %s %s\nhost: %s\ndate: %s\ndigest: %s", strings.ToLower(r.Method),
		r.URL.RequestURI(), host, date, digest)
	h.Set("Date", date)
	h.Set("Digest", digest)
	h.Set("Keygen-Signature", fmt.Sprintf(
		`keyid="%s", algorithm="ed25519", signature="%s", headers="(request-target) host date digest"`, c.Account,
		base64.StdEncoding.EncodeToString(ed25519.Sign(c.key, []byte(text)))))
}

// life returns whether a machine keeps its heartbeat.
func (c *Cloud) life(m *Machine) keygen.Life {
	l := c.licences[m.License]
	switch {
	case m.LastHeartbeat.IsZero():
		return keygen.NotStarted
	case l != nil && m.LastHeartbeat.Add(l.HeartbeatDuration).Before(c.now()):
		return keygen.Dead
	}
	return keygen.Alive
}

// cull deletes dead machines that can no longer be revived.
func (c *Cloud) cull() {
	for id, m := range c.machines {
		if l := c.licences[m.License]; l != nil && !l.KeepDead && c.life(m) == keygen.Dead &&
			m.LastHeartbeat.Add(l.HeartbeatDuration+l.Revive).Before(c.now()) {
			delete(c.machines, id)
		}
	}
	for id, p := range c.procs {
		m := c.machines[p.Machine]
		if m == nil || p.LastHeartbeat.Add(c.licences[m.License].HeartbeatDuration).Before(c.now()) {
			delete(c.procs, id)
		}
	}
}

// bearer returns the licence of the request's credential, or the refusal.
func (c *Cloud) bearer(r *http.Request) (*License, *reply) {
	kind, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	refuse := func(status int, code, detail string) (*License, *reply) {
		title := map[int]string{401: "Unauthorized", 403: "Access denied"}[status]
		out := failed(status, code, title, detail)
		return nil, &out
	}
	for _, l := range c.licences {
		byKey := kind == "License" && secret == l.Key
		if !byKey && (kind != "Bearer" || secret == "" || secret != l.Token) {
			continue
		}
		switch {
		case l.Banned:
			return refuse(403, "LICENSE_BANNED", "License is banned")
		case l.Attributes.Suspended:
			return refuse(403, "LICENSE_SUSPENDED", "License is suspended")
		case l.Attributes.Expiry != nil && l.Attributes.Expiry.Before(c.now()) &&
			l.Policy.ExpirationStrategy == "REVOKE_ACCESS":
			return refuse(403, "LICENSE_EXPIRED", "License is expired")
		case byKey && l.KeyMayNotAuthenticate:
			return refuse(403, "LICENSE_NOT_ALLOWED", "License key authentication is not allowed by policy")
		}
		return l, nil
	}
	switch kind {
	case "License":
		return refuse(401, "LICENSE_INVALID", "License key must be valid")
	case "Bearer":
		return refuse(401, "TOKEN_INVALID", "Token must be valid")
	}
	return refuse(401, "TOKEN_MISSING", "Token is required")
}

var (
	validateID   = regexp.MustCompile(`^licenses/([^/]+)/actions/validate$`)
	checkInPath  = regexp.MustCompile(`^licenses/([^/]+)/actions/check-in$`)
	oneLicense   = regexp.MustCompile(`^licenses/([^/]+)$`)
	usagePath    = regexp.MustCompile(`^licenses/([^/]+)/actions/increment-usage$`)
	oneMachine   = regexp.MustCompile(`^machines/([^/]+)$`)
	pingPath     = regexp.MustCompile(`^machines/([^/]+)/actions/ping(?:-heartbeat)?$`)
	checkOutPath = regexp.MustCompile(`^machines/([^/]+)/actions/check-out$`)
)

func (c *Cloud) serve(r *http.Request, path string, body []byte) reply {
	if path == "licenses/actions/validate-key" {
		return c.validate("", body)
	}
	l, refused := c.bearer(r)
	if refused != nil {
		return *refused
	}
	if m := validateID.FindStringSubmatch(path); m != nil && m[1] == l.ID {
		return c.validate(l.ID, body)
	}
	if m := checkInPath.FindStringSubmatch(path); m != nil && m[1] == l.ID && r.Method == http.MethodPost {
		if l.CheckInEvery == 0 {
			return failed(422, "", "Unprocessable entity",
				"cannot be checked in because the policy does not require it")
		}
		l.Attributes.LastCheckIn = new(c.now())
		return reply{200, object{"data": c.licence(l)}}
	}
	if m := oneLicense.FindStringSubmatch(path); m != nil && m[1] == l.ID && r.Method == http.MethodGet {
		return reply{200, object{"data": c.licence(l)}}
	}
	if m := usagePath.FindStringSubmatch(path); m != nil && m[1] == l.ID && r.Method == http.MethodPost {
		return c.increment(l, body)
	}
	if path == "machines" && r.Method == http.MethodPost {
		return c.create(l, body)
	}
	if out, ok := c.process(l, r, path, body); ok {
		return out
	}
	for _, route := range []*regexp.Regexp{oneMachine, pingPath, checkOutPath} {
		match := route.FindStringSubmatch(path)
		if match == nil {
			continue
		}
		m := c.machine(l, match[1])
		switch {
		case m == nil:
			return notFound()
		case route == oneMachine && r.Method == http.MethodGet:
			return reply{200, object{"data": c.shape(m)}}
		case route == oneMachine && r.Method == http.MethodDelete:
			delete(c.machines, m.ID)
			return reply{204, nil}
		case route == pingPath && r.Method == http.MethodPost:
			return c.ping(l, m)
		case route == checkOutPath && r.Method == http.MethodPost:
			return c.checkOut(l, m, body)
		}
	}
	return notFound()
}

// machine finds one of a licence's machines, by id or fingerprint.
func (c *Cloud) machine(l *License, name string) *Machine {
	for _, m := range c.machines {
		if m.License == l.ID && (m.ID == name || m.Fingerprint == name) {
			return m
		}
	}
	return nil
}

func (c *Cloud) ping(l *License, m *Machine) reply {
	if c.life(m) == keygen.Dead && m.LastHeartbeat.Add(l.HeartbeatDuration+l.Revive).Before(c.now()) {
		return failed(422, "MACHINE_HEARTBEAT_DEAD", "Unprocessable resource", "is dead")
	}
	m.LastHeartbeat = c.now()
	return reply{200, object{"data": c.shape(m)}}
}

// increment counts uses if enough are left.
func (c *Cloud) increment(l *License, body []byte) reply {
	var in struct{ Meta struct{ Increment *int64 } }
	if len(body) > 0 && json.Unmarshal(body, &in) != nil {
		return failed(400, "", "Bad request", "a parameter cannot be")
	}
	n := int64(1)
	if in.Meta.Increment != nil {
		n = *in.Meta.Increment
	}
	if most := l.Attributes.MaxUses; n < 1 || most != nil && l.Attributes.Uses+n > *most {
		return failed(422, "USES_LIMIT_EXCEEDED", "Unprocessable resource",
			"usage exceeds maximum allowed by current policy")
	}
	l.Attributes.Uses += n
	return reply{200, object{"data": c.licence(l)}}
}
