// Package registry is the reference upstream that a vendor or a site runs as `usher upstream`: it knows which hosts a
// licence is activated on, suspends, revokes and renews licences, and tells two hosts apart that go on with one state.
// [Registry.Handle] decides one request; what it says is package online's.
package registry

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// Config is what a Registry needs.
type Config struct {
	Dir    string        // of the store; one registry a folder
	Signer *issue.Signer // signs replies, and renewed licences
	// Site says that Signer's key is not a vendor's but a site server's own: it serves blocks of slots alone, of the licences
	// that Anchors verify and that name that key.
	Site     bool
	Anchors  []plugin.Anchor // further keys that licences are signed with; the signer's own need not be named
	Machines int64           // hosts that a licence may be activated on, where nothing else was said; 0: any number
	Pools    Pools           // serves blocks of slots; nil: none are served
	Now      func() time.Time
	Log      *slog.Logger
	// Answered is told of each request; optional.
	Answered func(call, result string)
}

// Pools serves blocks of slots to agents, each known by its key's thumbprint.
type Pools interface {
	CheckOut(agent string, l *enforcer.License, r *online.BlockRequest) (*online.BlockReply, *online.Refusal, error)
	Extend(agent string, l *enforcer.License, r *online.BlockRequest) (*online.BlockReply, *online.Refusal, error)
	Return(agent string, r *online.BlockRequest) error
}

// States of a licence.
const (
	StateActive    = "active"
	StateSuspended = "suspended"
	StateRevoked   = "revoked"
)

// Licence is what is known of one licence.
type Licence struct {
	ID       string    `json:"id"`
	Product  string    `json:"product"`
	Licensee string    `json:"licensee,omitempty"`
	Document string    `json:"document"`
	State    string    `json:"state"`
	Reason   string    `json:"reason,omitempty"`
	Machines int64     `json:"machines"` // hosts it may be activated on; 0: any number
	Added    time.Time `json:"added"`
}

// Activation is one host of a licence.
type Activation struct {
	License   string    `json:"license"`
	AgentKey  string    `json:"agent_key"`
	Activated time.Time `json:"activated"`
	Seen      time.Time `json:"seen"`
	Sequence
	Blocks     Sequence            `json:"blocks,omitzero"`    // of the calls for blocks, which go their own way
	ClonedAt   time.Time           `json:"cloned_at,omitzero"` // when somebody came with a state that another had gone on with
	Version    string              `json:"version,omitempty"`
	Components map[string][]string `json:"components,omitempty"`
	Cores      *online.Cores       `json:"cores,omitempty"`
	Usage      []online.Usage      `json:"usage,omitempty"`
	// Emergencies are those that the host has told of.
	Emergencies []online.Emergency `json:"emergencies,omitempty"`
}

// Sequence is the last of a host's requests, by which its next is told from a copy's and from an old one.
type Sequence struct {
	Issued   int64    `json:"issued"` // of its last request, by its own clock
	Chain    string   `json:"chain"`
	Previous string   `json:"previous,omitempty"`
	Nonces   []string `json:"nonces,omitempty"` // of the last requests, the latest last
}

var (
	licences    = []byte("licences")
	activations = []byte("activations")
)

// noncesKept is how many nonces of a host are remembered: more requests than one second has, for older ones are told by their
// date.
const noncesKept = 16

// emergenciesKept is how many emergencies of a host are remembered.
const emergenciesKept = 64

// Errors that the commands of an operator meet.
var (
	ErrUnknown = errors.New("there is no such licence or host")
	ErrRefused = errors.New("the licence is not good")
)

// Registry is a store and its rules. It is safe for concurrent use.
type Registry struct {
	cfg Config
	db  *bbolt.DB
	own string // the thumbprint of the signer's key
}

// Open opens the store in a folder, which it makes if missing. Close it.
func Open(cfg Config) (*Registry, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Answered == nil {
		cfg.Answered = func(string, string) {}
	}
	own, err := online.Thumbprint(cfg.Signer.Anchor.Key)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", cfg.Signer.Anchor.KeyID, err)
	}
	if !cfg.Site {
		cfg.Anchors = append([]plugin.Anchor{cfg.Signer.Anchor}, cfg.Anchors...)
	}
	db, err := bbolt.Open(filepath.Join(cfg.Dir, "registry.db"), 0o600, &bbolt.Options{Timeout: time.Second})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, fmt.Errorf("store %s: another process is using it; stop that one, or give this one a folder of its own", cfg.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(licences)
		_, err2 := tx.CreateBucketIfNotExists(activations)
		return errors.Join(err, err2)
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Registry{cfg, db, own}, nil
}

// Close closes the store.
func (g *Registry) Close() error { return g.db.Close() }

