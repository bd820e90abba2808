package keygen

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// state is kept by the agent between calls.
type state struct {
	License    string `json:"license,omitempty"` // ids
	Machine    string `json:"machine,omitempty"`
	Generation int    `json:"generation,omitempty"` // how often this host's machine had to be made again
	Uses       int64  `json:"uses,omitempty"`       // of the licence, by the answer to the last draw
}

// session is one call of the contract. It makes several calls of the API.
type session struct {
	*Client
	ctx   context.Context
	req   *plugin.Request
	doc   *document
	key   string // the licence key; empty: not known
	token string // empty: requests authenticate with the key
	state state
	reply *plugin.Reply
	asked int64 // validations
	// policy is the id of the licence's policy, by the last validation. scoped is the part of the scope that the policy
	// demands.
	policy string
	scoped map[string]any
	owes   bool // its policy demands check-ins, by the last validation
}

// begin reads the agent's document, state and secrets of a licence.
func (c *Client) begin(ctx context.Context, r *plugin.Request) (*session, *plugin.Error) {
	secrets := c.cfg.Secrets()
	s := &session{Client: c, ctx: ctx, req: r, reply: &plugin.Reply{}}
	d, p := read(r.Document, c.cfg.Anchors(), secrets)
	if d == nil || p != nil {
		return nil, &plugin.Error{Class: plugin.Misconfigured,
			Reason: "the licence document cannot be read: " + p.Reason, Hint: p.Hint}
	}
	if len(r.State) > 0 {
		_ = json.Unmarshal(r.State, &s.state) // of an older agent: calls bring all of it again
	}
	s.doc, s.key = d, d.key
	s.state.License = cmp.Or(s.state.License, r.LicenseID)
	if set, err := parseDataset(d.data); err == nil && s.key == "" && d.kind != signedKey {
		s.key = licenseKey(set)
	}
	var err error
	if s.token, err = c.cfg.Token(); err != nil {
		return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: err.Error(), Hint: "mend the token's file"}
	}
	switch {
	case s.key == "" && s.token == "":
		return nil, &plugin.Error{Class: plugin.Misconfigured,
			Reason: "there is neither a licence key nor a token to authenticate with",
			Hint: "install the licence key (`usher license install FILE --key -`), or give " +
				"upstream.keygen.token_file"}
	case r.Fingerprint == "":
		return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: "this host has no fingerprint to activate " +
			"the licence with",
			Hint: "set host.fingerprint"}
	}
	return s, nil
}

// licenseKey returns the licence key in a dataset; empty: there is none.
func licenseKey(set *dataset) string {
	about := &set.Data
	if about.Type != "licenses" {
		about = set.one("licenses", set.Data.related("license"))
	}
	var a struct {
		Key string `json:"key"`
	}
	if about == nil || about.attributes(&a) != nil {
		return ""
	}
	return a.Key
}

// duty takes the steps and returns the reply with the state for the next call.
func (c *Client) duty(ctx context.Context, r *plugin.Request,
	steps ...func(*session) *plugin.Error) (*plugin.Reply, error) {
	s, e := c.begin(ctx, r)
	for _, step := range steps {
		if e == nil {
			e = step(s)
		}
	}
	if e != nil {
		return nil, e
	}
	b, err := json.Marshal(s.state)
	if err != nil {
		return nil, plugin.Transiently("the state cannot be written: %v", err)
	}
	s.reply.State = b
	return s.reply, nil
}

// Activate makes this host a machine of the licence, and brings a machine file for it.
func (c *Client) Activate(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return c.duty(ctx, r, (*session).settle, (*session).checkOut)
}

// Heartbeat pings this host's machine. If it was deleted, Heartbeat makes it again.
func (c *Client) Heartbeat(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return c.duty(ctx, r, (*session).ping)
}

// CheckIn checks the licence in if its policy demands that, validates it for this host, and brings a fresh machine
// file.
func (c *Client) CheckIn(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return c.duty(ctx, r, (*session).settle, (*session).checkOut)
}

// Deactivate deletes this host's machine.
func (c *Client) Deactivate(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return c.duty(ctx, r, (*session).delete)
}

// send makes a call of the API for the licence. An answer that seems old may be fresh if this host's clock is wrong. A
// validation decides, because its answer repeats our nonce.
func (s *session) send(method, path string, body any) (*answer, *plugin.Error) {
	q := call{method: method, path: path, body: body, auth: s.auth(), test: s.test()}
	a, e := s.Client.send(s.ctx, q)
	if e != nil && e.SystemCode == stale && s.asked == 0 {
		if _, e := s.validate(); e != nil {
			return nil, e
		}
		a, e = s.Client.send(s.ctx, q)
	}
	return a, e
}

// test reports whether the licence is a test licence: then a test key may sign answers.
func (s *session) test() bool { return s.doc != nil && s.doc.anchor.Environment == enforcer.Test }

// auth returns the Authorization header: with the token, or the licence key itself.
func (s *session) auth() string {
	if s.token != "" {
		return "Bearer " + s.token
	}
	return "License " + s.key
}

// nonce derives a number for each validation from the request's nonce, or from a random one. It has at most 48 bits, so
// that every JSON decoder reads it exactly.
func (s *session) nonce() int64 {
	seed := s.req.Nonce
	if len(seed) == 0 {
		seed = make([]byte, 16)
		_, _ = rand.Read(seed) // it never fails
	}
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(slices.Clone(seed), uint64(s.asked)))
	return int64(binary.BigEndian.Uint64(sum[:])>>16) | 1 // 0 means none
}

