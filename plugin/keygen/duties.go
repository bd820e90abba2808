package keygen

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// maxComponents is how many components Keygen takes with a machine.
const maxComponents = 20

// state is what the agent keeps between calls.
type state struct {
	License    string `json:"license,omitempty"` // ids
	Machine    string `json:"machine,omitempty"`
	Generation int    `json:"generation,omitempty"` // how often this host's machine had to be made anew
	Uses       int64  `json:"uses,omitempty"`       // of the licence, as the last draw's answer had it
}

// session is one call of the contract, which is several of the API.
type session struct {
	*Client
	ctx   context.Context
	req   *plugin.Request
	doc   *document
	key   string // the licence key; empty: not known
	state state
	reply *plugin.Reply
	asked int64 // validations
	// policy is the id of the licence's policy, as the last validation has it; scoped is what of the scope its policy
	// demands.
	policy string
	scoped map[string]any
}

// begin reads what the agent knows of a licence.
func (c *Client) begin(ctx context.Context, r *plugin.Request) (*session, *plugin.Error) {
	secrets := c.cfg.Secrets()
	s := &session{Client: c, ctx: ctx, req: r, reply: &plugin.Reply{}}
	d, p := read(r.Document, c.cfg.Anchors(), secrets)
	if d == nil || p != nil {
		return nil, &plugin.Error{Class: plugin.Misconfigured,
			Reason: "the licence document cannot be read any more: " + p.Reason, Hint: p.Hint}
	}
	if len(r.State) > 0 {
		_ = json.Unmarshal(r.State, &s.state) // of an older agent: all of it can be asked again
	}
	s.doc, s.key = d, d.key
	s.state.License = cmp.Or(s.state.License, r.LicenseID)
	if set, err := parseDataset(d.data); err == nil && s.key == "" && d.kind != signedKey {
		s.key = licenseKey(set)
	}
	switch {
	case s.key == "" && c.cfg.Token == "":
		return nil, &plugin.Error{Class: plugin.Misconfigured,
			Reason: "there is neither a licence key nor a token that speaks for the licence",
			Hint:   "install the licence key (`usher license install FILE --key -`), or give upstream.keygen.token_file"}
	case r.Fingerprint == "":
		return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: "this host has no fingerprint to activate it by",
			Hint: "give host.fingerprint"}
	}
	return s, nil
}

// licenseKey returns the licence key that a dataset itself has.
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

// duty takes steps, and returns the reply with the state to come back with.
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

// Heartbeat pings this host's machine. One that was deleted is made anew.
func (c *Client) Heartbeat(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return c.duty(ctx, r, (*session).ping)
}

// CheckIn checks the licence in where its policy wants that, validates it for this host, and brings a fresh machine
// file.
func (c *Client) CheckIn(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return c.duty(ctx, r, (*session).settle, (*session).checkOut)
}

// Deactivate deletes this host's machine.
func (c *Client) Deactivate(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return c.duty(ctx, r, (*session).delete)
}

// send makes a call of the API for the licence. An answer that seems old may be fresh, and this host's clock wrong: a
// validation tells, for its answer repeats our nonce.
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

// test reports whether the licence is a test licence, of which a test key may answer.
func (s *session) test() bool { return s.doc != nil && s.doc.anchor.Environment == enforcer.Test }

// auth is who speaks for the licence: the token, or the licence key itself.
func (s *session) auth() string {
	if s.cfg.Token != "" {
		return "Bearer " + s.cfg.Token
	}
	return "License " + s.key
}

// machine is the path of this host's machine: by its id, or else by its fingerprint.
func (s *session) machine() string {
	switch {
	case s.state.Machine != "":
		return "machines/" + url.PathEscape(s.state.Machine)
	case !strings.Contains(s.req.Fingerprint, "/"):
		return "machines/" + url.PathEscape(s.req.Fingerprint)
	default:
		return "machines/" + s.machineID()
	}
}

