// Package api answers the local API: HTTP with JSON on one Unix socket. docs/api.md and docs/openapi.yaml describe it,
// and a test holds the handlers to the latter.
//
// Who calls is the kernel's word (SO_PEERCRED at connect), who may call is [Rules]. What is asked is passed to a
// [Desk]; nothing is decided here. Start reading at the table of routes.
package api

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// Grant is a lease that is given to a caller.
type Grant struct {
	*enforcer.Lease
	Replayed bool // an earlier request with the same client token was granted it
	// Late is nil unless what the lease was granted from is over at some time, when others may have it. Late looks
	// whether it is over by now: then the grant is withdrawn, and the denial is the answer. Call it right before the
	// answer is written, for the agent may have been stopped since it decided, and once more when it is written: what
	// is withdrawn then was answered late, and is over already. It is not safe for concurrent use.
	Late func() *enforcer.Denial
}

// Desk is what the handlers need of the agent. Its methods are safe for concurrent use.
type Desk interface {
	// License returns the verdict and all documents, with every term.
	License() wire.License
	Pools() []enforcer.PoolStatus
	Pool(name string) (enforcer.PoolStatus, bool)

	// Acquire fills in the lease's id.
	Acquire(context.Context, *enforcer.Acquire) (Grant, *enforcer.Denial)
	Renew(*enforcer.Renew) (Grant, *enforcer.Denial)
	Release(*enforcer.Release) *enforcer.Denial
	Lease(enforcer.LeaseID) (*enforcer.Lease, bool)
	// List calls f with the leases of a user, or of all users for nil, in portions, until f returns false. A lease that
	// is held all the while is in one of them, and may be in two.
	List(u *enforcer.User, f func([]*enforcer.Lease) bool)
	// Liveness says what tells that a lease's holder is gone.
	Liveness(*enforcer.Lease) string
	// Session opens a session for the caller at the other end of a connection. It takes sent, which is what
	// Config.TakeSent made of what came beside the first byte; nil: nothing.
	Session(c *net.UnixConn, sent io.Closer, caller enforcer.Caller) Session

	// Adjust sets what has been drawn from a meter.
	Adjust(*enforcer.Adjust) *enforcer.Denial

	// Install puts a document into the licence folder; with dryRun it only says what would change.
	Install(ctx context.Context, document []byte, name string, dryRun bool) (wire.Installed, *enforcer.Denial)
	Remove(ctx context.Context, name string) *enforcer.Denial
	Rollback(ctx context.Context, name string) (wire.Installed, *enforcer.Denial)

	// Return stops a licence here for good, and signs a receipt of that.
	Return(ctx context.Context, by enforcer.Caller, license string) (wire.Returned, *enforcer.Denial)
	// BeginEmergency spends an emergency that the licence grants.
	BeginEmergency(by enforcer.Caller, reason string) (wire.Emergency, *enforcer.Denial)
	Emergencies() wire.Emergencies

	// Fingerprint returns this host as licences for a product see it; empty means the agent's own product.
	Fingerprint(ctx context.Context, product string) wire.Fingerprint
	// Subscribe returns events until cancel is called, the reader is too slow or the agent ends: those of all, and
	// those of the leases of a user, or of all users for nil, which see accepts; a nil see accepts all.
	Subscribe(u *enforcer.User, see func(*enforcer.Holder, *wire.Event) bool) (events <-chan *Event, cancel func())

	// Keys returns the agent's key; LeaseToken signs a lease for whoever sent a nonce. Keys returns the agent's public
	// keys and what vouches for the first: to callers who are not admins, what shows no more.
	Keys(admin bool) wire.Keys
	LeaseToken(l *enforcer.Lease, nonce string) (string, error)

	// Reload reads the configuration again and says what came of it.
	Reload(ctx context.Context) (wire.Reloaded, *enforcer.Denial)
	Settings() []wire.Setting
	// ReleaseHost gives this host's place on a licence back, or on all where id is empty.
	ReleaseHost(ctx context.Context, by enforcer.Caller, id string) (wire.Releases, *enforcer.Denial)
	// Drain has no new leases granted, and waits until those held are over or wait is.
	Drain(ctx context.Context, by enforcer.Caller, wait time.Duration, release bool) (wire.Drain, *enforcer.Denial)
	Drained() wire.Drain
	Undrain(by enforcer.Caller) *enforcer.Denial
	// Preview is what would leave the host with the next call to each upstream; CallUpstream has them called at once.
	Preview() []wire.UpstreamRequest
	CallUpstream()
	Health() wire.Health
	// Clock returns the time that licences are judged by, and what it comes from.
	Clock() wire.Clock
	Ready() bool
}
