package enforcer

import (
	"slices"
	"testing"
)

// scopeRow is a licence with what is granted to this agent of what it shares, and the grant.
type scopeRow struct {
	name    string
	docs    []Document
	budgets map[Share]Limit
	want    PoolGrant // name, unit and count_by left out
	shared  bool      // false: NotShared says why
	warn    WarningCode
}

func scopeRows() []scopeRow {
	key := func(l *License) { l.AgentKeys = []string{"thumb-1"} }
	twoHosts := func(l *License) {
		l.Hosts = append(slices.Clone(l.Hosts), HostBinding{Components: map[string][]string{"mac": {"zz"}}})
	}
	pool := func(p PoolTerm) func(*License) {
		return func(l *License) { l.Pools = map[string]PoolTerm{"streams": p} }
	}
	one := func(change ...func(*License)) []Document { return []Document{doc("a.lic", change...)} }
	return []scopeRow{
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
	}
}

func TestScopeAndBudget(t *testing.T) {
	for _, row := range scopeRows() {
		t.Run(row.name, func(t *testing.T) {
			f := factsWith(row.docs...)
			f.Budgets = row.budgets
			row.checkPool(t, Judge(f, noon))
			row.checkMeter(t, f)
		})
	}
}

func (row scopeRow) checkPool(t *testing.T, v *Verdict) {
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
}

// checkMeter checks that a meter of the same terms has the same budget.
func (row scopeRow) checkMeter(t *testing.T, f Facts) {
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
}
