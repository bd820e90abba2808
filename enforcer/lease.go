package enforcer

import (
	"bytes"
	"encoding/hex"
	"time"
)

// LeaseID names a lease: 128 random bits, chosen by the caller of Decide. A caller that shows it may act on the lease.
type LeaseID [16]byte

// String returns the id as 32 lower-case hex digits.
func (id LeaseID) String() string { return hex.EncodeToString(id[:]) }

// ParseLeaseID reads what LeaseID.String writes.
func ParseLeaseID(s string) (LeaseID, bool) { return ReadLeaseID([]byte(s)) }

// ReadLeaseID is ParseLeaseID of bytes.
func ReadLeaseID(s []byte) (id LeaseID, ok bool) {
	if len(s) != 2*len(id) {
		return id, false
	}
	if _, err := hex.Decode(id[:], s); err != nil {
		return id, false
	}
	var lower [2 * len(id)]byte
	hex.Encode(lower[:], id[:])
	return id, bytes.Equal(lower[:], s)
}

// Lifetime says when a lease gives its slots back.
type Lifetime string

// The lifetimes.
const (
	LifetimeConnection Lifetime = "connection" // when the session's connection closes
	LifetimeProcess    Lifetime = "process"    // when the holder's process dies
	LifetimeTTL        Lifetime = "ttl"        // when it is not renewed in time
	LifetimeHeld       Lifetime = "held"       // when it is released, by its holder or by force
	LifetimeDraw       Lifetime = "draw"       // never: a meter's draw
	LifetimeBorrow     Lifetime = "borrow"     // at a date; sooner only where the licence lets it come back early
)

// OutlivesHost reports whether a lease stands when its host has been started again: nothing ends it but a release, a
// date or an operator.
func (l Lifetime) OutlivesHost() bool {
	return l == LifetimeHeld || l == LifetimeBorrow || l == LifetimeDraw
}

// Bounds of a ttl lease.
const (
	DefaultTTL = 60 * time.Second
	MinTTL     = time.Second
	MaxTTL     = 24 * time.Hour
)

// Item is n slots of one pool, or n equal parts of a slot.
type Item struct {
	Pool string
	N    int64
	Of   int64 // how many of these parts make a slot: see PoolTerm.Quantum; 0 or 1: N counts slots
}

// MaxData is the most bytes that can be kept on one lease.
const MaxData = 4 << 10

// Data is what a caller that takes leases for others, such as a dialect, keeps on one. It is opaque here, and never
// changes once made. Only its owner acts on such a lease, unless by force.
type Data struct {
	Owner string // its owner
	Bytes []byte // at most MaxData
}

// Caller is the process or user that asks, as the kernel or a listener's credential vouches.
type Caller struct {
	UID uint32
	// Credential is a listener's name for a caller that no kernel vouches for; empty: the uid identifies the caller.
	Credential string
	GID        uint32
	PID        int32      // 0: not visible
	Admin      bool       // may see and release every lease
	Exe        string     // path of the executable; empty: not readable
	User       string     // the name that counts as one user; empty: the uid
	Profile    ProfileRef // what the host knows of it besides, for the site's rules
	Host       string
	Pod        string // the name that counts as one pod; empty: the host
	Start      uint64 // the process's start time in clock ticks after boot, which tells a recycled pid; 0: not known
	Inode      uint64 // identifies the process to the kernel until the next boot, visible or not; 0: not known
}

// Holder is the owner of a lease. Leases of one caller with the same labels may share one Holder. It never changes.
type Holder struct {
	Caller
	Labels map[string]string // the caller's claims
}

// Lease is a holder's right to slots of one or more pools. It never changes once made: a renewal makes a new one.
type Lease struct {
	ID         LeaseID
	Items      []Item
	Lifetime   Lifetime
	TTL        time.Duration // LifetimeTTL
	AcquiredAt time.Time
	ExpiresAt  time.Time // zero: no end of its own
	// Unconfirmed says that since a restart it is not known whether the holder lives: the lease is over at ExpiresAt
	// unless its holder shows itself. See Doubt and Attach.
	Unconfirmed bool
	Others      []*Holder // co-holders that joined; the lease is over when the last holder has gone
	// when it will be revoked; zero: it will not; filled in by Enforcer.Lease and Leases, never journalled
	RevokeAt time.Time
	Holder   *Holder
	Token    *ClientToken // nil: acquired without one
	Data     *Data        // nil: it has none
}

