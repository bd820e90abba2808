package enforcer

import (
	"strings"
	"time"
)

// State is the coarse verdict.
type State string

// The states.
const (
	StateValid   State = "valid"
	StateExpired State = "expired"
	StateInvalid State = "invalid"
	StateMissing State = "missing"
)

// Code is the precise reason of a verdict or a finding, in the field's vocabulary where it has a word.
type Code string

// The codes of verdicts and findings.
const (
	Valid               Code = "VALID"
	ValidInGrace        Code = "VALID_IN_GRACE"
	NotFound            Code = "NOT_FOUND"
	Malformed           Code = "MALFORMED"
	BadSignature        Code = "BAD_SIGNATURE"
	UntrustedKey        Code = "UNTRUSTED_KEY"
	NotYetValid         Code = "NOT_YET_VALID"
	Expired             Code = "EXPIRED"
	Suspended           Code = "SUSPENDED"
	Banned              Code = "BANNED"
	Revoked             Code = "REVOKED"
	Superseded          Code = "SUPERSEDED"
	Overdue             Code = "OVERDUE"
	HeartbeatNotStarted Code = "HEARTBEAT_NOT_STARTED"
	HeartbeatDead       Code = "HEARTBEAT_DEAD"
	FingerprintMismatch Code = "FINGERPRINT_MISMATCH"
	AgentKeyMismatch    Code = "AGENT_KEY_MISMATCH"
	TooManyMachines     Code = "TOO_MANY_MACHINES"
	TooManyCores        Code = "TOO_MANY_CORES"
	TooMuchMemory       Code = "TOO_MUCH_MEMORY"
	TooMuchDisk         Code = "TOO_MUCH_DISK"
	ProductMismatch     Code = "PRODUCT_MISMATCH"
	VersionNotCovered   Code = "VERSION_NOT_COVERED"
	TestLicense         Code = "TEST_LICENSE"
	ClockTampered       Code = "CLOCK_TAMPERED"
	Preparing           Code = "PREPARING"
	Unavailable         Code = "UNAVAILABLE"
)

// precedence lists the codes from the most to the least decisive: of several findings about one licence the one that
// stands first here gives its code. Faults that nothing could cure come before those that time or a network will.
var precedence = []Code{
	Malformed, UntrustedKey, BadSignature, ProductMismatch,
	Revoked, Banned, Superseded, Suspended, TestLicense,
	FingerprintMismatch, AgentKeyMismatch, TooManyMachines, TooManyCores, TooMuchMemory, TooMuchDisk, VersionNotCovered,
	ClockTampered, Expired, NotYetValid,
	HeartbeatNotStarted, HeartbeatDead, Overdue,
	Unavailable, Preparing, NotFound,
	ValidInGrace, Valid,
}

// Codes returns every code in its order of precedence, the most decisive first.
func Codes() []Code { return append([]Code(nil), precedence...) }

// State returns the state that a code means.
func (c Code) State() State {
	switch c {
	case Valid, ValidInGrace:
		return StateValid
	case Expired:
		return StateExpired
	case NotFound, Preparing:
		return StateMissing
	default:
		return StateInvalid
	}
}

// WarningCode names a warning.
type WarningCode string

