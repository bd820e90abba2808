package remote

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// license is a License on the wire: docs/plugins.md describes each member. Spans are nanoseconds, instants RFC 3339
// with nanoseconds, and a max of -1 is unlimited.
type license struct {
	ID                string               `json:"id,omitzero"`
	System            string               `json:"system,omitzero"`
	Product           string               `json:"product,omitzero"`
	Licensee          string               `json:"licensee,omitzero"`
	Issuer            string               `json:"issuer,omitzero"`
	Issued            date                 `json:"issued,omitzero"`
	NotBefore         date                 `json:"not_before,omitzero"`
	Expires           date                 `json:"expires,omitzero"`
	Environment       enforcer.Environment `json:"environment,omitzero"`
	Role              enforcer.Role        `json:"role,omitzero"`
	AddOnTo           string               `json:"add_on_to,omitzero"`
	Supersedes        []string             `json:"supersedes,omitempty"`
	Suspended         bool                 `json:"suspended,omitzero"`
	Banned            bool                 `json:"banned,omitzero"`
	Revoked           bool                 `json:"revoked,omitzero"`
	Pools             map[string]pool      `json:"pools,omitempty"`
	Meters            map[string]meter     `json:"meters,omitempty"`
	Features          map[string]value     `json:"features,omitempty"`
	Versions          string               `json:"versions,omitzero"`
	ReleasedBefore    date                 `json:"released_before,omitzero"`
	Hosts             []host               `json:"hosts,omitempty"`
	AgentKeys         []string             `json:"agent_keys,omitempty"`
	SiteServer        string               `json:"site_server,omitzero"`
	CoreCap           enforcer.Limit       `json:"core_cap,omitzero"`
	CoreKind          enforcer.CoreKind    `json:"core_kind,omitzero"`
	MemoryCap         enforcer.Limit       `json:"memory_cap,omitzero"`
	DiskCap           enforcer.Limit       `json:"disk_cap,omitzero"`
	Heartbeat         period               `json:"heartbeat,omitzero"`
	CheckIn           period               `json:"check_in,omitzero"`
	CheckedIn         date                 `json:"checked_in,omitzero"`
	Activation        activation           `json:"activation,omitzero"`
	Usage             bool                 `json:"usage,omitzero"`
	Trial             int64                `json:"trial,omitzero"`
	Emergency         emergency            `json:"emergency,omitzero"`
	Revokes           []string             `json:"revokes,omitempty"`
	ResetsClock       bool                 `json:"resets_clock,omitzero"`
	Grace             int64                `json:"grace,omitzero"`
	OnExpiry          enforcer.OnExpiry    `json:"on_expiry,omitzero"`
	Clock             enforcer.ClockPolicy `json:"clock,omitzero"`
	ClockTolerance    int64                `json:"clock_tolerance,omitzero"`
	AgentAway         int64                `json:"agent_away,omitzero"`
	MaxBorrow         int64                `json:"max_borrow,omitzero"`
	EarlyReturn       bool                 `json:"early_return,omitzero"`
	KeyID             string               `json:"key_id,omitzero"`
	AnchorEnvironment enforcer.Environment `json:"anchor_environment,omitzero"`
	Terms             map[string]any       `json:"terms,omitempty"`
	SystemCode        string               `json:"system_code,omitzero"`
}

// date is a date that is absent when zero: see [plugin.Stated].
type date struct{ time.Time }

// UnmarshalJSON reads RFC 3339.
func (d *date) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	if err := json.Unmarshal(b, &d.Time); err != nil {
		return err
	}
	d.Time = plugin.Stated(d.Time)
	return nil
}

type pool struct {
	Max     *enforcer.Limit  `json:"max"` // a pool that states none is a mistake, not a pool of 0
	Unit    string           `json:"unit,omitzero"`
	Overage enforcer.Limit   `json:"overage,omitzero"`
	Scope   enforcer.Scope   `json:"scope,omitzero"`
	CountBy enforcer.CountBy `json:"count_by,omitzero"`
	Quantum int64            `json:"quantum,omitzero"`
}