// machineID is the id that this host gives its machine: the same for a try that is made again, so that no lost answer
// costs a place. Keygen takes UUIDs of version 4 alone.
func (s *session) machineID() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "usher-keygen-machine\x00%s\x00%s\x00%s\x00%d", s.state.License,
		s.req.Fingerprint, s.req.AgentKey, s.state.Generation))
	b := sum[:16]
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// nonce returns another number for each validation, made of the request's; where that has none, a random one. It is
// exact in every JSON.
func (s *session) nonce() int64 {
	seed := s.req.Nonce
	if len(seed) == 0 {
		seed = make([]byte, 16)
		_, _ = rand.Read(seed) // it never fails
	}
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(slices.Clone(seed), uint64(s.asked)))
	return int64(binary.BigEndian.Uint64(sum[:])>>16) | 1 // 0 would be none
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
		// Without authentication a suspended licence is told so, and not turned away.
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
		if attributes.RequireCheckIn {
			s.reply.NextCheckIn = timeOf(attributes.NextCheckIn)
		}
	}
	return a, nil
}

// settle does what it takes until the licence is good for this host: checks in, activates, pings; each once.
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
		case !s.reply.NextCheckIn.IsZero() && !done["check in"]:
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

// scope adds what a policy demands to be told with each validation, where the agent knows it.
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
		return nil // asked again, the answer is the same, and is the error
	}
	if s.scoped == nil {
		s.scoped = map[string]any{}
	}
	s.scoped[name] = value
	return nil
}

// component is one of this host's, as Keygen has it.
type component struct{ name, fingerprint string }

// components returns what of the host's fingerprint Keygen is told: one value of each component.
func (s *session) components() (out []component) {
	for _, name := range slices.Sorted(maps.Keys(s.req.Components)) {
		if values := s.req.Components[name]; len(values) > 0 && len(out) < maxComponents {
			out = append(out, component{name, values[0]})
		}
	}
	return out
}

// verdict turns a validation that is no yes into an error.
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
	case CodeNoMachine, CodeNoMachines, CodeFingerprintMismatch, CodeTooManyMachines, CodeTooManyUsers,
		CodeTooManyProcesses, CodeMachineMismatch:
		e.Code = enforcer.FingerprintMismatch
	default:
		// The policy wants to be told what the agent does not know, or the check-in was not taken.
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
	case a.status == http.StatusUnprocessableEntity: // its policy wants none by now
		return nil
	case a.status != http.StatusOK:
		return s.fault(a)
	}
	return nil
}

// find learns the id of this host's machine.
func (s *session) find() *plugin.Error {
	if s.state.Machine != "" {
		return nil
	}
	a, e := s.send(http.MethodGet, s.machine(), nil)
	if e != nil {
		return e
	}
	if a.status == http.StatusNotFound {
		return s.create()
	}
	return s.adopt(a)
}

// adopt takes the machine of an answer as this host's.
func (s *session) adopt(a *answer) *plugin.Error {
	if a.status != http.StatusOK && a.status != http.StatusCreated {
		return s.fault(a)
	}
	var m machine
	r, err := a.resource(&m)
	if err != nil || r.ID == "" || m.Fingerprint != s.req.Fingerprint {
		return plugin.Transiently("Keygen answered with another machine than this host's")
	}
	s.state.Machine = r.ID
	return nil
}

// create makes this host a machine of the licence.
func (s *session) create() *plugin.Error {
	if s.state.Machine != "" { // it has gone
		s.state.Machine = ""
		s.state.Generation++
	}
	id := s.machineID()
	attributes := map[string]any{"fingerprint": s.req.Fingerprint, "platform": runtime.GOOS + "/" + runtime.GOARCH}
	if s.req.Hostname != "" {
		attributes["hostname"], attributes["name"] = s.req.Hostname, s.req.Hostname
	}
	for name, n := range map[string]int64{"cores": s.req.Cores.Logical, "memory": s.req.Memory, "disk": s.req.Disk} {
		if n > 0 {
			attributes[name] = n
		}
	}
	relationships := map[string]any{"license": map[string]any{"data": map[string]any{"type": "licenses",
		"id": s.state.License}}}
	var components []any
	for _, c := range s.components() {
		components = append(components, map[string]any{"type": "components",
			"attributes": map[string]any{"name": c.name, "fingerprint": c.fingerprint}})
	}
	if len(components) > 0 {
		relationships["components"] = map[string]any{"data": components}
	}
	a, e := s.send(http.MethodPost, "machines", map[string]any{"data": map[string]any{"type": "machines", "id": id,
		"attributes": attributes, "relationships": relationships}})
	if e != nil {
		return e
	}
	if code := a.code(); code == "ID_CONFLICT" || code == "FINGERPRINT_TAKEN" {
		// An earlier try whose answer was lost, or a machine that another program made of this host.
		for _, path := range []string{id, s.req.Fingerprint} {
			if strings.Contains(path, "/") {
				continue
			}
			there, e := s.send(http.MethodGet, "machines/"+url.PathEscape(path), nil)
			if e != nil {
				return e
			}
			if there.status == http.StatusOK {
				return s.adopt(there)
			}
		}
	}
	return s.adopt(a)
}

