package enforcer

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// codeRow is a set of facts and the verdict on them.
type codeRow struct {
	name   string
	facts  Facts
	code   Code
	reason string    // a fragment
	until  time.Time // zero: never
}

// never is the end of what does not change by itself.
var never time.Time

func upstream(u Upstream, change ...func(*License)) Facts {
	f := factsWith(doc("a.lic", change...))
	f.Upstream = map[Ref]Upstream{"usher/L1": u}
	return f
}

func with(f Facts, change func(*Facts)) Facts {
	change(&f)
	return f
}

func heartbeat(l *License) { l.Heartbeat = Period{Every: time.Hour, Grace: 10 * time.Minute} }

func checkIn(l *License) {
	l.CheckIn, l.Issued = Period{Every: 7 * aDay, Grace: aDay}, noon.Add(-30*aDay)
}

func strict(l *License) { l.Clock = ClockStrict }

func activation(grace time.Duration) func(*License) {
	return func(l *License) { l.Activation = Activation{Required: true, Grace: grace} }
}

func onTrial(l *License) { l.Trial, l.AgentKeys = 7*aDay, []string{"thumb-1"} }

func breakGlass(l *License) { l.Emergency = Emergency{Length: 72 * time.Hour, PerYear: 2} }

func seen(ago time.Duration) func(*Facts) {
	return func(f *Facts) { f.Seen = map[Ref]time.Time{"usher/L1": noon.Add(ago)} }
}

func emergencies(ago ...time.Duration) func(*Facts) {
	return func(f *Facts) {
		f.Emergencies = map[Ref][]time.Time{}
		for _, a := range ago {
			f.Emergencies["usher/L1"] = append(f.Emergencies["usher/L1"], noon.Add(a))
		}
	}
}

// codeRows has at least one row for every code.
func codeRows() []codeRow {
	return slices.Concat(termRows(), documentRows(), upstreamRows(), trialRows(), hostRows(), productRows(),
		clockRows())
}

// termRows are of when a licence begins and ends.
func termRows() []codeRow {
	return []codeRow{
		{"perpetual", factsWith(doc("a.lic")), Valid, "licence L1 (a.lic) is valid and never expires", never},
		{"until its expiry", factsWith(doc("a.lic", expires(100*aDay))), Valid, "valid until 2026-04-15 12:00 UTC",
			noon.Add(100 * aDay)},
		{"until its grace", factsWith(doc("a.lic", expires(aDay), grace(aDay))), Valid, "valid until", noon.Add(aDay)},
		{"in grace", factsWith(doc("a.lic", expires(-aDay), grace(3*aDay))), ValidInGrace,
			"its grace ends at 2026-01-07 12:00 UTC; install a renewed one", noon.Add(2 * aDay)},
		{"the instant of expiry", factsWith(doc("a.lic", expires(0))), Expired,
			"it expired at 2026-01-05 12:00 UTC; install a renewed one", never},
		{"a nanosecond before", factsWith(doc("a.lic", expires(1))), Valid, "", noon.Add(1)},
		{"the end of grace", factsWith(doc("a.lic", expires(-aDay), grace(aDay))), Expired, "it expired at", never},
		{"starts later", factsWith(doc("a.lic", starts(aDay))), NotYetValid, "it is good from 2026-01-06 12:00 UTC on",
			noon.Add(aDay)},
		{"the instant of its start", factsWith(doc("a.lic", starts(0))), Valid, "", never},
	}
}

