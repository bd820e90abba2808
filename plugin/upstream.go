package plugin

import (
	"context"
	"fmt"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// Upstream speaks with the remote side of one licence system. Implementations are safe for concurrent use, keep no
// state that a restart may not lose, and give up when the context ends. They neither retry nor wait between tries: the
// agent decides on schedules, back-off and the meaning of an outage. Each error is, or wraps, an [*Error]; any other
// counts as Transient.
type Upstream interface {
	// System returns the system's name, which its licences have too.
	System() string
	// Capabilities says what can be asked. It never changes.
	Capabilities() Capabilities
	// Activate makes this host known for a licence. A second call for the same host succeeds too.
	Activate(context.Context, *Request) (*Reply, error)
	// Heartbeat is the short-period sign of life.
	Heartbeat(context.Context, *Request) (*Reply, error)
	// CheckIn proves that the licence is still good. It may bring a renewed document.
	CheckIn(context.Context, *Request) (*Reply, error)
	// Deactivate gives the host's place back. It succeeds for a host without one.
	Deactivate(context.Context, *Request) (*Reply, error)
}

// Budgeter is an Upstream that hands out slots in blocks: a site server, a floating upstream. Capabilities.Budget
// announces it.
type Budgeter interface {
	Upstream
	// CheckOut takes a block of slots. It may bring fewer than asked, but at least AtLeast.
	CheckOut(context.Context, *CheckOut) (*Block, error)
	// Extend extends a block's time from now, and may change its size.
	Extend(context.Context, *Extend) (*Block, error)
	// Return returns a block. It succeeds for one that is over.
	Return(context.Context, *Return) error
}

// VoluntaryChecker is an Upstream that the agent also calls for licences that demand no check-in: it may suspend them
// and renew their documents. Such a check-in is no duty, so no outage worsens a verdict.
type VoluntaryChecker interface {
	Upstream
	// Every returns how often the agent makes such a check-in.
	Every(*enforcer.License) enforcer.Period
}

// Replacer is an Upstream whose check-in may bring a licence of another id: the one that the remote side has in the
// place of the one it was asked about.
type Replacer interface {
	VoluntaryChecker
	// Replaces reports whether the remote side has a licence in the place of another. The agent looks besides that it
	// is of the same system and product, of no weaker environment, and issued later.
	Replaces(of, is *enforcer.License) bool
}

// Capabilities is what an Upstream can do. The agent never asks for anything else.
type Capabilities struct {
	Activate   bool
	Heartbeat  bool
	CheckIn    bool
	Deactivate bool
	Budget     bool // it is a Budgeter
}

// Request is what leaves the host with a call. Nothing else does.
type Request struct {
	System    string // the licence's; it is not sent
	LicenseID string
	Document  []byte // as it was installed
	Product   string
	Version   string // of the product; may be empty

	// Fingerprint is the text by which some systems name this host, and Hostname is the host's name. Both are for the
	// built-in systems that ask for them by System.Carries, and empty for all others.
	Fingerprint, Hostname string

	Components map[string][]string // the fingerprint: name → HMAC-SHA-256 in lower-case hex, keyed by product
	AgentKey   string              // RFC 7638 thumbprint of the agent's key
	Cores      Cores
	Memory     int64   // bytes; for the built-in systems that need it, as Hostname
	Disk       int64   // likewise, of the root file system
	Usage      []Usage // only where the licence asks for it
	// Emergencies are those that operators have begun on the licence within a year, the oldest first.
	Emergencies []Emergency

	Nonce []byte // 16 to 64 random bytes, which the upstream's signed answer repeats
	// State is the state in the last Reply about this licence on this host; nil at first. It unmasks a copy of the
	// host, which sends a state that has been used.
	State []byte
}

// Cores is the host's cores.
type Cores struct {
	Physical, Logical int64   // 0: not known
	Effective         float64 // what cgroup quota and cpuset leave
}

// Usage is the use of one pool or meter since the last report.
type Usage struct {
	Pool   string
	InUse  int64 // slots held now; of a meter, what has been drawn
	Peak   int64 // the most slots held at one time
	Denied int64 // acquires that were denied
}

// Emergency is one that an operator has begun on a licence.
type Emergency struct {
	Began, Ends time.Time
	Reason      string
}

// Reply is the answer to a call.
type Reply struct {
	Document      []byte    // a renewed document, to be verified like any other; nil: none
	NextHeartbeat time.Time // when the upstream wants the next; zero: as the licence says
	NextCheckIn   time.Time
	// Time is the upstream's clock, and zero unless the upstream signed it together with the request's nonce: it is
	// evidence, which nobody on the way could have replayed. It counts only from the system that tells the agent's
	// time.
	Time  time.Time
	State []byte // to be sent with the next request; at most MaxState bytes
}

// CheckOut asks for a block of slots.
type CheckOut struct {
	Request
	Pool    string
	Slots   int64
	AtLeast int64         // 0: Slots
	For     time.Duration // for how long it would be held; the upstream may shorten it
	Token   string        // the same token and request give the same block
	Ahead   int64         // how many of Slots nobody needs yet: other agents give up no idle slots for them
}

// Extend asks for more time, and another size, for a block.
type Extend struct {
	Request
	Block string
	Slots int64 // 0: as it is
	For   time.Duration
	Ahead int64 // as in CheckOut
}

// Return gives a block back.
type Return struct {
	Request
	Block string
}

// The SystemCodes of a Budgeter's error that mean something to the agent. None of them changes a verdict.
const (
	SystemFull    = "NO_SLOTS"     // CheckOut: others have the slots, and may return some
	SystemLapsed  = "BLOCK_LAPSED" // Extend: the block is over, and its slots may be another's
	SystemNoPools = "NO_POOLS"     // this upstream has no slots to give
	SystemNoDraws = "NO_DRAWS"     // Draw: this upstream gives no draws
	// CheckOut: the upstream may not know where its slots are, and hands out no new ones for a while
	SystemSettling = "SETTLING"
	SystemCloned   = "CLONED" // another host has gone on from this one's state
	// a site server that has its slots from a fleet cannot reach that: another one may
	SystemAway = "FLEET_AWAY"
)

// Block is slots of one pool that no other agent has before it ends.
type Block struct {
	ID    string
	Pool  string
	Slots int64
	// For is for how long it may be used, counted on CLOCK_BOOTTIME from the instant at which the request was *sent*.
	// So the agent's own deadline is earlier than the upstream's, by as long as the call took.
	For time.Duration
	// Keep is for how long leases that are held of it at its end may stay held, counted likewise, with all margins;
	// nothing more is handed out then, and no other agent has the slots before. Zero: for For.
	Keep  time.Duration
	State []byte // as Reply.State, for the next request about blocks: they have a chain of their own
	// Wanted is how many slots of the pool others have lately asked for in vain: an agent with idle ones returns them.
	Wanted int64
	// Elsewhere is where the other slots are, where the upstream gave fewer than asked and knows; else nil.
	Elsewhere *Elsewhere
}

// Class says what an upstream's error means.
type Class string

// The classes of errors. Only Refused may change the verdict before the licence's own period has run out.
const (
	Transient     Class = "transient"     // network, overload, a plugin that is away: try again later
	Refused       Class = "refused"       // the upstream has refused: suspended, revoked, too many hosts, …
	Misconfigured Class = "misconfigured" // a person must mend something here: credentials, an address
)

// Error is why a call to an upstream failed.
type Error struct {
	Class      Class
	Code       enforcer.Code // Refused: what it means for the licence, one of RefusalCodes
	Reason     string        // one sentence for people
	Hint       string        // the mend; may be empty
	SystemCode string        // the system's own word; may be empty
	// Transient: not sooner, up to MaxRetryAfter and the licence's own deadlines; zero: the agent decides
	RetryAfter time.Duration
	Elsewhere  *Elsewhere // with SystemFull: where the slots are; nil: not known
}

// Error returns the reason, with the class before it.
func (e *Error) Error() string {
	s := string(e.Class)
	if e.Code != "" {
		s += " (" + string(e.Code) + ")"
	}
	return s + ": " + e.Reason
}

// Transiently returns a Transient error.
func Transiently(format string, args ...any) *Error {
	return &Error{Class: Transient, Reason: fmt.Sprintf(format, args...)}
}

// RefusalCodes returns the codes that a refusal of an upstream may give a licence.
func RefusalCodes() []enforcer.Code {
	return []enforcer.Code{enforcer.Suspended, enforcer.Banned, enforcer.Revoked, enforcer.Expired, enforcer.Superseded,
		enforcer.NotFound,
		enforcer.FingerprintMismatch, enforcer.AgentKeyMismatch, enforcer.TooManyMachines, enforcer.TooManyCores,
		enforcer.TooMuchMemory, enforcer.TooMuchDisk, enforcer.ProductMismatch, enforcer.VersionNotCovered,
		enforcer.HeartbeatDead, enforcer.Unavailable, enforcer.Preparing}
}
