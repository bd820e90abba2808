package enforcer

import (
	"fmt"
	"maps"
	"slices"
	"strings"
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
func id(s string) func(*License)            { return func(l *License) { l.ID = s } }
func role(r Role) func(*License)            { return func(l *License) { l.Role = r } }
func supersedes(s ...string) func(*License) { return func(l *License) { l.Supersedes = s } }
func of(system string) func(*License)       { return func(l *License) { l.System = system } }
func key(id string) func(*License)          { return func(l *License) { l.KeyID = id } }
func testOnly(l *License)                   { l.Environment = Test }
func testKey(l *License)                    { l.KeyID, l.AnchorEnvironment = "qa", Test }
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

func TestDocumentsTogether(t *testing.T) {
	type want struct {
		code    Code
		inForce []string // the base first
		limit   Limit
		others  map[string]Code
		warn    []WarningCode
		until   time.Time
		covered time.Time
	}
	addOn := role(RoleAddOn)
	adds := func(to string) func(*License) { return func(l *License) { l.Role, l.AddOnTo = RoleAddOn, to } }
	for _, row := range []struct {
		name string
		docs []Document
		want want
	}{
		{"two bases never sum: the latest issued counts",
			[]Document{doc("a.lic"), doc("b.lic", id("L2"), issued(-aDay), streams(3))},
			want{code: Valid, inForce: []string{"b.lic"}, limit: 3, others: map[string]Code{"a.lic": Superseded}}},
		{"the same issue: one of them, by name", []Document{doc("b.lic", id("L2"), streams(3)), doc("a.lic")},
			want{code: Valid, inForce: []string{"b.lic"}, limit: 3, others: map[string]Code{"a.lic": Superseded}}},
		{"one licence twice", []Document{doc("a.lic"), doc("b.lic", issued(-aDay), streams(9))},
			want{code: Valid, inForce: []string{"b.lic"}, limit: 9, others: map[string]Code{"a.lic": Superseded}}},
		{"add-ons sum", []Document{doc("a.lic"), doc("b.lic", id("L2"), addOn, streams(3)),
			doc("c.lic", id("L3"), adds("L1"), streams(2))},
			want{code: Valid, inForce: []string{"a.lic", "b.lic", "c.lic"}, limit: 9}},
		{"one add-on twice counts once", []Document{doc("a.lic"), doc("b.lic", id("L2"), addOn, streams(3)),
			doc("c.lic", id("L2"), addOn, streams(3), issued(0))},
			want{code: Valid, inForce: []string{"a.lic", "c.lic"}, limit: 7,
				others: map[string]Code{"b.lic": Superseded}}},
		{"an add-on to another base", []Document{doc("a.lic"), doc("b.lic", id("L2"), adds("L9"), streams(3))},
			want{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": Valid},
				warn: []WarningCode{WarnAddOnUnused}}},
		{"an add-on that has expired", []Document{doc("a.lic"), doc("b.lic", id("L2"), addOn, expires(-aDay))},
			want{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": Expired},
				warn: []WarningCode{WarnDocument}}},
		{"an add-on that ends", []Document{doc("a.lic"), doc("b.lic", id("L2"), addOn, expires(60*aDay))},
			want{code: Valid, inForce: []string{"a.lic", "b.lic"}, limit: 8, until: noon.Add(60 * aDay)}},
		{"a test add-on adds nothing to production", []Document{doc("a.lic"), doc("b.lic", id("L2"), addOn, testOnly)},
			want{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": TestLicense},
				warn: []WarningCode{WarnTestLicense}}},
		{"a production add-on adds to a test base", []Document{doc("a.lic", testOnly), doc("b.lic", id("L2"), addOn)},
			want{code: Valid, inForce: []string{"a.lic", "b.lic"}, limit: 8, warn: []WarningCode{WarnTestLicense}}},
		{"production before test, whatever the issue",
			[]Document{doc("a.lic"), doc("b.lic", id("L2"), testOnly, issued(0))},
			want{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": TestLicense}, warn: []WarningCode{WarnTestLicense}}},
		{"a test licence where there is no other", []Document{doc("a.lic", testOnly)},
			want{code: Valid, inForce: []string{"a.lic"}, limit: 4, warn: []WarningCode{WarnTestLicense}}},
		{"paid before free, whatever the issue",
			[]Document{doc("a.lic", expires(60*aDay)), doc("b.lic", id("L2"), role(RoleFree), issued(0), streams(1))},
			want{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": Superseded},
				until: noon.Add(60 * aDay)}},
		{"free takes over", []Document{doc("a.lic", expires(-aDay)),
			doc("b.lic", id("L2"), role(RoleFree), streams(1))},
			want{code: Valid, inForce: []string{"b.lic"}, limit: 1, others: map[string]Code{"a.lic": Expired},
				warn: []WarningCode{WarnDocument}}},
		{"what is in grace comes after what is not",
			[]Document{doc("a.lic"), doc("b.lic", id("L2"), issued(0), expires(-1), grace(aDay), streams(9))},
			want{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": Superseded}}},
		{"grace before free tier",
			[]Document{doc("a.lic", expires(-aDay), grace(2*aDay)), doc("b.lic", id("L2"), role(RoleFree), streams(1))},
			want{code: ValidInGrace, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": Superseded},
				warn: []WarningCode{WarnInGrace}, until: noon.Add(aDay)}},
		{"retired by id", []Document{doc("a.lic", issued(0)),
			doc("b.lic", id("L2"), supersedes("L0", "L1"), streams(3))},
			want{code: Valid, inForce: []string{"b.lic"}, limit: 3, others: map[string]Code{"a.lic": Superseded}}},
		{"retired by what starts later: not yet",
			[]Document{doc("a.lic"), doc("b.lic", id("L2"), supersedes("L1"), starts(aDay), streams(3), issued(0))},
			want{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": NotYetValid},
				until: noon.Add(aDay)}},
		{"retired stays retired", []Document{doc("a.lic"), doc("b.lic", id("L2"), supersedes("L1"), expires(-aDay))},
			want{code: Expired, others: map[string]Code{"a.lic": Superseded, "b.lic": Expired}, warn: []WarningCode{}}},
		{"another system's ids are others",
			[]Document{doc("a.lic"), doc("b.lic", id("L2"), supersedes("L1"), role(RoleFree), of("other"))},
			want{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": Superseded}}},
		{"another system's add-on adds nothing", []Document{doc("a.lic"), doc("b.lic", id("L2"), addOn, of("other"))},
			want{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": Valid}, warn: []WarningCode{WarnAddOnUnused}}},
		{"another system's notice revokes nothing",
			[]Document{doc("a.lic"), doc("b.lic", id("N"), notice("L1"), of("other"))},
			want{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": Valid}}},
		{"a test licence retires no production licence",
			[]Document{doc("a.lic"), doc("b.lic", id("L2"), supersedes("L1"), testOnly, issued(0), streams(1))},
			want{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": TestLicense}, warn: []WarningCode{WarnTestLicense}}},
		{"a test key retires no production licence",
			[]Document{doc("a.lic"), doc("b.lic", id("L2"), supersedes("L1"), testKey, issued(0), streams(1))},
			want{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": TestLicense}, warn: []WarningCode{WarnTestLicense}}},
		{"a test key's notice revokes no production licence",
			[]Document{doc("a.lic"), doc("b.lic", id("N"), notice("L1"), testKey)},
			want{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": Valid}}},
		{"a test key's notice revokes a test licence",
			[]Document{doc("a.lic", testKey), doc("b.lic", id("N"), notice("L1"), testKey)},
			want{code: Revoked, others: map[string]Code{"a.lic": Revoked}}},
		{"a production notice revokes a test licence",
			[]Document{doc("a.lic", testKey), doc("b.lic", id("N"), notice("L1"))},
			want{code: Revoked, others: map[string]Code{"a.lic": Revoked}}},
		{"a production licence retires a test licence",
			[]Document{doc("a.lic", testOnly, issued(0)), doc("b.lic", id("L2"), supersedes("L1"), streams(3))},
			want{code: Valid, inForce: []string{"b.lic"}, limit: 3, others: map[string]Code{"a.lic": Superseded}}},
		{"a vendor's next key renews a licence", []Document{doc("a.lic", id("L2"), addOn, streams(3)), doc("b.lic"),
			doc("c.lic", id("L2"), addOn, streams(3), issued(0), key("2027-a"))},
			want{code: Valid, inForce: []string{"b.lic", "c.lic"}, limit: 7,
				others: map[string]Code{"a.lic": Superseded}}},
		{"a vendor's next key retires a licence",
			[]Document{doc("a.lic", issued(0)), doc("b.lic", id("L2"), supersedes("L1"), streams(3), key("2027-a"))},
			want{code: Valid, inForce: []string{"b.lic"}, limit: 3, others: map[string]Code{"a.lic": Superseded}}},
		{"a foreign document retires nothing",
			[]Document{doc("a.lic"), doc("b.lic", id("L2"), supersedes("L1"), func(l *License) {
				l.Product = "other"
			})},
			want{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": ProductMismatch},
				warn: []WarningCode{WarnDocument}}},
		{"a document does not retire itself", []Document{doc("a.lic", supersedes("L1"))},
			want{code: Valid, inForce: []string{"a.lic"}, limit: 4}},
		{"the renewal waits as next", []Document{doc("a.lic", expires(60*aDay)),
			doc("b.lic", issued(0), starts(59*aDay), expires(400*aDay), streams(5))},
			want{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": NotYetValid},
				until: noon.Add(59 * aDay), covered: noon.Add(400 * aDay)}},
		{"a gap before the renewal",
			[]Document{doc("a.lic", expires(60*aDay)), doc("b.lic", issued(0), starts(61*aDay))},
			want{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": NotYetValid},
				until: noon.Add(60 * aDay), covered: noon.Add(60 * aDay)}},
		{"a broken document beside a good one", []Document{broken("0.lic", BadSignature), doc("a.lic")},
			want{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"0.lic": BadSignature},
				warn: []WarningCode{WarnDocument}}},
		{"the nearest to being good is the reason", []Document{broken("0.lic", Preparing), doc("a.lic", expires(-aDay)),
			doc("b.lic", id("L2"), func(l *License) {
				l.Revoked = true
			})},
			want{code: Expired, others: map[string]Code{"0.lic": Preparing, "b.lic": Revoked},
				warn: []WarningCode{WarnDocument}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			v := Judge(factsWith(row.docs...), noon)
			if v.Code != row.want.code {
				t.Fatalf("%s: %s; want %s", v.Code, v.Reason, row.want.code)
			}
			var inForce []string
			for i, j := range v.Licenses {
				if j.InForce {
					inForce = append(inForce, j.Document)
					if i >= len(inForce) {
						t.Error("what is in force does not come first")
					}
				}
			}
			if !slices.Equal(inForce, row.want.inForce) {
				t.Errorf("in force %v, want %v", inForce, row.want.inForce)
			}
			if v.Good() {
				wantLimit(t, v, "streams", row.want.limit, row.want.limit)
			}
			for name, code := range row.want.others {
				if j := judged(t, v, name); j.Code != code || j.InForce {
					t.Errorf("%s: %s (%s), want %s", name, j.Code, j.Reason, code)
				}
				if j := judged(t, v, name); j.Next != (code == NotYetValid) {
					t.Errorf("%s: next is %t", name, j.Next)
				}
			}
			var warnings []WarningCode
			for _, w := range v.Warnings {
				if !slices.Contains(warnings, w.Code) {
					warnings = append(warnings, w.Code)
				}
			}
			if !slices.Equal(warnings, row.want.warn) && (len(warnings) > 0 || len(row.want.warn) > 0) {
				t.Errorf("warnings %v, want %v", v.Warnings, row.want.warn)
			}
			if !v.Until.Equal(row.want.until) {
				t.Errorf("until %v, want %v", v.Until, row.want.until)
			}
			if !row.want.covered.IsZero() && !v.CoveredUntil.Equal(row.want.covered) {
				t.Errorf("covered until %v, want %v", v.CoveredUntil, row.want.covered)
			}
		})
	}
}

func TestScopeAndBudget(t *testing.T) {
	key := func(l *License) { l.AgentKeys = []string{"thumb-1"} }
	twoHosts := func(l *License) {
		l.Hosts = append(slices.Clone(l.Hosts), HostBinding{Components: map[string][]string{"mac": {"zz"}}})
	}
	pool := func(p PoolTerm) func(*License) {
		return func(l *License) { l.Pools = map[string]PoolTerm{"streams": p} }
	}
	one := func(change ...func(*License)) []Document { return []Document{doc("a.lic", change...)} }
	for _, row := range []struct {
		name    string
		docs    []Document
		budgets map[Share]Limit
		want    PoolGrant // name, unit and count_by left out
		shared  bool      // false: NotShared says why
		warn    WarningCode
	}{
		{"bound to this host: host scope", one(), nil, PoolGrant{Limit: 4, Budget: 4, Scope: ScopeHost}, true, ""},
		{"bound to no host: site scope, no budget", one(unbound), nil, PoolGrant{Limit: 4, Scope: ScopeSite}, false,
			WarnNotShared},
		{"bound to this agent's key alone", one(unbound, key), nil, PoolGrant{Limit: 4, Budget: 4, Scope: ScopeHost},
			true, ""},
		{"unbound with host scope", one(unbound, pool(PoolTerm{Max: 4, Scope: ScopeHost})), nil,
			PoolGrant{Limit: 4, Budget: 4, Scope: ScopeHost}, true, WarnNotBound},
		{"site scope on the one host", one(pool(PoolTerm{Max: 4, Scope: ScopeSite})), nil,
			PoolGrant{Limit: 4, Budget: 4, Scope: ScopeSite}, true, ""},
		{"site scope on the one key", one(unbound, key, pool(PoolTerm{Max: 4, Scope: ScopeSite})), nil,
			PoolGrant{Limit: 4, Budget: 4, Scope: ScopeSite}, true, ""},
		{"site scope on two hosts", one(twoHosts, pool(PoolTerm{Max: 4, Scope: ScopeSite})), nil,
			PoolGrant{Limit: 4, Scope: ScopeSite}, false, WarnNotShared},
		{"shared, though it names one host", one(pool(PoolTerm{Max: 4, Scope: ScopeShared})), nil,
			PoolGrant{Limit: 4, Scope: ScopeShared}, false, WarnNotShared},
		{"a share of what one host's licence shares", one(pool(PoolTerm{Max: 4, Scope: ScopeShared})),
			map[Share]Limit{{"usher/L1", "streams"}: 3}, PoolGrant{Limit: 4, Budget: 3, Scope: ScopeShared}, true, ""},
		{"host scope on two hosts", one(twoHosts), nil, PoolGrant{Limit: 4, Budget: 4, Scope: ScopeHost}, true, ""},
		{"a share of the site", one(unbound), map[Share]Limit{{"usher/L1", "streams"}: 3},
			PoolGrant{Limit: 4, Budget: 3, Scope: ScopeSite}, true, ""},
		{"a share beyond the licence", one(unbound), map[Share]Limit{{"usher/L1", "streams"}: 9},
			PoolGrant{Limit: 4, Budget: 4, Scope: ScopeSite}, true, ""},
		{"an unlimited share", one(unbound), map[Share]Limit{{"usher/L1", "streams"}: Unlimited},
			PoolGrant{Limit: 4, Budget: 4, Scope: ScopeSite}, true, ""},
		{"a share of another pool", one(unbound), map[Share]Limit{{"usher/L1", "seats"}: 3},
			PoolGrant{Limit: 4, Scope: ScopeSite}, false, WarnNotShared},
		{"overage is not for what is not shared", one(unbound, pool(PoolTerm{Max: 4, Overage: 2})), nil,
			PoolGrant{Limit: 4, Scope: ScopeSite}, false, WarnNotShared},
		{"nor where there is nothing but overage", one(unbound, pool(PoolTerm{Overage: 2})), nil,
			PoolGrant{Scope: ScopeSite}, false, WarnNotShared},
		{"overage on the one host", one(pool(PoolTerm{Max: 4, Overage: 2})), nil,
			PoolGrant{Limit: 4, Budget: 4, Overage: 2, Scope: ScopeHost}, true, ""},
		{"a share of the base and none of the add-on",
			[]Document{doc("a.lic", unbound), doc("b.lic", unbound, id("L2"), role(RoleAddOn))},
			map[Share]Limit{{"usher/L1", "streams"}: 3}, PoolGrant{Limit: 8, Budget: 3, Most: 4, Scope: ScopeSite},
			false, WarnNotShared},
		{"shares of base and add-on",
			[]Document{doc("a.lic", unbound), doc("b.lic", unbound, id("L2"), role(RoleAddOn))},
			map[Share]Limit{{"usher/L1", "streams"}: 3, {"usher/L2", "streams"}: 9},
			PoolGrant{Limit: 8, Budget: 7, Most: 8, Scope: ScopeSite}, true, ""},
		{"a share of another licence", one(unbound), map[Share]Limit{{"usher/L2", "streams"}: 3},
			PoolGrant{Limit: 4, Scope: ScopeSite}, false, WarnNotShared},
		{"a share of nothing yet", one(unbound), map[Share]Limit{{"usher/L1", "streams"}: 0},
			PoolGrant{Limit: 4, Most: 4, Scope: ScopeSite}, true, ""},
		{"an add-on for the site to a base for the host", []Document{doc("a.lic"),
			doc("b.lic", unbound, id("L2"), role(RoleAddOn), pool(PoolTerm{Max: 5, Overage: 3}))},
			nil, PoolGrant{Limit: 9, Budget: 4, Scope: ScopeHost}, false, WarnNotShared},
		{"a share of no limit", one(unbound, streams(Unlimited)), map[Share]Limit{{"usher/L1", "streams"}: 3},
			PoolGrant{Limit: Unlimited, Budget: 3, Scope: ScopeSite}, true, ""},
		{"a share has no overage of its own", one(unbound, pool(PoolTerm{Max: 4, Overage: 2})),
			map[Share]Limit{{"usher/L1", "streams"}: 3}, PoolGrant{Limit: 4, Budget: 3, Scope: ScopeSite}, true, ""},
		{"a share that reaches into the overage", one(unbound, pool(PoolTerm{Max: 4, Overage: 2})),
			map[Share]Limit{{"usher/L1", "streams"}: 5}, PoolGrant{Limit: 4, Budget: 4, Overage: 1, Scope: ScopeSite},
			true, ""},
		{"no limit needs no share", one(unbound, streams(Unlimited)), nil,
			PoolGrant{Limit: Unlimited, Budget: Unlimited, Scope: ScopeSite}, true, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := factsWith(row.docs...)
			f.Budgets = row.budgets
			v := Judge(f, noon)
			g := v.Pools["streams"]
			if (g.NotShared == "") != row.shared {
				t.Errorf("not shared: %q", g.NotShared)
			}
			g.Name, g.Unit, g.CountBy, g.NotShared = "", "", "", ""
			if row.want.Most == 0 {
				g.Most = 0
			}
			if g != row.want {
				t.Errorf("%+v, want %+v", g, row.want)
			}
			for _, w := range []WarningCode{WarnNotBound, WarnNotShared} {
				if got := warned(v, w); (len(got) > 0) != (w == row.warn) {
					t.Errorf("%s: %v", w, got)
				}
			}
			// A meter of the same terms has the same budget.
			for i, d := range f.Documents {
				l := *d.License
				l.Meters = map[string]MeterTerm{}
				for name, p := range l.Pools {
					l.Meters[name] = MeterTerm{Max: p.Max, Overage: p.Overage, Scope: p.Scope}
				}
				l.Pools = nil
				f.Documents[i].License = &l
			}
			m := Judge(f, noon).Meters["streams"]
			if (m.NotShared == "") != row.shared {
				t.Errorf("meter not shared: %q", m.NotShared)
			}
			if m.NotShared, m.Key, m.Former, m.Parts, m.Most = "", "", "", nil,
				0; !m.equal(MeterGrant{Name: "streams", Limit: row.want.Limit, Overage: row.want.Overage,
				Budget: row.want.Budget, Scope: row.want.Scope}) {
				t.Errorf("as a meter: %+v", m)
			}
		})
	}
}

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

// TestStaleDocument: what stood there before counts on until its own end, and the broken replacement is a warning.
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

func TestLimits(t *testing.T) {
	const most = Limit(1<<63 - 1)
	for _, row := range []struct{ a, b, plus, least Limit }{
		{1, 2, 3, 1}, {0, 0, 0, 0}, {Unlimited, 5, Unlimited, 5}, {5, Unlimited, Unlimited, 5},
		{Unlimited, Unlimited, Unlimited, Unlimited},
		{most, 1, most, 1}, {most, most, most, most},
	} {
		if got := row.a.Plus(row.b); got != row.plus {
			t.Errorf("%s + %s = %s", row.a, row.b, got)
		}
		if got := row.a.Min(row.b); got != row.least {
			t.Errorf("the least of %s and %s is %s", row.a, row.b, got)
		}
	}
	if fmt.Sprint(Unlimited) != "unlimited" || Unlimited.Covers(1<<62) != true || Limit(3).Covers(4) {
		t.Error("Unlimited covers all, and 3 does not cover 4")
	}
}

func TestPeriod(t *testing.T) {
	at := func(s string) time.Time {
		t.Helper()
		out, err := time.Parse(time.DateTime, s)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, row := range []struct {
		p          Period
		from, want string
		words      string
	}{
		{Period{Every: 10 * time.Minute}, "2026-01-31 12:00:00", "2026-01-31 12:10:00", "10m0s"},
		{Period{Every: 7 * aDay}, "2026-02-25 12:00:00", "2026-03-04 12:00:00", "7 days"},
		{Period{Months: 1}, "2026-01-31 12:00:00", "2026-02-28 12:00:00", "1 month"},
		{Period{Months: 1}, "2026-02-28 12:00:00", "2026-03-28 12:00:00", "1 month"},
		{Period{Months: 12}, "2028-02-29 00:00:00", "2029-02-28 00:00:00", "1 year"},
		{Period{Months: 48}, "2028-02-29 00:00:00", "2032-02-29 00:00:00", "4 years"},
		{Period{Months: 3}, "2026-12-31 23:59:59", "2027-03-31 23:59:59", "3 months"},
	} {
		if got := row.p.After(at(row.from)); !got.Equal(at(row.want)) || row.p.String() != row.words {
			t.Errorf("%s after %s is %v, want %s (%s)", row.p, row.from, got, row.want, row.words)
		}
	}
}
