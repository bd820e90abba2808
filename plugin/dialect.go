package plugin

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"net/http"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// Dialect answers a licence system's own API locally, for products that already speak it.
//
// Dialects are compiled in. A dialect translates and decides nothing: whatever it grants comes from the Desk.
type Dialect interface {
	// System returns the system's name.
	System() string
	// Handler answers the system's API. It is called once, also where several listeners speak the dialect; the handler
	// serves until the agent ends. It gets each method and path, with bodies of at most MaxDialectBody bytes.
	// Request.RequestURI and Request.Host are as sent. A listener's own token has been removed from the request's
	// Authorization.
	Handler(Desk) http.Handler
}

// Authenticator is a Dialect that identifies its callers by a credential of its system's own: a licence key, a
// signature. Its TCP listener needs no token_file. In that case nobody vouches for a request (see Desk.Caller) until
// the handler has checked its credential and called Desk.CallerBy. The handler must refuse a request that it has not
// checked.
type Authenticator interface {
	Dialect
	// Credential says in a few words what the credential is, for people: "a licence key".
	Credential() string
}

// CredentialsChecker is an Authenticator that can find faults in a listener's credentials_file at the start.
type CredentialsChecker interface {
	Authenticator
	// CheckCredentials reports what in a file's contents cannot be used, such as a credential of fewer than
	// MinCredential bytes. It never quotes a credential.
	CheckCredentials(file []byte) error
}

// Refuser is a Dialect whose clients understand no error but those of its system. The refusals that the agent makes
// before the handler is asked come through it, too: of a caller without a token, of a body too large, of a connection
// too many.
type Refuser interface {
	Dialect
	// Refuse answers a request with a denial. status is what the local API would answer.
	Refuse(w http.ResponseWriter, r *http.Request, status int, d *enforcer.Denial)
}

// MinCredential is the fewest bytes of a credential that a person has chosen: a shorter one can be guessed.
const MinCredential = 16

// MaxDialectBody is how many bytes the body of a request to a dialect may have.
const MaxDialectBody = 1 << 20

// Desk is the agent as a dialect sees it, in parts by purpose. A part of a dialect asks for the part that it needs. All
// of it is safe for concurrent use. A refusal is a [*enforcer.Denial], which the dialect puts in its system's words.
//
// The caller is an [enforcer.Caller] from Desk.Caller or CallerBy, and never what a request's body claims. A dialect
// cannot see, renew or release the leases of other callers, nor those that the same caller has through another dialect
// or the local API, but for what Slots.Bearers shows.
type Desk interface {
	Callers
	Slots
	Documents
	Own
}

// Callers identifies the sender of a request.
type Callers interface {
	// Caller returns the sender of a request: on a Unix socket the process that the kernel vouches for, over TCP the
	// caller that shows the listener's token. It is false where nobody vouches for the sender: on a listener that
	// leaves that to the dialect.
	Caller(*http.Request) (enforcer.Caller, bool)
	// CallerBy is Caller for a request whose credential the dialect itself has checked. On a Unix socket the kernel's
	// word stands. Over TCP the caller is the owner of this credential. Name it by a part that is no secret, such as an
	// access key's id, or by the secret itself, such as a licence key: the agent keeps a keyed hash of it.
	CallerBy(r *http.Request, credential string) enforcer.Caller
	// Credentials returns the credentials_file of the listener that a request came through, for an Authenticator to
	// check credentials against. The dialect defines its form. nil: none is configured.
	Credentials(r *http.Request) ([]byte, error)
}

// Slots are the pools and meters of the verdict in force, and the dialect's leases of them.
type Slots interface {
	// Now returns the licence time, which never goes back.
	Now() time.Time
	// Pools returns every pool and meter of the licence.
	Pools() []enforcer.PoolStatus
	// Acquire grants a lease (LifetimeTTL, LifetimeHeld, LifetimeBorrow) or a draw from a meter (LifetimeDraw), and
	// puts data on it in the same step: after a crash no lease lacks its data. Data is at most MaxLeaseData bytes; nil
	// is as good as empty. The Desk chooses the id and owns Acquire.Data. replayed says that the request's token had
	// the lease already, with the data of that time. Acquire waits where the request says so, at most until ctx ends.
	// Pass the HTTP request's context: a grant whose answer cannot be delivered is returned, unless it has a token or
	// ctx cannot end ([context.WithoutCancel]).
	Acquire(ctx context.Context, r *enforcer.Acquire,
		data []byte) (l *enforcer.Lease, replayed bool, d *enforcer.Denial)
	// Late reports whether a grant of Acquire is over by now, because the agent was stopped or its host suspended
	// since. Then it withdraws the grant, and the dialect answers with the denial instead. nil: the grant holds. Call
	// it right before writing the answer, with a context of the request.
	Late(*http.Request) *enforcer.Denial
	// Renew extends a ttl lease; it serves as a dialect's ping. The Desk fills Owner in.
	Renew(r *enforcer.Renew) (*enforcer.Lease, *enforcer.Denial)
	// Release ends a lease. The Desk fills Owner and Cause in.
	Release(r *enforcer.Release) *enforcer.Denial
	// Lease returns one of the caller's leases that this dialect made. Its data is Lease.Data.Bytes, which is never
	// nil. Do not write into it.
	Lease(id enforcer.LeaseID, c enforcer.Caller) (*enforcer.Lease, bool)
	// Leases returns the caller's leases that this dialect made, in the order of their acquires.
	Leases(c enforcer.Caller) []*enforcer.Lease
	// Bearers returns the leases of all callers that bear the label of a Labeller, in the order of their acquires; for
	// another dialect there are none.
	Bearers() []Bearer
	// SetData replaces the dialect's data on a lease: at most MaxLeaseData bytes, as durable as the lease before it
	// returns, gone with the lease.
	SetData(id enforcer.LeaseID, c enforcer.Caller, data []byte) *enforcer.Denial
	// Adjust changes what has been drawn from a meter in its present period by a number of draws, which may be
	// negative, and returns the new total. It is all or nothing: never below 0 (BadRequest), never above the limit
	// (MeterEmpty). It is durable and in the event log. Admins may call it, and other callers where the licence makes
	// the meter adjustable.
	Adjust(meter string, by int64, c enforcer.Caller) (int64, *enforcer.Denial)
}

