package enforcer

import "time"

// Limit is a count of slots or draws. [Unlimited] stands for no limit; no other value is negative.
type Limit int64

// Unlimited is the Limit that no count reaches: null on the wire, +Inf in metrics.
const Unlimited Limit = -1

// Plus returns the sum of two limits; anything plus Unlimited is Unlimited, and the sum saturates.
func (l Limit) Plus(m Limit) Limit {
	if l == Unlimited || m == Unlimited {
		return Unlimited
	}
	if s := l + m; s >= l && s >= 0 {
		return s
	}
	return Limit(1<<63 - 1)
}

// Min returns the smaller of two limits.
func (l Limit) Min(m Limit) Limit {
	if l == Unlimited {
		return m
	}
	if m == Unlimited || l < m {
		return l
	}
	return m
}

// Covers reports whether n fits under the limit.
func (l Limit) Covers(n int64) bool { return l == Unlimited || n <= int64(l) }

// Role says how a document counts beside others of the same product.
type Role string

// The roles of a document. The zero Role is read as RoleBase.
const (
	RoleBase  Role = "base"      // grants by itself; of several good ones the latest issued counts
	RoleAddOn Role = "add-on"    // adds to a good base
	RoleFree  Role = "free-tier" // counts when no other base is good
	// RoleNotice grants nothing. It names licences that are revoked, and its date proves that it is no earlier than
	// that.
	RoleNotice Role = "notice"
)

// Environment separates production licences from those made for tests.
type Environment string

// The environments of a licence or an anchor. The zero Environment is read as Production.
const (
	Production Environment = "production"
	Test       Environment = "test"
)

// Scope says whose count a pool's limit is.
type Scope string

// The scopes of a pool. The zero Scope means ScopeSite on a licence bound to no host, else ScopeHost.
const (
	ScopeHost Scope = "host" // each host that the licence is good on has the whole limit
	ScopeSite Scope = "site" // the limit is the total of all hosts
	// ScopeShared is ScopeSite where the host that the licence names is one of many that share the limit, such as a
	// host's copy of a floating licence.
	ScopeShared Scope = "shared"
)

// OnExpiry says what becomes of held leases when the verdict turns bad or a limit shrinks below what is in use.
type OnExpiry string

// What can become of held leases. The zero OnExpiry is read as Drain.
const (
	Drain  OnExpiry = "drain"  // held until released, at most to termination
	Revoke OnExpiry = "revoke" // revoked, never sooner than RevokeDelay after the turn
	Keep   OnExpiry = "keep"   // held until released
)

// RevokeDelay is the least time between a turn for the worse and the first revocation.
const RevokeDelay = 10 * time.Second

// DefaultAgentAway is how long held leases stand without the agent where the licence does not say.
const DefaultAgentAway = 10 * time.Minute

// Resets is the calendar period after which a meter starts again (UTC; weeks begin on Monday). Empty means never.
type Resets string

// The periods of a meter.
const (
	ResetsNever   Resets = ""
	ResetsWeekly  Resets = "week"
	ResetsMonthly Resets = "month"
)

// Strategy says how many components of a host binding must match.
type Strategy string

// The match strategies. The zero Strategy is read as MatchMost.
const (
	MatchAny  Strategy = "any"  // at least one
	MatchTwo  Strategy = "two"  // at least two, or all where the licence names fewer
	MatchMost Strategy = "most" // more than half
	MatchAll  Strategy = "all"  // every one
)

// CoreKind names one of the three counts of a host's cores.
type CoreKind string

// The core counts. The zero CoreKind is read as CoresPhysical.
const (
	CoresPhysical  CoreKind = "physical"
	CoresLogical   CoreKind = "logical"
	CoresEffective CoreKind = "effective" // what cgroup quota and cpuset leave
)

// ClockPolicy says how a licence takes a wall clock that is behind the evidence.
type ClockPolicy string

// The clock policies. The zero ClockPolicy is read as ClockLenient.
const (
	ClockLenient ClockPolicy = "lenient" // the warning CLOCK_BEHIND
	ClockStrict  ClockPolicy = "strict"  // CLOCK_TAMPERED after ten minutes of this boot
)

