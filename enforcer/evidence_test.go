package enforcer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// someDates are issue dates of documents, most of them false: from long ago to years ahead of the clock.
var someDates = []time.Duration{-40 * aDay, -aDay, -time.Hour, 0, time.Minute, 9 * time.Minute, time.Hour,
	5 * time.Hour,
	20 * time.Hour, Leap, Leap + time.Second, 31 * aDay, 400 * aDay, 9999 * aDay}

// genDated returns facts whose documents have any dates, and clocks that an agent reads with them.
func genDated(t *rapid.T) (Facts, Mark, Clocks) {
	f := genFacts(t)
	f.Clock = Clock{}
	for i := range f.Documents {
		redate(t, &f.Documents[i])
	}
	c := Clocks{Wall: genNow(t), Boot: time.Hour, BootID: "b"}
	m := Mark{}
	switch rapid.IntRange(0, 6).Draw(t, "mark") {
	case 0: // a first start
	case 1:
		m = Mark{Time: c.Wall.Add(-pick(t, "marked", someSpans...)), Boot: c.Boot, BootID: c.BootID}
	case 2:
		m = Mark{Time: c.Wall.Add(pick(t, "behind", someSpans...)), Boot: c.Boot, BootID: c.BootID}
	case 3:
		m = Mark{Time: c.Wall, Boot: c.Boot, BootID: c.BootID, Signed: c.Wall.Add(-aDay),
			Ran: pick(t, "ran", someSpans...)}
	case 4:
		c.Wall = time.Unix(5, 0).UTC() // never set
	default: // the host has run on since it saw a document, and its clock was set back
		m = Mark{Time: c.Wall.Add(-pick(t, "marked", someSpans...)), Boot: c.Boot, BootID: c.BootID,
			Signed: c.Wall.Add(-pick(t, "signed", 0, time.Hour, aDay, 40*aDay)), Ran: pick(t, "ran", someSpans...)}
	}
	return f, m, c
}

// redate gives a document another issue date, and says when it was first seen.
func redate(t *rapid.T, d *Document) {
	if d.License == nil {
		return
	}
	l := *d.License
	l.Issued = noon.Add(pick(t, "dated", someDates...))
	// Documents of other systems may lack dates, and say more.
	if pick(t, "of a system", "native", "native", "foreign") == "foreign" {
		l.System = pick(t, "which", "first", "second", "plugin")
		l.Banned, l.SystemCode = seldom(t, "banned"), pick(t, "its word", "", "EXPIRED", "ACTIVE")
		if seldom(t, "undated") {
			l.Issued = zeroTime
		}
		if seldom(t, "from the first date") {
			l.Issued = zeroTime.Add(1)
		}
	}
	if rapid.Bool().Draw(t, "tolerance") {
		l.ClockTolerance = pick(t, "how far", time.Minute, time.Hour, 9*aDay)
	}
	d.License = &l
	if rapid.Bool().Draw(t, "known") {
		d.Arrived = noon.Add(pick(t, "arrived", someTimes...))
	}
}

// judgedWith returns the licence time with the documents' evidence, and the verdict then.
func judgedWith(f Facts, system string, m Mark, c Clocks) (time.Time, *Verdict) {
	would := func(signed time.Time) (time.Time, Clock) { return m.Now(c, signed) }
	now, clock := would(Evidence(f, system, would))
	f.Clock = clock
	return now, Judge(f, now)
}

// signedToReplace reports whether a document is signed to take something away.
func signedToReplace(l *License) bool { return len(l.Supersedes)+len(l.Revokes) > 0 || l.ResetsClock }

