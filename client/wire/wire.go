// Package wire holds the shapes that the agent's local API speaks, as JSON: what handlers write and clients read.
//
// Times are RFC 3339 in UTC; durations are seconds in fields named *_seconds; a limit that is null is unlimited.
// Responses may gain fields; requests are read strictly, and an unknown field is an error.
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
	// AgentAway is how long held leases stand when no agent answers.
	AgentAway float64            `json:"agent_away_seconds"`
	Warnings  []Warning          `json:"warnings"`
	Licenses  []Document         `json:"licenses"`
	Limits    map[string]*int64  `json:"limits"`
	Features  map[string]Feature `json:"features"`
	Host      Host               `json:"host"`
	CheckIn   *CheckIn           `json:"check_in"`
	Heartbeat *Heartbeat         `json:"heartbeat"`
	Upstream  *Upstream          `json:"upstream"`
}

// Warning is something an operator should know that changes nothing yet.
type Warning struct {
	Code   string     `json:"code"`
	Detail string     `json:"detail"`
	At     *time.Time `json:"at"`
}

// Document is one element of licenses[]: a document, its terms, and what was found of it.
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
	Verified   bool               `json:"verified"` // false: everything here is only what the document claims
	Limits     map[string]*int64  `json:"limits,omitempty"`
	Features   map[string]Feature `json:"features,omitempty"`
	Terms      map[string]any     `json:"terms"`
}

// Finding is one thing the judge found about a document.
type Finding struct {
	Code   string `json:"code"`
	Reason string `json:"reason"`
}

// Feature is a term that is not counted.
type Feature struct {
	Enabled bool   `json:"enabled"`
	Value   any    `json:"value"` // bool, number or string; null where the licence does not name the feature
	Unit    string `json:"unit,omitempty"`
}

// Host is how well this host fits the licence, and its cores.
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

// CheckIn is the state of the upstream check-ins.
type CheckIn struct {
	Last *time.Time `json:"last"`
	Next *time.Time `json:"next"`
}

// Heartbeat is the state of the heartbeats.
type Heartbeat struct {
	Last     *time.Time `json:"last"`
	Deadline *time.Time `json:"deadline"`
}

// Upstream is the state of the remote system.
type Upstream struct {
	State  string `json:"state"`
	Detail string `json:"detail"`
}

// UpstreamPreview is what would leave the host with the agent's next calls to its upstream.
type UpstreamPreview struct {
	Requests []UpstreamRequest `json:"requests"`
}

// UpstreamRequest is one call, but for its random nonce and its date.
type UpstreamRequest struct {
	License  string `json:"license"`
	Product  string `json:"product"`
	Version  string `json:"version"`
	AgentKey string `json:"agent_key"`
	// Fingerprint is what the system calls this host, and Hostname its name; for systems that want them alone.
	Fingerprint string              `json:"fingerprint,omitempty"`
	Hostname    string              `json:"hostname,omitempty"`
	Memory      int64               `json:"memory,omitempty"` // bytes; likewise
	Disk        int64               `json:"disk,omitempty"`   // bytes of the root file system; likewise
	Components  map[string][]string `json:"components"`
	Cores       Cores               `json:"cores"`
	Usage       []UpstreamUsage     `json:"usage"`
	// Emergencies are those that operators have begun on the licence within a year.
	Emergencies []UpstreamEmergency `json:"emergencies"`
	Chain       string              `json:"chain"`    // what the upstream said last, which it is told again
	Document    string              `json:"document"` // with the first call alone
}

// UpstreamUsage is the use of one pool or meter.
type UpstreamUsage struct {
	Pool   string `json:"pool"`
	InUse  int64  `json:"in_use"`
	Peak   int64  `json:"peak"`
	Denied int64  `json:"denied"`
}

// UpstreamEmergency is one that an operator has begun.
type UpstreamEmergency struct {
	BeganAt time.Time `json:"began_at"`
	EndsAt  time.Time `json:"ends_at"`
	Reason  string    `json:"reason"`
}

// EmergencyRequest is the body of POST /v1/emergency.
type EmergencyRequest struct {
	Reason string `json:"reason"`
}

// Emergency is one that an operator has begun: the answer to POST /v1/emergency.
type Emergency struct {
	License string    `json:"license"`
	BeganAt time.Time `json:"began_at"`
	EndsAt  time.Time `json:"ends_at"`
	Reason  string    `json:"reason"`
	Running bool      `json:"running"`
}

