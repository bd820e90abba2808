package registrar

import (
	"context"
	"maps"
	"time"

	"github.com/usher-agent/usher/agent/fleet"
)

// A server that is stopped, or that an operator drains, gives no more slots and no more time, says in the fleet what
// its agents have, and tells them to ask another: see [fleet.Bound.Leave]. Its agents move within a second or two.

// leaveWithin bounds how long a server that is stopped takes to say so. What it could not say, others find out.
const leaveWithin = 3 * time.Second

// leaving is what a server that has stopped lending has said.
type leaving struct {
	said  map[fleet.PoolKey]map[string]int64 // what agents had of each pool
	fault string                             // why it could not be said; empty: it was
}

// leave has the server stop lending, and say what its agents have. It is called again when they have less, or after an
// error.
func (b *broker) leave(ctx context.Context) (err error) {
	b.pools.Leave() // from now on nothing is decided
	if !b.mu.within(ctx) {
		return ctx.Err()
	}
	defer b.mu.Unlock()
	if b.left == nil {
		b.left = &leaving{said: map[fleet.PoolKey]map[string]int64{}}
	}
	for key, s := range b.all {
		parts := map[string]int64{}
		for _, x := range s.portions {
			maps.Copy(parts, b.pools.LentOf(x.license, s.pool))
		}
		if said, ok := b.left.said[key]; ok && maps.Equal(said, parts) {
			continue
		}
		if one := s.bound.Leave(ctx, s.pool, fleet.BlockID(brokerToken), parts); one != nil {
			err = one
			continue
		}
		b.left.said[key] = parts
	}
	if err == nil {
		b.pools.Left()
	}
	return err
}

// stop has the server leave because its process ends.
func (b *broker) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveWithin)
	defer cancel()
	b.pools.Stop()
	if err := b.leave(ctx); err != nil {
		b.log.Warn("the fleet does not know that this site server stops: its agents move when its place has ended",
			"reason", err)
	}
}

// drains has a server that an operator drains leave, and stay when that ends. It reports whether the server has left.
// Where no other server takes an agent's slots over in time, it stays: a drain costs nobody a lease.
func (b *broker) drains(ctx context.Context) bool {
	switch drained := b.fleet.Drained() && !b.pools.Pressed(); {
	case drained:
		ctx, cancel := context.WithTimeout(ctx, b.ttl/3)
		defer cancel()
		fault := ""
		if err := b.leave(ctx); err != nil {
			fault = err.Error()
		}
		if b.left != nil && b.left.fault != fault {
			if b.left.fault = fault; fault != "" {
				b.log.Warn("the fleet does not know yet that this site server is drained", "reason", fault)
			}
		}
		return true
	case b.left != nil:
		b.mu.Lock()
		b.left = nil
		b.fleet.Stay()
		for _, s := range b.all {
			b.empty(s)
		}
		b.mu.Unlock()
		b.pools.Stay()
	}
	return false
}