// documentRows are of documents that are missing, broken or replaced.
func documentRows() []codeRow {
	return []codeRow{
		{"no document", factsWith(), NotFound, "usher license install FILE", never},
		{"a link to nothing", factsWith(broken("a.lic", NotFound)), NotFound, "a.lic is of no use", never},
		{"an add-on alone", factsWith(doc("a.lic", role(RoleAddOn))), NotFound,
			"adds to another licence, and none is in force", never},
		{"malformed", factsWith(broken("a.lic", Malformed)), Malformed, "a.lic is of no use", never},
		{"unreadable versions", factsWith(doc("a.lic", func(l *License) {
			l.Versions = "newest"
		})), Malformed, "its versions \"newest\" cannot be read", never},
		{"bad signature", factsWith(broken("a.lic", BadSignature)), BadSignature, "a.lic is of no use", never},
		{"untrusted key", factsWith(broken("a.lic", UntrustedKey)), UntrustedKey, "a.lic is of no use", never},
		{"unavailable", factsWith(broken("a.lic", Unavailable)), Unavailable, "a.lic is of no use", never},
		{"never read", factsWith(Document{Name: "a.lic"}), Unavailable, "it has not been read", never},
		{"preparing", factsWith(broken("a.lic", Preparing)), Preparing, "a.lic is of no use", never},
		{"a problem outweighs terms", factsWith(Document{Name: "a.lic", License: terms(),
			Problem: &Problem{Code: BadSignature, Reason: "forged"}}), BadSignature, "forged", never},
		{"superseded by a later start", factsWith(doc("a.lic"),
			doc("b.lic", id("L2"), supersedes("L1"), expires(-aDay))), Expired, "L2 (b.lic): it expired", never},
		{"superseded and nothing better", factsWith(doc("a.lic"),
			doc("b.lic", role(RoleAddOn), id("L2"), supersedes("L1"))), Superseded, "licence L2 (b.lic) replaces it",
			never},
	}
}

// upstreamRows are of what the issuer and its upstream say.
func upstreamRows() []codeRow {
	return []codeRow{
		{"suspended", factsWith(doc("a.lic", func(l *License) {
			l.Suspended = true
		})), Suspended, "its issuer has suspended it", never},
		{"banned", factsWith(doc("a.lic", func(l *License) {
			l.Banned = true
		})), Banned, "its issuer has banned it", never},
		{"revoked", factsWith(doc("a.lic", func(l *License) {
			l.Revoked = true
		})), Revoked, "its issuer has revoked it", never},
		{"refused with words", upstream(Upstream{Refused: Suspended, RefusedReason: "invoice 7 is open"}), Suspended,
			"the upstream says: invoice 7 is open", never},
		{"refused for want of a place", upstream(Upstream{Refused: TooManyMachines}), TooManyMachines,
			"the upstream says: too_many_machines", never},
		{"refused without words", upstream(Upstream{Refused: Revoked}), Revoked, "the upstream says: revoked", never},
		{"expired upstream", upstream(Upstream{Refused: Expired}, grace(aDay)), Expired, "the upstream says: expired",
			never},
		{"check-in overdue", upstream(Upstream{LastCheckIn: noon.Add(-8 * aDay)}, checkIn), Overdue,
			"an upstream check-in was due at 2026-01-04 12:00 UTC", never},
		{"check-in never since issue", upstream(Upstream{}, checkIn), Overdue, "was due at 2025-12-13", never},
		{"check-in never since activation", upstream(Upstream{Activated: noon.Add(-aDay)}, checkIn), Valid, "",
			noon.Add(6 * aDay)},
		{"check-in late within its grace", upstream(Upstream{LastCheckIn: noon.Add(-7*aDay - time.Hour)}, checkIn),
			ValidInGrace, "without one the licence stops at 2026-01-06 11:00 UTC", noon.Add(23 * time.Hour)},
		{"check-in in time", upstream(Upstream{LastCheckIn: noon.Add(-6 * aDay)}, checkIn), Valid, "", noon.Add(aDay)},
		{"no heartbeat yet", upstream(Upstream{Activated: noon}, heartbeat), HeartbeatNotStarted,
			"none has been answered yet", never},
		{"heartbeat dead", upstream(Upstream{LastHeartbeat: noon.Add(-70 * time.Minute)}, heartbeat), HeartbeatDead,
			"last heard of this host at 2026-01-05 10:50 UTC", never},
		{"heartbeat late", upstream(Upstream{LastHeartbeat: noon.Add(-time.Hour)}, heartbeat), ValidInGrace,
			"a heartbeat was due at 2026-01-05 12:00 UTC", noon.Add(10 * time.Minute)},
		{"heartbeat in time", upstream(Upstream{LastHeartbeat: noon}, heartbeat), Valid, "", noon.Add(time.Hour)},
		{"heartbeat dead but for sleep", upstream(Upstream{LastHeartbeat: noon.Add(-20 * time.Hour),
			Asleep: 19*time.Hour + time.Minute}, heartbeat), Valid, "", noon.Add(time.Minute)},
		{"heartbeat dead, a try under way", upstream(Upstream{LastHeartbeat: noon.Add(-20 * time.Hour),
			HoldUntil: noon.Add(time.Minute)}, heartbeat), ValidInGrace,
			"without one the licence stops at 2026-01-05 12:01", noon.Add(time.Minute)},
		{"check-in due since the last that the document knows of", upstream(Upstream{}, func(l *License) {
			checkIn(l)
			l.CheckedIn = noon.Add(-9 * aDay)
		}), Overdue, "an upstream check-in was due at 2026-01-03 12:00 UTC", never},
		{"check-in after the last that the document knows of",
			upstream(Upstream{LastCheckIn: noon.Add(-aDay)}, func(l *License) {
				checkIn(l)
				l.CheckedIn = noon.Add(-9 * aDay)
			}), Valid, "", noon.Add(6 * aDay)},
		{"check-in by the month",
			upstream(Upstream{LastCheckIn: time.Date(2025, 11, 30, 12, 0, 0, 0, time.UTC)}, func(l *License) {
				l.CheckIn = Period{Months: 3}
			}), Valid, "", time.Date(2026, 2, 28, 12, 0, 0, 0, time.UTC)},
	}
}

