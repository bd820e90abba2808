package enforcer

import (
	"testing"
	"time"
)

// folder judges documents and holds leases, as an agent does that is told when to judge.
type folder struct {
	t     *testing.T
	e     *Enforcer
	facts Facts
	now   time.Time
	log   []Event // what an agent would have journalled
}

func newFolder(t *testing.T, licences ...*License) *folder {
	f := &folder{t: t, e: New(Options{Durable: true}), now: noon}
	f.has(licences...)
	return f
}

func (f *folder) do(r Request) Decision {
	d := f.e.Decide(r, f.now)
	for _, ev := range d.Events {
		f.e.Apply(ev)
		if ev.Durable() {
			f.log = append(f.log, ev)
		}
	}
	return d
}

// has has the folder hold these documents and no others.
func (f *folder) has(licences ...*License) {
	f.facts.Documents = nil
	for _, l := range licences {
		f.facts.Documents = append(f.facts.Documents, Document{Name: l.ID + ".lic", License: l})
	}
	f.judge()
}

func (f *folder) judge() *Verdict {
	v := Judge(f.facts, f.now)
	f.do(&SetVerdict{v})
	return v
}

// pass lets time pass, with all judged and ended at its instant.
func (f *folder) pass(d time.Duration) {
	for to := f.now.Add(d); ; {
		next := sooner(f.e.NextTick(), f.e.Verdict().JudgeAgainAt)
		if next.IsZero() || next.After(to) {
			f.now = to
			return
		}
		f.now = later(f.now, next)
		if at := f.e.Verdict().JudgeAgainAt; !at.IsZero() && !at.After(f.now) {
			f.judge()
		}
		f.do(&Tick{})
	}
}

func (f *folder) hold(n int) {
	f.t.Helper()
	for range n {
		if d := f.do(&Acquire{ID: LeaseID{byte(f.e.Len() + 1)}, Pool: "a", N: 1, Lifetime: LifetimeHeld,
			Caller: Caller{UID: 7}}).Denial; d != nil {
			f.t.Fatal(d)
		}
	}
}

// restart has another enforcer read what was journalled.
func (f *folder) restart() {
	f.e = New(Options{Durable: true})
	for _, ev := range f.log {
		f.e.Apply(ev)
	}
	f.judge()
}

func paper(id string, slots Limit, change func(*License)) *License {
	l := &License{ID: id, System: "usher", KeyID: "2026-a", Product: "acme", Issued: noon.Add(-24 * time.Hour),
		Pools: map[string]PoolTerm{"a": {Max: slots, Scope: ScopeHost}}}
	if change != nil {
		change(l)
	}
	return l
}

// TestTermsStayWithTheLease: a licence's word on its leases is carried out when it ends, whatever base is in force by
// then. Where another takes its place, the leases go on.
func TestTermsStayWithTheLease(t *testing.T) {
	for name, row := range endedRows() {
		t.Run(name, row.check)
	}
	for name, row := range replacedRows() {
		t.Run(name, row.check)
	}
}

// tenureRow is what stands in the folder, then what stands there later, and how many of 9 leases are held in the end.
type tenureRow struct {
	first []*License
	then  []*License // nil: the same
	at    time.Duration
	after time.Duration // how long after that is looked
	held  int
}

func (row tenureRow) check(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		f := newFolder(t, row.first...)
		f.hold(9)
		f.pass(row.at)
		if row.then != nil {
			f.has(row.then...)
		}
		if restarted {
			f.restart()
		}
		f.pass(row.after)
		if restarted && row.held == 0 { // a restarted enforcer counts the delay from its start
			f.pass(RevokeDelay)
		}
		if f.e.Len() != row.held {
			t.Errorf("restarted %t: %d of 9 are held, want %d", restarted, f.e.Len(), row.held)
		}
	}
}

const hour = time.Hour

// paidPaper is a licence that ends in an hour and revokes its leases.
func paidPaper(change func(*License)) *License {
	return paper("paid", 100, func(l *License) {
		l.Expires, l.OnExpiry = noon.Add(hour), Revoke
		if change != nil {
			change(l)
		}
	})
}

var freePaper = paper("free", 1, func(l *License) { l.Role, l.Issued = RoleFree, noon })

var oldPaper = paper("old", 1, func(l *License) { l.Issued = noon.Add(-48 * hour) })

// samePaper is paidPaper, issued again with a later end.
func samePaper(change func(*License)) *License {
	return paidPaper(func(l *License) { l.Issued, l.Expires = noon, noon.Add(1000*hour); change(l) })
}

// nextPaper is another licence, issued later.
func nextPaper(change func(*License)) *License {
	return paper("next", 100, func(l *License) { l.Issued = noon; change(l) })
}

// asIs leaves a licence as it is.
func asIs(*License) {}