type meter struct {
	Max     *enforcer.Limit `json:"max"`
	Unit    string          `json:"unit,omitzero"`
	Overage enforcer.Limit  `json:"overage,omitzero"`
	Scope   enforcer.Scope  `json:"scope,omitzero"`
	Resets  enforcer.Resets `json:"resets,omitzero"`
	// Adjustable came later than the other members; an older plugin leaves it out.
	Adjustable bool `json:"adjustable,omitzero"`
}

type value struct {
	Kind   enforcer.ValueKind `json:"kind"`
	Bool   bool               `json:"bool,omitzero"`
	Number float64            `json:"number,omitzero"`
	Text   string             `json:"text,omitzero"`
	Unit   string             `json:"unit,omitzero"`
}

type host struct {
	Name            string              `json:"name,omitzero"`
	Components      map[string][]string `json:"components"`
	Strategy        enforcer.Strategy   `json:"strategy,omitzero"`
	CountConfigured bool                `json:"count_configured,omitzero"`
}

type period struct {
	Every  int64 `json:"every,omitzero"`
	Months int   `json:"months,omitzero"`
	Grace  int64 `json:"grace,omitzero"`
}

type activation struct {
	Required bool  `json:"required"`
	Grace    int64 `json:"grace,omitzero"`
}

type emergency struct {
	Length  int64 `json:"length"`
	PerYear int   `json:"per_year"`
}

// EncodeLicense writes a licence in the form of a plugin's answer. A licence that JSON cannot express is an error.
func EncodeLicense(l *enforcer.License) ([]byte, error) {
	out := license{
		ID: l.ID, System: l.System, Product: l.Product, Licensee: l.Licensee, Issuer: l.Issuer, Issued: date{l.Issued},
		NotBefore: date{l.NotBefore}, Expires: date{l.Expires},
		Environment: l.Environment, Role: l.Role, AddOnTo: l.AddOnTo, Supersedes: l.Supersedes, Suspended: l.Suspended,
		Banned: l.Banned, Revoked: l.Revoked,
		Versions: l.Versions, ReleasedBefore: date{l.ReleasedBefore}, AgentKeys: l.AgentKeys, SiteServer: l.SiteServer,
		CoreCap: l.CoreCap, CoreKind: l.CoreKind, MemoryCap: l.MemoryCap, DiskCap: l.DiskCap,
		Heartbeat: periodOf(l.Heartbeat), CheckIn: periodOf(l.CheckIn), CheckedIn: date{l.CheckedIn},
		Activation: activation{l.Activation.Required, int64(l.Activation.Grace)}, Usage: l.Usage,
		Trial: int64(l.Trial), Emergency: emergency{int64(l.Emergency.Length), l.Emergency.PerYear}, Revokes: l.Revokes,
		ResetsClock: l.ResetsClock, EarlyReturn: l.EarlyReturn,
		Grace: int64(l.Grace), OnExpiry: l.OnExpiry, Clock: l.Clock, ClockTolerance: int64(l.ClockTolerance),
		AgentAway: int64(l.AgentAway), MaxBorrow: int64(l.MaxBorrow),
		KeyID: l.KeyID, AnchorEnvironment: l.AnchorEnvironment, Terms: l.Terms, SystemCode: l.SystemCode,
	}
	out.Pools = remake(l.Pools, func(p enforcer.PoolTerm) pool {
		return pool{&p.Max, p.Unit, p.Overage, p.Scope, p.CountBy, p.Quantum}
	})
	out.Meters = remake(l.Meters, func(m enforcer.MeterTerm) meter {
		return meter{&m.Max, m.Unit, m.Overage, m.Scope, m.Resets, m.Adjustable}
	})
	out.Features = remake(l.Features, func(v enforcer.Value) value { return value(v) })
	for _, h := range l.Hosts {
		out.Hosts = append(out.Hosts, host(h))
	}
	return json.Marshal(out, json.Deterministic(true))
}