// trialRows are of activation, trials, notices and emergencies.
func trialRows() []codeRow {
	return []codeRow{
		{"not activated", upstream(Upstream{}, activation(0)), HeartbeatNotStarted, "it demands an activation",
			never},
		{"activated", upstream(Upstream{Activated: noon}, activation(0)), Valid, "", never},
		{"activation owed for a while", with(upstream(Upstream{}, activation(aDay)), seen(-time.Hour)), ValidInGrace,
			"without that the licence stops at 2026-01-06 11:00", noon.Add(23 * time.Hour)},
		{"activation owed too long", with(upstream(Upstream{}, activation(aDay)), seen(-aDay)), HeartbeatNotStarted, "",
			never},
		{"a heartbeat owed for a while", with(upstream(Upstream{}, heartbeat, func(l *License) {
			l.Activation.Grace = aDay
		}), seen(0)), ValidInGrace, "none has been answered yet; without that", noon.Add(aDay)},
		{"a trial not begun", factsWith(doc("a.lic", onTrial)), Preparing, "its trial begins when", never},
		{"a trial", with(factsWith(doc("a.lic", onTrial)), seen(-aDay)), Valid, "valid until 2026-01-11 12:00",
			noon.Add(6 * aDay)},
		{"a trial that is over", with(factsWith(doc("a.lic", onTrial)), seen(-8*aDay)), Expired,
			"its trial ended at 2026-01-04 12:00", never},
		{"a trial ends no later than its licence", with(factsWith(doc("a.lic", onTrial, expires(aDay))), seen(-aDay)),
			Valid, "", noon.Add(aDay)},
		{"a trial for anybody", with(factsWith(doc("a.lic", onTrial, func(l *License) {
			l.AgentKeys = nil
		})), seen(0)), AgentKeyMismatch, "a trial must name the key", never},
		{"revoked by a notice", factsWith(doc("a.lic"), doc("r.lic", id("N1"), notice("L1"))), Revoked,
			"notice N1 revokes it",
			never},
		{"a notice of others", factsWith(doc("a.lic"), doc("r.lic", id("N1"), notice("L2"))), Valid, "", never},
		{"a notice of another product", factsWith(doc("a.lic"), doc("r.lic", id("N1"), notice("L1"), func(l *License) {
			l.Product = "other"
		})), Valid, "", never},
		{"a notice alone", factsWith(doc("r.lic", id("N1"), notice("L1"))), NotFound, "there is no licence", never},
		{"expired in an emergency", with(factsWith(doc("a.lic", expires(-aDay), breakGlass)), emergencies(-time.Hour)),
			ValidInGrace, "an operator's emergency holds until 2026-01-08 11:00", noon.Add(71 * time.Hour)},
		{"overdue in an emergency", with(upstream(Upstream{}, checkIn, breakGlass), emergencies(-time.Hour)),
			ValidInGrace, "emergency holds", noon.Add(71 * time.Hour)},
		{"an emergency that is over",
			with(factsWith(doc("a.lic", expires(-aDay), breakGlass)), emergencies(-72*time.Hour)), Expired, "", never},
		{"one emergency too many", with(factsWith(doc("a.lic", expires(-aDay), breakGlass)),
			emergencies(-100*aDay, -50*aDay, -time.Hour)), Expired, "", never},
		{"an emergency after a year", with(factsWith(doc("a.lic", expires(-aDay), breakGlass)),
			emergencies(-366*aDay, -50*aDay, -time.Hour)), ValidInGrace, "", noon.Add(71 * time.Hour)},
		{"no emergency cures a revocation",
			with(factsWith(doc("a.lic", breakGlass), doc("r.lic", id("N1"), notice("L1"))),
				emergencies(-time.Hour)), Revoked, "", never},
	}
}