// The warnings. A warning changes nothing that is permitted.
const (
	WarnExpiresSoon WarningCode = "EXPIRES_SOON" // 30, 14, 7 and 1 days before expiry
	WarnInGrace     WarningCode = "IN_GRACE"     // expired or overdue, the grace runs
	WarnEmergency   WarningCode = "EMERGENCY"    // the licence runs on an operator's emergency
	// a test licence is in force, or lies unused beside a production one
	WarnTestLicense WarningCode = "TEST_LICENSE"
	WarnNotBound    WarningCode = "NOT_BOUND"  // host scope on a licence bound to no host
	WarnNotShared   WarningCode = "NOT_SHARED" // a site pool without a budget that is provably shared
	// a licence that waits for its start grants less than the one that it follows
	WarnGrantsLess WarningCode = "GRANTS_LESS_SOON"
	// an upstream check-in or heartbeat is late but within its period's grace
	WarnCheckInDue WarningCode = "CHECK_IN_DUE"
	WarnUpstream   WarningCode = "UPSTREAM_FAILING" // calls to the upstream fail, or it refuses
	// calls to what lends the slots of a site, or gives its draws, fail, or it refuses
	WarnSiteServer    WarningCode = "SITE_SERVER_FAILING"
	WarnClockBehind   WarningCode = "CLOCK_BEHIND"   // the wall clock is behind the evidence
	WarnPolling       WarningCode = "POLLING"        // the licence folder is polled; added by the agent
	WarnHostMatchLow  WarningCode = "HOST_MATCH_LOW" // the host matches, but not wholly
	WarnDocument      WarningCode = "DOCUMENT"       // a document beside the good one is broken, foreign or set aside
	WarnConfigIgnored WarningCode = "CONFIG_IGNORED" // a config key would widen a signed term; the licence holds
	WarnAddOnUnused   WarningCode = "ADD_ON_UNUSED"  // an add-on without a good base
	// a configuration, or a file that it names, is bad, and what was in force stays; added by the agent
	WarnConfigRefused WarningCode = "CONFIG_REFUSED"
	WarnRestartNeeded WarningCode = "RESTART_NEEDED" // changed keys wait for a restart; added by the agent
)

// WarningCodes returns every warning code.
func WarningCodes() []WarningCode {
	return []WarningCode{WarnExpiresSoon, WarnGrantsLess, WarnInGrace, WarnEmergency, WarnTestLicense, WarnNotBound,
		WarnNotShared, WarnCheckInDue, WarnUpstream, WarnSiteServer,
		WarnClockBehind, WarnPolling, WarnHostMatchLow, WarnDocument, WarnConfigIgnored, WarnAddOnUnused,
		WarnConfigRefused, WarnRestartNeeded}
}

// Warning is something an operator should know that changes nothing yet.
type Warning struct {
	Code   WarningCode
	Detail string
	At     time.Time // what it is about: the expiry, the due date; zero where there is no instant
}

// Finding is one thing the judge found about one licence. Every licence has at least one (Valid when nothing is wrong).
type Finding struct {
	Code   Code
	Reason string // one sentence for people: the thing, the cause, what to do
}

// Document is what the agent knows of one file (or inline licence): its terms, or why there are none.
type Document struct {
	Name    string   // a file name, for people; unique among the documents judged together
	License *License // nil when it could not be read or verified
	Problem *Problem // why License is nil, or unusable whatever else holds; nil when all is well
	// Arrived is when the agent first had it, by clock and mark. A document that was dated too far ahead then counts
	// from its date on. Zero: the instant of judging.
	Arrived time.Time
}

// Problem says why a document yields no licence.
type Problem struct {
	Code       Code   // Malformed, BadSignature, UntrustedKey, Unavailable, …
	Reason     string // one sentence; never quotes the document's content
	Hint       string // the mend; may be empty
	SystemCode string // the licence system's own code; may be empty
	System     string // the system that recognised it; empty when none did
	// Stale says that License holds the last good terms of a document whose replacement is broken: the terms count, and
	// the problem is a warning.
	Stale bool
	// Signed says that the document's signature is good, and that only its content cannot be read: it is encrypted.
	Signed bool
}

// Sentence returns the reason with the mend.
func (p *Problem) Sentence() string {
	if p.Hint == "" || strings.Contains(p.Reason, p.Hint) {
		return p.Reason
	}
	return p.Reason + "; " + p.Hint
}

// Of returns the problem with a reason that names the document; nil for nil.
func (p *Problem) Of(document string) *Problem {
	if p == nil {
		return nil
	}
	out := *p
	out.Reason = "licence " + document + ": " + p.Reason
	return &out
}

