package enforcer

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Few values for each fact, so that they often meet.
var (
	someLimits = []Limit{0, 1, 2, 5, Unlimited, 1<<63 - 1}
	someTimes  = []time.Duration{-40 * aDay, -aDay, -time.Hour, 0, time.Hour, aDay, 7 * aDay, 20 * aDay, 31 * aDay}
	someSpans  = []time.Duration{0, time.Hour, aDay, 9 * aDay}
)

func pick[T any](t *rapid.T, label string, from ...T) T {
	return rapid.SampledFrom(from).Draw(t, label)
}

// seldom is true in one of ten cases: what spoils a licence must be rare, or none would be good.
func seldom(t *rapid.T, label string) bool { return rapid.IntRange(0, 9).Draw(t, label) == 0 }

func genLicense(t *rapid.T) *License {
	at := func(label string) time.Time {
		if rapid.Bool().Draw(t, label) {
			return time.Time{}
		}
		return noon.Add(pick(t, label, someTimes...))
	}
	l := &License{
		ID: pick(t, "id", "L1", "L2", "L3"), System: pick(t, "system", "usher", "usher", "other"), KeyID: "k",
		Product: "acme",
		Issued:  noon.Add(pick(t, "issued", -30*aDay, -2*aDay, -time.Hour)), NotBefore: at("not before"),
		Expires:     at("expires"),
		Role:        pick(t, "role", "", RoleBase, RoleBase, RoleAddOn, RoleAddOn, RoleFree),
		Environment: pick(t, "environment", "", Production, Test),
		Grace:       pick(t, "grace", someSpans...), OnExpiry: pick(t, "on expiry", "", Drain, Revoke, Keep),
		MaxBorrow: pick(t, "max borrow", someSpans...),
		Clock:     pick(t, "clock", "", ClockLenient, ClockStrict), SystemCode: pick(t, "system code", "", "OK"),
	}
	if seldom(t, "another product") {
		l.Product = "other"
	}
	l.Revoked, l.Suspended = seldom(t, "revoked"), seldom(t, "suspended")
	if seldom(t, "supersedes") {
		l.Supersedes = []string{pick(t, "superseded", "L1", "L2", "L3")}
	}
	if l.Role == RoleAddOn && rapid.Bool().Draw(t, "to one") {
		l.AddOnTo = pick(t, "to", "L1", "L2")
	}
	binding := func(values ...string) HostBinding {
		return HostBinding{Components: map[string][]string{"mac": {values[0]}, "disk": {values[1]}},
			Strategy: pick(t, "strategy", "", MatchAny, MatchTwo, MatchMost, MatchAll)}
	}
	switch rapid.IntRange(0, 5).Draw(t, "binding") {
	case 0, 1, 2:
		l.Hosts = []HostBinding{binding("aa", "bb")}
	case 3:
		l.Hosts = []HostBinding{binding("aa", "zz"), binding("aa", "bb")}
	case 4:
		l.AgentKeys = []string{"thumb-1"}
	}
	if seldom(t, "another key") {
		l.AgentKeys = []string{"thumb-9"}
	}
	if rapid.Bool().Draw(t, "duties") {
		l.Heartbeat = Period{Every: pick(t, "heartbeat", someSpans...), Grace: pick(t, "heartbeat grace", someSpans...)}
		l.CheckIn = Period{Every: pick(t, "check-in", someSpans...), Grace: pick(t, "check-in grace", someSpans...)}
	}
	if rapid.Bool().Draw(t, "further duties") {
		l.CheckIn.Months = pick(t, "months", 0, 1, 12)
		l.Activation = Activation{Required: rapid.Bool().Draw(t, "activation"),
			Grace: pick(t, "activation grace", someSpans...)}
		l.Emergency = Emergency{Length: pick(t, "emergency", someSpans...), PerYear: pick(t, "per year", 0, 1, 2)}
	}
	if seldom(t, "trial") {
		l.Trial = pick(t, "length of the trial", someSpans...)
	}
	if seldom(t, "notice") {
		l.Role, l.Revokes = RoleNotice, []string{pick(t, "revokes", "L1", "L2", "L3")}
	}
	l.Pools, l.Meters = map[string]PoolTerm{}, map[string]MeterTerm{}
	for _, name := range []string{"streams", "seats"} {
		if rapid.Bool().Draw(t, name) {
			l.Pools[name] = PoolTerm{Max: pick(t, "max", someLimits...), Overage: pick(t, "overage", 0, 0, Limit(2)),
				Unit:  pick(t, "unit", "", "stream"),
				Scope: pick(t, "scope", "", ScopeHost, ScopeSite),
				CountBy: pick(t, "count by", "", CountLease, CountUser, CountHost, CountPod, CountProcess,
					"user/2", "pod+label:x")}
		}
	}
	if rapid.Bool().Draw(t, "meter") {
		l.Meters["pages"] = MeterTerm{Max: pick(t, "draws", someLimits...), Overage: pick(t, "overdraw", 0, Limit(2)),
			Resets: pick(t, "resets", ResetsNever, ResetsMonthly)}
	}
	if rapid.Bool().Draw(t, "feature") {
		l.Features = map[string]Value{"tier": pick(t, "tier", Value{Kind: KindText, Text: "gold"},
			Value{Kind: KindBool, Bool: true}, Value{Kind: KindNumber, Number: 3})}
	}
	return l
}