// DB returns the store, in which a site's pools have a bucket of their own.
func (g *Registry) DB() *bbolt.DB { return g.db }

func get[T any](b *bbolt.Bucket, key []byte) (*T, error) {
	v := b.Get(key)
	if v == nil {
		return nil, nil
	}
	out := new(T)
	return out, json.Unmarshal(v, out)
}

func put(b *bbolt.Bucket, key []byte, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put(key, data)
}

func activationKey(license, agent string) []byte { return []byte(license + "\x00" + agent) }

// Answer is what comes of a request.
type Answer struct {
	Reply  *online.Reply // to be signed
	Status int           // of HTTP, where there is no reply: the request was none
	Detail string
}

func bad(status int, format string, args ...any) *Answer {
	return &Answer{Status: status, Detail: fmt.Sprintf(format, args...)}
}

// Handle decides one request of the agent with the key agent.
func (g *Registry) Handle(r *online.Request, agent string) (*Answer, error) {
	if g.cfg.Site && !isBlockCall(r.Call) {
		// It could not sign an answer that an agent would believe.
		return bad(404, "this is a site server: it serves blocks of slots, and no %s", r.Call), nil
	}
	now := g.cfg.Now()
	reply := &online.Reply{Call: r.Call, Issued: now.Unix(), Nonce: r.Nonce, License: r.License, AgentKey: agent}
	var out *Answer
	var license *enforcer.License
	err := g.db.Update(func(tx *bbolt.Tx) error {
		l, refused, err := g.licence(tx, r, now)
		if err != nil {
			return err
		}
		if refused == nil {
			license, refused = g.judge(l, r, agent)
		}
		var a *Activation
		if refused == nil {
			a, refused, out, err = g.activation(tx, l, license, r, agent, now)
			if err != nil || out != nil {
				return err
			}
		}
		if reply.Refused = refused; refused != nil || a == nil {
			return nil
		}
		if r.Call == online.CallDeactivate {
			return tx.Bucket(activations).Delete(activationKey(r.License, agent))
		}
		reply.Chain = a.sequence(r.Call).Chain
		if (r.Call == online.CallActivate || r.Call == online.CallCheckIn) && license.Issued.Unix() > r.Dated && r.Dated != 0 {
			reply.Document = l.Document
		}
		return put(tx.Bucket(activations), activationKey(r.License, agent), a)
	})
	if err != nil || out != nil {
		return out, err
	}
	if reply.Refused == nil {
		if err := g.more(reply, r, agent, license); err != nil {
			return nil, err
		}
	}
	return &Answer{Reply: reply}, nil
}

// more adds to a reply what is not the store's: the vendor's word for the agent's key, and blocks of slots.
func (g *Registry) more(reply *online.Reply, r *online.Request, agent string, l *enforcer.License) error {
	var err error
	switch r.Call {
	case online.CallActivate:
		reply.Activation, err = g.activationWord(l, agent, reply.Issued)
		return err
	case online.CallCheckOut, online.CallExtend, online.CallReturn:
	default:
		return nil
	}
	if g.cfg.Pools == nil || r.Block == nil {
		reply.Refused = &online.Refusal{System: plugin.SystemNoPools, Reason: "this upstream serves no slots", Hint: "run it with --serve-pools"}
		return nil
	}
	switch r.Call {
	case online.CallCheckOut:
		reply.Block, reply.Refused, err = g.cfg.Pools.CheckOut(agent, l, r.Block)
	case online.CallExtend:
		reply.Block, reply.Refused, err = g.cfg.Pools.Extend(agent, l, r.Block)
	default:
		err = g.cfg.Pools.Return(agent, r.Block)
	}
	return err
}

func (g *Registry) activationWord(l *enforcer.License, agent string, at int64) (string, error) {
	w := online.Activation{License: l.ID, Product: l.Product, Issued: at}
	w.Cnf.Thumbprint = agent
	b, err := json.Marshal(w)
	if err != nil {
		return "", err
	}
	return g.cfg.Signer.SignAs(online.ActivationType, b)
}