// Documents are the licences that the agent judges.
type Documents interface {
	// Verdict returns the verdict in force, with the licences that were judged; nil before the first.
	Verdict() *enforcer.Verdict
	// Document returns the bytes of a document as it was installed, by the name that Judged.Document has; nil: there is
	// none.
	Document(name string) []byte
	// Would returns what a document would be judged as, were it installed under a name: with Judged.Problem it does not
	// verify, with Judged.InForce its terms would count. It changes nothing.
	Would(document []byte, name string) enforcer.Judged
	// Confirm asks the upstream of a document's licence whether the licence is good, where it demands an activation or
	// check-ins. It installs nothing. nil: the upstream says so, or the licence demands nothing. Any error is an
	// [*Error].
	Confirm(ctx context.Context, document []byte) error
	// MayInstall reports whether a request's caller may install and remove documents: an admin may, and over TCP a
	// caller by a credential (CallerBy) that the listener's configuration names under installers.
	MayInstall(r *http.Request, c enforcer.Caller) bool
	// Install verifies a document, puts it into the licence folder, and returns when it is judged. For an empty name it
	// makes one from the licence's id. Remove takes a document out. Both are for callers that MayInstall, and take the
	// request's context.
	Install(ctx context.Context, c enforcer.Caller, document []byte, name string) *enforcer.Denial
	Remove(ctx context.Context, c enforcer.Caller, name string) *enforcer.Denial
}

// Own is what belongs to the dialect alone, and the host that it answers for.
type Own interface {
	// Host returns the host that the dialect answers for. Its components are keyed by a product; empty: the agent's
	// own.
	Host(ctx context.Context, product string) Host
	// Key signs the dialect's answers. It is derived from the agent's key for this dialect alone, so that none of its
	// answers passes for a lease token or another dialect's answer. It stays for as long as the agent's key does. GET
	// /v1/keys and `usher doctor` show its public half.
	Key() ed25519.PrivateKey
	// Log is for what operators should know. Never log a credential.
	Log() *slog.Logger
	// Store is the dialect's own.
	Store() Store
}

// Host is a host in a dialect's answers.
type Host struct {
	Name       string              // its hostname; empty: not known
	Product    string              // the product that keys Components
	Components map[string][]string // the fingerprint: name → HMAC-SHA-256 in lower-case hex
	Cores      Cores
	AgentKey   string // RFC 7638 thumbprint of the agent's key
}

// Store is a dialect's small memory of what its API must remember beyond leases, such as the id that it gave to a
// lease. No system sees another's. It is journalled: the changes of Apply are found again after a crash.
type Store interface {
	// Get returns a key's value.
	Get(key string) ([]byte, bool)
	// Range calls f with each key that begins with prefix, in order, until f returns false. f must not use the store.
	Range(prefix string, f func(key string, value []byte) bool)
	// Apply makes changes, all or none, if all their expectations hold. It is durable before it returns. Of two changes
	// of one key the later counts. ErrConflict says that an expectation did not hold, ErrStoreFull that a bound would
	// be exceeded, and another error that the change could not be written; in each case nothing has changed.
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
	MaxLeaseData  = enforcer.MaxData // bytes on one lease
	MaxStoreKey   = 256              // bytes of a key
	MaxStoreValue = 16 << 10
	MaxStoreKeys  = 10_000
	MaxStore      = 8 << 20   // bytes of all keys and values
	MaxStoreApply = 256 << 10 // bytes of all keys and values of one Apply
)

// The errors of a Store.
const (
	ErrConflict  = storeError("the value has changed meanwhile; read it again")
	ErrStoreFull = storeError("the store is full; remove what is no longer needed")
)

type storeError string

func (e storeError) Error() string { return string(e) }