// PoolTerm is a countable term of a licence: slots that are held and released.
type PoolTerm struct {
	Max     Limit
	Unit    string  // what a slot is called, for people; may be empty
	Overage Limit   // slots granted and counted beyond Max
	Scope   Scope   // zero: see Scope
	CountBy CountBy // zero: CountLease
	// Quantum is how many parts a slot has where leases may hold parts of one: what they hold is added up, and the sum
	// is rounded up to slots, not each lease. 0 or 1: slots have none. At most MaxQuantum.
	Quantum int64
}

// MeterTerm is a consumable term of a licence: draws never come back, except at the period it resets.
type MeterTerm struct {
	Max     Limit
	Unit    string
	Overage Limit
	Scope   Scope
	Resets  Resets
	// Adjustable says that a caller that draws may take draws back, or count draws made elsewhere. See Shift.
	Adjustable bool
}

// ValueKind says which field of a Value counts.
type ValueKind string

// The kinds of a feature's value.
const (
	KindBool   ValueKind = "bool"
	KindNumber ValueKind = "number"
	KindText   ValueKind = "text"
)

// Value is a feature's value: on or off, a number with a unit, or a text.
type Value struct {
	Kind   ValueKind
	Bool   bool    // KindBool
	Number float64 // KindNumber; whole numbers are exact up to 2^53
	Text   string  // KindText
	Unit   string  // KindNumber, may be empty
}

// Enabled reports whether the feature is on: true, a number other than 0, a text other than "".
func (v Value) Enabled() bool {
	switch v.Kind {
	case KindBool:
		return v.Bool
	case KindNumber:
		return v.Number != 0
	default:
		return v.Text != ""
	}
}

// HostBinding names one host by the components of its fingerprint, each as HMAC-SHA-256 in lower-case hex, keyed by
// product. A component matches when one of its values is among the host's.
type HostBinding struct {
	Name       string // for people; may be empty
	Components map[string][]string
	Strategy   Strategy
	// CountConfigured says that components which the host's configuration states count like measured ones. Otherwise
	// they count only where the binding names no measured one.
	CountConfigured bool
}

// Period is a duty towards an upstream: a sign of life, or a proof, once in each period.
type Period struct {
	Every  time.Duration // days and weeks, which all have one length in UTC, and shorter spans
	Months int           // calendar months in UTC, instead of Every; a year has 12
	Grace  time.Duration // how much later than due it may come before the verdict falls
}

// Stated reports whether there is such a duty.
func (p Period) Stated() bool { return p.Every > 0 || p.Months > 0 }

// After returns the end of a period that begins at t. In a month without such a day it is the last day.
func (p Period) After(t time.Time) time.Time {
	if p.Months == 0 {
		return t.Add(p.Every)
	}
	t = t.UTC()
	end := t.AddDate(0, p.Months, 0)
	if end.Day() != t.Day() {
		end = end.AddDate(0, 0, -end.Day()) // AddDate ran over into the month after
	}
	return end.Add(p.Every)
}

// String returns the period in words: "10 minutes", "7 days", "3 months".
func (p Period) String() string {
	switch {
	case p.Months > 0 && p.Months%12 == 0:
		return plural(p.Months/12, "year")
	case p.Months > 0:
		return plural(p.Months, "month")
	default:
		return Span(p.Every)
	}
}

// Activation is the duty of a first contact with the upstream.
type Activation struct {
	Required bool
	Grace    time.Duration // how long a host may run before its first contact
}

// Emergency is what an operator may use without the word of the upstream or the vendor (break-glass).
type Emergency struct {
	Length  time.Duration // of one; zero: there are none
	PerYear int           // how many may begin within 365 days
}

