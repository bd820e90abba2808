package fleet

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// Keys of the store, below fleet.prefix. AGENT is the thumbprint of an agent's key (RFC 7638), POOL the name of
// [poolName].
//
//	a/AGENT           an agent that lives; ends with its lease
//	e/AGENT           an agent that an operator has put out; e/AGENT/hold ends once its fence is over
//	e/AGENT/drain     an agent that an operator has give its idle slots back, and take none
//	e/!rules          the rules for hosts, by which agents take slots; see siterule.go
//	u/AGENT           how many slots an agent's callers hold, as it last answered to that question
//	o/AGENT           the pools of which an agent has blocks, so that it finds those of a licence that it has no more
//	                  (o/ and r/ of an agent that is long gone are deleted: see gone.go)
//	p/POOL/t          the terms that hold
//	p/POOL/s          how many slots are out in all, those in the shares below among them
//	p/POOL/fN         share N of the total, 1 to 15: slots that are free, and that s counts as out; see shard.go
//	p/POOL/g/AGENT    an agent's blocks; without a lease, so that s is always their sum and that of the shares
//	p/POOL/w/AGENT    a ticket: the agent waits for slots; first made is first served; ends with the agent's lease
//	r/AGENT/POOL      word for one agent: others want its idle slots, or slots have come free for it
//	r/AGENT/!         word of an operator: look at e/AGENT at once
//	r/AGENT/?         a question: how many slots are held there?
//	m/METER/PERIOD/s  how many draws were taken in all
//	m/METER/PERIOD/d/AGENT  an agent's last draw, with its token
//	                  (of a period that is long past, both are deleted: see past.go)
//	c                 the identity of the store
//	l                 the longest fleet.ttl that an agent has had: how long a quarantine lasts
//	q                 a quarantine; ends with its lease
type keys struct{ prefix string }

func (k keys) agent(id string) string   { return k.prefix + "a/" + id }
func (k keys) agents() string           { return k.prefix + "a/" }
func (k keys) evicted(id string) string { return k.prefix + "e/" + id }
func (k keys) hold(id string) string    { return k.prefix + "e/" + id + "/hold" }
func (k keys) drained(id string) string { return k.prefix + "e/" + id + "/drain" }
func (k keys) used(id string) string    { return k.prefix + "u/" + id }
func (k keys) owns(id string) string    { return k.prefix + "o/" + id }
func (k keys) rules() string            { return k.prefix + "e/" + rulesKey }
func (k keys) cluster() string          { return k.prefix + "c" }
func (k keys) longest() string          { return k.prefix + "l" }
func (k keys) quarantine() string       { return k.prefix + "q" }

func (k keys) terms(pool string) string  { return k.prefix + "p/" + pool + "/t" }
func (k keys) total(pool string) string  { return k.prefix + "p/" + pool + "/s" }
func (k keys) shares(pool string) string { return k.prefix + "p/" + pool + "/f" }
func (k keys) share(pool string, n int) string {
	return k.shares(pool) + strconv.Itoa(n)
}
func (k keys) blocks(pool string) string     { return k.prefix + "p/" + pool + "/g/" }
func (k keys) block(pool, id string) string  { return k.blocks(pool) + id }
func (k keys) tickets(pool string) string    { return k.prefix + "p/" + pool + "/w/" }
func (k keys) ticket(pool, id string) string { return k.tickets(pool) + id }
func (k keys) anyWords() string              { return k.prefix + "r/" }
func (k keys) words(id string) string        { return k.prefix + "r/" + id + "/" }
func (k keys) word(id, pool string) string   { return k.words(id) + pool }
func (k keys) meters() string                { return k.prefix + "m/" }
func (k keys) drawn(meter, at string) string { return k.prefix + "m/" + meter + "/" + at + "/s" }
func (k keys) draw(meter, at, id string) string {
	return k.prefix + "m/" + meter + "/" + at + "/d/" + id
}

// poolName names a pool of a licence in keys: the product, the part of its terms, the pool. All base licences of a
// product are one part, so that a renewal under another id takes no second set of slots; each add-on is a part of its
// own.
func poolName(l *enforcer.License, pool string) string {
	part := "base"
	if l.Role == enforcer.RoleAddOn {
		part = "add-on " + l.ID
	}
	sum := sha256.Sum256([]byte(l.System + "\x00" + l.Product + "\x00" + part + "\x00" + pool))
	return plainName(pool) + "." + base64.RawURLEncoding.EncodeToString(sum[:9])
}

// plainName is a pool's name as people find it among keys.
func plainName(pool string) string {
	s := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, pool)
	return s[:min(len(s), 32)]
}

// plainOf returns the plain name in that of a key.
func plainOf(key string) string { return key[:max(0, strings.LastIndexByte(key, '.'))] }

// member is the value of a/AGENT.
type member struct {
	Incarnation string `json:"incarnation"`
	Name        string `json:"name,omitempty"` // of the host, for people
	Version     string `json:"version,omitempty"`
	// TTL is for how many seconds after its last sign of life the agent's slots may be in use.
	TTL float64 `json:"ttl,omitempty"`
}

// terms is the value of p/POOL/t: the lowest that a living block names.
type terms struct {
	Limit    int64  `json:"limit"`
	Document string `json:"document"` // SHA-256 of the document, base64url
}

// total is the value of p/POOL/s.
type total struct {
	Out int64 `json:"out"`
}

// share is the value of p/POOL/fN. Its slots may be taken only under the terms, and in the epoch of the store, by which
// they were put there: then s was not over the limit, and has not been since.
type share struct {
	Free  int64  `json:"free"`
	Terms int64  `json:"terms"` // the revision of p/POOL/t
	Epoch string `json:"epoch"` // of the key c
}

