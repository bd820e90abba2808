// Package wire has the JSON shapes of the agent's local API. Handlers write them and clients read them.
//
// Times are RFC 3339 in UTC; durations are seconds in fields named *_seconds; a limit that is null is unlimited.
// Responses may gain fields. The agent reads requests strictly: an unknown field is an error.
package wire

import "time"

// License is the answer to GET /v1/license: the verdict, and every document it rests on.
type License struct {
	State        string     `json:"state"`
	Code         string     `json:"code"`
	SystemCode   string     `json:"system_code,omitempty"`
	Reason       string     `json:"reason"`
	Until        *time.Time `json:"until"`
	CoveredUntil *time.Time `json:"covered_until"`
	TerminatesAt *time.Time `json:"terminates_at"`
	GraceEndsAt  *time.Time `json:"grace_ends_at"`
	Environment  string     `json:"environment"`
	// AgentAway is how long held leases stand while no agent answers.
	AgentAway float64            `json:"agent_away_seconds"`
	Warnings  []Warning          `json:"warnings"`
	Licenses  []Document         `json:"licenses"`
	Limits    map[string]*int64  `json:"limits"`
	Features  map[string]Feature `json:"features"`
	Host      Host               `json:"host"`
	CheckIn   *CheckIn           `json:"check_in"`
	Heartbeat *Heartbeat         `json:"heartbeat"`
	Upstream  *Upstream          `json:"upstream"`
	// SiteServer is the state of what lends this agent its share of a site, or gives it draws; null: nothing does.
	SiteServer *Upstream `json:"site_server"`
	Coming     []Change  `json:"coming"`   // the changes of the licences in force until covered_until
	Draining   bool      `json:"draining"` // an operator has the agent grant nothing new
}

// Warning is information for an operator that changes nothing yet.
type Warning struct {
	Code   string     `json:"code"`
	Detail string     `json:"detail"`
	At     *time.Time `json:"at"`
}

// Document is one element of licenses[]: a document, its terms, and the judge's findings.
type Document struct {
	ID         string             `json:"id"`
	System     string             `json:"system"`
	Product    string             `json:"product"`
	Licensee   string             `json:"licensee"`
	Issuer     string             `json:"issuer"`
	KeyID      string             `json:"key_id"`
	IssuedAt   *time.Time         `json:"issued_at"`
	NotBefore  *time.Time         `json:"not_before"`
	ExpiresAt  *time.Time         `json:"expires_at"`
	Document   string             `json:"document"` // a file name
	Role       string             `json:"role"`     // base, add-on, free-tier
	InForce    bool               `json:"in_force"`
	Code       string             `json:"code"`
	SystemCode string             `json:"system_code,omitempty"`
	Reason     string             `json:"reason"`
	Hint       string             `json:"hint,omitempty"`
	Findings   []Finding          `json:"findings,omitempty"`
	Verified   bool               `json:"verified"` // the signature; false: all terms here are unverified claims
	Limits     map[string]*int64  `json:"limits,omitempty"`
	Features   map[string]Feature `json:"features,omitempty"`
	Conditions *Conditions        `json:"conditions,omitempty"`
	Terms      map[string]any     `json:"terms"`
}

// Finding is one finding of the judge about a document.
type Finding struct {
	Code   string `json:"code"`
	Reason string `json:"reason"`
}

// Feature is a term that is not counted.
type Feature struct {
	Enabled bool   `json:"enabled"`
	Value   any    `json:"value"` // bool, number or string; null: the licence does not name the feature
	Unit    string `json:"unit,omitempty"`
}

// Host is the match of this host with the licence, and its cores.
type Host struct {
	Match  string   `json:"match"` // ok, failed, unbound
	Score  float64  `json:"score"`
	Misses []string `json:"misses,omitempty"`
	Cores  Cores    `json:"cores"`
}

// Cores is a host's core counts.
type Cores struct {
	Physical  int     `json:"physical"`
	Logical   int     `json:"logical"`
	Effective float64 `json:"effective"`
}

// UpstreamPreview has the data that would leave the host with the agent's next calls to its upstream.
type UpstreamPreview struct {
	Requests []UpstreamRequest `json:"requests"`
}