// ping gives a sign of life. A machine that has been deleted behind our back, or is dead for good, is made anew.
func (s *session) ping() *plugin.Error {
	for range 2 {
		a, e := s.send(http.MethodPost, s.machine()+"/actions/ping", nil)
		switch {
		case e != nil:
			return e
		case a.status == http.StatusOK:
			return s.adopt(a)
		case a.status == http.StatusNotFound:
		case a.code() == "MACHINE_HEARTBEAT_DEAD":
			dead := cmp.Or(s.state.Machine, s.machineID())
			if e := s.delete(); e != nil {
				return e
			}
			s.state.Machine = dead // so that the new one gets another id
		default:
			return s.fault(a)
		}
		if e := s.create(); e != nil {
			return e
		}
	}
	return plugin.Transiently("Keygen does not know the machine that it has just made")
}

// delete gives this host's place back; where it has none, that is as well.
func (s *session) delete() *plugin.Error {
	a, e := s.send(http.MethodDelete, s.machine(), nil)
	switch {
	case e != nil:
		return e
	case a.status == http.StatusNoContent, a.status == http.StatusOK, a.status == http.StatusNotFound:
		s.state.Machine = ""
		return nil
	default:
		return s.fault(a)
	}
}

// checkOut brings a machine file for this host, made as the document at hand is: encrypted or not, signed with the same
// key, for as long, with what that includes. A licence that may not have one goes on with the document that it has.
func (s *session) checkOut() *plugin.Error {
	encoding, alg, _ := strings.Cut(s.doc.alg, "+")
	if s.doc.kind == signedKey {
		encoding, alg = "base64", s.doc.alg
	}
	meta := map[string]any{"algorithm": encoding + "+" + alg}
	include := []string{"license", "license.entitlements"}
	if set, err := parseDataset(s.doc.data); err == nil && s.doc.kind != signedKey {
		if len(set.included("policies")) > 0 {
			include = append(include, "license.policy")
		}
		var ttl any
		if issued, expiry := timeOf(set.Meta.Issued), timeOf(set.Meta.Expiry); !expiry.IsZero() {
			ttl = max(3600, int64(expiry.Sub(issued)/time.Second))
		}
		meta["ttl"] = ttl
	}
	meta["include"] = include
	a, e := s.send(http.MethodPost, s.machine()+"/actions/check-out", map[string]any{"meta": meta})
	if e == nil && a.status == http.StatusNotFound { // another program has made this host's machine anew
		s.state.Machine = ""
		if e = s.find(); e == nil {
			a, e = s.send(http.MethodPost, "machines/"+url.PathEscape(s.state.Machine)+"/actions/check-out",
				map[string]any{"meta": meta})
		}
	}
	switch {
	case e != nil:
		return e
	case a.status == http.StatusForbidden && a.code() == "", a.status == http.StatusBadRequest:
		return nil
	case a.status != http.StatusOK && a.status != http.StatusCreated:
		return s.fault(a)
	}
	var file struct {
		Certificate string `json:"certificate"`
	}
	if _, err := a.resource(&file); err != nil || file.Certificate == "" {
		return plugin.Transiently("Keygen answered a check-out without a file")
	}
	s.reply.Document = []byte(file.Certificate)
	return nil
}
