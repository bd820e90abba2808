package enforcer

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWarnsBeforeExpiry(t *testing.T) {
	for _, row := range []struct {
		left  time.Duration
		want  string        // a fragment; empty: no warning
		again time.Duration // when the judge is to be asked again
	}{
		{31 * aDay, "", aDay},
		{30*aDay + 1, "", 1},
		{30 * aDay, "in less than 30 days", 16 * aDay},
		{14*aDay + 1, "in less than 30 days", 1},
		{14 * aDay, "in less than 14 days", 7 * aDay},
		{7 * aDay, "in less than 7 days", 6 * aDay},
		{aDay, "in less than 1 day", aDay},
		{time.Minute, "in less than 1 day", time.Minute},
	} {
		v := Judge(factsWith(doc("a.lic", expires(row.left))), noon)
		got := warned(v, WarnExpiresSoon)
		if row.want == "" && len(got) > 0 || row.want != "" && (len(got) != 1 || !strings.HasSuffix(got[0], row.want)) {
			t.Errorf("%s before expiry: %q, want %q", row.left, got, row.want)
		}
		if want := noon.Add(row.again); !v.JudgeAgainAt.Equal(want) {
			t.Errorf("%s before expiry: judged again at %v, want %v", row.left, v.JudgeAgainAt, want)
		}
		if want := noon.Add(row.left); !v.Until.Equal(want) || !v.CoveredUntil.Equal(want) ||
			!v.TerminatesAt.Equal(want) {
			t.Errorf("%s before expiry: until %v, covered until %v, terminates %v", row.left, v.Until, v.CoveredUntil,
				v.TerminatesAt)
		}
	}
}

func TestInstantsOfGrace(t *testing.T) {
	f := factsWith(doc("a.lic", expires(60*aDay), grace(5*aDay)))
	v := Judge(f, noon)
	if !v.Until.Equal(noon.Add(60*aDay)) || !v.CoveredUntil.Equal(noon.Add(65*aDay)) ||
		!v.TerminatesAt.Equal(noon.Add(65*aDay)) || !v.GraceEndsAt.IsZero() {
		t.Errorf("before: until %v, covered until %v, terminates %v, grace ends %v", v.Until, v.CoveredUntil,
			v.TerminatesAt, v.GraceEndsAt)
	}
	v = Judge(f, noon.Add(60*aDay))
	if end := noon.Add(65 * aDay); v.Code != ValidInGrace || !v.Until.Equal(end) || !v.CoveredUntil.Equal(end) ||
		!v.GraceEndsAt.Equal(end) {
		t.Errorf("in grace: %s until %v, covered until %v, grace ends %v", v.Code, v.Until, v.CoveredUntil,
			v.GraceEndsAt)
	}
	if got := warned(v, WarnInGrace); len(got) != 1 {
		t.Errorf("in grace: %v", v.Warnings)
	}
	v = Judge(f, noon.Add(65*aDay))
	if v.Code != Expired || !v.Until.IsZero() || !v.CoveredUntil.IsZero() || !v.GraceEndsAt.IsZero() {
		t.Errorf("after: %s until %v, covered until %v, grace ends %v", v.Code, v.Until, v.CoveredUntil, v.GraceEndsAt)
	}
	// Configured, the grace is shorter and never longer.
	day, month := aDay, 30*aDay
	f.Narrowing.Grace = &day
	if v = Judge(f, noon); !v.TerminatesAt.Equal(noon.Add(61 * aDay)) {
		t.Errorf("narrowed: terminates %v", v.TerminatesAt)
	}
	f.Narrowing.Grace = &month
	if v = Judge(f, noon); !v.TerminatesAt.Equal(noon.Add(65*aDay)) || len(warned(v, WarnConfigIgnored)) != 1 {
		t.Errorf("widened: terminates %v, warnings %v", v.TerminatesAt, v.Warnings)
	}
	// The first of two graces to end is the end.
	f = factsWith(doc("a.lic", expires(-time.Hour), grace(5*aDay), func(l *License) {
		l.Heartbeat = Period{Every: time.Hour, Grace: 2 * time.Hour}
	}))
	f.Upstream = map[Ref]Upstream{"usher/L1": {LastHeartbeat: noon.Add(-time.Hour)}}
	if v = Judge(f, noon); v.Code != ValidInGrace || !v.GraceEndsAt.Equal(noon.Add(2*time.Hour)) ||
		!v.Until.Equal(v.GraceEndsAt) {
		t.Errorf("two graces: %s until %v, grace ends %v", v.Code, v.Until, v.GraceEndsAt)
	}
}