// licence returns the licence of a request: the one in the store, or one that the request shows and that is signed.
func (g *Registry) licence(tx *bbolt.Tx, r *online.Request, now time.Time) (*Licence, *online.Refusal, error) {
	l, err := get[Licence](tx.Bucket(licences), []byte(r.License))
	if err != nil {
		return nil, nil, err
	}
	if l != nil {
		// A site server hears of a renewal from the agents that have it.
		if g.cfg.Site && r.Document != "" && older([]byte(l.Document), []byte(r.Document)) {
			if later, err := g.admit([]byte(r.Document), l.Machines, now); err == nil && later.ID == l.ID {
				l.Document, l.Licensee = later.Document, later.Licensee
				g.cfg.Log.Info("a later issue of a licence was seen", "licence", l.ID)
				return l, nil, put(tx.Bucket(licences), []byte(l.ID), l)
			}
		}
		return l, nil, nil
	}
	if r.Document == "" {
		return nil, &online.Refusal{System: online.SystemNotActivated, Reason: "this host is not activated here"}, nil
	}
	l, err = g.admit([]byte(r.Document), g.cfg.Machines, now)
	if err == nil && l.ID != r.License {
		err = fmt.Errorf("the document is licence %q, and the request is about %q", l.ID, r.License)
	}
	if err != nil {
		return nil, &online.Refusal{System: "UNKNOWN_LICENSE", Reason: err.Error(), Hint: "use a licence of this vendor's"}, nil
	}
	g.cfg.Log.Info("a licence was seen for the first time", "licence", l.ID, "licensee", l.Licensee)
	return l, nil, put(tx.Bucket(licences), []byte(l.ID), l)
}

// admit makes the record of a document that verifies.
func (g *Registry) admit(document []byte, machines int64, now time.Time) (*Licence, error) {
	l, p := usher.Format{}.Verify(document, g.cfg.Anchors)
	if p != nil {
		return nil, fmt.Errorf("%w (%s): %s", ErrRefused, p.Code, p.Reason)
	}
	if g.cfg.Site && l.SiteServer != g.own {
		return nil, fmt.Errorf("%w: licence %s does not name this site server, whose key is %s; have it signed with --site-server", ErrRefused, l.ID, g.own)
	}
	return &Licence{ID: l.ID, Product: l.Product, Licensee: l.Licensee, Document: string(document), State: StateActive, Machines: machines, Added: now}, nil
}

// judge returns the licence's terms, or why nobody may use it, or this agent not.
func (g *Registry) judge(l *Licence, r *online.Request, agent string) (*enforcer.License, *online.Refusal) {
	if code := map[string]enforcer.Code{StateSuspended: enforcer.Suspended, StateRevoked: enforcer.Revoked}[l.State]; code != "" {
		reason := l.Reason
		if reason == "" {
			reason = "the licence is " + l.State
		}
		return nil, &online.Refusal{Code: string(code), Reason: reason, Hint: "ask the vendor"}
	}
	terms, p := usher.Format{}.Verify([]byte(l.Document), g.cfg.Anchors)
	if p != nil {
		return nil, &online.Refusal{System: "UNKNOWN_LICENSE", Reason: p.Reason, Hint: p.Hint}
	}
	switch {
	case terms.Product != r.Product:
		return nil, &online.Refusal{Code: string(enforcer.ProductMismatch), Reason: fmt.Sprintf("the licence is for product %q", terms.Product)}
	case len(terms.AgentKeys) > 0 && !slices.Contains(terms.AgentKeys, agent):
		return nil, &online.Refusal{Code: string(enforcer.AgentKeyMismatch), Reason: "the licence names another agent's key", Hint: "have it bound to this one: `usher fingerprint --request`"}
	}
	return terms, nil
}

