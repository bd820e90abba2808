package registry

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// A broker is a site server that has its slots from a fleet. It lends no more of a pool than it has there, and gives
// and extends blocks only while its place in the fleet is proved. Blocks that agents have run on after that: the fleet
// keeps their slots from others until they are over.

// stock is what a broker has of one pool.
type stock struct {
	slots int64         // all that it has
	part  int64         // what it may lend of that from now on: less, where the limit has shrunk
	until time.Duration // on the server's boot-time clock: nothing is given or extended then
}

// fleetWants is the name under which the wants of the rest of the fleet are counted.
const fleetWants = "\x00fleet"

// Demand is what a broker's agents have and want of one pool of one licence.
type Demand struct {
	Out     int64 // slots of the blocks that agents have
	Missing int64 // slots that agents have asked for in vain lately
}

// Term is a licence that the server knows, and that is good.
type Term struct {
	*enforcer.License
	Document []byte
}

// Terms returns the licences that are good.
func (g *Registry) Terms() (out []Term, err error) {
	err = g.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(licences).ForEach(func(_, v []byte) error {
			var l Licence
			if err := json.Unmarshal(v, &l); err != nil {
				return err
			}
			terms, p := g.verify(l.Document)
			if l.State == StateActive && p == nil {
				out = append(out, Term{terms, []byte(l.Document)})
			}
			return nil
		})
	})
	return out, err
}

// Broker is what makes a site server a broker.
type Broker struct {
	Name string // in the fleet
	// Report says how the server stands in its fleet, in JSON: see [Done].
	Report func() ([]byte, error)
	// Lacking is told, without a wait, when agents ask for more than there is.
	Lacking func()
	// Adopt takes a block over that another broker gave to an agent. It may ask the fleet. unsure says that it may have
	// done so although it failed: what was reserved stays so.
	Adopt func(*Adoption) (unsure bool, err error)
	// Draw takes draws of a meter for an agent, or says why not. It may ask the fleet; nil: no draws are given.
	Draw func(agent string, l *enforcer.License, r *online.DrawRequest) (int64, *online.Refusal)
}

// lender is a Broker, and zero for a server that is none.
type lender struct {
	name   string
	report func() ([]byte, error)
	adopt  func(*Adoption) (unsure bool, err error)
	draw   func(agent string, l *enforcer.License, r *online.DrawRequest) (int64, *online.Refusal)
}

// brokerSecret is what a signature is made for that nobody sees: the words of a site's brokers are sealed with it.
const brokerSecret = "usher-broker-secret"

// ServeBroker has the registry serve blocks of what [Blocks.Stock] says it has, instead of all that licences grant. All
// brokers of a site have one key, which must sign one thing always alike (EdDSA). Call it after ServePools, and before
// anything is served.
func (g *Registry) ServeBroker(b Broker) (*Blocks, error) {
	one, err := g.cfg.Signer.SignAs(brokerSecret, []byte("{}"))
	if err != nil {
		return nil, err
	}
	if two, err := g.cfg.Signer.SignAs(brokerSecret, []byte("{}")); err != nil || one != two {
		return nil, errors.New("a site server with slots of a fleet needs an Ed25519 key: make one with " +
			"`usher upstream site-key`")
	}
	sum := sha256.Sum256([]byte(one))
	g.secret = sum[:]
	g.broker = lender{b.Name, b.Report, b.Adopt, b.Draw}
	p := g.cfg.Pools.(*Blocks)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lacking, p.blocks.stocks = b.Lacking, map[share]stock{}
	return p, nil
}

// takeOver has this broker take the block of a request over that another one gave, which is gone or has stopped: the
// agent shows that one's word for it. It returns why not.
func (g *Registry) takeOver(q *question) *online.Refusal {
	p, ok := g.cfg.Pools.(*Blocks)
	if !ok || g.broker.adopt == nil || q.Block == nil || q.Block.Moved == "" ||
		q.Call != online.CallExtend && q.Call != online.CallReturn {
		return nil
	}
	chain, sealed, _ := strings.Cut(q.Block.Moved, ".")
	w := g.unseal(sealed, q.License, q.agent, chain)
	if w == nil || w.Broker == "" || w.Broker == g.broker.name {
		return lapsed("the word of the site server that gave the block is not good")
	}
	had, ok := w.Had[q.Block.ID]
	if !ok {
		return lapsed("the site server that gave the block said nothing of it")
	}
	if p.has(q.Block.ID) { // the answer was lost
		q.comes(had)
		return nil
	}
	terms, err := g.Terms()
	if err != nil {
		return &online.Refusal{System: plugin.SystemAway, Reason: "the licences cannot be read: " + err.Error()}
	}
	i := slices.IndexFunc(terms, func(t Term) bool { return t.ID == q.License })
	if i < 0 {
		return lapsed("this site server does not know the licence")
	}
	fresh, a := false, &Adoption{From: w.Broker, License: terms[i].License, Pool: had.Pool, Part: q.Block.ID,
		Slots: had.Slots}
	if q.Block.Slots > 0 { // it may have given some back without an answer, and others have them since
		a.Slots = min(a.Slots, q.Block.Slots)
	}
	a.Reserve = func(n int64) (bool, error) {
		first, err := p.reserve(q.agent, a.License, a.Pool, a.Part, n)
		fresh = fresh || first
		return first, err
	}
	a.Put = func(n, slots, part int64, until time.Duration) error {
		return p.adopt(q.agent, a, n, stock{slots, part, until})
	}
	unsure, err := g.broker.adopt(a)
	if err != nil && fresh && !unsure {
		err = errors.Join(err, p.release(a.Part))
	}
	var e *plugin.Error
	switch {
	case err == nil:
		q.comes(had)
		return nil
	case errors.As(err, &e) && e.SystemCode == plugin.SystemLapsed:
		return lapsed(e.Reason)
	}
	return &online.Refusal{System: plugin.SystemAway, Reason: err.Error(),
		Hint: "the agent goes on with the block until its time is over, and asks again"}
}