// EmergencyGrant is what one licence grants.
type EmergencyGrant struct {
	License       string     `json:"license"`
	LengthSeconds float64    `json:"length_seconds"` // of one
	PerYear       int        `json:"per_year"`
	Next          *time.Time `json:"next"` // from when another may begin; null: never
}

// Emergencies is the answer to GET /v1/emergency.
type Emergencies struct {
	Emergencies []Emergency      `json:"emergencies"`
	Grants      []EmergencyGrant `json:"grants"`
}

// ReturnRequest is the body of POST /v1/license/return.
type ReturnRequest struct {
	License string `json:"license"`
}

// Returned is the answer to it.
type Returned struct {
	License    string    `json:"license"`
	Product    string    `json:"product"`
	ReturnedAt time.Time `json:"returned_at"`
	Receipt    string    `json:"receipt"` // a JWT of type usher-return+jwt that the agent's key signs
	// what came of giving this host's place back, where the licence has an upstream
	Place *Released `json:"place,omitempty"`
}

// Pool is a pool of slots, or a meter (kind "meter": in_use is what has been drawn). Null is unlimited.
type Pool struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"` // pool, meter
	Unit      string `json:"unit,omitempty"`
	Limit     *int64 `json:"limit"`
	Scope     string `json:"scope"`
	Budget    *int64 `json:"budget"`
	InUse     int64  `json:"in_use"`
	Available *int64 `json:"available"`
	Waiting   int64  `json:"waiting"`
	Reserved  int64  `json:"reserved"`
	Peak      int64  `json:"peak"`
	Leases    int    `json:"leases"`
}

// AdjustRequest is the body of PUT /v1/pools/{name}, for meters.
type AdjustRequest struct {
	Drawn int64 `json:"drawn"` // in the present period
}

// Pools is the answer to GET /v1/pools.
type Pools struct {
	Pools []Pool `json:"pools"`
}

// Item is n slots of one pool.
type Item struct {
	Pool string `json:"pool"`
	N    int64  `json:"n"`
}

// AcquireRequest is the body of POST /v1/leases. Exactly one of pool and items is given.
type AcquireRequest struct {
	Pool        string            `json:"pool,omitempty"`
	N           *int64            `json:"n,omitempty"` // default 1
	Items       []Item            `json:"items,omitempty"`
	MinN        int64             `json:"min_n,omitempty"`
	Lifetime    string            `json:"lifetime,omitempty"`
	TTLSeconds  float64           `json:"ttl_seconds,omitempty"`
	WaitSeconds float64           `json:"wait_seconds,omitempty"`
	ClientToken string            `json:"client_token,omitempty"`
	Nonce       string            `json:"nonce,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Priority    int               `json:"priority,omitempty"`
	PID         int32             `json:"pid,omitempty"`
	Until       *time.Time        `json:"until,omitempty"`
	Version     string            `json:"version,omitempty"`
}

// RenewRequest is the body of PUT /v1/leases/{id}; it may be empty.
type RenewRequest struct {
	TTLSeconds float64 `json:"ttl_seconds,omitempty"`
}

// Lease is a lease.
type Lease struct {
	ID       string `json:"id"`
	Pool     string `json:"pool"` // of the first item
	N        int64  `json:"n"`    // of the first item
	Items    []Item `json:"items"`
	Lifetime string `json:"lifetime"`
	// what tells that the holder is gone: ttl, peerpidfd, sentpidfd, pidfd, connection, none
	Liveness   string     `json:"liveness"`
	State      string     `json:"state"` // held, revoking, unconfirmed
	AcquiredAt time.Time  `json:"acquired_at"`
	ExpiresAt  *time.Time `json:"expires_at"`
	RevokeAt   *time.Time `json:"revoke_at,omitempty"`
	Token      string     `json:"token,omitempty"`
	Holder     *Holder    `json:"holder,omitempty"`
	Others     []Holder   `json:"others,omitempty"` // co-holders, who joined
}

// Holder is whom a lease belongs to. Labels are the holder's own claims; the rest is the kernel's word.
type Holder struct {
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	PID  int32  `json:"pid"`
	Exe  string `json:"exe,omitempty"`
	User string `json:"user,omitempty"`
	// Credential is what a dialect's listener over TCP knows the holder by; empty: the kernel says who it is.
	Credential string            `json:"credential,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
}