// UpstreamRequest is one call, without its random nonce and its date.
type UpstreamRequest struct {
	License  string `json:"license"`
	Product  string `json:"product"`
	Version  string `json:"version"`
	AgentKey string `json:"agent_key"`
	// Fingerprint is the system's name for this host, and Hostname the host's own. Only systems that need them get
	// them.
	Fingerprint string              `json:"fingerprint,omitempty"`
	Hostname    string              `json:"hostname,omitempty"`
	Memory      int64               `json:"memory,omitempty"` // bytes; likewise
	Disk        int64               `json:"disk,omitempty"`   // bytes of the root file system; likewise
	Components  map[string][]string `json:"components"`
	Cores       Cores               `json:"cores"`
	Usage       []UpstreamUsage     `json:"usage"`
	// Emergencies that operators began on the licence within a year.
	Emergencies []UpstreamEmergency `json:"emergencies"`
	Chain       string              `json:"chain"`    // from the upstream's last answer, sent back to it
	Document    string              `json:"document"` // only with the first call
	// Report is what the upstream is told of the licence on this host, beside its requests; nil: nothing.
	Report *UpstreamReport `json:"report,omitempty"`
}

// UpstreamReport is what an upstream is told of a licence: its code, and a label's values of the leases that hold its
// slots.
type UpstreamReport struct {
	Code   string   `json:"code"`
	Label  string   `json:"label"`
	Values []string `json:"values"`
}

// UpstreamCalls is the answer to POST /v1/upstream: what came of each call; none: no licence demands an upstream.
type UpstreamCalls struct {
	Calls []UpstreamOutcome `json:"calls"`
}

// UpstreamOutcome is what came of one call to an upstream.
type UpstreamOutcome struct {
	License string `json:"license"`
	// Pool is the one that the call was about, of check_out and extend; empty: it was about the licence.
	Pool string `json:"pool,omitempty"`
	Call string `json:"call"` // activate, heartbeat, check_in, check_out, extend; empty: none was made in time
	OK   bool   `json:"ok"`
	// Slots is how many of the pool the agent may hand out after the call; with Reason there are no more to be had.
	Slots  *int64 `json:"slots,omitempty"`
	Class  string `json:"class,omitempty"` // of the failure: as in the metric usher_upstream_requests_total
	Reason string `json:"reason,omitempty"`
	Hint   string `json:"hint,omitempty"`
}

// UpstreamUsage is the use of one pool or meter.
type UpstreamUsage struct {
	Pool   string `json:"pool"`
	InUse  int64  `json:"in_use"`
	Peak   int64  `json:"peak"`
	Denied int64  `json:"denied"`
}

// UpstreamEmergency is an emergency that an operator began.
type UpstreamEmergency struct {
	BeganAt time.Time `json:"began_at"`
	EndsAt  time.Time `json:"ends_at"`
	Reason  string    `json:"reason"`
}

// EmergencyRequest is the body of POST /v1/emergency.
type EmergencyRequest struct {
	Reason string `json:"reason" wire:"required"`
}

// Emergency is an emergency that an operator began: the answer to POST /v1/emergency.
type Emergency struct {
	License string    `json:"license"`
	BeganAt time.Time `json:"began_at"`
	EndsAt  time.Time `json:"ends_at"`
	Reason  string    `json:"reason"`
	Running bool      `json:"running"`
}

// EmergencyGrant is the emergencies that one licence grants.
type EmergencyGrant struct {
	License       string     `json:"license"`
	LengthSeconds float64    `json:"length_seconds"` // of one
	PerYear       int        `json:"per_year"`
	Next          *time.Time `json:"next"` // when another may begin; null: never
}

// Emergencies is the answer to GET /v1/emergency.
type Emergencies struct {
	Emergencies []Emergency      `json:"emergencies"`
	Grants      []EmergencyGrant `json:"grants"`
}

// ReturnRequest is the body of POST /v1/license/return.
type ReturnRequest struct {
	License string `json:"license" wire:"required"`
}