// Resumed returns when a lease is over after a recovery at the instant now. Nothing ends because the agent was away: a
// lease that would end by itself gets its time to live again, or least where that is longer, whatever end a wrong clock
// had given it. A borrow ends at its date.
func (l *Lease) Resumed(now time.Time, least time.Duration) time.Time {
	if l.ExpiresAt.IsZero() || l.Lifetime == LifetimeBorrow {
		return l.ExpiresAt
	}
	return now.Add(max(l.TTL, least))
}

// Cause says why a lease ended.
type Cause string

// The causes, a closed set: metrics label with them.
const (
	CauseReleased    Cause = "released"
	CauseForced      Cause = "forced"
	CauseExpired     Cause = "expired"
	CauseRevoked     Cause = "revoked"
	CauseHolderGone  Cause = "holder_gone"
	CauseUndelivered Cause = "undelivered" // the grant's answer could not be delivered
	CauseMaxHold     Cause = "max_hold"    // a rule of the site lets it last no longer
	CauseIdle        Cause = "idle"        // its holder has not renewed it for as long as a rule of the site allows
	CauseWaitOver    Cause = "wait_over"   // of a waiter: its time was up
	CauseLeft        Cause = "left"        // of a waiter: its caller stopped waiting
	CauseDenied      Cause = "denied"      // of a waiter: what it waits for can never be granted any more
	CauseReplayed    Cause = "replayed"    // of a waiter: its client token has got a lease meanwhile
)

// Causes returns every cause of a lease's end.
func Causes() []Cause {
	return []Cause{CauseReleased, CauseForced, CauseExpired, CauseRevoked, CauseHolderGone, CauseUndelivered,
		CauseMaxHold, CauseIdle}
}

// TokenKey is a client token as the state keeps it: SHA-256 over the uid, credential and owner of data that it is
// scoped to, the pools and the token.
type TokenKey [32]byte

// ClientToken ties a lease to the client token of its acquire.
type ClientToken struct {
	Key     TokenKey
	Request [32]byte // SHA-256 over the request, to tell a retry from another request
}

// Waiter is an acquire that waits for its slots or draws. It never changes once made.
type Waiter struct {
	ID      LeaseID // of the lease to be
	Items   []Item
	Draws   bool // the items are meters
	Request *Acquire
	Token   *ClientToken // of the request; nil: it has none
	Since   time.Time
	Until   time.Time
	Ahead   int // how many waited before it when it came, in the pool or meter where these were most
}

// TokenKept is how long a client token is remembered after its lease was granted. While the lease is held, the token
// always is.
const TokenKept = 24 * time.Hour

// PoolStatus is a pool, or a meter, as people and products see it.
type PoolStatus struct {
	Name      string
	Meter     bool
	Limit     Limit
	Overage   Limit
	Budget    Limit
	Scope     Scope
	CountBy   CountBy
	Unit      string
	Quantum   int64 // parts of a slot: see PoolTerm; 0: it has none
	NotShared string
	Paused    bool  // nothing new is granted: see Verdict.Paused
	InUse     int64 // slots held; of a meter, what has been drawn
	Parts     int64 // with Quantum: the parts of slots that are held
	Waiting   int64 // slots or draws that acquires wait for
	Reserved  int64 // free slots that a rule keeps for those whom it concerns
	Lingering int64 // free slots that a rule keeps for a while for the user that released them
	Borrowed  int64 // slots of leases that are borrowed
	Peak      int64 // the most in use since the enforcer was made
	Leases    int
	HoldOffs  []*HoldOff // in force for this pool, the one that ends first before the others
	NextFree  time.Time  // when the next lease of the pool ends unless renewed; zero: not known
}

// Available returns how many slots could be granted now, overage aside; Unlimited when there is no limit.
func (p PoolStatus) Available() Limit {
	if p.Paused {
		return 0
	}
	if p.Budget == Unlimited {
		return Unlimited
	}
	return max(0, p.Budget-Limit(p.InUse))
}

// Over reports whether more is in use than the budget allows, as after the budget has shrunk.
func (p PoolStatus) Over() bool { return !p.Meter && !p.Budget.Plus(p.Overage).Covers(p.InUse) }

// OverageInUse returns how many of the slots in use lie beyond the budget.
func (p PoolStatus) OverageInUse() int64 {
	if p.Budget == Unlimited {
		return 0
	}
	return max(0, p.InUse-int64(p.Budget))
}