// hostRows are of the binding to a host or a key, and of the caps on a host.
func hostRows() []codeRow {
	return []codeRow{
		{"another host", with(factsWith(doc("a.lic")), func(f *Facts) {
			f.Host.Components = map[string][]string{"machine-id": {"zz"}}
		}), FingerprintMismatch, "0 of 2 components match (mac: absent here; machine-id: differs", never},
		{"another agent", factsWith(doc("a.lic", func(l *License) {
			l.AgentKeys = []string{"thumb-9"}
		})), AgentKeyMismatch, "this one's is thumb-1", never},
		{"an agent without a key", with(factsWith(doc("a.lic", func(l *License) {
			l.AgentKeys = []string{""}
		})), func(f *Facts) { f.AgentKey = "" }), AgentKeyMismatch, "this one's is missing", never},
		{"this agent among two", factsWith(doc("a.lic", func(l *License) {
			l.AgentKeys = []string{"thumb-9", "thumb-1"}
		})), Valid, "", never},
		{"one core too many", factsWith(doc("a.lic", func(l *License) {
			l.CoreCap = 3
		})), TooManyCores, "it allows 3 physical cores, and this host has 4", never},
		{"just enough cores", factsWith(doc("a.lic", func(l *License) { l.CoreCap = 4 })), Valid, "", never},
		{"logical cores", factsWith(doc("a.lic", func(l *License) {
			l.CoreCap, l.CoreKind = 7, CoresLogical
		})), TooManyCores, "it allows 7 logical cores, and this host has 8", never},
		{"effective cores are rounded up", factsWith(doc("a.lic", func(l *License) {
			l.CoreCap, l.CoreKind = 2, CoresEffective
		})), TooManyCores, "it allows 2 effective cores, and this host has 3", never},
		{"unlimited cores", factsWith(doc("a.lic", func(l *License) { l.CoreCap = Unlimited })), Valid, "", never},
		{"all the memory and disk that it may have", factsWith(doc("a.lic", func(l *License) {
			l.MemoryCap, l.DiskCap = 8<<30, 100<<30
		})), Valid, "", never},
		{"any memory and disk", factsWith(doc("a.lic", func(l *License) {
			l.MemoryCap, l.DiskCap = Unlimited, Unlimited
		})), Valid, "", never},
		{"too much memory", factsWith(doc("a.lic", func(l *License) {
			l.MemoryCap = 8<<30 - 1
		})), TooMuchMemory, "it allows 8589934591 bytes of memory, and this host has 8589934592", never},
		{"too much disk", factsWith(doc("a.lic", func(l *License) {
			l.DiskCap = 1 << 30
		})), TooMuchDisk, "it allows 1073741824 bytes of disk", never},
		{"unknown memory", with(factsWith(doc("a.lic", func(l *License) {
			l.MemoryCap = 8
		})), func(f *Facts) { f.Host.Memory = 0 }), TooMuchMemory, "could not be read", never},
		{"unknown cores", with(factsWith(doc("a.lic", func(l *License) {
			l.CoreCap = 8
		})), func(f *Facts) { f.Host.Physical = 0 }), TooManyCores, "could not be read; mount /sys", never},
	}
}

