package fleet

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// Kind says what a call to the store is for.
type Kind string

// The kinds. All calls of one kind are counted together.
const (
	KindJoin       Kind = "join"       // an agent joins: reads and writes of its own key
	KindBeat       Kind = "heartbeat"  // the read after a renewal of the lease
	KindLease      Kind = "lease"      // a lease is made or renewed
	KindRead       Kind = "read"       // of one pool, or of the words for this agent
	KindChange     Kind = "change"     // of the agent's blocks: they grow, shrink or end
	KindTerms      Kind = "terms"      // the terms rise
	KindWait       Kind = "wait"       // tickets, and words to other agents
	KindReap       Kind = "reap"       // a dead agent's blocks are taken over
	KindDraw       Kind = "draw"       // of a meter
	KindQuarantine Kind = "quarantine" // one begins
	KindOperate    Kind = "operate"    // what an operator asks
)

// Kinds are all of them.
var Kinds = []Kind{KindJoin, KindBeat, KindLease, KindRead, KindChange, KindTerms, KindWait, KindReap, KindDraw,
	KindQuarantine, KindOperate}

// Outcome is how a call to the store ended.
type Outcome string

// The outcomes.
const (
	Done     Outcome = "done"
	Conflict Outcome = "conflict" // what it compared has changed; of a lease: it is over
	Failed   Outcome = "error"    // it may have been done or not
)

// Outcomes are all of them.
var Outcomes = []Outcome{Done, Conflict, Failed}

// Observer is told what a fleet does. It waits for nothing.
type Observer interface {
	// Called is told of each call to the store.
	Called(kind Kind, outcome Outcome, took time.Duration)
	// Failed is told why a call failed.
	Failed(Fault)
	// Reaped is told how many slots of a dead agent have been freed.
	Reaped(slots int64)
	// WatchEnded is told that a watch has ended and begins again.
	WatchEnded()
}

type nobody struct{}

func (nobody) Called(Kind, Outcome, time.Duration) {}
func (nobody) Failed(Fault)                        {}
func (nobody) Reaped(int64)                        {}
func (nobody) WatchEnded()                         {}

// counted is a store whose calls are counted. took is measured by now.
type counted struct {
	Store
	to   Observer
	pace *pace
	now  func() time.Duration
}

// pace is how long writes take, of late.
type pace struct{ atomic.Int64 }

// note takes one write into account, with a weight of a quarter.
func (p *pace) note(took time.Duration) {
	if was := p.Load(); was > 0 {
		took = time.Duration(was) + (took-time.Duration(was))/4
	}
	p.Store(int64(took))
}

func (c counted) done(ctx context.Context, kind Kind, began time.Duration, conflict bool, err error) {
	outcome := Done
	switch {
	case errors.Is(err, ErrLeaseGone):
		outcome = Conflict
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		return // nobody waits for it any more
	case err != nil:
		outcome = Failed
		fault, _ := FaultOf(err)
		c.to.Failed(fault)
	case conflict:
		outcome = Conflict
	}
	c.to.Called(kind, outcome, c.now()-began)
}

func (c counted) Txn(ctx context.Context, t *Txn) (*Result, error) {
	began := c.now()
	res, err := c.Store.Txn(ctx, t)
	if err == nil && res.Done && slices.ContainsFunc(t.Then, func(o Op) bool { return o.Put+o.Delete != "" }) {
		c.pace.note(c.now() - began)
	}
	c.done(ctx, t.Kind, began, err == nil && !res.Done, err)
	return res, err
}

func (c counted) Grant(ctx context.Context, ttl time.Duration) (Lease, time.Duration, error) {
	began := c.now()
	l, ttl, err := c.Store.Grant(ctx, ttl)
	c.done(ctx, KindLease, began, false, err)
	return l, ttl, err
}

func (c counted) Renew(ctx context.Context, l Lease) (ttl, late time.Duration, err error) {
	began := c.now()
	ttl, late, err = c.Store.Renew(ctx, l)
	c.done(ctx, KindLease, began, false, err)
	return ttl, late, err
}

// Left is [Etcd.Left], where the store has it.
func (c counted) Left(ctx context.Context, l Lease) (left, made time.Duration, err error) {
	if s, ok := c.Store.(lefts); ok {
		return s.Left(ctx, l)
	}
	return 0, 0, errors.ErrUnsupported
}

// Sizes is [Etcd.Sizes], where the store has it.
func (c counted) Sizes(ctx context.Context) []wire.FleetSize {
	if s, ok := c.Store.(sized); ok {
		return s.Sizes(ctx)
	}
	return nil
}
