package plugin

import (
	"context"
	"time"
)

// Watcher is a Budgeter that tells at once what the other agents of a site lack. Without it an agent learns of that
// when it next asks for more time. It is optional.
type Watcher interface {
	Budgeter
	// Watch waits until there is news for this agent, at most For, and returns it; no news is an empty answer. It
	// changes nothing, so that a lost or repeated call does no harm.
	Watch(context.Context, *Watch) (*News, error)
}

// Watch asks for news of a licence's pools.
type Watch struct {
	Request                  // without State: the call has no chain
	Idle    map[string]int64 // by pool: how many slots this agent could return at once
	For     time.Duration    // for how long it waits
	// Lacks is the pools of which callers of this agent wait for slots; nil: it is not said.
	Lacks map[string]int64
}

// News is what an agent should act on now, by pool.
type News struct {
	Pools map[string]PoolNews
	// Moves: the one that gave the blocks gives no more time, and another does: the agent asks for it at once.
	Moves bool
}

// PoolNews is the news of one pool.
type PoolNews struct {
	Wanted int64 // other agents need so many slots: this one returns as many of its idle ones
	Free   int64 // so many slots have come free of those that this agent asked for in vain
}

// Elsewhere is where the slots of a pool are that an agent does not get.
type Elsewhere struct {
	Out  int64 // slots that other agents have
	Idle int64 // of which nobody uses, as far as those agents have said
	// Rule names the rule for hosts of the site that leaves this agent no more; empty: none does. It is clipped text.
	Rule string
}