// someRefs name the licences of the documents that are drawn.
var someRefs = []Ref{"usher/L1", "usher/L2", "usher/L3", "usher:test/L1", "usher:test/L2", "other/L1", "other/L2",
	"other:test/L1"}

func genFacts(t *rapid.T) Facts {
	f := Facts{Products: []string{"acme"}, AgentKey: "thumb-1", Upstream: map[Ref]Upstream{}, Seen: map[Ref]time.Time{},
		Emergencies: map[Ref][]time.Time{},
		Host: Host{Components: map[string][]string{"mac": {"aa"}, "disk": {pick(t, "disk", "bb", "bb", "cc")}},
			Physical: 4}}
	for i := range rapid.IntRange(0, 5).Draw(t, "documents") {
		name := fmt.Sprintf("%d.lic", i)
		if seldom(t, "broken") {
			f.Documents = append(f.Documents,
				broken(name, pick(t, "problem", BadSignature, Malformed, Unavailable, Preparing)))
			continue
		}
		d := Document{Name: name, License: genLicense(t)}
		if seldom(t, "stale") {
			d.Problem = &Problem{Code: Malformed, Reason: name + " is cut short", Stale: true}
		}
		f.Documents = append(f.Documents, d)
	}
	for _, id := range someRefs {
		if rapid.Bool().Draw(t, "upstream") {
			u := Upstream{LastHeartbeat: noon.Add(-pick(t, "last heartbeat", someSpans...)),
				LastCheckIn: noon.Add(-pick(t, "last check-in", someSpans...))}
			if rapid.Bool().Draw(t, "activated") {
				u.Activated = noon.Add(-pick(t, "activation", someSpans...))
			}
			if seldom(t, "asleep") {
				u.Asleep, u.HoldUntil = pick(t, "for how long", someSpans...), noon.Add(pick(t, "hold", someTimes...))
			}
			if seldom(t, "refused") {
				u.Refused = pick(t, "refusal", Suspended, Expired, Revoked, Unavailable, Unavailable)
				u.Paused = u.Refused == Unavailable && rapid.Bool().Draw(t, "paused")
			}
			if seldom(t, "failing") {
				u.Failing = Failing{Class: "transient", Reason: "no route", Since: noon}
			}
			f.Upstream[id] = u
		}
		if rapid.Bool().Draw(t, "seen") {
			f.Seen[id] = noon.Add(-pick(t, "seen at", someSpans...))
		}
		for at := noon; rapid.Bool().Draw(t, "emergency") && len(f.Emergencies[id]) < 4; {
			at = at.Add(pick(t, "begun", someTimes...))
			f.Emergencies[id] = append(f.Emergencies[id], at)
		}
		slices.SortFunc(f.Emergencies[id], time.Time.Compare)
	}
	if rapid.Bool().Draw(t, "budget") {
		f.Budgets = map[Share]Limit{{pick(t, "of licence", someRefs...), "streams"}: pick(t, "share", someLimits...)}
	}
	if seldom(t, "clock behind") {
		f.Clock = Clock{Behind: time.Hour, BehindSince: noon.Add(pick(t, "behind since", someSpans...))}
	}
	if rapid.Bool().Draw(t, "narrowed") {
		f.Narrowing = genNarrowing(t)
	}
	return f
}

