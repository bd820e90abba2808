package enforcer

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestNarrow(t *testing.T) {
	span := func(d time.Duration) *time.Duration { return &d }
	signed := func() *License {
		return &License{ID: "L1", Grace: aDay, MaxBorrow: aDay, OnExpiry: Drain, Clock: ClockStrict,
			Pools:  map[string]PoolTerm{"streams": {Max: 4, Overage: 2, CountBy: CountUser}},
			Meters: map[string]MeterTerm{"pages": {Max: 9, Overage: 3}},
			Hosts:  []HostBinding{{Strategy: MatchTwo}}}
	}
	pool := func(l *License, change func(*PoolTerm)) {
		p := l.Pools["streams"]
		change(&p)
		l.Pools["streams"] = p
	}
	for _, row := range []struct {
		name    string
		n       Narrowing
		change  func(*License) // from what is signed to what holds; nil: nothing
		ignored string         // a fragment of the sentence; empty: none
	}{
		{"nothing configured", Narrowing{}, nil, ""},
		{"shorter grace", Narrowing{Grace: span(time.Hour)}, func(l *License) { l.Grace = time.Hour }, ""},
		{"no grace", Narrowing{Grace: span(0)}, func(l *License) { l.Grace = 0 }, ""},
		{"the same grace", Narrowing{Grace: span(aDay)}, nil, ""},
		{"longer grace", Narrowing{Grace: span(aDay + 1)}, nil,
			"license.grace: 1 day 0.000000001 seconds would widen licence L1, which says 1 day"},
		{"shorter borrow", Narrowing{MaxBorrow: span(time.Hour)}, func(l *License) { l.MaxBorrow = time.Hour }, ""},
		{"longer borrow", Narrowing{MaxBorrow: span(2 * aDay)}, nil, "license.max_borrow"},
		{"revoke for drain", Narrowing{OnExpiry: Revoke}, func(l *License) { l.OnExpiry = Revoke }, ""},
		{"keep for drain", Narrowing{OnExpiry: Keep}, nil, "license.on_expiry: keep would widen"},
		{"an unknown word", Narrowing{OnExpiry: "perhaps"}, nil, "license.on_expiry"},
		{"a lenient clock for a strict one", Narrowing{Clock: ClockLenient}, nil, "license.clock"},
		{"a strict clock", Narrowing{Clock: ClockStrict}, nil, ""},
		{"no overage", Narrowing{NoOverage: true}, func(l *License) {
			pool(l, func(p *PoolTerm) { p.Overage = 0 })
			l.Meters["pages"] = MeterTerm{Max: 9}
		}, ""},
		{"each lease for each user", Narrowing{CountBy: CountLease}, func(l *License) {
			pool(l, func(p *PoolTerm) { p.CountBy = CountLease })
		}, ""},
		{"each host for each user", Narrowing{CountBy: CountHost}, nil,
			"license.count_by: host would widen licence L1, which says user for streams"},
		{"two leases in one use", Narrowing{CountBy: "user+host/2"}, func(l *License) {
			pool(l, func(p *PoolTerm) { p.CountBy = "user+host/2" })
		}, ""},
		{"a claim for each user", Narrowing{CountBy: "label:session/2"}, nil,
			"license.count_by: label:session/2 would widen licence L1, which says user for streams"},
		{"a stricter match", Narrowing{Strategy: MatchAll}, nil, ""},
		{"a looser match", Narrowing{Strategy: MatchAny}, nil,
			"license.strategy: any would widen licence L1, which says two"},
	} {
		t.Run(row.name, func(t *testing.T) {
			l, want := signed(), signed()
			if row.change != nil {
				row.change(want)
			}
			got, ignored := Narrow(l, row.n)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%+v, want %+v", got, want)
			}
			if row.ignored == "" && len(ignored) > 0 ||
				row.ignored != "" && (len(ignored) != 1 || !strings.Contains(ignored[0], row.ignored)) {
				t.Errorf("ignored %q, want %q", ignored, row.ignored)
			}
			if !reflect.DeepEqual(l, signed()) {
				t.Error("the licence that was given has been changed")
			}
		})
	}
}

// TestNarrowDefaults: the zero values of a licence are as strict as what they stand for.
func TestNarrowDefaults(t *testing.T) {
	l := &License{ID: "L1", Pools: map[string]PoolTerm{"streams": {Max: 4}}, Hosts: []HostBinding{{}}}
	got, ignored := Narrow(l, Narrowing{OnExpiry: Keep, CountBy: CountProcess, Strategy: MatchTwo, Clock: ClockLenient})
	if len(ignored) != 3 || got.OnExpiry != "" || got.Pools["streams"].CountBy != "" {
		t.Errorf("drain, lease and most are what an empty licence says: %+v, ignored %q", got, ignored)
	}
}

// TestNarrowNeverWidens: whatever is configured, no term gets looser.
func TestNarrowNeverWidens(t *testing.T) {
	expiry := []OnExpiry{Keep, Drain, Revoke}
	count := []CountBy{CountHost, CountUser, CountPod, CountProcess, CountLease}
	rapid.Check(t, func(t *rapid.T) {
		l, n := genLicense(t), genNarrowing(t)
		got, _ := Narrow(l, n)
		if got.Grace > l.Grace || got.MaxBorrow > l.MaxBorrow {
			t.Fatalf("grace %s of %s, borrow %s of %s", got.Grace, l.Grace, got.MaxBorrow, l.MaxBorrow)
		}
		if slices.Index(expiry, orDefault(got.OnExpiry, Drain)) < slices.Index(expiry, orDefault(l.OnExpiry, Drain)) {
			t.Fatalf("on_expiry %s of %s", got.OnExpiry, l.OnExpiry)
		}
		if l.Clock == ClockStrict && got.Clock != ClockStrict {
			t.Fatalf("clock %s of %s", got.Clock, l.Clock)
		}
		if len(got.Pools) != len(l.Pools) || len(got.Meters) != len(l.Meters) {
			t.Fatal("a pool has come or gone")
		}
		for name, was := range l.Pools {
			p := got.Pools[name]
			if p.Max != was.Max || p.Overage > was.Overage || p.Scope != was.Scope ||
				slices.Index(count, orDefault(p.CountBy, CountLease)) <
					slices.Index(count, orDefault(was.CountBy, CountLease)) {
				t.Fatalf("%s: %+v of %+v", name, p, was)
			}
		}
		for name, was := range l.Meters {
			if m := got.Meters[name]; m.Max != was.Max || m.Overage > was.Overage || m.Resets != was.Resets {
				t.Fatalf("%s: %+v of %+v", name, m, was)
			}
		}
		// Narrowing what is narrow already changes nothing.
		if again, _ := Narrow(got, n); !reflect.DeepEqual(again, got) {
			t.Fatalf("narrowed twice: %+v, once: %+v", again, got)
		}
		// Nor does it make a host match that did not.
		host := Host{Components: map[string][]string{"mac": {pick(t, "mac", "aa", "zz")},
			"disk": {pick(t, "disk", "bb", "zz")}}}
		if matchHosts(l, n.Strategy, host).OK && !matchHosts(l, "", host).OK {
			t.Fatalf("strategy %s makes a host match that the licence says does not", n.Strategy)
		}
	})
}