// Leases is the answer to GET /v1/leases.
type Leases struct {
	Leases []Lease `json:"leases"`
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

// Installed is the answer to PUT /v1/license: what the document changed, or would change with ?dry_run=true.
type Installed struct {
	DryRun   bool     `json:"dry_run"`
	Document Document `json:"document"`
	Changes  []string `json:"changes"` // sentences: "streams 8 → 12"
	License  License  `json:"license"` // the verdict with the document
}

// Component is one component of a host's fingerprint.
type Component struct {
	Name   string   `json:"name"`
	Values []string `json:"values,omitempty"` // HMAC-SHA-256, lower-case hex
	Absent string   `json:"absent,omitempty"` // why it could not be read
	Note   string   `json:"note,omitempty"`
	// Configured: the configuration states it; else it was measured.
	Configured bool `json:"configured,omitempty"`
}

// Fingerprint is the answer to GET /v1/fingerprint: this host as the licence sees it.
type Fingerprint struct {
	Product    string      `json:"product"`
	Components []Component `json:"components"`
	Short      string      `json:"short"`
	Cores      Cores       `json:"cores"`
	Virtual    string      `json:"virtual"`   // the hypervisor; empty: none seen
	Container  string      `json:"container"` // the container runtime; empty: none seen
	AgentKey   string      `json:"agent_key,omitempty"`
	// Fingerprint is what licence systems that name a host by one text call this one.
	Fingerprint string `json:"fingerprint,omitempty"`
}

// Event is one server-sent event's data on GET /v1/events; the event's name is Type.
type Event struct {
	// license.changed, lease.granted, lease.renewed, lease.ended, lease.revoking, emergency.started, license.returned,
	// events.ended
	Type    string    `json:"type"`
	At      time.Time `json:"at"`
	LeaseID string    `json:"lease_id,omitempty"`
	Items   []Item    `json:"items,omitempty"`
	Cause   string    `json:"cause,omitempty"`
	State   string    `json:"state,omitempty"`
	Code    string    `json:"code,omitempty"`
	Reason  string    `json:"reason,omitempty"`
}

// Health is the answer to GET /v1/health and /v1/ready.
type Health struct {
	Status    string     `json:"status"` // ok, starting, draining
	Version   string     `json:"version"`
	Product   string     `json:"product"`
	Anchors   string     `json:"anchors"` // embedded, config
	Listeners []Listener `json:"listeners,omitempty"`
	// State is what of the agent's own files is not as the agent left it.
	State []StateFinding `json:"state,omitempty"`
}

// StateFinding is one file of the agent's state that is not as the agent left it.
type StateFinding struct {
	File   string    `json:"file"`
	Fault  string    `json:"fault"`  // missing, empty, edited, foreign, swapped, older, unlisted
	Found  time.Time `json:"found"`  // when
	Effect string    `json:"effect"` // one sentence
}

// Listener is where the agent answers the API of another licence system.
type Listener struct {
	Dialect string `json:"dialect"` // the system's name
	Address string `json:"address"` // unix:PATH, or a loopback address and port
}

// Clock is the answer to GET /v1/clock: the time that licences are judged by, and what it comes from.
type Clock struct {
	Wall          time.Time  `json:"wall"`
	Time          time.Time  `json:"time"`                // the licence time, which does not go back
	From          string     `json:"from"`                // wall, mark, document
	MarkedAt      *time.Time `json:"marked_at,omitempty"` // the mark: the latest time of which there is evidence
	LearntAt      *time.Time `json:"learnt_at,omitempty"` // the latest time that an upstream has signed
	SignedAt      *time.Time `json:"signed_at,omitempty"` // the latest date of a document at hand
	BehindSeconds float64    `json:"behind_seconds"`      // how far the wall clock is behind the licence time
	// in licence time, and since this start of the host at most
	BehindSince *time.Time `json:"behind_since,omitempty"`
	// how far the wall clock is ahead of the mark, where that is not believed yet
	AheadSeconds float64    `json:"ahead_seconds"`
	BelievedAt   *time.Time `json:"believed_at,omitempty"` // when it will be
}

// ReleaseRequest asks that this host gives its place back on a licence with an upstream; of all of them where none is
// named.
type ReleaseRequest struct {
	License string `json:"license,omitempty"`
}

// Released is what came of giving one place back.
type Released struct {
	License  string `json:"license"`
	Released bool   `json:"released"`
	Reason   string `json:"reason,omitempty"` // why it was not
}

// Releases is the answer to POST /v1/license/release.
type Releases struct {
	Licenses []Released `json:"licenses"` // those on which this host had a place
}

// DrainRequest asks the agent to grant no new leases, and to say when those that are held are over.
type DrainRequest struct {
	WaitSeconds float64 `json:"wait_seconds,omitempty"` // how long to wait for that; 0: not at all
	// then give this host's places back, if nothing is held any more
	Release bool `json:"release,omitempty"`
}

// Drain is how far an agent is drained.
type Drain struct {
	Draining bool       `json:"draining"`
	Leases   int        `json:"leases"`             // still held, but for borrows
	Borrowed int        `json:"borrowed"`           // borrows, which end at their date
	Licenses []Released `json:"licenses,omitempty"` // the places that were given back, or were not
}

// Setting is one configuration key: its value, and where that comes from.
type Setting struct {
	Key    string `json:"key"`
	Value  string `json:"value"` // redacted where it is a secret
	Origin string `json:"origin"`
}

// Settings is the answer to GET /v1/config.
type Settings struct {
	Settings []Setting `json:"settings"`
}

// Reloaded is the answer to POST /v1/reload.
type Reloaded struct {
	Changed []string `json:"changed"` // keys that are in force with their new values
	Restart []string `json:"restart"` // keys that have changed, and need a restart to be in force
}

// Keys is the answer to GET /v1/keys: the agent's public key as a JSON Web Key Set (RFC 7517), and what vouches for it.
type Keys struct {
	Keys []Key `json:"keys"`
	// Withheld says which licences are not in the chain, because the caller may not see all that they say.
	Withheld []string `json:"withheld,omitempty"`
	// of the licences in force: documents that name the key (cnf.jkt, RFC 7800), and vendors' words for it
	// (usher-activation+jwt)
	Chain []string `json:"chain"`
}

// Key is an Ed25519 public key (RFC 8037); its id is its RFC 7638 thumbprint.
type Key struct {
	KeyType   string `json:"kty"`
	Curve     string `json:"crv"`
	X         string `json:"x"`
	KeyID     string `json:"kid"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
	// Dialect is the licence system whose answers the key signs; empty: it is the agent's own key.
	Dialect string `json:"dialect,omitempty"`
}

// Prove is the parameters of session.prove.
type Prove struct {
	Nonce string `json:"nonce"`
}

// Proof is what the agent answers to it: a JWT of type usher-session+jwt that its key signs.
type Proof struct {
	Token string `json:"token"`
}

// Hello is the parameters of session.hello, which may be left out.
type Hello struct {
	Versions []int             `json:"versions,omitempty"` // of the session's protocol that the client speaks
	Client   string            `json:"client,omitempty"`   // what it is, for the log
	Labels   map[string]string `json:"labels,omitempty"`   // of every lease that names none of its own
}

// HelloAnswer is what the agent answers to it.
type HelloAnswer struct {
	Versions     []int    `json:"versions"` // that the agent speaks
	Capabilities []string `json:"capabilities"`
	Agent        Health   `json:"agent"`
	You          Holder   `json:"you"` // whom the agent sees at the other end
}

// Subscribe is the parameters of events.subscribe, which may be left out.
type Subscribe struct {
	// Mine asks for what becomes of this process's leases by others' doing, and not for what it does itself.
	Mine bool `json:"mine,omitempty"`
}

// Cancel is the parameters of lease.cancel.
type Cancel struct {
	Request any `json:"request"` // the id of the acquire that waits: a number or a text
}

// LeaseRequest is the parameters of lease.renew, lease.release, lease.join and lease.attach.
type LeaseRequest struct {
	ID         string  `json:"id"`
	TTLSeconds float64 `json:"ttl_seconds,omitempty"` // of lease.renew
	Force      bool    `json:"force,omitempty"`       // of lease.release, for admins
}

// Problem is an error: RFC 9457 problem details with a stable code.
type Problem struct {
	Type              string   `json:"type"`
	Title             string   `json:"title"`
	Status            int      `json:"status"`
	Code              string   `json:"code"`
	Detail            string   `json:"detail"`
	Field             string   `json:"field,omitempty"`
	Hint              string   `json:"hint,omitempty"`
	Verdict           *Verdict `json:"verdict,omitempty"`
	RetryAfterSeconds *float64 `json:"retry_after_seconds,omitempty"`
	Limit             *int64   `json:"limit,omitempty"`
	InUse             *int64   `json:"in_use,omitempty"`
	WaitedSeconds     *float64 `json:"waited_seconds,omitempty"`
	Rule              string   `json:"rule,omitempty"`
}

// Error returns the detail, so that a Problem can be passed on as an error.
func (p *Problem) Error() string { return p.Detail }

// Verdict is the short form of a licence's verdict inside a Problem.
type Verdict struct {
	State  string     `json:"state"`
	Code   string     `json:"code"`
	Reason string     `json:"reason"`
	Until  *time.Time `json:"until"`
}