func genNarrowing(t *rapid.T) Narrowing {
	n := Narrowing{OnExpiry: pick(t, "narrow on expiry", "", Drain, Revoke, Keep),
		Strategy: pick(t, "narrow strategy", "", MatchAny, MatchTwo, MatchMost, MatchAll),
		Clock:    pick(t, "narrow clock", "", ClockLenient, ClockStrict), NoOverage: rapid.Bool().Draw(t, "no overage"),
		CountBy:           pick(t, "narrow count by", "", CountLease, CountProcess, CountUser, CountPod, CountHost),
		RequireProduction: seldom(t, "require production")}
	if rapid.Bool().Draw(t, "narrow grace") {
		d := pick(t, "narrowed grace", someSpans...)
		n.Grace = &d
	}
	if rapid.Bool().Draw(t, "narrow borrow") {
		d := pick(t, "narrowed borrow", someSpans...)
		n.MaxBorrow = &d
	}
	return n
}

func genNow(t *rapid.T) time.Time { return noon.Add(pick(t, "now", someTimes...)) }

// permits is what of a verdict must stay as it is until Until.
type permits struct {
	State    State
	Code     Code
	OnExpiry OnExpiry
	Env      Environment
	Base     string
	Pools    map[string]PoolGrant
	Meters   map[string]MeterGrant
	Features map[string]Value
	Versions []VersionCover
}

func permitted(v *Verdict) permits {
	p := permits{v.State, v.Code, v.OnExpiry, v.Environment, "", v.Pools, v.Meters, v.Features,
		slices.Clone(v.Versions)}
	if len(v.Licenses) > 0 && v.Licenses[0].InForce {
		p.Base = v.Licenses[0].Document
	}
	return p
}

// TestJudgeIsPure: the same facts give the same verdict, in whatever order the documents are read, and stay as they
// are.
func TestJudgeIsPure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, now := genFacts(t), genNow(t)
		var before []License
		for _, d := range f.Documents {
			if d.License != nil {
				l := *d.License
				l.Pools, l.Meters = maps.Clone(l.Pools), maps.Clone(l.Meters)
				before = append(before, l)
			}
		}
		v := Judge(f, now)
		if again := Judge(f, now); !reflect.DeepEqual(v, again) {
			t.Fatalf("judged twice, two verdicts:\n%+v\n%+v", v, again)
		}
		shuffled := f
		shuffled.Documents = rapid.Permutation(f.Documents).Draw(t, "order")
		if again := Judge(shuffled, now); !reflect.DeepEqual(v, again) {
			t.Fatalf("in another order, another verdict:\n%+v\n%+v", v, again)
		}
		for _, d := range f.Documents {
			if d.License != nil {
				if !reflect.DeepEqual(before[0], *d.License) {
					t.Fatalf("licence %s has been changed", d.Name)
				}
				before = before[1:]
			}
		}
	})
}

