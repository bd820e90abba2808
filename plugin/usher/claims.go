package usher

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/textual"
)

// Claims is the body of a document. Times are seconds since 1970 (RFC 7519 NumericDate, whole numbers), durations are
// whole seconds, and a limit that is null is unlimited. Claims whose names begin with "x_" are the vendor's own: they
// stay in the terms and mean nothing to Usher.
type Claims struct {
	ID             string             `json:"jti"`
	Product        string             `json:"product"`
	Issuer         string             `json:"iss,omitempty"`
	Licensee       string             `json:"licensee,omitempty"`
	Issued         int64              `json:"iat"`
	NotBefore      int64              `json:"nbf,omitzero"`
	Expires        int64              `json:"exp,omitzero"` // absent: perpetual
	Environment    string             `json:"environment,omitempty"`
	Role           string             `json:"role,omitempty"`
	AddOnTo        string             `json:"add_on_to,omitempty"`
	Supersedes     []string           `json:"supersedes,omitempty"`
	Pools          map[string]Pool    `json:"pools,omitempty"`
	Meters         map[string]Meter   `json:"meters,omitempty"`
	Features       map[string]Feature `json:"features,omitempty"`
	Versions       string             `json:"versions,omitempty"`
	ReleasedBefore int64              `json:"released_before,omitzero"`
	Hosts          []Host             `json:"hosts,omitempty"`
	Confirmation   *Confirmation      `json:"cnf,omitzero"` // RFC 7800
	AgentKeys      []string           `json:"agent_keys,omitempty"`
	SiteServer     *Confirmation      `json:"site_server,omitzero"`
	Cores          *Cores             `json:"cores,omitzero"`
	Heartbeat      *Period            `json:"heartbeat,omitzero"`
	CheckIn        *CheckIn           `json:"check_in,omitzero"`
	Activation     *Activation        `json:"activation,omitzero"`
	Reactivations  *Reactivations     `json:"reactivations,omitzero"`
	ReportUsage    bool               `json:"report_usage,omitzero"`
	Trial          int64              `json:"trial_seconds,omitzero"`
	Emergency      *Emergency         `json:"emergency,omitzero"`
	Revokes        []string           `json:"revokes,omitempty"`
	ResetClock     bool               `json:"reset_clock,omitzero"`
	Grace          int64              `json:"grace_seconds,omitzero"`
	OnExpiry       string             `json:"on_expiry,omitempty"`
	Clock          string             `json:"clock,omitempty"`
	ClockTolerance int64              `json:"clock_tolerance_seconds,omitzero"`
	AgentAway      int64              `json:"agent_away_seconds,omitzero"`
	MaxBorrow      int64              `json:"max_borrow_seconds,omitzero"`
	EarlyReturn    bool               `json:"early_return,omitzero"`

	// Extra is every claim of the vendor's own, by its name, which begins with "x_".
	Extra map[string]jsontext.Value `json:"-"`
}

// Pool is a countable term.
type Pool struct {
	Max     *int64 `json:"max"` // null: unlimited
	Unit    string `json:"unit,omitempty"`
	Overage int64  `json:"overage,omitzero"`
	Scope   string `json:"scope,omitempty"`
	CountBy string `json:"count_by,omitempty"`
}

// Meter is a consumable term.
type Meter struct {
	Max     *int64 `json:"max"` // null: unlimited
	Unit    string `json:"unit,omitempty"`
	Overage int64  `json:"overage,omitzero"`
	Scope   string `json:"scope,omitempty"`
	Resets  string `json:"resets,omitempty"`
	// Adjustable lets callers that draw take draws back, through dialects of systems that allow it.
	Adjustable bool `json:"adjustable,omitzero"`
}

// Feature is a term that is not counted: a boolean, a number, a text, or {"value", "unit"}.
type Feature struct {
	enforcer.Value
}

// Host names one host by HMACs of its components.
type Host struct {
	Name       string              `json:"name,omitempty"`
	Components map[string][]string `json:"components"`
	Strategy   string              `json:"strategy,omitempty"`
	// CountConfigured says that components which the host's configuration states count like measured ones.
	CountConfigured bool `json:"count_configured,omitzero"`
}

// Confirmation names a key, an agent's or a site server's: an RFC 7638 thumbprint (RFC 7800 §3, RFC 9449 §6).
type Confirmation struct {
	Thumbprint string `json:"jkt"`
}