func TestWarnings(t *testing.T) {
	f := factsWith(doc("a.lic"))
	f.Clock.Behind = 10 * time.Minute
	if v := Judge(f, noon); len(v.Warnings) > 0 {
		t.Errorf("ten minutes behind: %v", v.Warnings)
	}
	f.Clock.Behind++
	if v := Judge(f, noon); len(warned(v, WarnClockBehind)) != 1 || !v.Good() {
		t.Errorf("more than ten minutes behind: %v", v.Warnings)
	}

	f = factsWith(doc("a.lic", func(l *License) { l.Hosts[0].Strategy = MatchAny }))
	f.Host.Components["mac"] = []string{"zz"}
	v := Judge(f, noon)
	if got := warned(v, WarnHostMatchLow); len(got) != 1 || !strings.Contains(got[0], "only 1 of 2 components") ||
		v.Match.Score() != 0.5 {
		t.Errorf("half a match: %v, score %v", v.Warnings, v.Match.Score())
	}

	f = factsWith(doc("a.lic", func(l *License) { l.CheckIn = Period{Every: aDay, Grace: aDay} }))
	f.Upstream = map[Ref]Upstream{"usher/L1": {LastCheckIn: noon.Add(-aDay)}}
	if v := Judge(f, noon); len(warned(v, WarnCheckInDue)) != 1 || v.Code != ValidInGrace {
		t.Errorf("a late check-in: %s, %v", v.Code, v.Warnings)
	}
	if v := Judge(f, noon.Add(-1)); len(v.Warnings) > 0 || v.Code != Valid {
		t.Errorf("a check-in in time: %s, %v", v.Code, v.Warnings)
	}
	if v := Judge(factsWith(), noon); len(v.Warnings) > 0 || len(v.Licenses) > 0 {
		t.Errorf("nothing there: %v", v.Warnings)
	}
}

// TestStaleDocument: the last good version counts on until its own end, and the broken replacement is a warning.
func TestStaleDocument(t *testing.T) {
	d := doc("a.lic", expires(60*aDay))
	d.Problem = &Problem{Code: BadSignature, Reason: "a.lic: its signature is bad", Stale: true}
	f := factsWith(d)
	v := Judge(f, noon)
	if v.Code != Valid || !v.Until.Equal(noon.Add(60*aDay)) || judged(t, v, "a.lic").Problem == nil {
		t.Errorf("%s until %v", v.Code, v.Until)
	}
	if got := warned(v, WarnDocument); len(got) != 1 ||
		!strings.Contains(got[0], "counts on: a.lic: its signature is bad") {
		t.Errorf("warnings %v", v.Warnings)
	}
	if v = Judge(f, noon.Add(60*aDay)); v.Code != Expired {
		t.Errorf("after its end: %s", v.Code)
	}
	d.License = nil
	if v = Judge(factsWith(d), noon); v.Code != BadSignature || v.State != StateInvalid {
		t.Errorf("nothing stood there before: %s", v.Code)
	}
}

func TestVerdictCarriesTerms(t *testing.T) {
	hour := time.Hour
	f := factsWith(
		doc("a.lic", func(l *License) {
			l.OnExpiry, l.AgentAway, l.MaxBorrow, l.SystemCode, l.Versions = Keep, 5*time.Minute, 3*aDay, "OK", ">=1"
			l.Pools["streams"] = PoolTerm{Max: 4, Unit: "stream", CountBy: CountUser, Overage: 1}
			l.Features = map[string]Value{"on": {Kind: KindBool, Bool: true}, "depth": {Kind: KindNumber, Number: 8},
				"tier": {Kind: KindText, Text: "gold"}, "kind": {Kind: KindBool, Bool: true}}
		}),
		doc("b.lic", id("L2"), role(RoleAddOn), issued(0), func(l *License) {
			l.Versions, l.OnExpiry = "<9", Revoke
			l.Features = map[string]Value{"on": {Kind: KindBool}, "depth": {Kind: KindNumber, Number: 4},
				"tier": {Kind: KindText, Text: "silver"}, "kind": {Kind: KindNumber, Number: 1}}
		}))
	f.Narrowing = Narrowing{MaxBorrow: &hour, CountBy: CountLease, NoOverage: true, OnExpiry: Drain}
	v := Judge(f, noon)
	if v.OnExpiry != Drain || v.AgentAway != 5*time.Minute || v.MaxBorrow != time.Hour || v.SystemCode != "OK" ||
		v.Environment != Production {
		t.Errorf("%+v", v)
	}
	if g, want := v.Pools["streams"], (PoolGrant{Name: "streams", Limit: 8, Budget: 8, Most: 8, Scope: ScopeHost,
		CountBy: CountLease, Unit: "stream"}); g != want {
		t.Errorf("%+v, want %+v", g, want)
	}
	if want := []VersionCover{{"L1", ">=1"}, {"L2", "<9"}}; !slices.Equal(v.Versions, want) {
		t.Errorf("versions %v", v.Versions)
	}
	want := map[string]Value{"on": {Kind: KindBool, Bool: true}, "depth": {Kind: KindNumber, Number: 8},
		"tier": {Kind: KindText, Text: "silver"}, "kind": {Kind: KindNumber, Number: 1}}
	if !maps.Equal(v.Features, want) {
		t.Errorf("features %v, want %v", v.Features, want)
	}
	// No document of the facts has been written to.
	if p := f.Documents[0].License.Pools["streams"]; p.Overage != 1 || p.CountBy != CountUser {
		t.Errorf("the licence has been changed: %+v", p)
	}
	f = factsWith(broken("a.lic", BadSignature))
	if v := Judge(f, noon); v.SystemCode != "E42" {
		t.Errorf("the system's own code is %q", v.SystemCode)
	}
}
