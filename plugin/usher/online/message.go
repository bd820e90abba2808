// Package online is the native upstream protocol: HTTP, each request signed by the agent's own key and each answer by
// the vendor's. docs/upstream.md describes it on the wire. [Client] is the agent's side; package registry is the other.
package online

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// The types of the two messages (RFC 7515 §4.1.9).
const (
	RequestType    = "usher-request+jwt"
	ReplyType      = "usher-reply+jwt"
	ActivationType = "usher-activation+jwt"
)

// MaxMessage is the size, in bytes, above which neither side reads a message: a document and what goes with it.
const MaxMessage = 2 << 20

// Fresh is how far a request's own date may be from the server's clock where no chain proves that it is new.
const Fresh = 15 * time.Minute

// The longest texts of a request, in bytes.
const (
	maxText  = 1024
	maxShort = 64
)

// The calls, each the last part of the address that it is posted to.
const (
	CallActivate   = "activate"
	CallHeartbeat  = "heartbeat"
	CallCheckIn    = "check-in"
	CallDeactivate = "deactivate"
	CallCheckOut   = "check-out"
	CallExtend     = "extend"
	CallReturn     = "return"
	CallWatch      = "watch"
	CallDraw       = "draw"
)

// Calls returns every call.
func Calls() []string {
	return []string{CallActivate, CallHeartbeat, CallCheckIn, CallDeactivate, CallCheckOut, CallExtend, CallReturn,
		CallWatch, CallDraw}
}

// Request is an agent's message. Dates are seconds since 1970, spans whole seconds, bytes base64url without padding.
type Request struct {
	Call       string              `json:"call"`
	Issued     int64               `json:"iat"`
	Nonce      string              `json:"nonce"`
	License    string              `json:"license"`
	Product    string              `json:"product"`
	Version    string              `json:"version,omitempty"`
	Chain      string              `json:"chain,omitempty"`       // the chain of the last reply
	Document   string              `json:"document,omitempty"`    // the licence, with activate and check-out
	Dated      int64               `json:"document_iat,omitzero"` // when the licence at hand was issued
	Components map[string][]string `json:"components,omitempty"`
	Cores      *Cores              `json:"cores,omitempty"`
	Usage      []Usage             `json:"usage,omitempty"`
	// Emergencies are those that the host's operators have begun within a year.
	Emergencies []Emergency   `json:"emergencies,omitempty"`
	Block       *BlockRequest `json:"block,omitempty"` // with check-out, extend and return
	Watch       *WatchRequest `json:"watch,omitempty"` // with watch
	Draw        *DrawRequest  `json:"draw,omitempty"`  // with draw
	// Attempt is a random text, the same for each try of one activation without a chain, until it is answered.
	Attempt string `json:"attempt,omitempty"`
	// Enrolment proves that the agent has enrolment tokens; with activate and check-out.
	Enrolment []Enrolment `json:"enrolment,omitempty"`

	test bool // it is about a test licence; see plugin.Anchor.Answers
}

// Cores is the host's cores.
type Cores struct {
	Physical  int64   `json:"physical,omitzero"`
	Logical   int64   `json:"logical,omitzero"`
	Effective float64 `json:"effective,omitzero"`
}

// Usage is the use of one pool or meter.
type Usage struct {
	Pool   string `json:"pool"`
	InUse  int64  `json:"in_use"`
	Peak   int64  `json:"peak,omitzero"`
	Denied int64  `json:"denied,omitzero"`
}

// Emergency is one that an operator has begun on the licence.
type Emergency struct {
	Began  int64  `json:"began"`
	Ends   int64  `json:"ends"`
	Reason string `json:"reason"`
}

// BlockRequest asks for slots or for more time, or returns slots.
type BlockRequest struct {
	ID      string `json:"id,omitempty"` // with extend and return
	Pool    string `json:"pool,omitempty"`
	Slots   int64  `json:"slots,omitzero"`
	AtLeast int64  `json:"at_least,omitzero"`
	Seconds int64  `json:"seconds,omitzero"`
	Token   string `json:"token,omitempty"`
	Ahead   int64  `json:"ahead,omitzero"` // of Slots, those that nobody needs yet
	// Moved is the chain of another site server of one fleet, which gave the block that is to be extended or returned,
	// and does not answer: this one is asked to take it over.
	Moved string `json:"moved,omitempty"`
}

// WatchRequest asks to be told when slots are wanted back, or come free.
type WatchRequest struct {
	Idle    map[string]int64 `json:"idle,omitempty"` // by pool: what the agent could return
	Seconds int64            `json:"seconds,omitzero"`
}

// Reply is the server's message.
type Reply struct {
	Call          string      `json:"call"`
	Issued        int64       `json:"iat"`
	Nonce         string      `json:"nonce"` // the request's
	License       string      `json:"license"`
	AgentKey      string      `json:"agent_key"`       // the thumbprint of the agent that it answers
	Chain         string      `json:"chain,omitempty"` // for the next request
	Document      string      `json:"document,omitempty"`
	Activation    string      `json:"activation,omitempty"` // the vendor's word for the agent's key; see [Activation]
	NextHeartbeat int64       `json:"next_heartbeat,omitzero"`
	NextCheckIn   int64       `json:"next_check_in,omitzero"`
	Block         *BlockReply `json:"block,omitempty"`
	// Watch is the news by pool, with watch.
	Watch   map[string]PoolNews `json:"watch,omitempty"`
	Draw    *DrawReply          `json:"draw,omitempty"`
	Refused *Refusal            `json:"refused,omitempty"`
}

