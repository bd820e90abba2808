package enforcer

import (
	"strings"
	"testing"
	"time"
)

// judgedOf returns what a verdict says of one document.
func judgedOf(t *testing.T, v *Verdict, name string) Judged {
	t.Helper()
	for _, j := range v.Licenses {
		if j.Document == name {
			return j
		}
	}
	t.Fatalf("there is no document %s", name)
	return Judged{}
}

// What has been replaced says by what, and asks for nothing: an expired licence beside its renewal, under its own id or
// another, and one of two copies. Where the renewal is a free tier, or an earlier issue, the end stays a warning.
func TestReplacedAsksForNothing(t *testing.T) {
	base := func(id string, issued, expires time.Duration) *License {
		return &License{ID: id, System: "usher", Product: "acme", Issued: noon.Add(issued), Expires: noon.Add(expires),
			Pools: map[string]PoolTerm{"streams": {Max: 1, Scope: ScopeHost}},
			Hosts: []HostBinding{{Components: map[string][]string{"mac": {"aa"}}}}}
	}
	free := base("M", -aDay, 90*aDay)
	free.Role = RoleFree
	for name, row := range map[string]struct {
		old, renewal *License
		code         Code
		reason       string
		warned       bool
	}{
		"another id": {base("L", -90*aDay, -aDay), base("M", -2*aDay, 90*aDay), Superseded,
			"licence L (old.lic): it expired at 2026-01-04 12:00 UTC, and licence M (x.lic) is in force in its place",
			false},
		"the same id": {base("L", -90*aDay, -aDay), base("L", -2*aDay, 90*aDay), Superseded,
			"licence L (old.lic): it expired at 2026-01-04 12:00 UTC, and document x.lic is a later issue of it",
			false},
		"a copy": {base("L", -2*aDay, 90*aDay), base("L", -2*aDay, 90*aDay), Superseded,
			"document x.lic is a copy of it", false},
		"other terms of the same time": {base("L", -2*aDay, 80*aDay), base("L", -2*aDay, 90*aDay), Superseded,
			"was issued at the same time with other terms", false},
		"a later issue": {base("L", -3*aDay, 90*aDay), base("L", -2*aDay, 90*aDay), Superseded,
			"document x.lic is a later issue of it", false},
		"a free tier": {base("L", -90*aDay, -aDay), free, Expired, "install a renewed one", true},
		"an older issue": {base("L", -2*aDay, -aDay), base("M", -90*aDay, 90*aDay), Expired, "install a renewed one",
			true},
	} {
		v := Judge(Facts{Host: Host{Components: map[string][]string{"mac": {"aa"}}},
			Documents: []Document{{Name: "old.lic", License: row.old}, {Name: "x.lic", License: row.renewal}}}, noon)
		j := judgedOf(t, v, "old.lic")
		if !v.Good() || j.InForce || j.Code != row.code || !strings.Contains(j.Reason, row.reason) ||
			len(v.Warnings) > 0 != row.warned {
			t.Errorf("%s: %s, %s; %v", name, j.Code, j.Reason, v.Warnings)
		}
	}
}

// An add-on or a notice never takes the place of the licence whose id it has.
func TestWhatCannotStandAloneReplacesNothing(t *testing.T) {
	for _, role := range []Role{RoleAddOn, RoleNotice} {
		f := Facts{Documents: []Document{
			{Name: "base.lic", License: &License{ID: "L", System: "usher", Product: "acme", Issued: noon.Add(-aDay)}},
			{Name: "x.lic", License: &License{ID: "L", System: "usher", Product: "acme", Issued: noon, Role: role}}}}
		v := Judge(f, noon)
		if j := judgedOf(t, v, "x.lic"); !v.Good() || j.Code != Superseded ||
			!strings.Contains(j.Reason, "an id of its own") {
			t.Errorf("%s: %s; %s, %s", role, v.Reason, j.Code, j.Reason)
		}
	}
}

// A verdict offers an emergency exactly where one may begin and the licence would be good by it.
func TestEmergencyIsOfferedWhereItHelps(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*Facts, *License)
		helps  bool
	}{
		"expired":     {func(*Facts, *License) {}, true},
		"none signed": {func(_ *Facts, l *License) { l.Emergency = Emergency{} }, false},
		"revoked":     {func(_ *Facts, l *License) { l.Revoked = true }, false},
		"another host": {func(_ *Facts, l *License) {
			l.Hosts = []HostBinding{{Components: map[string][]string{"mac": {"zz"}}}}
		}, false},
		"spent": {func(f *Facts, _ *License) {
			f.Emergencies = map[Ref][]time.Time{"usher/L": {noon.Add(-9 * aDay)}}
		}, false},
		"in grace":   {func(_ *Facts, l *License) { l.Grace = 30 * aDay }, false},
		"valid":      {func(_ *Facts, l *License) { l.Expires = noon.Add(aDay) }, false},
		"a check-in": {func(_ *Facts, l *License) { l.Expires, l.CheckIn = zeroTime, Period{Every: aDay} }, true},
	} {
		l := &License{ID: "L", System: "usher", Product: "acme", Issued: noon.Add(-90 * aDay), Expires: noon.Add(-aDay),
			Emergency: Emergency{Length: aDay, PerYear: 1}}
		f := Facts{Documents: []Document{{Name: "a.lic", License: l}}}
		row.change(&f, l)
		v := Judge(f, noon)
		_, denial := MayBeginEmergency(f, v, noon)
		if offered := strings.Contains(v.Reason, "`usher emergency start`"); offered != row.helps ||
			offered && denial != nil {
			t.Errorf("%s: %s; %+v", name, v.Reason, denial)
		}
	}
}

// A document that is signed to tell the time says so.
func TestTimeDocumentIsCalledOne(t *testing.T) {
	v := Judge(Facts{Documents: []Document{{Name: "t.lic", License: &License{ID: "T", System: "usher", Product: "acme",
		Role: RoleNotice, Issued: noon}}}}, noon)
	if j := judgedOf(t, v, "t.lic"); j.Reason !=
		"licence T (t.lic) is a time document: it says that it is no earlier than 2026-01-05 12:00 UTC, and grants "+
			"nothing" {
		t.Error(j.Reason)
	}
}