// TestUntilIsExact: nothing that is permitted changes before Until, and something does at Until; no warning changes
// before JudgeAgainAt; HoldsUntil is the first instant that is not good.
func TestUntilIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, now := genFacts(t), genNow(t)
		v := Judge(f, now)
		const horizon = 800 * aDay // beyond every instant that is drawn
		end := v.Until
		if end.IsZero() {
			end = now.Add(horizon)
		}
		if !end.After(now) {
			t.Fatalf("judged at %v, until %v", now, v.Until)
		}
		between := func(label string, end time.Time) time.Time {
			return now.Add(time.Duration(rapid.Int64Range(0, int64(end.Sub(now)-1)).Draw(t, label)))
		}
		for _, at := range []time.Time{between("between", end), end.Add(-1)} {
			if w := Judge(f, at); !reflect.DeepEqual(permitted(v), permitted(w)) {
				t.Fatalf("until %v, but at %v:\n%+v\n%+v", v.Until, at, permitted(v), permitted(w))
			} else if !w.Until.Equal(v.Until) {
				t.Fatalf("at %v until %v; at %v until %v", now, v.Until, at, w.Until)
			}
		}
		if !v.Until.IsZero() {
			if w := Judge(f, v.Until); reflect.DeepEqual(permitted(v), permitted(w)) {
				t.Fatalf("nothing changes at %v: %+v", v.Until, permitted(w))
			}
		}
		if again := cmp.Or(v.JudgeAgainAt, end); again.After(end) {
			t.Fatalf("until %v, judged again at %v", v.Until, v.JudgeAgainAt)
		} else if w := Judge(f, again.Add(-1)); again.Add(-1).After(now) && !slices.Equal(v.Warnings, w.Warnings) {
			t.Fatalf("judged again at %v, but the warnings change before:\n%v\n%v", again, v.Warnings, w.Warnings)
		}
		if v.Good() {
			holds := v.HoldsUntil
			if holds.IsZero() {
				holds = now.Add(horizon)
			} else if Judge(f, holds).Good() {
				t.Fatalf("holds until %v, and good at that instant", holds)
			}
			for _, at := range []time.Time{between("holds", holds), holds.Add(-1)} {
				if !Judge(f, at).Good() {
					t.Fatalf("holds until %v, and not good at %v", v.HoldsUntil, at)
				}
			}
		} else if !v.HoldsUntil.IsZero() {
			t.Fatalf("not good, and holds until %v", v.HoldsUntil)
		}
	})
}

// TestBrokenWorsensNothing: a document without terms changes nothing that another one permits, nor the reason where
// another document says one.
func TestBrokenWorsensNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, now := genFacts(t), genNow(t)
		v := Judge(f, now)
		more := f
		more.Documents = append(slices.Clone(f.Documents), broken(pick(t, "name", "0.a", "9.z"),
			pick(t, "code", Malformed, UntrustedKey, BadSignature, Unavailable, Preparing, NotFound)))
		w := Judge(more, now)
		hasTerms := slices.ContainsFunc(f.Documents, func(d Document) bool {
			return d.License != nil && orDefault(d.License.Role, RoleBase) == RoleBase
		})
		if (v.Good() || hasTerms) && !reflect.DeepEqual(permitted(v), permitted(w)) {
			t.Fatalf("without the broken document\n%+v\nwith it\n%+v", permitted(v), permitted(w))
		}
		if w.Good() != v.Good() || !w.Until.Equal(v.Until) && v.Good() || !w.CoveredUntil.Equal(v.CoveredUntil) {
			t.Fatalf("good %t until %v; with the broken document good %t until %v", v.Good(), v.Until, w.Good(),
				w.Until)
		}
	})
}

// TestGraceSoftensOnlyTime: what no grace may cure stays bad however long the graces are.
func TestGraceSoftensOnlyTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, now := genFacts(t), genNow(t)
		f.Narrowing.Grace = nil
		for i, d := range f.Documents {
			if d.License != nil {
				l := *d.License
				l.Grace, l.Heartbeat.Grace, l.CheckIn.Grace, l.Activation.Grace = 1000*aDay, 1000*aDay, 1000*aDay,
					1000*aDay
				l.Emergency = Emergency{1000 * aDay, 10}
				f.Documents[i].License = &l
			}
		}
		v := Judge(f, now)
		for _, j := range v.Licenses {
			for _, x := range j.Findings {
				if x.Code.State() == StateValid && len(j.Findings) > 1 &&
					slices.ContainsFunc(j.Findings, func(y Finding) bool {
						return y.Code.State() != StateValid
					}) {
					t.Fatalf("%s: %v", j.Document, j.Findings)
				}
			}
			l := j.License
			if l == nil || j.Code.State() != StateValid {
				if j.InForce {
					t.Fatalf("%s is in force: %s", j.Document, j.Code)
				}
				continue
			}
			if l.Revoked || l.Suspended || l.Product != "acme" || j.Match.Bound && !j.Match.OK ||
				f.Upstream[l.Ref()].Refused != "" && !(f.Upstream[l.Ref()].Paused && j.Role != RoleAddOn) ||
				len(l.AgentKeys) > 0 && !slices.Contains(l.AgentKeys, "thumb-1") ||
				j.Problem != nil && !j.Problem.Stale || now.Before(l.NotBefore) {
				t.Fatalf("%s is good: %+v", j.Document, l)
			}
		}
	})
}