// endedRows are of licences that end, whatever stands beside them.
func endedRows() map[string]tenureRow {
	return map[string]tenureRow{
		"a free tier": {first: []*License{paidPaper(nil), freePaper}, after: hour + 11*time.Second,
			held: 0},
		"a free tier, before the revoking": {first: []*License{paidPaper(nil), freePaper}, after: hour + 9*time.Second,
			held: 9},
		"nothing else": {first: []*License{paidPaper(nil)}, after: hour + 11*time.Second, held: 0},
		"a small older base": {first: []*License{paidPaper(nil), oldPaper}, after: hour + 11*time.Second,
			held: 0},
		"a small older base, in grace": {first: []*License{paidPaper(func(l *License) {
			l.Grace = hour
		}), oldPaper}, after: 2*hour - time.Second, held: 9},
		"a small older base, and grace over": {first: []*License{paidPaper(func(l *License) {
			l.Grace = hour
		}), oldPaper}, after: 2*hour + 11*time.Second, held: 0},
		"drained until its grace ends": {first: []*License{paidPaper(func(l *License) {
			l.Grace, l.OnExpiry = hour, Drain
		}), freePaper}, after: 2*hour + 11*time.Second, held: 0},
		"drained no longer than to its end": {first: []*License{paidPaper(func(l *License) {
			l.OnExpiry = ""
		}), freePaper}, after: hour + 11*time.Second, held: 0},
		"kept": {first: []*License{paidPaper(func(l *License) {
			l.OnExpiry = Keep
		}), freePaper}, after: 100 * hour, held: 9},
		"revoked by its issuer, beside a free tier": {first: []*License{paidPaper(nil), freePaper},
			then: []*License{paidPaper(func(l *License) {
				l.Revoked = true
			}), freePaper}, after: 11 * time.Second, held: 0},
		"revoked by its issuer, beside a later one": {first: []*License{paidPaper(nil)},
			then: []*License{paidPaper(func(l *License) {
				l.Revoked = true
			}), nextPaper(asIs)}, after: 11 * time.Second, held: 0},
	}
}

// replacedRows are of licences that are taken away, renewed or replaced.
func replacedRows() map[string]tenureRow {
	return map[string]tenureRow{
		"taken away, beside a free tier": {first: []*License{paidPaper(nil), freePaper}, then: []*License{freePaper},
			after: 11 * time.Second, held: 0},
		"renewed": {first: []*License{paidPaper(nil), freePaper}, then: []*License{samePaper(asIs), freePaper},
			after: 100 * hour, held: 9},
		"renewed late": {first: []*License{paidPaper(nil), freePaper}, at: hour + 5*time.Second,
			then: []*License{samePaper(asIs), freePaper}, after: 100 * hour, held: 9},
		"renewed under another key": {first: []*License{paidPaper(nil)}, then: []*License{samePaper(func(l *License) {
			l.KeyID = "2027-a"
		})}, after: 100 * hour, held: 9},
		"replaced by a later one": {first: []*License{paidPaper(nil), freePaper},
			then: []*License{paidPaper(nil), nextPaper(asIs), freePaper}, after: 100 * hour, held: 9},
		"replaced, and taken away": {first: []*License{paidPaper(nil), freePaper},
			then:  []*License{nextPaper(asIs), freePaper},
			after: 100 * hour, held: 9},
		"replaced by one that starts at its end": {first: []*License{paidPaper(nil), freePaper,
			nextPaper(func(l *License) {
				l.NotBefore = noon.Add(hour)
			})}, after: 100 * hour, held: 9},
		"replaced by its word": {first: []*License{paidPaper(nil)},
			then: []*License{paidPaper(nil), paper("other", 100, func(l *License) {
				l.Issued, l.Supersedes = noon.Add(-48*hour), []string{"paid"}
			})}, after: 100 * hour, held: 9},
		"replaced by a smaller one: what is over goes": {first: []*License{paidPaper(nil)},
			then: []*License{paidPaper(nil), paper("next", 4, func(l *License) {
				l.Issued = noon
			})}, after: 11 * time.Second, held: 4},
		"tests beside production": {first: []*License{paidPaper(nil), paper("test", 1, func(l *License) {
			l.Environment, l.Issued = Test, noon
		})}, after: hour + 11*time.Second, held: 0},
		"from a free tier to a paid one": {first: []*License{paper("free", 100, func(l *License) {
			l.Role, l.OnExpiry = RoleFree, Revoke
		})},
			then: []*License{paidPaper(func(l *License) {
				l.Expires = noon.Add(1000 * hour)
			})}, after: 100 * hour, held: 9},
	}
}

