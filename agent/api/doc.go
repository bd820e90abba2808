// Package api answers the local API: HTTP with JSON on one Unix socket. docs/api.md and docs/openapi.yaml describe it,
// and a test holds the handlers to the latter.
//
// The kernel identifies a caller (SO_PEERCRED at connect), and [Rules] say who may call. The handlers pass requests
// to [Slots], [Documents] and [Operations] and decide nothing. Start reading at the table of routes.
package api

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// Grant is a lease as it is given to a caller.
type Grant struct {
	*enforcer.Lease
	Replayed bool // an earlier request with the same client token got it
	// Late is nil unless the slots come from something that ends, after which others may have them. Late looks whether
	// it has ended by now. If so, it withdraws the grant, and the denial is the answer. Call it right before the answer
	// is written, for the agent may have been stopped since it decided, and once more when the answer is sent: a
	// grant that is withdrawn then was answered late, and is over already. It is not safe for concurrent use.
	Late func(sent bool) *enforcer.Denial
}

// Slots is what the handlers need of leases and draws. Its methods are safe for concurrent use, as are those of
// [Documents] and [Operations].
type Slots interface {
	Pools() []enforcer.PoolStatus
	Pool(name string) (enforcer.PoolStatus, bool)

	// Acquire fills in the lease's id.
	Acquire(context.Context, *enforcer.Acquire) (Grant, *enforcer.Denial)
	// AcquireFor is Acquire for another process than the caller, which is to hold the lease: that of a pidfd which
	// Config.TakeSent made sent of, else that with the number pid. It takes sent (nil: none was sent), and makes
	// r.Caller that process.
	AcquireFor(ctx context.Context, r *enforcer.Acquire, pid int32, sent io.Closer) (Grant, *enforcer.Denial)
	Renew(*enforcer.Renew) (Grant, *enforcer.Denial)
	Release(*enforcer.Release) *enforcer.Denial
	Lease(enforcer.LeaseID) (*enforcer.Lease, bool)
	// List calls f with the leases of a user, or of all users for nil, in portions, until f returns false. A lease that
	// is held all the while is in one of the portions, and may be in two.
	List(f enforcer.Filter, after enforcer.Cursor, yield func([]*enforcer.Lease) bool)
	// Oldest returns the oldest of the leases that a filter lets through, and looks at no more than most.
	Oldest(f enforcer.Filter, most int) []*enforcer.Lease
	// Liveness says how the agent learns that a lease's holder is gone.
	Liveness(*enforcer.Lease) string
	// Session opens a session for the caller at the other end of a connection. It takes sent, which Config.TakeSent
	// made of the control message beside the first byte; nil: there was none.
	Session(c *net.UnixConn, sent io.Closer, caller enforcer.Caller) Session

	// Adjust sets how much has been drawn from a meter.
	Adjust(*enforcer.Adjust) *enforcer.Denial
	// LeaseToken signs a lease for the sender of a nonce.
	LeaseToken(l *enforcer.Lease, nonce string) (string, error)
}

// Documents is what the handlers need of licences.
type Documents interface {
	// License returns the verdict and all documents, with every term.
	License() wire.License

	// Install puts a document into the licence folder; with dryRun it only says what would change.
	Install(ctx context.Context, document []byte, name string, dryRun bool) (wire.Installed, *enforcer.Denial)
	Remove(ctx context.Context, name string) *enforcer.Denial
	Rollback(ctx context.Context, name string) (wire.Installed, *enforcer.Denial)

	// Return stops a licence here for good, and signs a receipt.
	Return(ctx context.Context, by enforcer.Caller, license string) (wire.Returned, *enforcer.Denial)
	// BeginEmergency spends an emergency that the licence grants.
	BeginEmergency(by enforcer.Caller, reason string) (wire.Emergency, *enforcer.Denial)
	Emergencies() wire.Emergencies
}

// Operations is what the handlers need for operators, and of the agent as a whole.
type Operations interface {
	Probes
	Queues
	// Clock returns licence time, by which licences are judged, and where it comes from.
	Clock() wire.Clock
	// Fingerprint returns this host as licences for a product see it; empty means the agent's own product.
	Fingerprint(ctx context.Context, product string) wire.Fingerprint
	// Keys returns the agent's public keys and what vouches for the first; callers who are not admins see no more of it
	// than they may.
	Keys(admin bool) wire.Keys

	// Reload reads the configuration again and says what changed.
	Reload(ctx context.Context) (wire.Reloaded, *enforcer.Denial)
	Settings() []wire.Setting
	// ReleaseHost gives this host's place on a licence back, or on all licences where id is empty.
	ReleaseHost(ctx context.Context, by enforcer.Caller, id string) (wire.Releases, *enforcer.Denial)
	// Drain stops new grants, and waits until the held leases are over or wait is.
	Drain(ctx context.Context, by enforcer.Caller, wait time.Duration, release bool) (wire.Drain, *enforcer.Denial)
	Drained() wire.Drain
	Undrain(by enforcer.Caller) *enforcer.Denial
	// Usage returns what was in use in a period.
	Usage(ctx context.Context, q UsageQuery) (wire.Usage, *enforcer.Denial)
	// Preview is what would leave the host with the next call to each upstream. CallUpstream makes these calls at once,
	// and says what came of each.
	Preview() []wire.UpstreamRequest
	CallUpstream(ctx context.Context) wire.UpstreamCalls

	// Fleet says how the agent stands in its fleet, and what the fleet's store says of all agents.
	Fleet(ctx context.Context) (wire.Fleet, *enforcer.Denial)
	// DrainHost has another agent of the fleet give its idle slots back and take none, or ends that.
	DrainHost(ctx context.Context, by enforcer.Caller, host string, undo bool) (wire.FleetDone, *enforcer.Denial)
	// EvictHost puts an agent out of the fleet, and waits until its slots are free or wait is over. With undo it lets
	// the agent join again.
	EvictHost(ctx context.Context, by enforcer.Caller, host string, wait time.Duration, undo bool) (wire.FleetDone,
		*enforcer.Denial)
}

// Probes is what tools ask that watch over the agent.
type Probes interface {
	Health() wire.Health
	Ready() bool
}
