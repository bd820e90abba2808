// Package registry is the reference upstream that a vendor or a site runs as `usher upstream`. It knows on which hosts
// a licence is activated, suspends, revokes and renews licences, and tells two hosts apart that go on from one state.
// [Registry.Handle] decides one request; package online defines the messages.
package registry

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
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
	Dir    string        // of the store; one registry per folder
	Signer *issue.Signer // signs replies, and renewed licences
	// Site says that Signer's key is not a vendor's but a site server's own: it serves blocks of slots alone, of the
	// licences that Anchors verify and that name that key.
	Site     bool
	Anchors  []plugin.Anchor // further keys that licences are signed with; the signer's own need not be named
	Machines int64           // hosts that a licence may be activated on, where none was set; 0, AnyNumber: any number
	Pools    Pools           // serves blocks of slots; nil: none are served
	// RequireEnrolment says that the licence document alone admits no key that is unknown: it needs a token, see
	// [Registry.NewToken].
	RequireEnrolment bool
	// RunDir is a folder that does not outlive a boot of the host, and is not backed up with Dir. With BootID, which
	// identifies the boot, it shows that a store is the latest. Empty: after each start no new blocks go out for a
	// block's time.
	RunDir, BootID string
	Now            func() time.Time
	Log            *slog.Logger
	// Answered is called for each request; optional.
	Answered func(call, result string)
}

// States of a licence.
const (
	StateActive    = "active"
	StateSuspended = "suspended"
	StateRevoked   = "revoked"
)

// Licence is the record of one licence.
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
	ID        string    `json:"id,omitempty"` // of this record; a later record has another
	Activated time.Time `json:"activated"`
	Seen      time.Time `json:"seen"`
	Sequence
	Blocks   Sequence  `json:"blocks,omitzero"`    // of the calls for blocks, which go their own way
	Draws    Sequence  `json:"draws,omitzero"`     // of the calls for draws, likewise
	ClonedAt time.Time `json:"cloned_at,omitzero"` // when a request came with a state from which another had gone on
	// Shown is the date of the latest issue of the licence that this key has shown; 0: none, as before keys had to.
	Shown int64 `json:"shown,omitzero"`
	// Enrolled is the id of the token that admitted this key; empty: the licence document did.
	Enrolled string `json:"enrolled,omitempty"`
	// Labels are the host's, as the token that admitted it or an operator bound them to its key.
	Labels map[string]string `json:"labels,omitempty"`
	Again
	Version    string              `json:"version,omitempty"`
	Components map[string][]string `json:"components,omitempty"`
	Cores      *online.Cores       `json:"cores,omitempty"`
	Usage      []online.Usage      `json:"usage,omitempty"`
	// Emergencies are those that the host has reported.
	Emergencies []online.Emergency `json:"emergencies,omitempty"`
}

// Sequence is the last of a host's requests. It tells the host's next one from a copy's and from an old one.
type Sequence struct {
	Issued   int64    `json:"issued"` // of its last request, by its own clock
	Chain    string   `json:"chain"`
	Previous string   `json:"previous,omitempty"`
	Nonces   []string `json:"nonces,omitempty"` // of the requests of the second Issued, the latest last
	Count    int64    `json:"count,omitzero"`   // of the requests
}

var (
	licences    = []byte("licences")
	activations = []byte("activations")
	released    = []byte("released")   // records of hosts that have given their place up
	enrolments  = []byte("enrolments") // tokens
)

// noncesKept is how many requests of one second a host may make. Their nonces are remembered; the date identifies older
// ones.
const noncesKept = 64

// emergenciesKept is how many emergencies of a host are remembered.
const emergenciesKept = 64

// Errors that the commands of an operator meet.
var (
	ErrUnknown = errors.New("there is no such licence or host; usher upstream list --hosts shows those that there are")
	ErrRefused = errors.New("the licence is not good")
)