// Host is what the agent measured of this host.
type Host struct {
	Components map[string][]string // measured: name → HMAC-SHA-256 values, lower-case hex, keyed by product
	// Configured is what the configuration says of the host, in the same form. It has names of its own, and replaces
	// nothing that is measured.
	Configured map[string][]string
	Absent     map[string]string // component name → why it could not be read
	Physical   int               // cores; 0 when unknown
	Logical    int
	Effective  float64 // may be a fraction of a core
	Memory     int64   // bytes; 0 when unknown
	Disk       int64   // bytes of the root file system; 0 when unknown
}

// Cores returns the count of the given kind, rounded up to whole cores.
func (h Host) Cores(k CoreKind) int {
	switch k {
	case CoresLogical:
		return h.Logical
	case CoresEffective:
		n := int(h.Effective)
		if float64(n) < h.Effective {
			n++
		}
		return n
	default:
		return h.Physical
	}
}

// Clock is what is known of the wall clock, besides the licence time that Judge gets as now.
type Clock struct {
	Behind time.Duration // how far the wall clock is behind the evidence; 0: not
	// BehindSince is since when, in licence time, it has been behind by more than a tolerance; no earlier than this
	// boot. Zero: it is not.
	BehindSince time.Time
	From        TimeSource
	// Dated is how far the licence time is ahead of clock and mark by the date of a document; 0: not, or the clock has
	// never been set.
	Dated time.Duration
	// Ahead is how far the wall clock is beyond what is believed at once, measured from the mark, and AheadFor is for
	// how long the host has run with it. 0: it is believed.
	Ahead, AheadFor time.Duration
	// Unproved is how far the licence time is ahead of the time that counts wherever something is granted for a period:
	// the periods of meters, the year of emergencies. 0: it is proved.
	Unproved time.Duration
	// Unsure is for how long the host must still run until its first wall clock is proved; signed evidence proves it
	// sooner. 0: it is proved.
	Unsure time.Duration
}

// TimeSource says where the licence time comes from.
type TimeSource string

// The sources.
const (
	FromWall     TimeSource = "wall"     // the wall clock
	FromMark     TimeSource = "mark"     // the latest time with evidence, and the time that has passed since
	FromDocument TimeSource = "document" // the date of a document at hand, and the time that has passed since
)

// Upstream is what is known of the remote side of one licence. The zero value says nothing has been heard.
type Upstream struct {
	Activated     time.Time // first contact
	Released      time.Time // when this host gave its place back; zero: it has one, or has never had one
	LastHeartbeat time.Time
	LastCheckIn   time.Time
	// the upstream's word on the licence: Suspended, Banned, Revoked, Expired, …; empty: none
	Refused       Code
	RefusedReason string // its own words
	// Paused says that Refused is Unavailable and follows a good answer: the upstream has taken nothing back. The
	// licence stays good for as long as its check-in allows, and grants nothing new meanwhile.
	Paused  bool
	Asleep  time.Duration // for how long of the time since LastHeartbeat this host was suspended or off
	Failing Failing
	// HoldUntil is when the attempt that follows a boot or a resume is over: no heartbeat or check-in lapses before.
	HoldUntil time.Time
	// Proved says that a call has succeeded since Facts.UpstreamLost.
	Proved bool
	State  string // for people: "ok", "retrying", …
	Detail string
}

// Narrowing is the configuration of signed terms. It can only make them stricter: see the rule in Judge. Nil pointers
// and empty values mean "not configured".
type Narrowing struct {
	Grace             *time.Duration
	MaxBorrow         *time.Duration
	OnExpiry          OnExpiry // Revoke is the strictest, then Drain, then Keep
	Strategy          Strategy // all, most, two, any, from the strictest
	Clock             ClockPolicy
	NoOverage         bool
	CountBy           CountBy // see [CountBy.Narrows]
	RequireProduction bool    // a test licence is then never in force
}

// Failing says why calls to a remote side fail. The zero value says that the last one did not, or that there was none.
type Failing struct {
	Class  string    // of the failure: transient, refused, misconfigured
	Reason string    // the last failure's, one sentence
	Hint   string    // the mend; may be empty
	Since  time.Time // when the first call failed of those in a row
	Who    string    // the remote side, for people, such as "the fleet"; empty: it is known from where it stands
}