// activation finds or makes the record of a host, and goes on with its chain. An Answer means that the request is none.
func (g *Registry) activation(tx *bbolt.Tx, l *Licence, terms *enforcer.License, r *online.Request, agent string, now time.Time) (*Activation, *online.Refusal, *Answer, error) {
	b := tx.Bucket(activations)
	a, err := get[Activation](b, activationKey(l.ID, agent))
	if err != nil {
		return nil, nil, nil, err
	}
	if a == nil {
		switch r.Call {
		case online.CallActivate, online.CallCheckOut:
		case online.CallDeactivate, online.CallReturn:
			return nil, nil, nil, nil // there is nothing to give back
		default:
			return nil, &online.Refusal{System: online.SystemNotActivated, Reason: "this host is not activated here"}, nil, nil
		}
		if d := now.Sub(time.Unix(r.Issued, 0)); d > online.Fresh && r.Chain == "" && !earlyClock(r.Issued) {
			return nil, nil, bad(400, "the request is %v old", d.Round(time.Second)), nil
		}
		if n := g.hosts(b, l.ID, terms, now); l.Machines > 0 && n >= l.Machines {
			return nil, &online.Refusal{Code: string(enforcer.FingerprintMismatch), System: online.SystemTooMany,
				Reason: fmt.Sprintf("the licence is for %d hosts, and that many are activated", l.Machines), Hint: "give one of them up (`usher license release-host` there), or have the licence extended"}, nil, nil
		}
		if g.cfg.Site {
			if err := prune(b, l.ID, now); err != nil {
				return nil, nil, nil, err
			}
		}
		a = &Activation{License: l.ID, AgentKey: agent, Activated: now}
		g.cfg.Log.Info("a host was activated", "licence", l.ID, "agent_key", agent)
	} else {
		// A request that was said before changes nothing: the way there has doubled it, or somebody replays it.
		s := a.sequence(r.Call)
		switch i := slices.Index(s.Nonces, r.Nonce); {
		case i >= 0 && i == len(s.Nonces)-1:
			return a, nil, nil, nil
		case i >= 0 || r.Issued < s.Issued:
			return nil, nil, bad(409, "the request is older than one that was answered"), nil
		}
		// An agent that has lost its blocks checks others out; those it had are over in their time.
		anew := (r.Call == online.CallActivate || r.Call == online.CallCheckOut) && r.Chain == ""
		// Who shows what the last answer to any call said is no copy.
		latest := r.Chain != "" && (r.Chain == a.Chain || r.Chain == a.Blocks.Chain)
		if r.Chain != s.Chain && r.Chain != s.Previous && !anew && !latest {
			a.ClonedAt = now
			g.cfg.Log.Warn("two hosts go on with one state", "licence", l.ID, "agent_key", agent)
			if err := put(b, activationKey(l.ID, agent), a); err != nil {
				return nil, nil, nil, err
			}
			return nil, &online.Refusal{Code: string(enforcer.AgentKeyMismatch), System: online.SystemCloned,
				Reason: "another host has gone on with this one's state and key: one is a copy of the other",
				Hint:   "remove the state folder and the agent's key on the copy, and activate it as a host of its own"}, nil, nil
		}
	}
	// The last reply may have been lost: what it said and what was said before are both good once, and no longer.
	s := a.sequence(r.Call)
	s.Issued, s.Previous, s.Chain = r.Issued, r.Chain, newChain()
	if s.Nonces = append(s.Nonces, r.Nonce); len(s.Nonces) > noncesKept {
		s.Nonces = s.Nonces[1:]
	}
	a.Seen, a.Version, a.Components, a.Cores = now, r.Version, r.Components, r.Cores
	if r.Usage != nil {
		a.Usage = r.Usage
	}
	for _, e := range r.Emergencies {
		if slices.Contains(a.Emergencies, e) {
			continue
		}
		if a.Emergencies = append(a.Emergencies, e); len(a.Emergencies) > emergenciesKept {
			a.Emergencies = a.Emergencies[1:]
		}
		g.cfg.Log.Warn("an operator has begun an emergency", "licence", l.ID, "agent_key", agent, "began", time.Unix(e.Began, 0).UTC(), "reason", e.Reason)
	}
	return a, nil, nil, nil
}

// sequence returns the sequence that a call belongs to: agents make calls for blocks beside the others, and each kind one
// after the other.
func (a *Activation) sequence(call string) *Sequence {
	if isBlockCall(call) {
		return &a.Blocks
	}
	return &a.Sequence
}

func isBlockCall(call string) bool {
	return call == online.CallCheckOut || call == online.CallExtend || call == online.CallReturn
}

// earlyClock reports whether a host says a time before any licence: an edge box that has not been told the time yet.
func earlyClock(issued int64) bool { return issued < 1_600_000_000 }

// hosts counts the hosts of a licence. One whose heartbeats have stopped for longer than they may gives its place up.
func (g *Registry) hosts(b *bbolt.Bucket, license string, terms *enforcer.License, now time.Time) (n int64) {
	for _, a := range hostsOf(b, license) {
		if p := terms.Heartbeat; !p.Stated() || now.Before(p.After(a.Seen).Add(p.Grace)) {
			n++
		}
	}
	return n
}

// prune forgets the hosts of a licence that have not been seen for a month: pods come and go, each with a key of its own.
func prune(b *bbolt.Bucket, license string, now time.Time) error {
	for _, a := range hostsOf(b, license) {
		if now.Sub(a.Seen) > 30*24*time.Hour {
			if err := b.Delete(activationKey(license, a.AgentKey)); err != nil {
				return err
			}
		}
	}
	return nil
}

func hostsOf(b *bbolt.Bucket, license string) (out []Activation) {
	prefix := activationKey(license, "")
	for c, k := b.Cursor(), []byte(nil); ; {
		var v []byte
		if k == nil {
			k, v = c.Seek(prefix)
		} else {
			k, v = c.Next()
		}
		if k == nil || len(k) < len(prefix) || string(k[:len(prefix)]) != string(prefix) {
			return out
		}
		var a Activation
		if json.Unmarshal(v, &a) == nil {
			out = append(out, a)
		}
	}
}

func newChain() string {
	b := make([]byte, 18)
	rand.Read(b) // never fails: see crypto/rand
	return base64.RawURLEncoding.EncodeToString(b)
}