// Cores caps the host's cores.
type Cores struct {
	Max   int64  `json:"max"`
	Count string `json:"count,omitempty"`
}

// Period is a duty towards the upstream.
type Period struct {
	Every int64 `json:"every_seconds"`
	Grace int64 `json:"grace_seconds,omitzero"`
}

// CheckIn is a duty by the calendar: every so many seconds or months, not both.
type CheckIn struct {
	Every  int64 `json:"every_seconds,omitzero"`
	Months int64 `json:"every_months,omitzero"`
	Grace  int64 `json:"grace_seconds,omitzero"`
}

// Activation is the duty of a first contact.
type Activation struct {
	Grace int64 `json:"grace_seconds,omitzero"`
}

// Reactivations is how often a host may lose the upstream's answers and be activated again by the same key: Max times
// within so many seconds. A copy of a host looks like such a host.
type Reactivations struct {
	Max    int64 `json:"max"`
	Within int64 `json:"within_seconds"`
}

// Bounds of Reactivations.
const (
	maxReactivations       = 1000
	maxReactivationsWithin = 400 * 86400
)

// DefaultReactivations applies where a licence states nothing: three times in 30 days.
var DefaultReactivations = Reactivations{3, 30 * 86400}

// ReactivationsOf returns how often a verified licence lets a host be activated again.
func ReactivationsOf(l *enforcer.License) Reactivations {
	if t, ok := l.Terms["reactivations"].(map[string]any); ok {
		most, _ := t["max"].(float64)
		within, _ := t["within_seconds"].(float64)
		return Reactivations{int64(most), int64(within)}
	}
	return DefaultReactivations
}

// Emergency is what an operator may use without anybody's word.
type Emergency struct {
	Length  int64 `json:"length_seconds"`
	PerYear int64 `json:"per_year"`
}

// MarshalJSON writes the shortest form.
func (f Feature) MarshalJSON() ([]byte, error) {
	var v any
	switch f.Kind {
	case enforcer.KindBool:
		v = f.Bool
	case enforcer.KindNumber:
		v = f.Number
	default:
		v = f.Text
	}
	if f.Unit != "" {
		v = struct {
			Value any    `json:"value"`
			Unit  string `json:"unit"`
		}{v, f.Unit}
	}
	return json.Marshal(v)
}

// UnmarshalJSON reads either form.
func (f *Feature) UnmarshalJSON(b []byte) error {
	*f = Feature{}
	if jsontext.Value(b).Kind() == '{' {
		var long struct {
			Value jsontext.Value `json:"value"`
			Unit  string         `json:"unit"`
		}
		if err := json.Unmarshal(b, &long, json.RejectUnknownMembers(true)); err != nil {
			return err
		}
		if long.Value.Kind() == '{' {
			return fmt.Errorf("a feature's value is a boolean, a number or a text")
		}
		if err := f.UnmarshalJSON(long.Value); err != nil {
			return err
		}
		if long.Unit != "" && f.Kind != enforcer.KindNumber {
			return fmt.Errorf("only a number has a unit")
		}
		f.Unit = long.Unit
		return nil
	}
	switch jsontext.Value(b).Kind() {
	case 't', 'f':
		f.Kind = enforcer.KindBool
		return json.Unmarshal(b, &f.Bool)
	case '0':
		f.Kind = enforcer.KindNumber
		return json.Unmarshal(b, &f.Number)
	case '"':
		f.Kind = enforcer.KindText
		return json.Unmarshal(b, &f.Text)
	default:
		return fmt.Errorf("a feature is a boolean, a number, a text, or an object with value and unit")
	}
}

// Bounds of what a document may say; a larger one is refused.
const (
	maxNames   = 4096                  // pools, meters, features, hosts, superseded ids: each
	maxText    = 4096                  // bytes of one text
	maxSeconds = 100 * 366 * 24 * 3600 // a hundred years
	latestDate = 253402300799          // 9999-12-31T23:59:59Z, the last that RFC 3339 can say
	maxMonths  = 1200
	// maxEmergencies is more than any vendor has meant.
	maxEmergencies = 366
	maxCount       = int64(math.MaxInt64) / 1_000 // so that sums stay far from overflow
)