// Returned is the answer to POST /v1/license/return.
type Returned struct {
	License    string    `json:"license"`
	Product    string    `json:"product"`
	ReturnedAt time.Time `json:"returned_at"`
	Receipt    string    `json:"receipt"` // a JWT of type usher-return+jwt, signed with the agent's key
	// the result of giving this host's place back, if the licence has an upstream
	Place *Released `json:"place,omitempty"`
}

// Pool is a pool of slots or a meter. For the kind "meter", in_use is the number of draws. Null is unlimited.
type Pool struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"` // pool, meter
	Unit      string `json:"unit,omitempty"`
	Limit     *int64 `json:"limit"`
	Scope     string `json:"scope"`
	CountBy   string `json:"count_by,omitempty"` // the unit of one use; left out: each lease, or a meter
	Budget    *int64 `json:"budget"`
	InUse     int64  `json:"in_use"`
	Available *int64 `json:"available"`
	Waiting   int64  `json:"waiting"`
	Reserved  int64  `json:"reserved"`                     // free, and kept for others by a rule of the site
	Lingering int64  `json:"lingering,omitzero,omitempty"` // free, and kept for who had them last
	Peak      int64  `json:"peak"`
	Leases    int    `json:"leases"`
	Quantum   int64  `json:"quantum,omitzero,omitempty"` // parts of a slot, where leases may hold parts
	// with quantum: the parts in use, which in_use rounds up to slots
	Parts int64 `json:"parts,omitzero,omitempty"`
	// the hold-offs in force, for admins; those of the caller itself, for others
	HoldOffs []HoldOff `json:"hold_offs,omitempty"`
}

// AdjustRequest is the body of PUT /v1/pools/{name}, for meters.
type AdjustRequest struct {
	Drawn int64 `json:"drawn" wire:"required"` // in the present period
}

// Pools is the answer to GET /v1/pools.
type Pools struct {
	Pools []Pool `json:"pools"`
}

// Item is n slots of one pool.
type Item struct {
	Pool string `json:"pool" wire:"required"`
	N    int64  `json:"n" wire:"required"`
	// n counts parts of a slot, of which so many make one
	Of int64 `json:"of,omitzero,omitempty" wire:"positive"`
}

// AcquireRequest is the body of POST /v1/leases. Exactly one of pool and items is given.
type AcquireRequest struct {
	Pool string `json:"pool,omitempty"`
	N    *int64 `json:"n,omitempty"` // default 1
	// n counts parts of a slot, of which so many make one
	Of          int64             `json:"of,omitzero,omitempty" wire:"positive"`
	Items       []Item            `json:"items,omitempty"`
	MinN        int64             `json:"min_n,omitempty" wire:"positive"`
	Lifetime    string            `json:"lifetime,omitempty"`
	TTLSeconds  float64           `json:"ttl_seconds,omitempty" wire:"positive"`
	WaitSeconds float64           `json:"wait_seconds,omitempty"`
	ClientToken string            `json:"client_token,omitempty"`
	Nonce       string            `json:"nonce,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Priority    int               `json:"priority,omitempty" wire:"refused"` // the site's policies give it
	PID         int32             `json:"pid,omitempty" wire:"positive"`
	Until       *time.Time        `json:"until,omitempty"`
	Version     string            `json:"version,omitempty"`
}

// RenewRequest is the body of PUT /v1/leases/{id}; it may be empty.
type RenewRequest struct {
	TTLSeconds float64 `json:"ttl_seconds,omitempty" wire:"positive"`
}

// Lease is a lease.
type Lease struct {
	ID       string `json:"id"`
	Pool     string `json:"pool"`                  // of the first item
	N        int64  `json:"n"`                     // of the first item
	Of       int64  `json:"of,omitzero,omitempty"` // of the first item
	Items    []Item `json:"items"`
	Lifetime string `json:"lifetime"`
	// how the agent learns that the holder is gone: ttl, peerpidfd, sentpidfd, pidfd, connection, none
	Liveness   string     `json:"liveness"`
	State      string     `json:"state"` // held, revoking, unconfirmed
	AcquiredAt time.Time  `json:"acquired_at"`
	ExpiresAt  *time.Time `json:"expires_at"`
	RevokeAt   *time.Time `json:"revoke_at,omitempty"`
	Token      string     `json:"token,omitempty"`
	Holder     *Holder    `json:"holder,omitempty"`
	Others     []Holder   `json:"others,omitempty"` // co-holders that joined
}

// Holder is the holder of a lease. Labels are the holder's own claims; the kernel states the rest.
type Holder struct {
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	PID  int32  `json:"pid"`
	Exe  string `json:"exe,omitempty"`
	User string `json:"user,omitempty"`
	// Credential identifies the holder to a dialect's listener over TCP; empty: the kernel identifies it.
	Credential string            `json:"credential,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
}