// TestAddingWorsensNothing: whatever document of whatever system comes into a folder, with whatever date, a good
// verdict stays good, unless that document is itself in force or signed to replace. And unless it is in force it does
// not change by what licences are granted, but for others that its date lets begin.
//
// What the host has run since an earlier document was signed counts with any date, so that a clock that is set back
// revives nothing: a document can have that time count, and by its date no later one.
func TestAddingWorsensNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, m, c := genDated(t)
		// Whichever system tells the time: the agent asks the first of which it has a production anchor.
		system := pick(t, "telling", "usher", "usher", "first", "second")
		before, v := judgedWith(f, system, m, c)
		added := Document{Name: pick(t, "name", "!.lic", "z.lic"), License: genLicense(t)}
		redate(t, &added)
		more := f
		more.Documents = append(slices.Clone(f.Documents), added)
		now, w := judgedWith(more, system, m, c)
		inForce := slices.ContainsFunc(w.Licenses, func(j Judged) bool { return j.Document == added.Name && j.InForce })
		run, clock := m.Now(c, m.Signed)
		if run.After(before) && now.Equal(run) {
			g := f
			g.Clock = clock
			before, v = run, Judge(g, run)
		}
		if v.Good() && !w.Good() && !signedToReplace(added.License) {
			t.Fatalf("%s, and with %+v at %v: %s (in force: %t)", v.Code, *added.License, now, w.Reason, inForce)
		}
		bare, _ := m.Now(c, zeroTime)
		if now.Sub(bare) > Leap && IsSet(bare) && now.After(run) {
			t.Fatalf("a document moves the time by %v", now.Sub(bare))
		}
		l := added.License
		if !inForce && l.Role != RoleNotice && !signedToReplace(l) && now.After(before) && IsSet(bare) {
			t.Fatalf("%+v is not in force, and moves the time from %v to %v", *l, before, now)
		}
	})
}

// The time that the host has run since an earlier document was signed counts with whatever date a later one in force
// has; with an earlier one it does not.
func TestRunningCountsWithAnyDate(t *testing.T) {
	m := Mark{Time: noon, Boot: time.Hour, BootID: "b", Signed: noon.Add(-aDay), Ran: 3 * aDay}
	c := Clocks{Wall: noon, Boot: time.Hour, BootID: "b"}
	for dated, want := range map[time.Duration]time.Time{-aDay: noon.Add(2 * aDay), -time.Hour: noon.Add(2 * aDay),
		0: noon.Add(2 * aDay), time.Hour: noon.Add(2 * aDay), -2 * aDay: noon} {
		f := Facts{Documents: []Document{{Name: "a.lic", License: &License{ID: "a", System: "usher", Product: "acme",
			Issued: noon.Add(dated), Pools: map[string]PoolTerm{"streams": {Max: 1, Scope: ScopeHost}}}}}}
		if now, v := judgedWith(f, "usher", m, c); !now.Equal(want) || !v.Good() {
			t.Errorf("dated %v from noon: it is %v, want %v; %s", dated, now, want, v.Reason)
		}
	}
}

// noEvidence are the kinds of documents that do not count on a host beside a good licence of an hour.
var noEvidence = map[string]func(*License){
	"another product": func(l *License) { l.Product = "other" },
	"another host": func(l *License) {
		l.Hosts = []HostBinding{{Components: map[string][]string{"mac": {"zz"}}}}
	},
	"another agent": func(l *License) { l.AgentKeys = []string{"thumb-9"} },
	"an add-on to another": func(l *License) {
		l.Role, l.AddOnTo = RoleAddOn, "gone"
	},
	"a test licence":                    func(l *License) { l.Environment = Test },
	"a free tier":                       func(l *License) { l.Role = RoleFree },
	"another system":                    func(l *License) { l.System = "other" },
	"a suspended one":                   func(l *License) { l.Suspended = true },
	"a revoked one":                     func(l *License) { l.Revoked = true },
	"a returned one":                    func(l *License) { l.ID = "back" },
	"an expired one":                    func(l *License) { l.Expires = noon.Add(-time.Hour) },
	"one of the future":                 func(l *License) { l.NotBefore = noon.Add(time.Minute) },
	"a notice":                          func(l *License) { l.Role, l.Pools = RoleNotice, nil },
	"an add-on that would end its base": func(l *License) { l.Role = RoleAddOn },
	"a trial without an agent":          func(l *License) { l.Trial = aDay },
}