// Facts is everything that Judge looks at besides the time.
type Facts struct {
	Products  []string // the product, or the list of its SKUs, that this agent serves; empty: any
	Version   string   // the product's version; empty: not known, and versions are checked on each acquire
	Released  time.Time
	Documents []Document
	Host      Host
	AgentKey  string // RFC 7638 thumbprint; empty: the agent has no key
	Clock     Clock
	Upstream  map[Ref]Upstream
	// Seen says when this agent first had the licence, from its durable record.
	Seen map[Ref]time.Time
	// Emergencies says when an operator began one.
	Emergencies map[Ref][]time.Time
	// Returned says when a licence was returned: documents issued by then are of no use here any more.
	Returned  map[Ref]time.Time
	Narrowing Narrowing
	// Budgets says how much of a site pool this agent may hand out by a budget that is provably shared (site server,
	// fleet, upstream checkout), overage included. A pool that is not named here has none.
	Budgets map[Share]Limit
	// Kept says how many slots of a site pool may stay held beside Budgets although none of them may be handed out any
	// more: others may not have them yet. Of a pool that is named here, leases beyond both are revoked, whatever
	// on_expiry says of a limit that shrinks: their slots are, or will soon be, another agent's.
	Kept map[Share]Limit
	// Draws says what this agent has taken of a site meter upstream, for good: so much may be drawn here.
	Draws map[Share]Taken
	// SharesFailing says of which pools and meters a site server, a fleet, or another upstream, cannot be asked for
	// slots or draws.
	SharesFailing map[Share]Failing
	// UpstreamLost is when the agent found that its record of upstreams' answers was changed or lost; zero: it was not.
	UpstreamLost time.Time
	Withheld     Withheld
	// Folder is where licences are looked for, and FolderFault why that cannot be done, with the mend: both for people,
	// and empty where there is nothing to say.
	Folder, FolderFault string
}

// Taken is what an agent has taken of a meter upstream in a period; see Resets.Start.
type Taken struct {
	N      Limit
	Period time.Time // zero: the meter never resets
}

// Share names the owner of a budget: one pool of one licence. A budget for a licence that another has replaced counts
// no more.
type Share struct {
	License Ref
	Pool    string
}

// HostMatch is how well this host fits a binding.
type HostMatch struct {
	Bound   bool     // the licence names a host
	OK      bool     // the strategy holds
	Matched int      // components that match
	Of      int      // components that the licence names
	Spare   int      // of those that match, how many may change before the strategy holds no more
	Misses  []string // one sentence for each that does not, in the order of their names
}

// Score returns matched over named, 1 for a licence bound to no host.
func (m HostMatch) Score() float64 {
	if !m.Bound || m.Of == 0 {
		return 1
	}
	return float64(m.Matched) / float64(m.Of)
}

// Judged is one document as the verdict sees it.
type Judged struct {
	Document string
	License  *License // nil when unreadable
	Role     Role
	InForce  bool      // its terms are part of the verdict
	Next     bool      // good, but starts later; it waits for its time
	Spare    bool      // a good base, set aside for the one in force
	Code     Code      // the first of Findings
	Reason   string    // of Code
	Findings []Finding // all of them, in order of precedence; never empty
	Problem  *Problem
	Match    HostMatch
	// TrialEnds is when the trial that the licence is ends here; zero: it is none, or has not begun.
	TrialEnds time.Time
}

// Term returns for how long the licence was issued, or how long the trial is that it is; 0: it never expires.
func (j Judged) Term() time.Duration {
	switch l := j.License; {
	case l == nil:
		return 0
	case l.Trial > 0:
		return l.Trial
	case l.Expires.IsZero():
		return 0
	default:
		return max(0, l.Expires.Sub(later(l.Issued, l.NotBefore)))
	}
}