// Registry is a store and its rules. It is safe for concurrent use.
type Registry struct {
	cfg Config
	db  *bbolt.DB
	own string // the thumbprint of the signer's key

	store  string // its id
	secret []byte // what it seals words with
	broker lender
	last   atomic.Pointer[verified]
	aged   atomic.Bool // it was logged that the store is an old copy
	tidied time.Time   // when released hosts to forget were last looked for; within a writing transaction
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
	own, err := plugin.Thumbprint(cfg.Signer.Anchor.Key)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", cfg.Signer.Anchor.KeyID, err)
	}
	if !cfg.Site {
		cfg.Anchors = append([]plugin.Anchor{cfg.Signer.Anchor}, cfg.Anchors...)
	}
	db, err := bbolt.Open(filepath.Join(cfg.Dir, "registry.db"), 0o600, &bbolt.Options{Timeout: time.Second})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, fmt.Errorf(
			"store %s: another process is using it; stop that one, or give this one a folder of its own", cfg.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	g := &Registry{cfg: cfg, db: db, own: own, tidied: cfg.Now()}
	err = db.Update(func(tx *bbolt.Tx) error {
		var faults []error
		for _, name := range [][]byte{licences, activations, released, enrolments} {
			_, err := tx.CreateBucketIfNotExists(name)
			faults = append(faults, err)
		}
		var err error
		g.store, g.secret, err = identity(tx)
		return errors.Join(append(faults, err, forgetReleased(tx, cfg.Now()))...)
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return g, nil
}

// verified is what came of the verification of a document. It depends on the document and the anchors alone.
type verified struct {
	document string
	terms    *enforcer.License // nobody changes it
	problem  *enforcer.Problem
}

// verify verifies the document of a licence that is in the store. Nearly all requests are for one licence, and each
// looks at it twice: the last one is remembered.
func (g *Registry) verify(document string) (*enforcer.License, *enforcer.Problem) {
	v := g.last.Load()
	if v == nil || v.document != document {
		terms, problem := usher.Format{}.Verify([]byte(document), g.cfg.Anchors)
		v = &verified{document, terms, problem}
		g.last.Store(v)
	}
	return v.terms, v.problem
}

// Close closes the store.
func (g *Registry) Close() error {
	if p, ok := g.cfg.Pools.(*Blocks); ok {
		p.stamp.close()
	}
	return g.db.Close()
}

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

// Answer is the result of a request.
type Answer struct {
	Reply  *online.Reply // to be signed
	Status int           // of HTTP, where there is no reply: the request was malformed
	Detail string
}

func bad(status int, format string, args ...any) *Answer {
	return &Answer{Status: status, Detail: fmt.Sprintf(format, args...)}
}

// Handle decides one request of the agent with the key agent. For a caller that is refused it writes nothing, except
// that a known host has a copy.
func (g *Registry) Handle(r *online.Request, agent string) (*Answer, error) {
	if g.cfg.Site && !isShareCall(r.Call) {
		// It could not sign an answer that an agent would believe.
		return bad(404, "this is a site server: it serves blocks of slots and draws, and no %s", r.Call), nil
	}
	asked := *r
	r = &asked
	q := &question{Request: r, agent: agent, now: g.cfg.Now(), settling: g.cfg.Pools != nil && g.cfg.Pools.Settling()}
	q.hear(g)
	if refused := g.takeOver(q); refused != nil {
		return &Answer{Reply: &online.Reply{Call: r.Call, Issued: q.now.Unix(), Nonce: r.Nonce, License: r.License,
			AgentKey: agent, Refused: refused}}, nil
	}
	if r.Document != "" {
		q.shown, q.problem = usher.Format{}.Verify([]byte(r.Document), g.cfg.Anchors)
	}
	var d *decision
	err := g.db.View(func(tx *bbolt.Tx) (err error) {
		d, err = g.decide(tx, q)
		return err
	})
	if err == nil && d.changes() {
		err = g.db.Update(func(tx *bbolt.Tx) (err error) {
			if d, err = g.decide(tx, q); err != nil {
				return err
			}
			return g.carryOut(tx, d, q)
		})
	}
	if err != nil {
		return nil, err
	}
	for _, say := range d.log {
		say(g.cfg.Log)
	}
	if d.none != nil {
		return d.none, nil
	}
	reply := &online.Reply{Call: r.Call, Issued: q.now.Unix(), Nonce: r.Nonce, License: r.License, AgentKey: agent,
		Refused: d.refused, Chain: d.chain, Document: d.document}
	if d.aged {
		g.foundOld(q)
	}
	if reply.Refused == nil && d.terms != nil {
		if err := g.more(reply, r, agent, d.terms, q.word); err != nil {
			return nil, err
		}
	}
	if reply.Chain != "" && d.next != nil {
		d.next.Broker = g.broker.name
		d.next.At, d.next.Had = reply.Issued, q.word.hear(reply.Block, g.cfg.Pools)
		reply.Chain += g.seal(d.next, r.License, agent, reply.Chain)
	}
	return &Answer{Reply: reply}, nil
}

// more adds to a reply what does not come from the store: the vendor's word for the agent's key, and blocks of slots.
func (g *Registry) more(reply *online.Reply, r *online.Request, agent string, l *enforcer.License, w *word) error {
	var err error
	switch r.Call {
	case online.CallActivate:
		reply.Activation, err = g.activationWord(l, agent, reply.Issued)
		return err
	case online.CallDraw:
		reply.Draw, reply.Refused = g.draw(agent, l, r.Draw)
		return nil
	case online.CallCheckOut, online.CallExtend, online.CallReturn:
	default:
		return nil
	}
	if g.cfg.Pools == nil || r.Block == nil {
		reply.Refused = &online.Refusal{System: plugin.SystemNoPools, Reason: "this upstream serves no slots",
			Hint: "run it with --serve-pools"}
		return nil
	}
	switch r.Call {
	case online.CallCheckOut:
		reply.Block, reply.Refused, err = g.cfg.Pools.CheckOut(agent, l, r.Block, w.had())
	case online.CallExtend:
		reply.Block, reply.Refused, err = g.cfg.Pools.Extend(agent, l, r.Block, w.had())
	default:
		reply.Refused, err = g.cfg.Pools.Return(agent, r.Block)
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

// hosts counts the hosts of a licence. A host whose heartbeats have stopped for longer than the licence allows gives
// its place up.
func (g *Registry) hosts(b *bbolt.Bucket, license string, terms *enforcer.License, now time.Time) (n int64) {
	for _, a := range hostsOf(b, license) {
		if p := terms.Heartbeat; !p.Stated() || now.Before(p.After(a.Seen).Add(p.Grace)) {
			n++
		}
	}
	return n
}

// prune forgets the hosts of a licence that have not been seen for a month: pods come and go, each with a key of its
// own.
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