// A document of each kind that does not count here says nothing of the time, and ends nothing, by whatever date.
func TestWhatDoesNotCountTellsNoTime(t *testing.T) {
	good := func() *License {
		return &License{ID: "good", System: "usher", Product: "acme", Issued: noon.Add(-aDay),
			Expires: noon.Add(time.Hour),
			Pools:   map[string]PoolTerm{"streams": {Max: 2, Scope: ScopeHost}}}
	}
	f := Facts{Products: []string{"acme"}, AgentKey: "thumb-1",
		Returned: map[Ref]time.Time{"usher/back": noon.Add(9999 * aDay)},
		Host:     Host{Components: map[string][]string{"mac": {"aa"}}}}
	c := Clocks{Wall: noon, Boot: time.Hour, BootID: "b"}
	for name, change := range noEvidence {
		for _, ahead := range []time.Duration{2 * time.Hour, Leap, 2 * aDay, 365 * aDay} {
			l := good()
			l.ID, l.Issued, l.Expires = "x", noon.Add(ahead), time.Time{}
			change(l)
			f.Documents = []Document{{Name: "good.lic", License: good()}, {Name: "x.lic", License: l}}
			now, v := judgedWith(f, "usher", Mark{Time: noon, Boot: c.Boot, BootID: c.BootID}, c)
			if !now.Equal(noon) || !v.Good() {
				t.Errorf("%s, dated %v ahead: it is %v, %s", name, ahead, now, v.Reason)
			}
		}
	}
}

// A document that does not count here proves no leap of the clock: a clock that was false for a moment ends nothing for
// good, whatever lies in the folder with a date near it.
func TestWhatDoesNotCountProvesNoLeap(t *testing.T) {
	for name, change := range noEvidence {
		switch name {
		case "one of the future", "an add-on that would end its base", "a notice":
			continue // at the clock's time these count, or are signed to tell the time
		}
		good := &License{ID: "good", System: "usher", Product: "acme", Issued: noon.Add(-aDay),
			Expires: noon.Add(90 * aDay), Pools: map[string]PoolTerm{"streams": {Max: 2, Scope: ScopeHost}}}
		l := *good
		l.ID, l.Issued, l.Expires = "x", noon.Add(40*aDay-time.Hour), time.Time{}
		change(&l)
		f := Facts{Products: []string{"acme"}, AgentKey: "thumb-1",
			Returned:  map[Ref]time.Time{"usher/back": noon.Add(9999 * aDay)},
			Host:      Host{Components: map[string][]string{"mac": {"aa"}}},
			Documents: []Document{{Name: "good.lic", License: good}, {Name: "x.lic", License: &l}}}
		m := Mark{Time: noon, Boot: time.Hour, BootID: "b"}
		c := Clocks{Wall: noon.Add(40 * aDay), Boot: time.Hour, BootID: "b"}
		would := func(signed time.Time) (time.Time, Clock) { return m.Now(c, signed) }
		if next := m.Advance(c, Evidence(f, "usher", would)); !next.Time.Equal(noon) {
			t.Errorf("%s proves the leap: %v", name, next.Time)
		}
		if name == "another product" { // the same date in a document that counts does
			good.Issued = noon.Add(40*aDay - time.Hour)
			if next := m.Advance(c, Evidence(f, "usher", would)); !next.Time.Equal(c.Wall) {
				t.Errorf("a document in force proves no leap: %v", next.Time)
			}
		}
	}
}

// A document in force whose date would end what is good, such as one dated after its own end, is no evidence either.
func TestDateThatWouldEndWhatIsGood(t *testing.T) {
	c := Clocks{Wall: noon, Boot: time.Hour, BootID: "b"}
	m := Mark{Time: noon, Boot: c.Boot, BootID: c.BootID}
	f := Facts{Documents: []Document{{Name: "a.lic", License: &License{ID: "a", System: "usher", Product: "acme",
		Issued: noon.Add(20 * time.Hour), Expires: noon.Add(10 * time.Hour),
		Pools: map[string]PoolTerm{"streams": {Max: 1, Scope: ScopeHost}}}}}}
	if now, v := judgedWith(f, "usher", m, c); !now.Equal(noon) || !v.Good() {
		t.Errorf("it is %v, %s", now, v.Reason)
	}
}

