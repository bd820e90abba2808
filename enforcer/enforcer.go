package enforcer

import "time"

// Options bound an Enforcer. Zero fields mean the defaults. One user may have no more of each bound than is left for
// others.
type Options struct {
	MaxLeases       int // held at one time; default 4,000,000
	MaxLeasesPerUID int // held by one uid, or one credential, at one time; default MaxLeases
	MaxTokens       int // client tokens remembered; default 1,000,000
	MaxWaiters      int // acquires that wait at one time; default 100,000
	MaxHoldOffs     int // in force at one time; default 256
	MaxBytes        int // of labels, data and co-holders of leases, and of requests that wait; default 256 MiB
	// Durable says that the events for which Event.Durable is true survive a crash of the host. Without it draws and
	// borrows are denied.
	Durable bool
	// CountUsers says that usage is counted by user, too: see TakeUserUsage.
	CountUsers bool

	mostUsers int // see mostUsers, its default; less in tests
	batch     int // see Batch, its default; less in tests
}

// endedKept is how many ended leases are remembered, so that a late renewal or a second release learns what happened.
const endedKept = 1024

// Enforcer holds the pools and leases under one verdict.
type Enforcer struct {
	options  Options
	verdict  *Verdict
	pools    map[string]*pool
	lately   *pool // that an event was about last; nil: it is forgotten
	leases   Table[*held]
	accounts map[User]*account
	spare    *account                 // of nobody: the next one; nil: it is made
	bytes    int                      // of all accounts
	holders  map[Caller]*sharedHolder // holders without labels, shared by their leases
	// latest is that which was looked up there last. It stays there without a lease, for one that comes and goes.
	latest *sharedHolder

	tokens map[TokenKey]*remembered
	memory timetable[*remembered] // the tokens by when they may be forgotten
	listed paged[*remembered]     // the tokens, each of which knows its place

	ended    []endedLease // a ring
	endedPos int

	due timetable[*pool] // the pools by when something of them is due; those without are not in it

	waiters  map[LeaseID]*waiting
	forDraws map[string]*queue   // by meter; none is empty. Those for slots are in their pools
	patience timetable[*waiting] // the waiters by when their time is up
	turn     uint64              // of the next waiter
	meters   map[string]meter
	// unproved is how far the time is ahead of its proof: see Step.
	unproved time.Duration
	// sureAt is when the first wall clock is proved at the latest; zero: it is. See Step.
	sureAt time.Time

	holdOffs holdOffs

	policies   *Policies             // nil: there are no rules
	room       stanceRoom            // for the request that is decided
	meterRules map[string]*poolRules // of those meters that were asked for
	several    int                   // waiters for several pools or meters
	lingering  timetable[*lingering] // by when it is over
	timing     timing                // of the leases that a rule ends

	// tenures are the leases by the licence that granted them. The first is of the leases whose licence is not known.
	// current is the place of the base licence under the last good verdict.
	tenures  []*tenure
	current  uint32
	interned uint32 // the place that was asked for last, other than current

	counting  bool        // usage is counted
	closed    []Usage     // that nobody has taken yet
	byUser    []UserUsage // likewise
	lostUsers int         // of byUser, that found no room
	lost      int         // that nobody will

	snapshot *Snapshot // under way; nil: none is
	taken    uint32    // counts snapshots
	lines    []*Line   // under way
}

// held is a lease and its places in the expiry heaps of its pools.
type held struct {
	*Lease
	at     int32         // index in the heap of the first item's pool
	terms  uint32        // the place of the tenure that granted it
	seen   uint32        // the snapshot that has it, or was under way when it was granted
	shared *sharedHolder // that it shares; nil: its holder has labels
	more   *[]int32      // of the further items; nil: there are none
	timer  *timer        // nil: no rule ends it
}

func (h *held) index(item int) *int32 {
	if item == 0 {
		return &h.at
	}
	return &(*h.more)[item-1]
}

type sharedHolder struct {
	*Holder
	leases  int      // 0 is that of the enforcer's latest alone
	account *account // of its user, which has one for as long as it has a lease; nil without leases
	// what the rules of the pool that was asked last say of it: see poolRules.says
	rules  *poolRules
	stance *stance
}

type remembered struct {
	ClientToken
	lease *Lease
	ended Cause // empty while the lease is held
	until time.Time
	at    int    // in the timetable of memory
	mine  int    // in the list of tokens
	seen  uint32 // as of held
}

