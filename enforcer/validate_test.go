package enforcer

import (
	"math"
	"strings"
	"testing"
	"time"
)

func full() *License {
	return &License{ID: "a", System: "usher", Product: "p", Issued: time.Unix(1, 0), NotBefore: time.Unix(2, 0),
		Expires: time.Unix(3, 0), Environment: Test, Role: RoleAddOn,
		AddOnTo: "b", Supersedes: []string{"c"}, Pools: map[string]PoolTerm{"p": {Max: Unlimited, Unit: "seat",
			Overage: 2, Scope: ScopeSite, CountBy: CountUser}},
		Meters: map[string]MeterTerm{"m": {Max: MaxCount, Resets: ResetsWeekly}},
		Features: map[string]Value{"b": {Kind: KindBool, Bool: true}, "n": {Kind: KindNumber, Number: -1.5, Unit: "px"},
			"t": {Kind: KindText, Text: "two\nlines"}}, Versions: "<3",
		Hosts:     []HostBinding{{Name: "h", Components: map[string][]string{"c": {"v"}}, Strategy: MatchAll}},
		AgentKeys: []string{"k"}, CoreCap: 4, CoreKind: CoresLogical, Heartbeat: Period{Every: time.Minute},
		CheckIn: Period{Every: time.Hour, Grace: time.Hour}, Grace: time.Hour,
		OnExpiry: Revoke, Clock: ClockStrict, Terms: map[string]any{"a": []any{nil, true, 1.5, "x", map[string]any{}}}}
}

func TestValidate(t *testing.T) {
	if err := full().Validate(); err != nil {
		t.Fatal(err)
	}
	if err := (&License{ID: "a", System: "s", Product: "p"}).Validate(); err != nil {
		t.Errorf("the least: %v", err)
	}
	text := full()
	text.Terms["t"] = Text(`{"[[":[{"a]\"]]":"[` + strings.Repeat("[", 2*maxDepth) + `"},[]]}`)
	if err := text.Validate(); err != nil || text.Terms["t"].(Text).depth() != 3 {
		t.Errorf("brackets in the strings of a text: %v", err)
	}
	deep := any("x")
	for range maxDepth + 1 {
		deep = []any{deep}
	}
	for want, change := range map[string]func(*License){
		"id is missing":                         func(l *License) { l.ID = "" },
		"system is missing":                     func(l *License) { l.System = "" },
		"product is missing":                    func(l *License) { l.Product = "" },
		"licensee is not UTF-8":                 func(l *License) { l.Licensee = "\xff" },
		"issuer has control":                    func(l *License) { l.Issuer = "a\nb" },
		"key id has 4097 bytes":                 func(l *License) { l.KeyID = strings.Repeat("x", 4097) },
		`"issued" lies outside`:                 func(l *License) { l.Issued = time.Unix(-1, 0) },
		`"expires" lies outside`:                func(l *License) { l.Expires = time.Unix(1<<40, 0) },
		"before it begins":                      func(l *License) { l.NotBefore = l.Expires },
		"grace is -0.000000001 seconds":         func(l *License) { l.Grace = -1 },
		"check-in is":                           func(l *License) { l.CheckIn.Every = math.MaxInt64 },
		"period has 1201 months":                func(l *License) { l.CheckIn.Months = 1201 },
		"period has":                            func(l *License) { l.Heartbeat.Months = -1 },
		"allows 366 emergencies":                func(l *License) { l.Emergency.PerYear = 366 },
		"trial is":                              func(l *License) { l.Trial = -1 },
		"environment is not one of":             func(l *License) { l.Environment = "staging" },
		"role is not one of":                    func(l *License) { l.Role = "king" },
		"role is not add-on":                    func(l *License) { l.Role = RoleBase },
		"on_expiry is not one of":               func(l *License) { l.OnExpiry = "explode" },
		"clock is not one of":                   func(l *License) { l.Clock = "broken" },
		"cores is -2":                           func(l *License) { l.CoreCap = -2 },
		"versions":                              func(l *License) { l.Versions = "<<" },
		"max of p is -2":                        func(l *License) { l.Pools["p"] = PoolTerm{Max: -2} },
		"overage of p is":                       func(l *License) { l.Pools["p"] = PoolTerm{Overage: MaxCount + 1} },
		"scope of p is not one of":              func(l *License) { l.Pools["p"] = PoolTerm{Scope: "galaxy"} },
		"count_by of p: \"moon\" is not one of": func(l *License) { l.Pools["p"] = PoolTerm{CountBy: "moon"} },
		"unit of p has control":                 func(l *License) { l.Pools["p"] = PoolTerm{Unit: "\x00"} },
		"resets of m is not one of":             func(l *License) { l.Meters["m"] = MeterTerm{Resets: "day"} },
		"both a pool and a meter":               func(l *License) { l.Meters["p"] = MeterTerm{} },
		"a name is empty":                       func(l *License) { l.Pools[""] = PoolTerm{} },
		"characters other":                      func(l *License) { l.Features["a b"] = Value{Kind: KindBool} },
		"more than 64 bytes":                    func(l *License) { l.Meters[strings.Repeat("x", 65)] = MeterTerm{} },
		"neither a boolean":                     func(l *License) { l.Features["n"] = Value{} },
		"feature n is not a number": func(l *License) {
			l.Features["n"] = Value{Kind: KindNumber, Number: math.NaN()}
		},
		"of another kind":               func(l *License) { l.Features["n"] = Value{Kind: KindNumber, Text: "x"} },
		"a text that is not UTF-8":      func(l *License) { l.Features["t"] = Value{Kind: KindText, Text: "\xff"} },
		"names 0 components":            func(l *License) { l.Hosts[0].Components = nil },
		"strategy is not one of":        func(l *License) { l.Hosts[0].Strategy = "luck" },
		"component has 4097 values":     func(l *License) { l.Hosts[0].Components["c"] = make([]string, 4097) },
		"host component has control":    func(l *License) { l.Hosts[0].Components["c"] = []string{"\x7f"} },
		"longer than 4096":              func(l *License) { l.Supersedes = make([]string, 4097) },
		"list entry is not UTF-8":       func(l *License) { l.AgentKeys = []string{"\xc0"} },
		"a number that JSON cannot say": func(l *License) { l.Terms["n"] = math.Inf(1) },
		"terms are not UTF-8":           func(l *License) { l.Terms["\xff"] = nil },
		"which JSON cannot say":         func(l *License) { l.Terms["f"] = func() {} },
		"nest deeper":                   func(l *License) { l.Terms["d"] = deep },
		"nest deeper than 100":          func(l *License) { l.Terms["d"] = Text(strings.Repeat(`[{"\"":`, 50) + "[]") },
		"its terms are not UTF":         func(l *License) { l.Terms["t"] = Text("\"\xff\"") },
	} {
		l := full()
		change(l)
		if err := l.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