// PoolGrant is what the verdict permits of one pool.
type PoolGrant struct {
	Name    string
	Limit   Limit // what the licence says, over base and add-ons
	Overage Limit
	Budget  Limit // what this agent may hand out, without overage
	Most    Limit // how far Budget and Overage together may grow, where they are a share
	// Kept is how many slots may stay held beyond both, and Bounded that leases beyond all three are revoked: see
	// [Facts.Kept].
	Kept    Limit
	Bounded bool
	Scope   Scope
	CountBy CountBy
	// with CountLease: the unit by which the holders of one lease count; empty: a lease counts once, with any number of
	// holders
	HoldersBy CountBy
	Unit      string
	Quantum   int64  // parts of a slot: see PoolTerm; 0 or 1: it has none
	NotShared string // why Budget is 0 although Limit is not; empty otherwise
	// Cut says why whoever gives this agent its share of the site cannot be asked for more; nil: it can, or there is
	// nobody.
	Cut *Failing
}

// MeterGrant is what the verdict permits of one meter.
type MeterGrant struct {
	Name      string
	Key       string // the key of its draws; see MeterPart
	Former    string // the key of its draws in a former version; empty: none
	Limit     Limit
	Overage   Limit
	Budget    Limit
	Most      Limit // of the whole site, overage included
	Scope     Scope
	Resets    Resets
	Unit      string
	NotShared string
	Cut       *Failing // as of a pool
	// Taken says that the budget was taken upstream, and holds in Period alone.
	Taken  bool
	Period time.Time
	// Adjustable says that a caller that draws may adjust it: see Shift.
	Adjustable bool
	// Parts are what each of several licences gives of the meter, the base first; none: one licence gives all of it,
	// and the fields above are that licence's.
	Parts []MeterPart
}

// MeterPart is what one licence gives of a meter. Its draws stay drawn, whatever base it is added to.
type MeterPart struct {
	Key    string // the key of its draws: the licence's Ref, a slash and the meter's name
	Limit  Limit  // what may be drawn of it here, overage included
	Resets Resets
	Taken  bool // as of the whole meter
	Period time.Time
}

// Verdict is what the licences permit from the instant of judging until Until. It never changes once made.
type Verdict struct {
	State      State
	Code       Code
	Reason     string
	SystemCode string

	JudgedAt     time.Time
	Until        time.Time // when state, code or grants will next change by themselves; zero: never
	JudgeAgainAt time.Time // when to judge again: Until, or sooner where only a warning changes; zero: never
	// CoveredUntil is when it stops being good, given all documents at hand, as long as every upstream answers in time;
	// zero: never, or not good now. HoldsUntil is the same if no upstream answers any more.
	CoveredUntil, HoldsUntil time.Time
	// Coming are the changes of the licences in force until CoveredUntil, the first one first.
	Coming       []Change
	GraceEndsAt  time.Time // zero unless Code is ValidInGrace
	TerminatesAt time.Time // when the product must stop; zero: perpetual
	// Next are the verdicts that this one turns into by itself: the first at Until, each from its JudgedAt on, up to
	// the first that is not good. They decide what is asked later than Until, and before the licences are judged again.
	Next []*Verdict

	Environment Environment
	OnExpiry    OnExpiry
	AgentAway   time.Duration
	MaxBorrow   time.Duration
	EarlyReturn bool

	Withheld Withheld // of Facts
	// Paused says in one sentence why nothing new is granted while the verdict is good: see [Upstream.Paused]. What is
	// held stands. Empty: nothing keeps it from being granted.
	Paused string

	Licenses []Judged // the ones in force first
	Warnings []Warning
	Pools    map[string]PoolGrant
	Meters   map[string]MeterGrant
	Features map[string]Value
	Versions []VersionCover // an acquire that names a version must satisfy every one

	Match HostMatch // of the base in force, or of the best of the others
}

// Good reports whether the verdict permits leases. New ones are granted unless Paused says why not.
func (v *Verdict) Good() bool { return v != nil && v.State == StateValid }

// VersionCover is the versions one licence covers.
type VersionCover struct {
	LicenseID string
	Versions  string
}