// License is the normalised terms of one document of any system. Zero times mean "not stated"; a zero Expires means
// perpetual. A License never changes once built.
type License struct {
	ID       string
	System   string // the licence system's name, such as "usher"
	Product  string
	Licensee string
	Issuer   string

	Issued    time.Time
	NotBefore time.Time
	Expires   time.Time

	Environment Environment
	Role        Role
	AddOnTo     string   // RoleAddOn: the id of the base it adds to; empty for any base
	Supersedes  []string // ids of licences that this one supersedes

	Suspended, Banned, Revoked bool // state flags as the system says them

	Pools    map[string]PoolTerm
	Meters   map[string]MeterTerm
	Features map[string]Value

	Versions       string    // versions covered, see ParseVersions; empty: all
	ReleasedBefore time.Time // product releases before this instant are covered; zero: all

	Hosts     []HostBinding // good on any one of these hosts; none: on every host
	AgentKeys []string      // RFC 7638 thumbprints of the agents' keys it is bound to (cnf.jkt); none: any

	CoreCap  Limit // cores the host may have; zero or Unlimited: any number
	CoreKind CoreKind
	// Bytes that the host may have; zero or Unlimited: any number.
	MemoryCap, DiskCap Limit

	Heartbeat  Period
	CheckIn    Period
	CheckedIn  time.Time // the last check-in that the document knows of; zero: its issue was one
	Activation Activation
	Usage      bool // usage figures ride along with heartbeats and check-ins

	Trial     time.Duration // good for so long from its first use on this host, which the agent records; zero: no trial
	Emergency Emergency
	Revokes   []string // RoleNotice: ids of licences of this system and product that are revoked
	// ResetsClock says that its issue date is the latest proved time: an earlier belief in a later time was false. Only
	// on a licence that names this agent's key.
	ResetsClock bool

	Grace          time.Duration // between Expires and termination
	OnExpiry       OnExpiry
	Clock          ClockPolicy
	ClockTolerance time.Duration // how far behind the evidence a wall clock may be; zero: ten minutes
	AgentAway      time.Duration // how long held leases stand without the agent; zero: DefaultAgentAway
	MaxBorrow      time.Duration // longest borrow; zero: none
	EarlyReturn    bool          // whether a borrow may be given back before its time

	// RFC 7638 thumbprint of the key of the site server that may share its site pools; empty: none
	SiteServer string

	KeyID             string         // the anchor that verified the document
	AnchorEnvironment Environment    // Test: every licence that the anchor signs is a test licence
	Terms             map[string]any // everything the document says, as its system states it; see Text
	SystemCode        string         // the system's own word for its state; may be empty
}

// Text is a part of [License.Terms] that is kept as JSON on one line. Thousands of small maps take ten times the memory
// of their text, and nobody looks into most of them: a format may keep a part so that it needs no more itself.
type Text string

// MarshalJSON returns the text as it is.
func (t Text) MarshalJSON() ([]byte, error) { return []byte(t), nil }

// depth returns how deep the text nests.
func (t Text) depth() (most int) {
	depth, quoted := 0, false
	for i := 0; i < len(t); i++ {
		switch c := t[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{', c == '[':
			depth++
			most = max(most, depth)
		case c == '}', c == ']':
			depth--
		}
	}
	return most
}

// IsTest reports whether the licence, or the anchor that verified it, is for tests.
func (l *License) IsTest() bool { return l.Environment == Test || l.AnchorEnvironment == Test }

// LastCheckIn returns the last upstream check-in that the document itself proves: CheckedIn, or else its issue.
func (l *License) LastCheckIn() time.Time {
	if l.CheckedIn.IsZero() {
		return l.Issued
	}
	return l.CheckedIn
}

// Terminates returns the instant the product must stop, expiry plus grace; zero for a perpetual licence.
func (l *License) Terminates() time.Time {
	if l.Expires.IsZero() {
		return time.Time{}
	}
	return l.Expires.Add(l.Grace)
}

// PoolScope returns the scope of a pool of this licence whose term states s.
func (l *License) PoolScope(s Scope) Scope {
	if s != "" {
		return s
	}
	if len(l.Hosts) == 0 && len(l.AgentKeys) == 0 {
		return ScopeSite
	}
	return ScopeHost
}

// SitePools returns the pools that belong to a whole site, each with its limit and its overage. An agent may hand out
// only the share of them for which it has a budget.
func (l *License) SitePools() map[string]Limit {
	out := map[string]Limit{}
	for name, t := range l.Pools {
		l.addSite(out, name, amount{t.Max, t.Overage}, t.Scope)
	}
	return out
}

// SiteMeters returns the meters that belong to a whole site, as SitePools does the pools.
func (l *License) SiteMeters() map[string]Limit {
	out := map[string]Limit{}
	for name, t := range l.Meters {
		l.addSite(out, name, amount{t.Max, t.Overage}, t.Scope)
	}
	return out
}

func (l *License) addSite(out map[string]Limit, name string, a amount, stated Scope) {
	if total := a.max.Plus(a.overage); total != Unlimited && !isOwn(l, a, l.PoolScope(stated)) {
		out[name] = total
	}
}