// validate asks whether the licence is good for this host.
func (s *session) validate() (*answer, *plugin.Error) {
	s.asked++
	nonce := s.nonce()
	scope := map[string]any{"fingerprint": s.req.Fingerprint}
	maps.Copy(scope, s.scoped)
	if s.req.Product != "" && s.req.Product != System {
		scope["product"] = s.req.Product
	}
	meta := map[string]any{"nonce": nonce, "scope": scope}
	q := call{method: http.MethodPost, path: "licenses/actions/validate-key", nonce: nonce, test: s.test(),
		body: map[string]any{"meta": meta}}
	if s.key != "" {
		// Without authentication, a suspended licence gets its code and not a refusal.
		meta["key"] = s.key
	} else {
		q.path, q.auth = "licenses/"+url.PathEscape(s.state.License)+"/actions/validate", s.auth()
	}
	a, e := s.Client.send(s.ctx, q)
	switch {
	case e != nil:
		return nil, e
	case a.status != http.StatusOK:
		return nil, s.fault(a)
	}
	if a.Meta.TS != nil && len(s.req.Nonce) > 0 {
		s.reply.Time = a.Meta.TS.UTC() // signed, and with our nonce
	}
	var attributes Attributes
	if r, err := a.resource(&attributes); err == nil && r.ID != "" {
		s.state.License, s.policy = r.ID, r.related("policy")
		if s.owes = attributes.RequireCheckIn; s.owes {
			s.reply.NextCheckIn = timeOf(attributes.NextCheckIn) // zero before the first
		}
	}
	return a, nil
}

// settle takes the steps that make the licence good for this host: it checks in, activates and pings, each once.
func (s *session) settle() *plugin.Error {
	done := map[string]bool{}
	once := func(what string, f func() *plugin.Error) (bool, *plugin.Error) {
		if done[what] {
			return false, nil
		}
		done[what] = true
		return true, f()
	}
	for {
		a, e := s.validate()
		if e != nil {
			return e
		}
		again := false
		switch {
		case s.owes && !done["check in"]:
			again, e = once("check in", s.checkInThere)
		case a.Meta.Valid:
			return s.find()
		case a.Meta.Code == CodeNoMachine, a.Meta.Code == CodeNoMachines, a.Meta.Code == CodeFingerprintMismatch:
			again, e = once("activate", s.create)
		case strings.HasSuffix(string(a.Meta.Code), "_SCOPE_REQUIRED"):
			again, e = once(string(a.Meta.Code), func() *plugin.Error { return s.scope(a.Meta.Code) })
		case a.Meta.Code == CodeHeartbeatNotStarted:
			again, e = once("ping", s.ping)
		case a.Meta.Code == CodeHeartbeatDead:
			again, e = once("revive", s.ping)
		}
		if e != nil {
			return e
		}
		if !again {
			return verdict(a)
		}
	}
}

// scope adds a part of the scope that the policy demands with each validation, if the agent knows it.
func (s *session) scope(demanded Code) *plugin.Error {
	name, value := "", any(nil)
	switch demanded {
	case CodePolicyRequired:
		name, value = "policy", s.policy
	case CodeEnvironmentRequired:
		name, value = "environment", s.cfg.Environment
	case CodeVersionRequired:
		name, value = "version", s.req.Version
	case CodeMachineRequired:
		if e := s.find(); e != nil {
			return e
		}
		name, value = "machine", s.state.Machine
	case CodeComponentsRequired:
		var all []string
		for _, c := range s.components() {
			all = append(all, c.fingerprint)
		}
		name, value = "components", all
	}
	if name == "" || value == "" {
		return nil // the next validation gives the same answer, and settle returns it as the error
	}
	if s.scoped == nil {
		s.scoped = map[string]any{}
	}
	s.scoped[name] = value
	return nil
}

// verdict turns a failed validation into an error.
func verdict(a *answer) *plugin.Error {
	e := &plugin.Error{Class: plugin.Refused, SystemCode: string(a.Meta.Code),
		Reason: "Keygen says: " + cmp.Or(a.Meta.Detail, a.Meta.Code.Detail(), "the licence is not valid")}
	switch a.Meta.Code {
	case CodeNotFound:
		e.Code = enforcer.NotFound
	case CodeBanned:
		e.Code = enforcer.Banned
	case CodeSuspended:
		e.Code = enforcer.Suspended
	case CodeExpired:
		e.Code = enforcer.Expired
	case CodeProductMismatch:
		e.Code = enforcer.ProductMismatch
	case CodeVersionMismatch:
		e.Code = enforcer.VersionNotCovered
	case CodeHeartbeatDead, CodeHeartbeatNotStarted:
		e.Code = enforcer.HeartbeatDead
	case CodeTooManyCores:
		e.Code = enforcer.TooManyCores
	case CodeTooMuchMemory:
		e.Code = enforcer.TooMuchMemory
	case CodeTooMuchDisk:
		e.Code = enforcer.TooMuchDisk
	case CodeTooManyMachines, CodeTooManyUsers, CodeTooManyProcesses:
		e.Code = enforcer.TooManyMachines
	case CodeNoMachine, CodeNoMachines, CodeFingerprintMismatch, CodeMachineMismatch:
		e.Code = enforcer.FingerprintMismatch
	default:
		// The policy demands a scope that the agent does not know, or the check-in was refused.
		e.Class = plugin.Misconfigured
	}
	return e
}

// checkInThere checks the licence in.
func (s *session) checkInThere() *plugin.Error {
	a, e := s.send(http.MethodPost, "licenses/"+url.PathEscape(s.state.License)+"/actions/check-in", nil)
	switch {
	case e != nil:
		return e
	case a.status == http.StatusUnprocessableEntity: // its policy no longer demands one
		return nil
	case a.status != http.StatusOK:
		return s.fault(a)
	}
	return nil
}