// A lease whose licence has ended says when it is revoked, and one of the base in force does not.
func TestEachLeaseHasItsOwnEnd(t *testing.T) {
	f := newFolder(t, paper("paid", 1, func(l *License) {
		l.Expires, l.OnExpiry = noon.Add(time.Hour), Revoke
	}), paper("free", 5, func(l *License) { l.Role = RoleFree }))
	f.hold(1)
	f.pass(time.Hour)
	f.hold(1)
	one, _ := f.e.Lease(LeaseID{1})
	two, _ := f.e.Lease(LeaseID{2})
	if !one.RevokeAt.Equal(noon.Add(time.Hour+RevokeDelay)) || !two.RevokeAt.IsZero() {
		t.Errorf("revoked at %v and %v", one.RevokeAt, two.RevokeAt)
	}
	f.pass(RevokeDelay)
	if _, held := f.e.Lease(LeaseID{2}); f.e.Len() != 1 || !held {
		t.Errorf("%d are held", f.e.Len())
	}
}

// The leases of an earlier journal belong to the licence that is in force first.
func TestLeasesOfUnknownTerms(t *testing.T) {
	f := &folder{t: t, e: New(Options{Durable: true}), now: noon}
	f.e.Apply(Event{Kind: EventGranted, At: noon, Lease: &Lease{ID: LeaseID{1}, Items: []Item{{Pool: "a", N: 1}},
		Lifetime: LifetimeHeld, AcquiredAt: noon, Holder: &Holder{}}})
	f.has(paper("paid", 1, func(l *License) {
		l.Expires, l.OnExpiry = noon.Add(time.Hour), Revoke
	}), paper("free", 1, func(l *License) { l.Role = RoleFree }))
	f.pass(time.Hour + RevokeDelay - time.Second)
	if f.e.Len() != 1 {
		t.Error("it ended too soon")
	}
	f.pass(time.Second)
	if f.e.Len() != 0 {
		t.Error("it goes on after its licence's end")
	}
}

// A licence whose leases are gone is forgotten: licences that come and go leave nothing behind.
func TestTenuresAreForgotten(t *testing.T) {
	f := newFolder(t)
	for i := range 20 {
		f.has(paper(string(rune('a'+i)), 5, func(l *License) { l.Issued = noon.Add(time.Duration(i) * time.Minute) }))
		f.hold(1)
		f.do(&End{ID: LeaseID{1}, Cause: CauseReleased})
	}
	if n := len(f.e.tenures); n > 4 {
		t.Errorf("%d licences are remembered", n)
	}
}

// A request later than the verdict's end, and before the licences are judged again, is decided by the verdict of that
// time.
func TestNothingIsGrantedAfterTheEnd(t *testing.T) {
	ends := noon.Add(time.Hour)
	lapses := func(l *License) { l.Expires = ends }
	acquire := func(pool string) *Acquire {
		return &Acquire{ID: LeaseID{9}, Pool: pool, N: 1, Lifetime: LifetimeProcess, Caller: proc(9)}
	}
	for name, row := range map[string]struct {
		licences []*License
		at       time.Time
		ask      Request
		want     DenialCode
	}{
		"the last instant": {[]*License{paper("a", 5, lapses)}, ends.Add(-1), acquire("a"), ""},
		"the end":          {[]*License{paper("a", 5, lapses)}, ends, acquire("a"), LicenseExpired},
		"long after":       {[]*License{paper("a", 5, lapses)}, ends.Add(aDay), acquire("a"), LicenseExpired},
		"in its grace": {[]*License{paper("a", 5, func(l *License) {
			lapses(l)
			l.Grace = time.Hour
		})}, ends, acquire("a"), ""},
		"its grace over": {[]*License{paper("a", 5, func(l *License) {
			lapses(l)
			l.Grace = time.Hour
		})}, ends.Add(time.Hour), acquire("a"), LicenseExpired},
		"its renewal follows": {[]*License{paper("a", 5, lapses), paper("b", 5, func(l *License) {
			l.NotBefore = ends
		})}, ends, acquire("a"), ""},
		"a smaller one follows": {[]*License{paper("a", 5, lapses), paper("b", 1, func(l *License) {
			l.Role = RoleFree
		})}, ends, acquire("a"), NoSlots},
		"a larger one follows": {[]*License{paper("a", 1, lapses), paper("b", 5, func(l *License) {
			l.Role = RoleFree
		})}, ends, acquire("a"), NoSlots},
		"one without the pool": {[]*License{paper("a", 5, lapses), paper("b", 5, func(l *License) {
			l.Role, l.Pools = RoleFree, nil
		})}, ends, acquire("a"), PoolUnknown},
		"only a warning changes": {[]*License{paper("a", 5, func(l *License) {
			l.Expires = noon.Add(8 * aDay)
		})}, noon.Add(2 * aDay), acquire("a"), ""},
		"a join that counts": {[]*License{paper("a", 5, func(l *License) {
			lapses(l)
			l.Pools["a"] = PoolTerm{Max: 5, Scope: ScopeHost, CountBy: CountProcess}
		})}, ends, &Join{ID: LeaseID{1}, Caller: proc(2)}, LicenseExpired},
		"a join that does not count": {[]*License{paper("a", 5, lapses)}, ends, &Join{ID: LeaseID{1}, Caller: proc(2)},
			""},
		"a draw": {[]*License{paper("a", 5, func(l *License) {
			lapses(l)
			l.Meters = map[string]MeterTerm{"m": {Max: 9, Scope: ScopeHost}}
		})}, ends, &Acquire{ID: LeaseID{9}, Pool: "m", N: 1}, LicenseExpired},
		"a shift": {[]*License{paper("a", 5, func(l *License) {
			lapses(l)
			l.Meters = map[string]MeterTerm{"m": {Max: 9, Scope: ScopeHost}}
		})}, ends, &Shift{Pool: "m", By: 1, Caller: Caller{Admin: true}}, LicenseExpired},
		"a missed heartbeat": {[]*License{paper("a", 5, func(l *License) {
			l.Heartbeat = Period{Every: time.Hour}
		})}, ends, acquire("a"), LicenseInvalid},
	} {
		f := &folder{t: t, e: New(Options{Durable: true}), now: noon}
		f.facts.Upstream = map[Ref]Upstream{"usher/a": {LastHeartbeat: noon}}
		f.has(row.licences...)
		if d := f.do(&Acquire{ID: LeaseID{1}, Pool: "a", N: 1, Lifetime: LifetimeProcess, Caller: proc(1)}).Denial; d !=
			nil {
			t.Fatal(d)
		}
		f.now = row.at
		d := f.do(row.ask).Denial
		if d == nil && row.want != "" || d != nil && d.Code != row.want {
			t.Errorf("%s: %v, want %q", name, d, row.want)
		}
		if d != nil && d.Verdict != nil && d.Verdict.Good() {
			t.Errorf("%s: it is denied by a verdict that is good", name)
		}
	}
}

