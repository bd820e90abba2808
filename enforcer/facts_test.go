package enforcer

import (
	"slices"
	"testing"
	"time"
)

const aDay = 24 * time.Hour

// noon is the instant the tests of the judge judge at.
var noon = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)

// terms makes a perpetual production base for product acme with 4 streams, bound to the host of factsWith.
func terms(change ...func(*License)) *License {
	l := &License{ID: "L1", System: "usher", Product: "acme", Licensee: "Blue Cinema", KeyID: "2026-a",
		Issued: noon.Add(-90 * aDay),
		Pools:  map[string]PoolTerm{"streams": {Max: 4}},
		Hosts:  []HostBinding{{Components: map[string][]string{"machine-id": {"aa"}, "mac": {"bb", "cc"}}}}}
	for _, c := range change {
		c(l)
	}
	return l
}

func doc(name string, change ...func(*License)) Document {
	return Document{Name: name, License: terms(change...)}
}

func broken(name string, code Code) Document {
	return Document{Name: name,
		Problem: &Problem{Code: code, Reason: name + " is of no use for the test", SystemCode: "E42"}}
}

func factsWith(docs ...Document) Facts {
	return Facts{Products: []string{"acme", "acme-pro"}, Documents: docs, AgentKey: "thumb-1",
		Host: Host{Components: map[string][]string{"machine-id": {"aa"}, "mac": {"bb"}}, Physical: 4, Logical: 8,
			Effective: 2.5, Memory: 8 << 30, Disk: 100 << 30}}
}

// Changes of a licence, for tables.
func id(s string) func(*License) { return func(l *License) { l.ID = s } }

func role(r Role) func(*License) { return func(l *License) { l.Role = r } }

func supersedes(s ...string) func(*License) { return func(l *License) { l.Supersedes = s } }

func of(system string) func(*License) { return func(l *License) { l.System = system } }

func key(id string) func(*License) { return func(l *License) { l.KeyID = id } }

func testOnly(l *License) { l.Environment = Test }

func testKey(l *License) { l.KeyID, l.AnchorEnvironment = "qa", Test }

func notice(revokes ...string) func(*License) {
	return func(l *License) { l.Role, l.Revokes, l.Pools = RoleNotice, revokes, nil }
}

func unbound(l *License) { l.Hosts = nil }

func expires(d time.Duration) func(*License) {
	return func(l *License) { l.Expires = noon.Add(d) }
}

func starts(d time.Duration) func(*License) {
	return func(l *License) { l.NotBefore = noon.Add(d) }
}

func issued(d time.Duration) func(*License) {
	return func(l *License) { l.Issued = noon.Add(d) }
}

func grace(d time.Duration) func(*License) { return func(l *License) { l.Grace = d } }

func streams(n Limit) func(*License) {
	return func(l *License) { l.Pools = map[string]PoolTerm{"streams": {Max: n}} }
}

// judged returns what the verdict says of one document.
func judged(t testing.TB, v *Verdict, name string) Judged {
	t.Helper()
	i := slices.IndexFunc(v.Licenses, func(j Judged) bool { return j.Document == name })
	if i < 0 {
		t.Fatalf("the verdict does not list %s", name)
	}
	return v.Licenses[i]
}

func warned(v *Verdict, code WarningCode) (out []string) {
	for _, w := range v.Warnings {
		if w.Code == code {
			out = append(out, w.Detail)
		}
	}
	return out
}

func wantLimit(t testing.TB, v *Verdict, pool string, limit, budget Limit) {
	t.Helper()
	if g := v.Pools[pool]; g.Limit != limit || g.Budget != budget {
		t.Errorf("%s: limit %s, budget %s; want %s and %s", pool, g.Limit, g.Budget, limit, budget)
	}
}