// DecodeLicense reads what EncodeLicense writes, strictly: an unknown or repeated member, another type, bytes that are
// not UTF-8, or a pool without max is an error. It does not validate the terms: see [enforcer.License.Validate].
func DecodeLicense(b []byte) (*enforcer.License, error) {
	var in license
	if err := json.Unmarshal(b, &in, json.RejectUnknownMembers(true)); err != nil {
		return nil, err
	}
	l := &enforcer.License{
		ID: in.ID, System: in.System, Product: in.Product, Licensee: in.Licensee, Issuer: in.Issuer,
		Issued: utc(in.Issued.Time), NotBefore: utc(in.NotBefore.Time), Expires: utc(in.Expires.Time),
		Environment: in.Environment, Role: in.Role, AddOnTo: in.AddOnTo, Supersedes: in.Supersedes,
		Suspended: in.Suspended, Banned: in.Banned, Revoked: in.Revoked,
		Versions: in.Versions, ReleasedBefore: utc(in.ReleasedBefore.Time), AgentKeys: in.AgentKeys,
		SiteServer: in.SiteServer, CoreCap: in.CoreCap, CoreKind: in.CoreKind, MemoryCap: in.MemoryCap,
		DiskCap:   in.DiskCap,
		Heartbeat: in.Heartbeat.term(), CheckIn: in.CheckIn.term(), CheckedIn: utc(in.CheckedIn.Time),
		Activation: enforcer.Activation{Required: in.Activation.Required, Grace: time.Duration(in.Activation.Grace)},
		Usage:      in.Usage, Trial: time.Duration(in.Trial),
		Emergency: enforcer.Emergency{Length: time.Duration(in.Emergency.Length), PerYear: in.Emergency.PerYear},
		Revokes:   in.Revokes, ResetsClock: in.ResetsClock, EarlyReturn: in.EarlyReturn, Grace: time.Duration(in.Grace),
		OnExpiry: in.OnExpiry, Clock: in.Clock,
		ClockTolerance: time.Duration(in.ClockTolerance), AgentAway: time.Duration(in.AgentAway),
		MaxBorrow: time.Duration(in.MaxBorrow),
		KeyID:     in.KeyID, AnchorEnvironment: in.AnchorEnvironment, Terms: in.Terms, SystemCode: in.SystemCode,
	}
	for name, p := range in.Pools {
		if p.Max == nil {
			return nil, fmt.Errorf("a pool has no max; -1 is unlimited")
		}
		if l.Pools == nil {
			l.Pools = map[string]enforcer.PoolTerm{}
		}
		l.Pools[name] = enforcer.PoolTerm{Max: *p.Max, Unit: p.Unit, Overage: p.Overage, Scope: p.Scope,
			CountBy: p.CountBy, Quantum: p.Quantum}
	}
	for name, m := range in.Meters {
		if m.Max == nil {
			return nil, fmt.Errorf("a meter has no max; -1 is unlimited")
		}
		if l.Meters == nil {
			l.Meters = map[string]enforcer.MeterTerm{}
		}
		l.Meters[name] = enforcer.MeterTerm{Max: *m.Max, Unit: m.Unit, Overage: m.Overage, Scope: m.Scope,
			Resets: m.Resets, Adjustable: m.Adjustable}
	}
	l.Features = remake(in.Features, func(v value) enforcer.Value { return enforcer.Value(v) })
	for _, h := range in.Hosts {
		l.Hosts = append(l.Hosts, enforcer.HostBinding(h))
	}
	return l, nil
}

func periodOf(p enforcer.Period) period { return period{int64(p.Every), p.Months, int64(p.Grace)} }

func (p period) term() enforcer.Period {
	return enforcer.Period{Every: time.Duration(p.Every), Months: p.Months, Grace: time.Duration(p.Grace)}
}

// utc keeps a zero time zero.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

// remake makes a map with other values; nil for an empty one.
func remake[A, B any](in map[string]A, f func(A) B) map[string]B {
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]B, len(in))
	for k, v := range in {
		out[k] = f(v)
	}
	return out
}