// BlockReply is a block of slots. Seconds count from the sending of the request, on the agent's boot-time clock.
type BlockReply struct {
	ID      string `json:"id"`
	Pool    string `json:"pool"`
	Slots   int64  `json:"slots"`
	Seconds int64  `json:"seconds"`
	// Wanted is how many slots others have lately asked for in vain.
	Wanted int64 `json:"wanted,omitzero"`
	// Elsewhere is where the other slots are, where there are fewer than asked.
	Elsewhere *Elsewhere `json:"elsewhere,omitempty"`
}

// PoolNews is [plugin.PoolNews].
type PoolNews struct {
	Wanted int64 `json:"wanted,omitzero"`
	Free   int64 `json:"free,omitzero"`
}

// Elsewhere is [plugin.Elsewhere].
type Elsewhere struct {
	Out  int64  `json:"out"`
	Idle int64  `json:"idle"`
	Rule string `json:"rule,omitempty"`
}

// asPlugin returns what an agent may believe of it; nil for nil.
func (e *Elsewhere) asPlugin() *plugin.Elsewhere {
	if e == nil {
		return nil
	}
	out := min(max(0, e.Out), enforcer.MaxN)
	return &plugin.Elsewhere{Out: out, Idle: min(max(0, e.Idle), out), Rule: e.Rule[:min(len(e.Rule), 64)]}
}

// The system_codes of a refusal that mean something to a Client.
const (
	SystemNotActivated = "NOT_ACTIVATED" // the server does not know this host (any more): activate again
	SystemCloned       = plugin.SystemCloned
	SystemTooMany      = "TOO_MANY_HOSTS"
	SystemAnew         = "REACTIVATED_TOO_OFTEN" // the host has started again more often than the licence allows
	SystemDocument     = "DOCUMENT_REQUIRED"     // a host that is not known must show the licence document
	SystemEnrolment    = "ENROLMENT_REQUIRED"    // it must show a good enrolment token
	SystemBusy         = "BUSY"                  // too many agents watch
	SystemStale        = "STALE_REQUEST"         // the request's date is too old; the answer tells the time
)

// Refusal is the server's no.
type Refusal struct {
	Code   string `json:"code"` // one of plugin.RefusalCodes, or empty where only this call is refused
	System string `json:"system_code"`
	Reason string `json:"reason"`
	Hint   string `json:"hint,omitempty"`
	// Elsewhere is where the slots of a full pool are.
	Elsewhere *Elsewhere `json:"elsewhere,omitempty"`
	// Leaves: the site server has stopped giving slots, and others of its fleet take over at once what it has given.
	Leaves bool `json:"leaves,omitempty"`
	// Last is the token of the agent's last draw, with [SystemOrder]; empty: it has made none in the period.
	Last string `json:"last,omitempty"`
}

// Activation is the vendor's word that an agent's key belongs to one of the licence's hosts (RFC 7800). With it an
// agent can prove itself to a product although the licence names no key.
type Activation struct {
	License string `json:"license"`
	Product string `json:"product"`
	Issued  int64  `json:"iat"`
	Cnf     struct {
		Thumbprint string `json:"jkt"`
	} `json:"cnf"`
}

// signRequest signs a request with the agent's key, which its header carries.
func signRequest(key ed25519.PrivateKey, r *Request) (string, error) {
	return signAs(key, RequestType, r)
}

// OpenRequest verifies a request with the key that it carries, and returns that key's thumbprint. The owner of the key
// is the caller, and nobody else can ask in its name.
func OpenRequest(token string) (*Request, string, error) {
	r := &Request{}
	thumb, err := openAs(token, RequestType, "request", r)
	if err != nil {
		return nil, "", err
	}
	if n, err := base64.RawURLEncoding.DecodeString(r.Nonce); err != nil || len(n) < 16 || len(n) > 64 {
		return nil, "", errors.New("the request's nonce is not 16 to 64 bytes in base64url")
	}
	if !slices.Contains(Calls(), r.Call) || r.License == "" {
		return nil, "", errors.New("the request names no call or no licence")
	}
	if err := r.bounded(); err != nil {
		return nil, "", err
	}
	return r, thumb, nil
}

// bounded reports a text of a request that is longer than an agent ever sends.
func (r *Request) bounded() error {
	b := r.Block
	if b == nil {
		b = &BlockRequest{}
	}
	d := r.Draw
	if d == nil {
		d = &DrawRequest{}
	}
	for _, t := range []struct {
		claim, value string
		most         int
	}{{"license", r.License, maxText}, {"product", r.Product, maxText}, {"attempt", r.Attempt, maxShort},
		{"block.id", b.ID, maxText}, {"block.pool", b.Pool, maxText}, {"block.token", b.Token, maxText},
		{"draw.meter", d.Meter, maxText}, {"draw.token", d.Token, maxShort}, {"draw.after", d.After, maxShort}} {
		if len(t.value) > t.most {
			return fmt.Errorf("the request's %s has %d bytes; the limit is %d", t.claim, len(t.value), t.most)
		}
	}
	if len(r.Enrolment) > maxEnrolments {
		return fmt.Errorf("the request shows %d enrolment tokens; the limit is %d", len(r.Enrolment), maxEnrolments)
	}
	return nil
}

// refusal turns a signed refusal into an error of the contract.
func (r *Refusal) asError() *plugin.Error {
	code := enforcer.Code(r.Code)
	if r.System == SystemTooMany { // former agents know no better code, so that the server sends one of theirs
		code = enforcer.TooManyMachines
	}
	e := &plugin.Error{Class: plugin.Refused, Code: code, Reason: r.Reason, Hint: r.Hint, SystemCode: r.System,
		Elsewhere: r.Elsewhere.asPlugin()}
	if !slices.Contains(plugin.RefusalCodes(), code) {
		// The call is refused, and the licence stands.
		e.Class, e.Code = plugin.Misconfigured, ""
	}
	return e
}

func date(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0).UTC()
}
