package plugin

import (
	"context"
	"net/http"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// Dialect answers a licence system's own API locally, for products that already speak it.
//
// Dialects are compiled in. One translates, and decides nothing: whatever it hands out it has got from the Desk.
type Dialect interface {
	// System returns the system's name.
	System() string
	// Handler answers the system's API. It is called once; the handler serves until the agent ends.
	Handler(Desk) http.Handler
}

// Desk is the enforcer's operations as dialects see them. All is safe for concurrent use. What is refused is a
// [*enforcer.Denial], for the dialect to say in its system's words.
//
// Whoever asks is an [enforcer.Caller] from Desk.Caller and never what a request's body claims; leases of other callers
// cannot be seen, renewed or released.
type Desk interface {
	// Caller says who sent a request, as the kernel or the listener's credential vouches.
	Caller(*http.Request) enforcer.Caller
	// Now returns the licence time, which never goes back.
	Now() time.Time

	// Verdict returns the verdict in force, with the licences that were judged; nil before the first.
	Verdict() *enforcer.Verdict
	// Pools returns every pool and meter of the licence.
	Pools() []enforcer.PoolStatus

	// Acquire grants a lease, or a draw from a meter (LifetimeDraw), and puts data on it in the same step: after a crash there
	// is no lease without its data. The Desk chooses the id. replayed says that the request's token had it already, with the
	// data it had then. It waits where the request says so, at most until ctx ends.
	Acquire(ctx context.Context, r *enforcer.Acquire, data []byte) (l *enforcer.Lease, replayed bool, d *enforcer.Denial)
	// Renew extends a ttl lease. It is a dialect's ping.
	Renew(r *enforcer.Renew) (*enforcer.Lease, *enforcer.Denial)
	// Release gives a lease back.
	Release(r *enforcer.Release) *enforcer.Denial
	// Lease returns one of the caller's leases with its data.
	Lease(id enforcer.LeaseID, c enforcer.Caller) (HeldLease, bool)
	// Leases returns the caller's leases that this dialect made, in the order in which they were acquired.
	Leases(c enforcer.Caller) []HeldLease
	// SetData replaces what the dialect keeps on a lease: at most MaxLeaseData bytes, durable before it returns, gone with
	// the lease.
	SetData(id enforcer.LeaseID, c enforcer.Caller, data []byte) *enforcer.Denial
	// Adjust changes what has been drawn from a meter in its present period by a number of draws, which may be negative, and
	// returns what is drawn then: never below 0, never above the limit. It is durable, logged, and for systems whose callers
	// may take uses back. The licence must allow it.
	Adjust(meter string, by int64, c enforcer.Caller) (int64, *enforcer.Denial)

	// Store is the dialect's own.
	Store() Store
}

// HeldLease is a lease with what its dialect keeps on it.
type HeldLease struct {
	*enforcer.Lease
	Data []byte
}

// Store is a dialect's small memory: what its API must remember beyond leases, such as which id it gave to which lease.
// Systems do not see each other's. It is journalled: what Apply has taken is found again after a crash.
type Store interface {
	// Get returns a key's value.
	Get(key string) ([]byte, bool)
	// Range calls f with each key that begins with prefix, in order, until f returns false. f must not use the store.
	Range(prefix string, f func(key string, value []byte) bool)
	// Apply makes changes, all or none, if what they expect holds; it is durable before it returns. ErrConflict says that an
	// expectation did not hold, ErrStoreFull that a bound would be passed; nothing has changed then.
	Apply(changes ...Change) error
}

// Change is one change of a Store.
type Change struct {
	Key    string
	Value  []byte // nil: the key goes
	Expect []byte // with If: the value that the key must have; nil: none
	If     bool
}

// Bounds of what a dialect keeps.
const (
	MaxLeaseData  = 4 << 10 // bytes on one lease
	MaxStoreKey   = 256     // bytes of a key
	MaxStoreValue = 16 << 10
	MaxStoreKeys  = 10_000
	MaxStore      = 8 << 20 // bytes of all keys and values
)

// The errors of a Store.
const (
	ErrConflict  = storeError("the value has changed meanwhile; read it again")
	ErrStoreFull = storeError("the store is full; remove what is no longer needed")
)

type storeError string

func (e storeError) Error() string { return string(e) }
