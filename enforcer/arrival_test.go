package enforcer

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// Every code stands on one side: a document that time may mend is installed, any other is refused.
func TestHopeless(t *testing.T) {
	t.Parallel()
	hopeless := []Code{Malformed, ProductMismatch, Revoked, Banned, FingerprintMismatch, AgentKeyMismatch}
	for _, c := range Codes() {
		if got := (Judged{Code: c}).Hopeless(); got != slices.Contains(hopeless, c) {
			t.Errorf("%s: hopeless %t", c, got)
		}
	}
}

// A document that is hopeless now is in force at no later time.
func TestHopelessStaysSo(t *testing.T) {
	t.Parallel()
	seen := map[Code]bool{}
	for code, spoil := range faults {
		f := factsWith(doc("a.lic"))
		f.Upstream = map[Ref]Upstream{}
		spoil(&f, f.Documents[0].License)
		j := judged(t, Judge(f, noon), "a.lic")
		if !j.Hopeless() {
			continue
		}
		seen[code] = true
		for _, days := range []int{0, 1, 30, 400, 4000} {
			if later := judged(t, Judge(f, noon.AddDate(0, 0, days)), "a.lic"); later.InForce {
				t.Errorf("%s: in force after %d days", code, days)
			}
		}
	}
	if len(seen) < 4 {
		t.Errorf("only %v were looked at", slices.Collect(maps.Keys(seen)))
	}
}

func TestUpstreamMayHeal(t *testing.T) {
	t.Parallel()
	heals := []Code{Valid, ValidInGrace, HeartbeatNotStarted, HeartbeatDead, Overdue, Expired, Preparing}
	for _, c := range Codes() {
		j := Judged{License: terms(), Findings: []Finding{{Code: c}}}
		if got := j.UpstreamMayHeal(Upstream{}); got != slices.Contains(heals, c) {
			t.Errorf("%s: %t", c, got)
		}
		if !j.UpstreamMayHeal(Upstream{Refused: c}) {
			t.Errorf("the upstream said %s, and may not take it back", c)
		}
	}
	if (Judged{Findings: []Finding{{Code: Expired}}}).UpstreamMayHeal(Upstream{}) {
		t.Error("a document without a licence has an upstream")
	}
	if (Judged{License: terms(), Findings: []Finding{{Code: Overdue}, {Code: FingerprintMismatch}}}).
		UpstreamMayHeal(Upstream{}) {
		t.Error("one finding that an answer may end is enough")
	}
}

// Whatever code a licence has: if no upstream's answer may heal it, none does; and if one may, the best answer of the
// upstream, with a renewed document where time has run out, puts it in force.
func TestUpstreamHealsAsItMay(t *testing.T) {
	t.Parallel()
	for code, spoil := range faults {
		f := factsWith(doc("a.lic"))
		f.Upstream = map[Ref]Upstream{}
		spoil(&f, f.Documents[0].License)
		l := f.Documents[0].License
		may := judged(t, Judge(f, noon), "a.lic").UpstreamMayHeal(f.Upstream[l.Ref()])
		f.Upstream = map[Ref]Upstream{l.Ref(): {Activated: noon, LastHeartbeat: noon, LastCheckIn: noon}}
		if may && code == Expired {
			l.Expires = zeroTime
		}
		if got := judged(t, Judge(f, noon), "a.lic"); got.InForce != may && (may || code != VersionNotCovered) {
			t.Errorf("%s: an upstream may heal it: %t; after its best answer: %s", code, may, got.Code)
		}
	}
}

func TestCheckRenewal(t *testing.T) {
	t.Parallel()
	at := Judge(factsWith(doc("a.lic"), doc("older.lic", issued(-100*aDay))), noon)
	for _, test := range []struct {
		name string
		l    *License
		of   *License
		v    *Verdict
		want string // words of the refusal; empty: it renews
	}{
		{"a later issue", terms(issued(-aDay)), terms(), at, ""},
		{"before the first verdict", terms(), terms(), nil, ""},
		{"of which no issue is at hand", terms(id("L2"), issued(-200*aDay)), terms(id("L2")), at, ""},
		{"that issue", terms(), terms(), at, "no later than the one at hand"},
		{"one between two issues at hand", terms(issued(-95 * aDay)), terms(), at, "no later than the one at hand"},
		{"another licence", terms(id("L2")), terms(), at, "it is licence L2, which does not replace L1"},
		{"one that supersedes it", terms(id("L2"), supersedes("L1"), issued(-aDay)), terms(), at, ""},
		{"another system's", terms(of("toy"), issued(-aDay)), terms(), at,
			"of the system toy (production), and replaces none of the system usher (production)"},
		{"a test licence", terms(testKey, issued(-aDay)), terms(), at, "of the system usher (test), and replaces none"},
		{"a production licence for a test licence", terms(issued(-aDay)), terms(testKey), at, ""},
		{"another product", terms(issued(-aDay), func(l *License) { l.Product = "other" }), terms(), at,
			`it is for product "other"`},
	} {
		err := test.l.CheckRenewal(test.of, test.v)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

func TestCheckReplacement(t *testing.T) {
	t.Parallel()
	at := Judge(factsWith(doc("a.lic"), doc("b.lic", id("L2"), issued(-5*aDay))), noon)
	for _, test := range []struct {
		name string
		l    *License
		want string // words of the refusal; empty: it replaces L1
	}{
		{"another id, issued later", terms(id("L3"), issued(-aDay)), ""},
		{"a later issue of one that is at hand", terms(id("L2"), issued(-aDay)), ""},
		{"one that is at hand", terms(id("L2"), issued(-5*aDay)), "no later than the one at hand"},
		{"issued at the same time", terms(id("L3")), "no later than the one at hand"},
		{"another system's", terms(id("L3"), of("toy"), issued(-aDay)), "replaces none of the system usher"},
		{"a test licence", terms(id("L3"), testKey, issued(-aDay)), "replaces none"},
		{"another product", terms(id("L3"), issued(-aDay), func(l *License) { l.Product = "other" }),
			`it is for product "other"`},
	} {
		err := test.l.CheckReplacement(terms(), at)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

func TestMeant(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		docs []Document
		want string
	}{
		{"none", nil, ""},
		{"another id", []Document{doc("b", id("L2"))}, ""},
		{"a broken one", []Document{broken("a", Malformed)}, ""},
		{"the latest", []Document{doc("old"), doc("new", issued(-aDay)), doc("older", issued(-99*aDay))}, "new"},
		{"production before test", []Document{doc("test", testKey, issued(-aDay)), doc("old")}, "old"},
		{"what tells the time first", []Document{doc("toy", of("toy"), issued(-aDay)), doc("old")}, "old"},
		{"production before what tells the time", []Document{doc("test", testKey), doc("toy", of("toy"))}, "toy"},
		{"no notice", []Document{doc("notice", notice("L9"), issued(-aDay)), doc("old")}, "old"},
	} {
		docs := slices.Clone(test.docs)
		for range 2 { // in whatever order they stand
			got := ""
			if d := Meant(docs, "L1", "usher"); d != nil {
				got = d.Name
			}
			if got != test.want {
				t.Errorf("%s: %q, want %q", test.name, got, test.want)
			}
			slices.Reverse(docs)
		}
	}
}
