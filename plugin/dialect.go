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
// Dialects are compiled in. One translates, and decides nothing: whatever it hands out it has got from the Desk.
type Dialect interface {
	// System returns the system's name.
	System() string
	// Handler answers the system's API. It is called once, also where several listeners speak the dialect; the handler
	// serves until the agent ends. Each method and path reaches it, bodies of at most MaxDialectBody bytes.
	// Request.RequestURI and Request.Host are as they were sent. A listener's own token has been taken off the
	// request's Authorization.
	Handler(Desk) http.Handler
}

// Authenticator is a Dialect that knows its callers by a credential of its system's own: a licence key, a signature. A
// listener of such a one on TCP needs no token_file. Then nobody vouches for a request that comes there (see
// Desk.Caller) before the handler has checked its credential and says so by Desk.CallerBy; what it has not checked, it
// must refuse.
type Authenticator interface {
	Dialect
	// Credential says in a few words what the credential is, for people: "a licence key".
	Credential() string
}

// CredentialsChecker is an Authenticator that can tell at the start what is wrong with a listener's credentials_file.
type CredentialsChecker interface {
	Authenticator
	// CheckCredentials says what in a file's contents cannot be used, such as a credential of fewer than MinCredential
	// bytes, without quoting a credential.
	CheckCredentials(file []byte) error
}

// MinCredential is the fewest bytes that a credential has which somebody chose: a shorter one can be guessed.
const MinCredential = 16

// MaxDialectBody is how many bytes the body of a request to a dialect may have.
const MaxDialectBody = 1 << 20

// Desk is the enforcer's operations as dialects see them. All is safe for concurrent use. What is refused is a
// [*enforcer.Denial], for the dialect to say in its system's words.
//
// Whoever asks is an [enforcer.Caller] from Desk.Caller or CallerBy and never what a request's body claims. Leases of
// other callers, and of the same caller by another dialect or the local API, cannot be seen, renewed or released.
type Desk interface {
	// Caller says who sent a request: on a Unix socket the process, by the kernel's word; over TCP whoever knows the
	// listener's token. It is false where nobody vouches for the sender: on a listener that leaves that to the dialect.
	Caller(*http.Request) (enforcer.Caller, bool)
	// CallerBy is Caller for a request whose credential the dialect itself has checked. On a Unix socket the kernel's
	// word stands; over TCP the caller is the one who has this credential, which is named by what is no secret or by
	// the secret itself (it is kept as a keyed hash): an access key's id, a licence key.
	CallerBy(r *http.Request, credential string) enforcer.Caller
	// Credentials reads the credentials_file of the listener that a request came by: what a dialect that is an
	// Authenticator checks credentials against, in a form that is its own. It is nil where none is configured.
	Credentials(r *http.Request) ([]byte, error)
	// Now returns the licence time, which never goes back.
	Now() time.Time

	// Verdict returns the verdict in force, with the licences that were judged; nil before the first.
	Verdict() *enforcer.Verdict
	// Document returns the bytes of a document as it was installed, by the name that Judged.Document has; nil: there is
	// none.
	Document(name string) []byte
	// Install verifies a document, puts it into the licence folder, and returns when it is judged. An empty name is
	// made from the licence's id. Remove takes one out. Both are for admins, of whom there are none over TCP.
	Install(ctx context.Context, c enforcer.Caller, document []byte, name string) *enforcer.Denial
	Remove(ctx context.Context, c enforcer.Caller, name string) *enforcer.Denial
	// Pools returns every pool and meter of the licence.
	Pools() []enforcer.PoolStatus

	// Host says what host it is that the dialect answers for. Its components are keyed by a product; empty: the agent's
	// own.
	Host(ctx context.Context, product string) Host
	// Key signs what the dialect answers. It is derived from the agent's key for this dialect alone, so that no answer
	// of one can pass for a lease token, or for another dialect's answer; it stays for as long as the agent's key does.
	// GET /v1/keys and `usher doctor` show its public half.
	Key() ed25519.PrivateKey
	// Log is for what operators should know. Never log a credential.
	Log() *slog.Logger

	// Acquire grants a lease (LifetimeTTL, LifetimeHeld, LifetimeBorrow), or a draw from a meter (LifetimeDraw), and
	// puts data on it in the same step: after a crash there is no lease without its data. Data is at most MaxLeaseData
	// bytes, and nil is as good as empty. The Desk chooses the id and owns Acquire.Data. replayed says that the
	// request's token had it already, with the data it had then. It waits where the request says so, at most until ctx
	// ends, which is to be the HTTP request's: what is granted to a request whose answer then cannot be delivered is
	// given back, unless it has a token or ctx is one that cannot end ([context.WithoutCancel]).
	Acquire(ctx context.Context, r *enforcer.Acquire,
		data []byte) (l *enforcer.Lease, replayed bool, d *enforcer.Denial)
	// Late looks whether what Acquire granted to a request, in a context of the request's, is over by now, for the
	// agent was stopped or its host suspended since: it is withdrawn then, and the denial is to be answered in the
	// place of what was to be. nil: it is not. Call it right before the answer is written.
	Late(*http.Request) *enforcer.Denial
	// Renew extends a ttl lease. It is a dialect's ping. Owner is filled in.
	Renew(r *enforcer.Renew) (*enforcer.Lease, *enforcer.Denial)
	// Release gives a lease back. Owner and Cause are filled in.
	Release(r *enforcer.Release) *enforcer.Denial
	// Lease returns one of the caller's leases that this dialect made. What is kept on it is in Lease.Data.Bytes, which
	// is never nil and not to be written into.
	Lease(id enforcer.LeaseID, c enforcer.Caller) (*enforcer.Lease, bool)
	// Leases returns the caller's leases that this dialect made, in the order in which they were acquired.
	Leases(c enforcer.Caller) []*enforcer.Lease
	// SetData replaces what the dialect keeps on a lease: at most MaxLeaseData bytes, as durable as the lease before it
	// returns, gone with the lease.
	SetData(id enforcer.LeaseID, c enforcer.Caller, data []byte) *enforcer.Denial
	// Adjust changes what has been drawn from a meter in its present period by a number of draws, which may be
	// negative, and returns what is drawn then. It is all or nothing: never below 0 (BadRequest), never above what can
	// be drawn (MeterEmpty). It is durable, written to the event log, and allowed to admins, and to others where the
	// meter is adjustable by the licence.
	Adjust(meter string, by int64, c enforcer.Caller) (int64, *enforcer.Denial)

	// Store is the dialect's own.
	Store() Store
}

// Host is a host as a dialect may speak of it.
type Host struct {
	Name       string              // its hostname; empty: not known
	Product    string              // that Components are keyed by
	Components map[string][]string // the fingerprint: name → HMAC-SHA-256 in lower-case hex
	Cores      Cores
	AgentKey   string // RFC 7638 thumbprint of the agent's key
}

// Store is a dialect's small memory: what its API must remember beyond leases, such as which id it gave to which lease.
// Systems do not see each other's. It is journalled: what Apply has taken is found again after a crash.
type Store interface {
	// Get returns a key's value.
	Get(key string) ([]byte, bool)
	// Range calls f with each key that begins with prefix, in order, until f returns false. f must not use the store.
	Range(prefix string, f func(key string, value []byte) bool)
	// Apply makes changes, all or none, if what they all expect holds; it is durable before it returns. Of two changes
	// of one key the later counts. ErrConflict says that an expectation did not hold, ErrStoreFull that a bound would
	// be passed, another error that it could not be written; nothing has changed then.
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