// held is the value of p/POOL/g/AGENT.
type held struct {
	Incarnation string           `json:"incarnation"`
	Blocks      map[string]int64 `json:"blocks"`
	// TTL is for how many seconds they may be in use unseen: the agent's fleet.ttl, and what held leases have beyond
	// it.
	TTL   float64   `json:"ttl"`
	Since time.Time `json:"since,omitzero"` // when it got the first of them, by its clock: for people
	// Fence is the agent's fleet.ttl in seconds: once its key has been gone for so long, it gives nothing of the
	// blocks.
	Fence float64 `json:"fence,omitempty"`
	// Moved are parts of the blocks that are others' now: see [Bound.Adopt].
	Moved map[string]moved `json:"moved,omitempty"`
	// Went are the parts that moved before this agent went on with the rest. Until their time is over they move no
	// second time, whatever an agent shows that has not heard of the move.
	Went map[string]moved `json:"went,omitempty"`
	// Left are the parts that the agent had lent when it stopped lending: others may have them at once. The agent
	// lends and extends nothing before it has written its blocks without it. See [Bound.Leave].
	Left map[string]int64 `json:"left,omitempty"`
	// Former are slots that former incarnations of the agent may have in use still: this one did not go on from them.
	Former map[string]former `json:"former,omitempty"` // by incarnation
	// Host and Labels are the agent's name and labels, by which rules for hosts count the blocks.
	Host   string            `json:"host,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	title
	terms
}

// title is what a pool is called, for people: its key has less.
type title struct {
	Pool    string `json:"pool,omitempty"` // as the licence names it
	Product string `json:"product,omitempty"`
	AddOn   string `json:"add_on,omitempty"` // the add-on whose pool it is; empty: the base licences'
}

// of states the title of a pool.
func (t title) of(p *wire.FleetPool) {
	if t.Pool != "" { // agents of former versions state none
		p.Pool, p.Product, p.AddOn = t.Pool, t.Product, t.AddOn
	}
}

func titleOf(l *enforcer.License, pool string) title {
	t := title{Pool: pool, Product: l.Product}
	if l.Role == enforcer.RoleAddOn {
		t.AddOn = l.ID
	}
	return t
}

// former is what another incarnation of an agent has left.
type former struct {
	Slots int64   `json:"slots"`
	TTL   float64 `json:"ttl"` // as of the blocks
	// Labels are those that the agent had.
	Labels map[string]string `json:"labels,omitempty"`
}

func (x former) same(o former) bool {
	return x.Slots == o.Slots && x.TTL == o.TTL && maps.Equal(x.Labels, o.Labels)
}

// moved is a part of a lender's blocks that another has taken over, for one to whom it had been lent.
type moved struct {
	Slots int64  `json:"slots"`
	To    string `json:"to"` // the agent that has it now
}

// empty reports whether nothing of it need be known.
func (h *held) empty() bool { return h.sum() == 0 && len(h.Went) == 0 }

func (h *held) sum() int64 { return h.own() + rest(h.Former) }

// own is the sum of the blocks without what has moved.
func (h *held) own() int64 {
	n := sum(h.Blocks)
	for _, m := range h.Moved {
		n -= m.Slots
	}
	return n
}

func rest(all map[string]former) (n int64) {
	for _, x := range all {
		n += x.Slots
	}
	return n
}

// longest is the value of l.
type longest struct {
	TTL float64 `json:"ttl"` // in seconds
}

// owned is the value of o/AGENT.
type owned struct {
	Pools []string `json:"pools"`
	Name  string   `json:"name,omitempty"` // of the host, for people: that of an agent that is gone
}

// ticket is the value of p/POOL/w/AGENT.
type ticket struct {
	Slots  int64             `json:"slots"`
	Host   string            `json:"host,omitempty"` // as in held
	Labels map[string]string `json:"labels,omitempty"`
}

// word is the value of r/AGENT/POOL.
type word struct {
	Wanted int64 `json:"wanted,omitempty"`
	// Shares: the one who wants them has looked at the shares of the total, as earlier versions do not.
	Shares bool  `json:"shares,omitempty"`
	Free   int64 `json:"free,omitempty"`
}

// drawn is the value of m/METER/PERIOD/s, and lastDraw that of its d/AGENT.
type drawn struct {
	Drawn int64 `json:"drawn"`
}

type lastDraw struct {
	Token string `json:"token"`
	N     int64  `json:"n"`
	Sum   int64  `json:"sum"` // of all its draws in the period
}

// order is the value of e/AGENT and of e/AGENT/drain: what an operator has told an agent.
type order struct {
	Name string    `json:"name,omitempty"` // of the agent's host
	By   string    `json:"by,omitempty"`   // the host or user where the operator asked, for people
	At   time.Time `json:"at"`             // by that one's clock, for people
}

// used is the value of u/AGENT.
type used struct {
	InUse map[string]int64 `json:"in_use"` // by pool, as [poolName] has it
}

// text returns a value as it is stored. The types above always have one.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// read reads a value. One that cannot be read is as if it were not there, but for its revision.
func read[T any](kv KV, ok bool) (v T, _ error) {
	if !ok {
		return v, nil
	}
	if err := json.Unmarshal([]byte(kv.Value), &v); err != nil {
		return v, &unreadableError{kv.Key, err}
	}
	return v, nil
}

// unreadableError is a key that somebody else has written.
type unreadableError struct {
	key   string
	cause error
}

func (e *unreadableError) Error() string {
	return "the value of " + e.key + " cannot be read: " + e.cause.Error()
}