// TestLimitsAreSums: what is granted is one base and its add-ons, never more; and never more of a site's pool than the
// share.
func TestLimitsAreSums(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, now := genFacts(t), genNow(t)
		v := Judge(f, now)
		limits, overages := map[string]Limit{}, map[string]Limit{}
		bases, ids := 0, map[string]bool{}
		for i, j := range v.Licenses {
			if !j.InForce {
				continue
			}
			if j.Role != RoleAddOn {
				if bases++; i != 0 {
					t.Fatal("the base does not come first")
				}
			} else if j.License.AddOnTo != "" && j.License.AddOnTo != v.Licenses[0].License.ID {
				t.Fatalf("%s adds to %s", j.Document, j.License.AddOnTo)
			}
			if j.License.IsTest() && v.Environment == Production {
				t.Fatalf("%s is for tests, and the verdict is for production", j.Document)
			}
			if key := string(j.License.Ref()); ids[key] {
				t.Fatalf("licence %s counts twice", key)
			} else {
				ids[key] = true
			}
			for name, p := range j.License.Pools {
				limits[name], overages[name] = limits[name].Plus(p.Max), overages[name].Plus(p.Overage)
			}
			for name, m := range j.License.Meters {
				limits[name], overages[name] = limits[name].Plus(m.Max), overages[name].Plus(m.Overage)
			}
		}
		if v.Good() && f.Upstream[v.Licenses[0].License.Ref()].Paused != (v.Paused != "") ||
			!v.Good() && v.Paused != "" {
			t.Fatalf("%s: nothing new because %q", v.Code, v.Paused)
		}
		if v.Good() && bases != 1 || !v.Good() && len(ids) > 0 {
			t.Fatalf("%s: %d bases, %d documents in force", v.Code, bases, len(ids))
		}
		check := func(name string, limit, budget, overage Limit) {
			if limit != limits[name] || budget.Min(limit) != budget || overage.Min(overages[name]) != overage {
				t.Fatalf("%s: limit %s, budget %s, overage %s; the documents say %s and %s", name, limit, budget,
					overage, limits[name], overages[name])
			}
			share, allSite := Limit(0), true
			for _, j := range v.Licenses {
				if j.InForce {
					p, has := j.License.Pools[name]
					m, meter := j.License.Meters[name]
					named := len(j.License.Hosts) + len(j.License.AgentKeys)
					switch mine, ok := f.Budgets[Share{j.License.Ref(), name}]; {
					case ok:
						share = share.Plus(mine)
					case has && p.Max == Unlimited, meter && m.Max == Unlimited:
						share = Unlimited
					}
					allSite = allSite && (!has && !meter ||
						j.License.PoolScope(p.Scope) == ScopeSite && j.License.PoolScope(m.Scope) == ScopeSite &&
							named == 0)
				}
			}
			if total := budget.Plus(overage); allSite && total.Min(share) != total {
				t.Fatalf("%s: %s may be handed out of a share of %s", name, total, share)
			}
		}
		for name, g := range v.Pools {
			check(name, g.Limit, g.Budget, g.Overage)
			if now, total := g.Budget.Plus(g.Overage), g.Limit.Plus(overages[name]); now.Min(g.Most) != now ||
				g.Most.Min(total) != g.Most {
				t.Fatalf("%s: %s may be handed out, at most %s, of %s", name, now, g.Most, total)
			}
		}
		for name, g := range v.Meters {
			check(name, g.Limit, g.Budget, g.Overage)
		}
	})
}