// Leases is the answer to GET /v1/leases.
type Leases struct {
	Leases []Lease `json:"leases"`
	// Next is where the next page begins: the query's after. Empty: this is the last one, or the agent knows no pages,
	// and this is all.
	Next string `json:"next,omitempty"`
}

// Features is the answer to GET /v1/features.
type Features struct {
	Features map[string]Feature `json:"features"`
}

// NamedFeature is the answer to GET /v1/features/{name}.
type NamedFeature struct {
	Name string `json:"name"`
	Feature
}

// Installed is the answer to PUT /v1/license: the changes by the document, made or, with ?dry_run=true, possible.
type Installed struct {
	DryRun   bool     `json:"dry_run"`
	Document Document `json:"document"`
	Changes  []string `json:"changes"` // sentences: "streams 8 → 12"
	License  License  `json:"license"` // the verdict with the document
	// Removed is true after a rollback of a first install: the document is in the folder no more.
	Removed bool `json:"removed,omitempty"`
}

// Component is one component of a host's fingerprint.
type Component struct {
	Name   string   `json:"name"`
	Values []string `json:"values,omitempty"` // HMAC-SHA-256, lower-case hex
	Absent string   `json:"absent,omitempty"` // the reason that it could not be read
	Note   string   `json:"note,omitempty"`
	// Configured is true if the configuration states the component; false: it was measured.
	Configured bool `json:"configured,omitempty"`
}

// Fingerprint is the answer to GET /v1/fingerprint: this host's identity for licences.
type Fingerprint struct {
	Product    string      `json:"product"`
	Components []Component `json:"components"`
	Short      string      `json:"short"`
	Cores      Cores       `json:"cores"`
	Virtual    string      `json:"virtual"`   // the hypervisor; empty: none seen
	Container  string      `json:"container"` // the container runtime; empty: none seen
	AgentKey   string      `json:"agent_key,omitempty"`
	// Fingerprint is this host's name for licence systems that name hosts by one text.
	Fingerprint string `json:"fingerprint,omitempty"`
}