// NameRule is the form of the names of pools, meters and features.
var NameRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}$`)

// names of claims, in the order of the struct.
var claimNames = []string{"jti", "product", "iss", "licensee", "iat", "nbf", "exp", "environment", "role", "add_on_to",
	"supersedes",
	"pools", "meters", "features", "versions", "released_before", "hosts", "cnf", "agent_keys", "site_server", "cores",
	"heartbeat", "check_in",
	"activation", "reactivations", "report_usage", "trial_seconds", "emergency", "revokes", "reset_clock",
	"grace_seconds", "on_expiry", "clock", "clock_tolerance_seconds", "agent_away_seconds", "max_borrow_seconds",
	"early_return"}

// ClaimNames returns the name of every claim that means something to Usher.
func ClaimNames() []string { return slices.Clone(claimNames) }

// ParseClaims reads claims and checks them: see [ReadClaims].
func ParseClaims(b []byte, strict bool) (*Claims, error) {
	c, err := ReadClaims(b, strict)
	if err != nil {
		return nil, err
	}
	return c, c.check()
}

// ReadClaims reads claims strictly: no duplicate keys, no invalid UTF-8, no known name in another case. When strict, an
// unknown claim that does not begin with "x_" is an error, and so is an unknown member within a claim; otherwise
// ReadClaims skips them. A null claim, a date of 0, and a pool or meter without max are errors. It does not check the
// rest.
func ReadClaims(b []byte, strict bool) (*Claims, error) {
	if strict { // a vendor's own file; a signed document has one spelling
		b = textual.JSON(b)
	}
	if jsontext.Value(b).Kind() != '{' {
		return nil, fmt.Errorf("the claims are not a JSON object")
	}
	var all map[string]jsontext.Value
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, plugin.JSONFault(err, "claim")
	}
	c := &Claims{}
	known := map[string]jsontext.Value{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		switch {
		case slices.Contains(claimNames, name):
			if err := stated(name, all[name]); err != nil {
				return nil, err
			}
			known[name] = all[name]
		case strings.HasPrefix(name, "x_"):
			if c.Extra == nil {
				c.Extra = map[string]jsontext.Value{}
			}
			c.Extra[name] = all[name]
		default:
			if i := slices.IndexFunc(claimNames, func(n string) bool { return strings.EqualFold(n, name) }); i >= 0 {
				return nil, fmt.Errorf("claim %q is written %q", plugin.Short(name), claimNames[i])
			}
			if strict {
				return nil, fmt.Errorf("claim %q is not known; claims of your own begin with x_%s", plugin.Short(name),
					suggestion(name))
			}
		}
	}
	b, err := json.Marshal(known, json.Deterministic(true))
	if err != nil {
		return nil, plugin.JSONFault(err, "claim")
	}
	if err := json.Unmarshal(b, c, json.RejectUnknownMembers(strict)); err != nil {
		return nil, plugin.JSONFault(err, "claim")
	}
	return c, nil
}

// stated rejects values that would be read as "without limit" though the vendor did not say so: a null, a 0 for a date
// or for a span that has a default or none without it, an empty binding, a pool or meter without max.
func stated(name string, value jsontext.Value) error {
	if value.Kind() == 'n' {
		return fmt.Errorf("claim %q is null; leave it out instead", name)
	}
	switch name {
	case "iat", "nbf", "exp", "released_before":
		if n, err := strconv.ParseFloat(string(value), 64); err == nil && n == 0 {
			return fmt.Errorf("claim %q is 0; leave it out where no date is meant", name)
		}
	case "trial_seconds", "clock_tolerance_seconds", "agent_away_seconds":
		if n, err := strconv.ParseFloat(string(value), 64); err == nil && n == 0 {
			return fmt.Errorf("claim %q is 0; leave it out where none is meant", name)
		}
	case "hosts", "agent_keys":
		if v := strings.Join(strings.Fields(string(value)), ""); v == "[]" {
			return fmt.Errorf("claim %q is empty, and would bind to nothing; leave it out where no binding is meant",
				name)
		}
	case "versions":
		if string(value) == `""` {
			return fmt.Errorf("claim %q is empty; leave it out where all versions are meant", name)
		}
	case "pools", "meters":
		var counts map[string]map[string]jsontext.Value
		if json.Unmarshal(value, &counts) != nil {
			return nil // the decoder says it better
		}
		for _, n := range slices.Sorted(maps.Keys(counts)) {
			if _, ok := counts[n]["max"]; !ok {
				return fmt.Errorf("claim %q: %s has no max; null is unlimited", name, plugin.Short(n))
			}
		}
	}
	return nil
}