func (r *remembered) due() time.Time { return r.until }
func (r *remembered) place() *int    { return &r.at }

type endedLease struct {
	id       LeaseID
	lifetime Lifetime
	cause    Cause
	at       time.Time
}

// New returns an Enforcer without a licence: every acquire is denied until a SetVerdict has been applied.
func New(o Options) *Enforcer {
	if o.MaxWaiters == 0 {
		o.MaxWaiters = 100_000
	}
	if o.MaxLeases == 0 {
		o.MaxLeases = 4_000_000
	}
	if o.MaxLeasesPerUID == 0 {
		o.MaxLeasesPerUID = o.MaxLeases
	}
	if o.MaxTokens == 0 {
		o.MaxTokens = 1_000_000
	}
	if o.MaxHoldOffs == 0 {
		o.MaxHoldOffs = maxHoldOffs
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 256 << 20
	}
	if o.batch == 0 {
		o.batch = Batch
	}
	return &Enforcer{
		options:  o,
		pools:    map[string]*pool{},
		accounts: map[User]*account{},
		holders:  map[Caller]*sharedHolder{},
		tokens:   map[TokenKey]*remembered{},
		waiters:  map[LeaseID]*waiting{},
		forDraws: map[string]*queue{},
		meters:   map[string]meter{},
		tenures:  []*tenure{{Terms: &Terms{}}},
	}
}

// Decide answers a request at the instant now. It changes nothing. Carry out first, by a Tick, what NextTick says is
// due by now: otherwise slots of leases that are over still count.
func (e *Enforcer) Decide(r Request, now time.Time) Decision { return r.decide(e, now) }

// Verdict returns the verdict in force; nil before the first.
func (e *Enforcer) Verdict() *Verdict { return e.verdict }

// Len returns the number of leases held.
func (e *Enforcer) Len() int { return e.leases.Len() }

// Lease returns a lease that is held.
func (e *Enforcer) Lease(id LeaseID) (*Lease, bool) {
	h, ok := e.leases.Get(id)
	if !ok {
		return nil, false
	}
	return e.view(h), true
}

// Holds reports whether a lease is held.
func (e *Enforcer) Holds(id LeaseID) bool { return e.leases.Find(id) != nil }

// Reserve makes room for n leases in all, before so many are applied. It changes nothing that any answer depends on.
func (e *Enforcer) Reserve(n int) { e.leases.Reserve(n) }

// Fit gives back what Reserve made room for, and nothing needs.
func (e *Enforcer) Fit() { e.leases.Fit() }

// Touch has the place of a lease's id at hand for the Apply of an event of it: see [Table.Touch].
func (e *Enforcer) Touch(id *LeaseID) byte { return e.leases.Touch(id) }

// pool returns the pool of a name; nil: there is none. Most events and requests are about the pool of the last event.
func (e *Enforcer) pool(name string) *pool {
	if p := e.lately; p != nil && p.name == name {
		return p
	}
	return e.pools[name]
}

// must returns a lease that is held.
func (e *Enforcer) must(id LeaseID) *held {
	h, _ := e.leases.Get(id)
	return h
}

// Revoking reports whether any lease is to be revoked.
func (e *Enforcer) Revoking() bool {
	for _, t := range e.tenures {
		if t.leases > 0 && !t.revokeAt.IsZero() {
			return true
		}
	}
	for _, p := range e.due.heap { // of others nothing is due
		if !p.revokeAt.IsZero() {
			return true
		}
	}
	return false
}

// view returns the lease with its RevokeAt.
func (e *Enforcer) view(h *held) *Lease {
	at := e.tenureOf(h).revokeAt
	for _, it := range h.Items {
		at = sooner(at, e.pools[it.Pool].revokeAt)
	}
	if at.IsZero() {
		return h.Lease
	}
	l := *h.Lease
	l.RevokeAt = at
	return &l
}

// NextTick returns the instant at which a Tick has something to do; zero: no such instant is known. It may be past.
func (e *Enforcer) NextTick() time.Time {
	var next time.Time
	for _, t := range e.tenures {
		if t.leases > 0 {
			next = sooner(next, t.revokeAt)
		}
	}
	next = sooner(next, e.holdOffs.ends.next())
	next = sooner(next, sooner(e.lingering.next(), e.timing.next()))
	return sooner(sooner(next, e.due.next()), sooner(e.patience.next(), e.memory.next()))
}

// sooner returns the earlier of two instants, of which a zero one is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// later returns the later of two instants.
func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
