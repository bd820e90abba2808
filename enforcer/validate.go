package enforcer

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
	"unicode/utf8"
)

// Bounds of what a licence may say, of whatever format.
const (
	maxEntries  = 4096    // of one list or map
	maxLine     = 4096    // bytes of an id, a name, a unit
	maxText     = 1 << 20 // bytes of a text feature
	maxTermSpan = 100 * 366 * 24 * time.Hour
	maxMonths   = 1200
	maxDepth    = 100 // of what Terms nests
)

// MaxCount is the largest limit below Unlimited that a licence may state, so that sums stay far from overflow.
const MaxCount = Limit(math.MaxInt64 / 1_000)

// latest is the last instant that RFC 3339 can say.
var latest = time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)

// Validate reports the first thing that no licence may say, whatever its system: a missing id, a negative limit, a date
// out of range, a malformed name. It asks whether the terms make sense together only as far as the core relies on that.
// A licence that passes is safe to judge.
func (l *License) Validate() error {
	for _, t := range []struct {
		what, value string
		must        bool
	}{{"id", l.ID, true}, {"system", l.System, true}, {"product", l.Product, true}, {"licensee", l.Licensee, false},
		{"issuer", l.Issuer, false},
		{"add_on_to", l.AddOnTo, false}, {"versions", l.Versions, false}, {"key id", l.KeyID, false},
		{"system code", l.SystemCode, false}} {
		if t.must && t.value == "" {
			return fmt.Errorf("its %s is missing", t.what)
		}
		if err := line(t.what, t.value); err != nil {
			return err
		}
	}
	for _, t := range []struct {
		what  string
		value time.Time
	}{{"issued", l.Issued}, {"not before", l.NotBefore}, {"expires", l.Expires}, {"released before", l.ReleasedBefore},
		{"checked in", l.CheckedIn}} {
		if !t.value.IsZero() && (t.value.Before(time.Unix(0, 0)) || t.value.After(latest)) {
			return fmt.Errorf("its date %q lies outside the years 1970 to 9999", t.what)
		}
	}
	if !l.Expires.IsZero() && !l.NotBefore.IsZero() && !l.NotBefore.Before(l.Expires) {
		return fmt.Errorf("it expires before it begins")
	}
	for _, t := range []struct {
		what  string
		value time.Duration
	}{{"grace", l.Grace}, {"clock tolerance", l.ClockTolerance}, {"agent away", l.AgentAway},
		{"max borrow", l.MaxBorrow}, {"heartbeat", l.Heartbeat.Every},
		{"activation grace", l.Activation.Grace}, {"trial", l.Trial}, {"emergency", l.Emergency.Length},
		{"heartbeat grace", l.Heartbeat.Grace}, {"check-in", l.CheckIn.Every}, {"check-in grace", l.CheckIn.Grace}} {
		if t.value < 0 || t.value > maxTermSpan {
			return fmt.Errorf("its %s is %s; it must lie between 0 and a hundred years", t.what, Span(t.value))
		}
	}
	if n := max(l.Heartbeat.Months, l.CheckIn.Months); n > maxMonths || min(l.Heartbeat.Months, l.CheckIn.Months) < 0 {
		return fmt.Errorf("a period has %d months; it must have between 0 and %d", n, maxMonths)
	}
	if n := l.Emergency.PerYear; n < 0 || n > 365 {
		return fmt.Errorf("it allows %d emergencies a year; 0 to 365 may be", n)
	}
	for _, err := range []error{
		oneOf("environment", l.Environment, Production, Test),
		oneOf("anchor environment", l.AnchorEnvironment, Production, Test),
		oneOf("role", l.Role, RoleBase, RoleAddOn, RoleFree, RoleNotice),
		oneOf("on_expiry", l.OnExpiry, Drain, Revoke, Keep),
		oneOf("clock", l.Clock, ClockLenient, ClockStrict),
		oneOf("cores", l.CoreKind, CoresPhysical, CoresLogical, CoresEffective),
		count("cores", l.CoreCap), count("memory", l.MemoryCap), count("disk", l.DiskCap),
	} {
		if err != nil {
			return err
		}
	}
	if l.AddOnTo != "" && l.Role != RoleAddOn {
		return fmt.Errorf("it adds to a licence, but its role is not %s", RoleAddOn)
	}
	if l.Versions != "" {
		if _, err := ParseVersions(l.Versions); err != nil {
			return fmt.Errorf("its versions: %w", err)
		}
	}
	if err := l.validateLists(); err != nil {
		return err
	}
	return validTerms(map[string]any(l.Terms), 0)
}