// No waiter is served after the end either, and a grant between two verdicts belongs to the licence that holds then.
func TestServedByWhatIsTrueThen(t *testing.T) {
	f := newFolder(t, paper("a", 1, func(l *License) { l.Expires, l.OnExpiry = noon.Add(time.Hour), Revoke }))
	f.hold(1)
	f.do(&Acquire{ID: LeaseID{2}, Pool: "a", N: 1, Lifetime: LifetimeHeld, Caller: Caller{UID: 7}, Wait: 2 * time.Hour})
	f.now = noon.Add(time.Hour)
	f.do(&Release{ID: LeaseID{1}, Caller: Caller{UID: 7}})
	if d := f.do(&Serve{}); len(d.Events) > 0 {
		t.Errorf("served after the end: %+v", d)
	}
	f = newFolder(t, paper("a", 5, func(l *License) {
		l.Expires, l.OnExpiry = noon.Add(time.Hour), Revoke
	}), paper("free", 5, func(l *License) { l.Role = RoleFree }))
	f.now = noon.Add(time.Hour)
	f.hold(1)
	f.judge()
	f.pass(time.Hour)
	if f.e.Len() != 1 {
		t.Error("what was granted after the end of one licence, under the next, ended with the former")
	}
}

// TestMeterIsShownByItsPeriod: what has been drawn is shown of the period that lies now, before anything is drawn in
// it.
func TestMeterIsShownByItsPeriod(t *testing.T) {
	f := newFolder(t, paper("a", 1, func(l *License) {
		l.Meters = map[string]MeterTerm{"m": {Max: 100, Scope: ScopeHost, Resets: ResetsMonthly},
			"all": {Max: 100, Scope: ScopeHost}}
	}))
	for _, m := range []string{"m", "all"} {
		f.do(&Acquire{ID: LeaseID{m[0]}, Pool: m, N: 60})
	}
	for _, row := range []struct {
		at             time.Time
		monthly, total int64
	}{{noon, 60, 60}, {ResetsMonthly.end(noon).Add(-1), 60, 60}, {ResetsMonthly.end(noon), 0, 60},
		{noon.Add(400 * aDay), 0, 60}} {
		m, _ := f.e.Pool("m", row.at)
		all, _ := f.e.Pool("all", row.at)
		if m.InUse != row.monthly || m.Available() != Limit(100-row.monthly) || all.InUse != row.total {
			t.Errorf("at %v: %d are drawn in the month and %d in all, want %d and %d", row.at, m.InUse, all.InUse,
				row.monthly, row.total)
		}
		for _, p := range f.e.AppendPools(nil, f.e.PoolNames(), row.at) {
			if p.Name == "m" && p.InUse != row.monthly {
				t.Errorf("at %v: %d are listed", row.at, p.InUse)
			}
		}
	}
}