// productRows are of products, versions and test licences.
func productRows() []codeRow {
	return []codeRow{
		{"another product", factsWith(doc("a.lic", func(l *License) {
			l.Product = "other"
		})), ProductMismatch, "it is for product \"other\", and this agent serves acme, acme-pro", never},
		{"the second of the products", factsWith(doc("a.lic", func(l *License) {
			l.Product = "acme-pro"
		})), Valid, "", never},
		{"any product", with(factsWith(doc("a.lic", func(l *License) {
			l.Product = "other"
		})), func(f *Facts) { f.Products = nil }), Valid, "", never},
		{"version beyond", with(factsWith(doc("a.lic", func(l *License) {
			l.Versions = ">=4 <5"
		})), func(f *Facts) {
			f.Version = "5.0.0"
		}), VersionNotCovered, "it covers versions >=4 <5, and the product is 5.0.0", never},
		{"version within", with(factsWith(doc("a.lic", func(l *License) {
			l.Versions = ">=4 <5"
		})), func(f *Facts) { f.Version = "4.9" }), Valid, "", never},
		{"version not known here", factsWith(doc("a.lic", func(l *License) {
			l.Versions = ">=4 <5"
		})), Valid, "", never},
		{"version unreadable", with(factsWith(doc("a.lic", func(l *License) {
			l.Versions = ">=4 <5"
		})), func(f *Facts) { f.Version = "nightly" }), VersionNotCovered, "cannot be told", never},
		{"released too late", with(factsWith(doc("a.lic", func(l *License) {
			l.ReleasedBefore = noon
		})), func(f *Facts) { f.Released = noon }), VersionNotCovered, "it covers releases before 2026-01-05", never},
		{"released in time", with(factsWith(doc("a.lic", func(l *License) {
			l.ReleasedBefore = noon
		})), func(f *Facts) { f.Released = noon.Add(-1) }), Valid, "", never},
		{"a test licence where none may be", with(factsWith(doc("a.lic", testOnly)), func(f *Facts) {
			f.Narrowing.RequireProduction = true
		}), TestLicense, "license.require_production is set", never},
		{"a test anchor where none may be", with(factsWith(doc("a.lic", func(l *License) {
			l.AnchorEnvironment = Test
		})), func(f *Facts) { f.Narrowing.RequireProduction = true }), TestLicense, "", never},
	}
}

// clockRows are of a wall clock that is behind.
func clockRows() []codeRow {
	return []codeRow{
		{"strict clock", with(factsWith(doc("a.lic", strict)), func(f *Facts) {
			f.Clock = Clock{Behind: time.Hour, BehindSince: noon.Add(-11 * time.Minute)}
		}), ClockTampered, "the wall clock is 1 hour behind", never},
		{"strict clock, not for long", with(factsWith(doc("a.lic", strict)), func(f *Facts) {
			f.Clock = Clock{Behind: time.Hour, BehindSince: noon.Add(-9 * time.Minute)}
		}), Valid, "", noon.Add(time.Minute)},
		{"strict clock, within ten minutes", with(factsWith(doc("a.lic", strict)), func(f *Facts) {
			f.Clock = Clock{Behind: 10 * time.Minute, BehindSince: noon.Add(-time.Hour)}
		}), Valid, "", never},
		{"strict clock, its own tolerance", with(factsWith(doc("a.lic", strict, func(l *License) {
			l.ClockTolerance = 2 * time.Hour
		})), func(f *Facts) {
			f.Clock = Clock{Behind: time.Hour, BehindSince: noon.Add(-time.Hour)}
		}), Valid, "", never},
		{"strict by configuration", with(factsWith(doc("a.lic")), func(f *Facts) {
			f.Narrowing.Clock, f.Clock = ClockStrict, Clock{Behind: time.Hour, BehindSince: noon.Add(-time.Hour)}
		}), ClockTampered, "", never},
		{"lenient clock", with(factsWith(doc("a.lic")), func(f *Facts) {
			f.Clock = Clock{Behind: time.Hour, BehindSince: noon.Add(-time.Hour)}
		}), Valid, "", never},
	}
}

func TestJudgeCodes(t *testing.T) {
	reached := map[Code]bool{}
	for _, row := range codeRows() {
		reached[row.code] = true
		t.Run(row.name, func(t *testing.T) {
			v := Judge(row.facts, noon)
			if v.Code != row.code || v.State != row.code.State() {
				t.Fatalf("%s, %s (%s); want %s, %s", v.State, v.Code, v.Reason, row.code.State(), row.code)
			}
			if !strings.Contains(v.Reason, row.reason) {
				t.Errorf("the reason %q says nothing of %q", v.Reason, row.reason)
			}
			if !v.Until.Equal(row.until) {
				t.Errorf("until %v, want %v", v.Until, row.until)
			}
			if v.Good() != (len(v.Pools) > 0) {
				t.Errorf("good is %t, and the pools are %v", v.Good(), v.Pools)
			}
			if !v.JudgedAt.Equal(noon) {
				t.Errorf("judged at %v", v.JudgedAt)
			}
		})
	}
	for _, c := range Codes() {
		if !reached[c] {
			t.Errorf("no row reaches %s", c)
		}
	}
}