// A date more than a day ahead of clock and mark is no evidence, even of a licence that came while the clock was there
// and so is in force.
func TestDateOfAFalseClockIsNoEvidence(t *testing.T) {
	c := Clocks{Wall: noon, Boot: time.Hour, BootID: "b"}
	m := Mark{Time: noon, Boot: c.Boot, BootID: c.BootID}
	f := Facts{Documents: []Document{{Name: "a.lic", Arrived: noon.Add(40 * aDay), License: &License{ID: "a",
		System: "usher", Product: "acme", Issued: noon.Add(40 * aDay),
		Pools: map[string]PoolTerm{"streams": {Max: 1, Scope: ScopeHost}}}}}}
	if now, v := judgedWith(f, "usher", m, c); !now.Equal(noon) || !v.Good() {
		t.Errorf("it is %v, %s", now, v.Reason)
	}
}

// A licence that is dated ahead counts at once within a day (with a strict clock, within its tolerance). Otherwise it
// is NOT_YET_VALID until its date, and the sentence names it and no clock.
func TestDatedAhead(t *testing.T) {
	c := Clocks{Wall: noon, Boot: time.Hour, BootID: "b"}
	m := Mark{Time: noon, Boot: c.Boot, BootID: c.BootID}
	for _, row := range []struct {
		ahead, tolerance time.Duration
		clock            ClockPolicy
		counts           bool
	}{{time.Hour, 0, "", true}, {Leap, 0, "", true}, {Leap + time.Second, 0, "", false}, {365 * aDay, 0, "", false},
		{10 * time.Minute, 0, ClockStrict, true}, {11 * time.Minute, 0, ClockStrict, false},
		{time.Hour, time.Hour, ClockStrict, true}, {2 * aDay, 3 * aDay, ClockStrict, false}} {
		l := &License{ID: "a", System: "usher", Product: "acme", Issued: noon.Add(row.ahead), Clock: row.clock,
			ClockTolerance: row.tolerance, Pools: map[string]PoolTerm{"streams": {Max: 1, Scope: ScopeHost}}}
		f := Facts{Documents: []Document{{Name: "a.lic", License: l, Arrived: noon}}}
		now, v := judgedWith(f, "usher", m, c)
		if v.Good() != row.counts || row.counts != now.Equal(l.Issued) {
			t.Errorf("%v ahead, %s %v: it is %v, %s", row.ahead, row.clock, row.tolerance, now, v.Reason)
		}
		want := fmt.Sprintf(
			"licence a (a.lic): it is dated %s, which has not come yet; it counts from then on, or ask "+
				"the vendor for one with the right date", minute(l.Issued))
		if !row.counts && (v.Code != NotYetValid || v.Reason != want || !v.Until.Equal(l.Issued) ||
			len(v.Warnings) > 0 ||
			!v.Licenses[0].Next) {
			t.Errorf("%v ahead: %s until %v, %s, %v", row.ahead, v.Code, v.Until, v.Reason, v.Warnings)
		}
	}
}

// A first clock that is years ahead is believed only after a day of running or with signed evidence. Until then all
// follows it back: the time, the periods of meters, and what counts from an instant.
func TestFirstClockIsNotBelieved(t *testing.T) {
	for _, ran := range []time.Duration{0, time.Minute, 23 * time.Hour} {
		m := newMachine()
		m.mark = Mark{}
		m.set(73 * 365 * aDay)
		m.mark = m.mark.Advance(m.Clocks, zeroTime)
		m.run(ran)
		m.Wall = m.real
		if now, c := m.mark.Now(m.Clocks, zeroTime); !now.Equal(m.real) || c.Behind != 0 || c.Unproved != 0 {
			t.Errorf("after %v it is %v, %+v", ran, now, c)
		}
		m.run(25 * time.Hour)
		m.set(-30 * aDay)
		near(t, "proved by a day", m.now(), m.real)
	}
	m := newMachine()
	m.mark = Mark{}
	m.mark = m.mark.Advance(m.Clocks, m.Wall.Add(-time.Hour))
	m.set(-30 * aDay)
	near(t, "proved by a document", m.now(), m.real)
}

// A day of running with one false clock does not prove another one that is still further ahead.
func TestLeapUponLeap(t *testing.T) {
	m := newMachine()
	m.run(time.Hour)
	m.set(300 * aDay)
	m.run(23 * time.Hour)
	m.set(3000 * aDay)
	m.run(2 * time.Hour)
	m.Wall = m.real
	if now, c := m.mark.Now(m.Clocks, zeroTime); !now.Equal(m.real) || c.Behind != 0 {
		t.Errorf("it is %v, %+v", now, c)
	}
}