func (l *License) validateLists() error {
	if n := max(len(l.Pools), len(l.Meters), len(l.Features), len(l.Hosts), len(l.Supersedes), len(l.Revokes),
		len(l.AgentKeys)); n > maxEntries {
		return fmt.Errorf("a list of %d entries is longer than %d", n, maxEntries)
	}
	for _, name := range slices.Sorted(maps.Keys(l.Pools)) {
		p := l.Pools[name]
		if err := first(termName(name), count("max of "+name, p.Max), count("overage of "+name, p.Overage),
			line("unit of "+name, p.Unit), quantum(name, p),
			oneOf("scope of "+name, p.Scope, ScopeHost, ScopeSite, ScopeShared),
			countBy(name, p.CountBy)); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.Meters)) {
		m := l.Meters[name]
		if err := first(termName(name), count("max of "+name, m.Max), count("overage of "+name, m.Overage),
			line("unit of "+name, m.Unit),
			oneOf("scope of "+name, m.Scope, ScopeHost, ScopeSite, ScopeShared),
			oneOf("resets of "+name, m.Resets, ResetsWeekly, ResetsMonthly)); err != nil {
			return err
		}
		if _, both := l.Pools[name]; both {
			return fmt.Errorf("%s is both a pool and a meter", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.Features)) {
		if err := first(termName(name), l.Features[name].validate(name)); err != nil {
			return err
		}
	}
	for i, h := range l.Hosts {
		if len(h.Components) == 0 || len(h.Components) > maxEntries {
			return fmt.Errorf("host %d names %d components; it must name 1 to %d", i+1, len(h.Components), maxEntries)
		}
		if err := first(line("host name", h.Name),
			oneOf("strategy", h.Strategy, MatchAny, MatchTwo, MatchMost, MatchAll)); err != nil {
			return err
		}
		for name, values := range h.Components {
			if len(values) > maxEntries {
				return fmt.Errorf("host %d: a component has %d values, at most %d may be", i+1, len(values), maxEntries)
			}
			for _, s := range append([]string{name}, values...) {
				if err := line("host component", s); err != nil {
					return err
				}
			}
		}
	}
	for _, list := range [][]string{l.Supersedes, l.Revokes, l.AgentKeys} {
		for _, s := range list {
			if err := line("list entry", s); err != nil {
				return err
			}
		}
	}
	return nil
}

func countBy(pool string, by CountBy) error {
	if err := by.Check(); err != nil {
		return fmt.Errorf("count_by of %s: %w", pool, err)
	}
	return nil
}

func (v Value) validate(name string) error {
	switch {
	case v.Kind != KindBool && v.Kind != KindNumber && v.Kind != KindText:
		return fmt.Errorf("feature %s is neither a boolean nor a number nor a text", name)
	case math.IsNaN(v.Number) || math.IsInf(v.Number, 0):
		return fmt.Errorf("feature %s is not a number", name)
	case v.Kind != KindBool && v.Bool, v.Kind != KindNumber && (v.Number != 0 || v.Unit != ""),
		v.Kind != KindText && v.Text != "":
		return fmt.Errorf("feature %s has a value of another kind than %s", name, v.Kind)
	case len(v.Text) > maxText || !utf8.ValidString(v.Text):
		return fmt.Errorf("feature %s has a text that is not UTF-8 or longer than %d bytes", name, maxText)
	}
	return line("unit of "+name, v.Unit)
}

// validTerms accepts what a JSON document can say.
func validTerms(v any, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("its terms nest deeper than %d", maxDepth)
	}
	switch v := v.(type) {
	case nil, bool:
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("its terms hold a number that JSON cannot say")
		}
	case string:
		if !utf8.ValidString(v) {
			return fmt.Errorf("its terms are not UTF-8")
		}
	case Text:
		if depth+v.depth() > maxDepth {
			return fmt.Errorf("its terms nest deeper than %d", maxDepth)
		}
		if !utf8.ValidString(string(v)) {
			return fmt.Errorf("its terms are not UTF-8")
		}
	case []any:
		for _, e := range v {
			if err := validTerms(e, depth+1); err != nil {
				return err
			}
		}
	case map[string]any:
		for k, e := range v {
			if !utf8.ValidString(k) {
				return fmt.Errorf("its terms are not UTF-8")
			}
			if err := validTerms(e, depth+1); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("its terms hold a %T, which JSON cannot say", v)
	}
	return nil
}

// first returns the first error that is one.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// line checks a text of one line.
func line(what, s string) error {
	if len(s) > maxLine {
		return fmt.Errorf("its %s has %d bytes, at most %d may be", what, len(s), maxLine)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("its %s is not UTF-8", what)
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f {
			return fmt.Errorf("its %s has control characters", what)
		}
	}
	return nil
}

// termName checks the name of a pool, a meter or a feature: it goes into metrics, paths and configuration.
func termName(s string) error {
	ok := s != "" && len(s) <= 64
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || r != '.' && r != '_' && r != ':' && r != '/' && r != '-') {
			ok = false
		}
	}
	if !ok {
		return fmt.Errorf(
			"a name is empty, has more than 64 bytes or characters other than letters, digits and . _ : / -")
	}
	return nil
}

func count(what string, l Limit) error {
	if l != Unlimited && (l < 0 || l > MaxCount) {
		return fmt.Errorf("its %s is %d, and must lie between 0 and %d", what, l, MaxCount)
	}
	return nil
}

func quantum(name string, p PoolTerm) error {
	if p.Quantum < 0 || p.Quantum > MaxQuantum {
		return fmt.Errorf("its slots of %s have %d parts, and must have between 0 and %d", name, p.Quantum, MaxQuantum)
	}
	if total := p.Max.Plus(p.Overage); p.Quantum > 1 && total != Unlimited && total > Limit(maxParts/p.Quantum) {
		return fmt.Errorf("its slots of %s have too many parts together", name)
	}
	return nil
}

func oneOf[T ~string](what string, value T, of ...T) error {
	if value == "" || slices.Contains(of, value) {
		return nil
	}
	return fmt.Errorf("its %s is not one of %v", what, of)
}