func TestStateOfEveryCode(t *testing.T) {
	want := map[State][]Code{
		StateValid:   {ValidInGrace, Valid},
		StateExpired: {Expired},
		StateMissing: {Preparing, NotFound},
		StateInvalid: {Malformed, UntrustedKey, BadSignature, ProductMismatch, Revoked, Banned, Superseded, Suspended,
			TestLicense,
			FingerprintMismatch, AgentKeyMismatch, TooManyMachines, TooManyCores, TooMuchMemory, TooMuchDisk,
			VersionNotCovered,
			ClockTampered, NotYetValid,
			HeartbeatNotStarted, HeartbeatDead, Overdue, Unavailable},
	}
	got := map[State][]Code{}
	for _, c := range Codes() {
		got[c.State()] = append(got[c.State()], c)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// faults are the ways to spoil the licence a.lic of factsWith, each on its own.
var faults = map[Code]func(*Facts, *License){
	ProductMismatch: func(f *Facts, l *License) { l.Product = "other" },
	Revoked:         func(f *Facts, l *License) { l.Revoked = true },
	Banned:          func(f *Facts, l *License) { l.Banned = true },
	Suspended:       func(f *Facts, l *License) { l.Suspended = true },
	Superseded: func(f *Facts, l *License) {
		f.Documents = append(f.Documents, doc("b.lic", id("L2"), role(RoleAddOn), supersedes("L1")))
	},
	TestLicense: func(f *Facts, l *License) { l.Environment, f.Narrowing.RequireProduction = Test, true },
	FingerprintMismatch: func(f *Facts, l *License) {
		l.Hosts = []HostBinding{{Components: map[string][]string{"mac": {"zz"}}}}
	},
	AgentKeyMismatch:  func(f *Facts, l *License) { l.AgentKeys = []string{"thumb-9"} },
	TooManyCores:      func(f *Facts, l *License) { l.CoreCap = 1 },
	TooMuchMemory:     func(f *Facts, l *License) { l.MemoryCap = 1 },
	TooMuchDisk:       func(f *Facts, l *License) { l.DiskCap = 1 },
	VersionNotCovered: func(f *Facts, l *License) { l.Versions, f.Version = "<4", "4.0" },
	ClockTampered: func(f *Facts, l *License) {
		l.Clock, f.Clock = ClockStrict, Clock{Behind: time.Hour, BehindSince: noon.Add(-time.Hour)}
	},
	Expired:             func(f *Facts, l *License) { l.Expires = noon.Add(-aDay) },
	NotYetValid:         func(f *Facts, l *License) { l.NotBefore = noon.Add(aDay) },
	HeartbeatNotStarted: func(f *Facts, l *License) { l.Heartbeat.Every = time.Hour },
	HeartbeatDead: func(f *Facts, l *License) {
		l.Heartbeat.Every = time.Hour
		for _, ref := range []Ref{"usher/L1", "usher:test/L1"} {
			u := f.Upstream[ref]
			u.LastHeartbeat = noon.Add(-2 * time.Hour)
			f.Upstream[ref] = u
		}
	},
	Overdue: func(f *Facts, l *License) { l.CheckIn.Every = time.Hour },
	Unavailable: func(f *Facts, l *License) {
		for _, ref := range []Ref{"usher/L1", "usher:test/L1"} {
			u := f.Upstream[ref]
			u.Refused = Unavailable
			f.Upstream[ref] = u
		}
	},
}

// TestPrecedence spoils one licence in two ways at once: the code that stands first in Codes is its code, and both are
// listed in that order.
func TestPrecedence(t *testing.T) {
	var codes []Code
	for _, c := range Codes() {
		if faults[c] != nil {
			codes = append(codes, c)
		}
	}
	for i, first := range codes {
		for _, second := range codes[i+1:] {
			if first == HeartbeatNotStarted && second == HeartbeatDead {
				continue // they exclude each other
			}
			f := factsWith(doc("a.lic"))
			f.Upstream = map[Ref]Upstream{}
			// In the order that would show a list sorted by chance.
			faults[second](&f, f.Documents[0].License)
			faults[first](&f, f.Documents[0].License)
			j := judged(t, Judge(f, noon), "a.lic")
			var got []Code
			for _, x := range j.Findings {
				got = append(got, x.Code)
			}
			if j.Code != first || j.Reason != j.Findings[0].Reason || !slices.Equal(got, []Code{first, second}) {
				t.Errorf("%s with %s: code %s, findings %v", first, second, j.Code, got)
			}
		}
	}
}