// comes takes note that the block was another broker's, whose word says what the agent has of it. What this one has
// said of the block, if it had it before, is older.
func (q *question) comes(had Had) {
	q.moved = true
	if q.word == nil {
		return
	}
	w := *q.word
	if w.Had = maps.Clone(w.Had); w.Had == nil {
		w.Had = map[string]Had{}
	}
	w.Had[q.Block.ID] = had
	q.word = &w
}

// Moved takes note that other brokers have taken over what agents had of this one.
func (p *Blocks) Moved(ids []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return p.blocks.by[id] == nil })
	now := p.up()
	maps.DeleteFunc(p.gone, func(_ string, until time.Duration) bool { return until <= now })
	for _, id := range ids {
		if p.gone == nil {
			p.gone = map[string]time.Duration{}
		}
		p.gone[id] = p.blocks.by[id].until
	}
	return p.keep(change{drop: ids})
}

// Stock says what the broker has of a pool: slots, of which it may lend part from now on, and until when.
func (p *Blocks) Stock(license, pool string, slots, part int64, until time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := share{license, pool}
	p.blocks.stocks[s] = stock{slots, part, until}
	p.blocks.totals[s] = enforcer.Limit(min(slots, part))
	p.tell(license)
}

// Lower takes slots of a pool out of use, down to n, and returns how many the broker must keep: agents may have more.
func (p *Blocks) Lower(license, pool string, n int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := share{license, pool}
	x := p.blocks.stocks[s]
	n = min(x.slots, max(n, p.blocks.out(s, "", p.up())))
	x.slots, x.part = n, min(x.part, n)
	p.blocks.stocks[s] = x
	return n
}

// Hold keeps what agents of a licence give back of a pool from its other agents while they have most slots or more: it
// is promised to agents of another licence. What agents have stays theirs. Less than zero: nothing is kept back.
func (p *Blocks) Hold(license, pool string, most int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := share{license, pool}
	was, held := p.blocks.most[s]
	switch {
	case most < 0 && held:
		delete(p.blocks.most, s)
		p.tell(license)
	case most >= 0 && (!held || was != most):
		if p.blocks.most == nil {
			p.blocks.most = map[share]int64{}
		}
		p.blocks.most[s] = most
	}
}

// freed tells the broker that agents have given slots back that others may wait for. p.mu is held.
func (p *Blocks) freed(s share) {
	if _, held := p.blocks.most[s]; held {
		p.lacking()
	}
}

// Want says that the rest of the fleet wants n slots of a pool: agents with idle ones are told.
func (p *Blocks) Want(license, pool string, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, now := share{license, pool}, p.up()
	if p.blocks.missing[s] == nil {
		p.blocks.missing[s] = map[string]want{}
	}
	p.blocks.missing[s][fleetWants] = want{count: count{n, now + p.ttl/2}, since: now}
	p.tell(license)
}

// Stands takes note of how the broker stands in its fleet. drains: new blocks are for other servers to give. why is the
// reason that agents hear while the broker's place is not proved; empty: none is known.
func (p *Blocks) Stands(drains bool, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drains, p.why = drains, why
}

// Lent returns how many slots of a pool agents have in blocks, of all licences.
func (p *Blocks) Lent(pool string) (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.up()
	for _, x := range p.blocks.by {
		if x.Pool == pool && x.until > now {
			n += x.Slots
		}
	}
	return n
}

// Demand returns what agents have and want of a pool of a licence.
func (p *Blocks) Demand(license, pool string) (d Demand) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, now := share{license, pool}, p.up()
	d.Out = p.blocks.out(s, "", now)
	for who, w := range p.blocks.missing[s] {
		if who != fleetWants && w.until > now {
			d.Missing += w.slots
		}
	}
	return d
}

// away is the answer while the broker's place in the fleet is not proved; nil: it is, or this is no broker. p.mu is
// held.
func (p *Blocks) away(agent, license string, r *online.BlockRequest) *online.Refusal {
	if p.blocks.stocks == nil {
		return nil
	}
	if left := p.left(agent, r); left != nil {
		return left
	}
	if p.drains && r.ID == "" {
		return &online.Refusal{System: plugin.SystemAway, Reason: "an operator drains this site server: it gives no " +
			"more slots", Hint: "the agent asks another one"}
	}
	s := share{license, r.Pool}
	if x := p.blocks.by[r.ID]; r.ID != "" && x != nil {
		s.pool = x.Pool
	}
	until := p.blocks.stocks[s].until
	if r.Pool == "" && p.blocks.by[r.ID] == nil { // a block that is not known: any pool of the licence tells
		for t, x := range p.blocks.stocks {
			if t.license == license {
				until = max(until, x.until)
			}
		}
	}
	if p.up() < until {
		return nil
	}
	reason := "this site server has no proof of its place in the fleet at the moment"
	if p.why != "" {
		reason += ": " + p.why
	}
	return &online.Refusal{System: plugin.SystemAway, Reason: reason,
		Hint: "the agent asks another one, or this one again later"}
}

// total returns how many slots of a pool the server has for a licence's agents; ok is false where the licence has no
// such pool.
func (b *blocks) total(l *enforcer.License, pool string) (total enforcer.Limit, ok bool) {
	total, ok = l.SitePools()[pool]
	if b.stocks == nil || !ok {
		return total, ok
	}
	x := b.stocks[share{l.ID, pool}]
	return total.Min(enforcer.Limit(min(x.slots, x.part))), true
}