// Event is one server-sent event's data on GET /v1/events; the event's name is Type.
type Event struct {
	// license.changed, emergency.started, license.returned, events.ended; lease.granted, lease.ended and the like
	Type    string    `json:"type"`
	At      time.Time `json:"at"`
	LeaseID string    `json:"lease_id,omitempty"`
	Items   []Item    `json:"items,omitempty"`
	Cause   string    `json:"cause,omitempty"`
	Rule    string    `json:"rule,omitempty"` // of lease.ended: the site's rule that ended it
	State   string    `json:"state,omitempty"`
	Code    string    `json:"code,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	// Of lease.denied: how many acquires, since when if there were others before, and who asked last.
	Pool   string     `json:"pool,omitempty"`
	Count  int64      `json:"count,omitzero,omitempty"`
	Since  *time.Time `json:"since,omitempty"`
	Holder *Holder    `json:"holder,omitempty"`
	// Of lease.waiting: an acquire waits for slots of Pool, and LeaseID is the lease that it would get.
	Position int `json:"position,omitzero,omitempty"` // 1: it is the first
	// when the next lease of the pool ends unless it is renewed, where that is known
	NextEndsAt *time.Time `json:"next_ends_at,omitempty"`
	// how long it may still wait at the pace of late, where that is known
	EstimateSeconds float64 `json:"estimate_seconds,omitzero,omitempty"`
}

// Health is the answer to GET /v1/health and /v1/ready.
type Health struct {
	Status    string     `json:"status"` // ok, starting, draining, unready
	Version   string     `json:"version"`
	Product   string     `json:"product"`
	Anchors   string     `json:"anchors"` // embedded, config
	Listeners []Listener `json:"listeners,omitempty"`
	// State lists the files of the agent's state that somebody else changed.
	State []StateFinding `json:"state,omitempty"`
	// Unready lists the vital parts of the agent that are not as they must be.
	Unready []Unready `json:"unready,omitempty"`
}

// Unready is one vital part of the agent that is not as it must be.
type Unready struct {
	Part   string    `json:"part"`   // desk, verdict, socket, state, runtime, journal, seal, dialect, files, vitals
	Reason string    `json:"reason"` // one sentence
	Since  time.Time `json:"since"`
}

// StateFinding is one file of the agent's state that somebody else changed.
type StateFinding struct {
	File   string    `json:"file"`
	Fault  string    `json:"fault"`  // missing, empty, edited, foreign, swapped, older, unlisted
	Found  time.Time `json:"found"`  // when
	Effect string    `json:"effect"` // one sentence
}

// Listener is an address where the agent answers the API of another licence system.
type Listener struct {
	Dialect string `json:"dialect"` // the system's name
	Address string `json:"address"` // unix:PATH, or a loopback address and port
}

// Clock is the answer to GET /v1/clock: the licence time and its origin.
type Clock struct {
	Wall          time.Time  `json:"wall"`
	Time          time.Time  `json:"time"`                // licence time, which never goes back
	From          string     `json:"from"`                // wall, mark, document
	MarkedAt      *time.Time `json:"marked_at,omitempty"` // the mark: the latest time with evidence
	LearntAt      *time.Time `json:"learnt_at,omitempty"` // the latest time that an upstream signed
	SignedAt      *time.Time `json:"signed_at,omitempty"` // the latest date of a document at hand
	BehindSeconds float64    `json:"behind_seconds"`      // how far the wall clock is behind the licence time
	// in licence time; not before this start of the host
	BehindSince *time.Time `json:"behind_since,omitempty"`
	// how far the wall clock is ahead of the mark, while that is not accepted yet
	AheadSeconds float64    `json:"ahead_seconds"`
	BelievedAt   *time.Time `json:"believed_at,omitempty"` // when it will be accepted
	// the first wall clock that the agent saw, while it is not proved; absent: it is
	FirstClock *FirstClock `json:"first_clock,omitempty"`
}

// FirstClock is a first wall clock that is not proved yet: until then the licence time follows a clock that is set
// back.
type FirstClock struct {
	Since    time.Time `json:"since"`     // since when the host has run with it, in licence time
	ProvedAt time.Time `json:"proved_at"` // when it is proved at the latest, if the host runs until then
}

// ReleaseRequest asks the agent to give this host's place back on a licence with an upstream; on all of them if none is
// named.
type ReleaseRequest struct {
	License string `json:"license,omitempty"`
}

// Released is the result of giving one place back.
type Released struct {
	License  string `json:"license"`
	Released bool   `json:"released"`
	Reason   string `json:"reason,omitempty"` // the reason if not
}

// Releases is the answer to POST /v1/license/release.
type Releases struct {
	Licenses []Released `json:"licenses"` // those on which this host had a place
}

// DrainRequest asks the agent to grant no new leases, and to answer when the held leases are over.
type DrainRequest struct {
	WaitSeconds float64 `json:"wait_seconds,omitempty"` // how long to wait for them; 0: not at all
	// then give this host's places back, once no lease is held
	Release bool `json:"release,omitempty"`
}

// Drain is the progress of draining an agent.
type Drain struct {
	Draining bool       `json:"draining"`
	Leases   int        `json:"leases"`             // still held, without borrows
	Borrowed int        `json:"borrowed"`           // borrows, which end at their date
	Licenses []Released `json:"licenses,omitempty"` // the result for each place
}

// Setting is one configuration key with its value and the value's origin.
type Setting struct {
	Key    string `json:"key"`
	Value  string `json:"value"` // secrets are redacted
	Origin string `json:"origin"`
}

// Settings is the answer to GET /v1/config.
type Settings struct {
	Settings []Setting `json:"settings"`
}
