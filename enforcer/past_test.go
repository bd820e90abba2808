package enforcer

import (
	"strings"
	"testing"
	"time"
)

func trial(l *License) { l.Trial, l.AgentKeys = 30*aDay, []string{"thumb-1"} }

func TestFirstUses(t *testing.T) {
	activation := func(l *License) { l.Activation = Activation{Required: true, Grace: aDay} }
	long := noon.Add(-900 * aDay)
	for _, test := range []struct {
		name  string
		f     Facts
		since time.Time // of the record
		want  map[Ref]time.Time
	}{
		{"a trial", factsWith(doc("a.lic", trial)), long, map[Ref]time.Time{"usher/L1": noon}},
		{"a trial that is older than the record", factsWith(doc("a.lic", trial, issued(-2*aDay))), noon.Add(-aDay),
			map[Ref]time.Time{"usher/L1": noon.Add(-2 * aDay)}},
		{"a trial that was over before the record began", factsWith(doc("a.lic", trial)), noon,
			map[Ref]time.Time{"usher/L1": noon.Add(-90 * aDay)}},
		{"a trial of another host", factsWith(doc("a.lic", trial, func(l *License) {
			l.AgentKeys = []string{"other"}
		})), long, nil},
		{"a trial that is bound to no agent", factsWith(doc("a.lic", trial, func(l *License) {
			l.AgentKeys = nil
		})), long, nil},
		{"a trial that has begun", changed(factsWith(doc("a.lic", trial)), func(f *Facts) {
			f.Seen = map[Ref]time.Time{"usher/L1": noon.Add(-aDay)}
		}), long, nil},
		{"a trial that begins later", factsWith(doc("a.lic", trial, starts(aDay))), long, nil},
		{"a trial beside what is paid for", factsWith(doc("a.lic", trial, id("T")), doc("b.lic", issued(-aDay))), long,
			nil},
		{"a trial beside the free tier", factsWith(doc("a.lic", trial, id("T")),
			doc("b.lic", role(RoleFree), issued(-aDay))), long, map[Ref]time.Time{"usher/T": noon}},
		{"a trial by a clock that is behind", factsWith(doc("a.lic", trial, issued(aDay))), long,
			map[Ref]time.Time{"usher/L1": noon.Add(aDay)}},
		{"an activation with time to spare", factsWith(doc("a.lic", activation)), noon,
			map[Ref]time.Time{"usher/L1": noon}},
		{"an activation at once", factsWith(doc("a.lic", func(l *License) {
			l.Activation.Required = true
		})), long, nil},
		{"nothing that counts from its first use", factsWith(doc("a.lic")), long, nil},
	} {
		got := FirstUses(test.f, Judge(test.f, noon), noon, test.since)
		if len(got) != len(test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
		for id, at := range test.want {
			if !got[id].Equal(at) {
				t.Errorf("%s: %s counts from %v, want %v", test.name, id, got[id], at)
			}
		}
	}
}

// Whatever a recorded first use was, a false clock gains nobody a longer trial than one from now.
func TestSeenBy(t *testing.T) {
	l := terms(trial)
	for _, test := range []struct{ recorded, now, want time.Time }{
		{noon.Add(-aDay), noon, noon.Add(-aDay)},
		{noon, noon, noon},
		{noon.Add(9999 * aDay), noon, noon},
		{noon, time.Unix(0, 0).UTC(), l.Issued},
	} {
		if got := l.SeenBy(test.recorded, test.now); !got.Equal(test.want) {
			t.Errorf("recorded %v, now %v: %v, want %v", test.recorded, test.now, got, test.want)
		}
	}
}

func TestMayBeginEmergency(t *testing.T) {
	grants := func(l *License) { l.Emergency = Emergency{Length: 72 * time.Hour, PerYear: 2} }
	began := func(ago ...time.Duration) func(*Facts) {
		return func(f *Facts) {
			f.Emergencies = map[Ref][]time.Time{}
			for _, a := range ago {
				f.Emergencies["usher/L1"] = append(f.Emergencies["usher/L1"], noon.Add(-a))
			}
		}
	}
	for _, test := range []struct {
		name string
		f    Facts
		want string // a licence's id, or words of the refusal
	}{
		{"expired", factsWith(doc("a.lic", grants, expires(-aDay))), "L1"},
		{"in its grace", factsWith(doc("a.lic", grants, expires(-aDay), grace(2*aDay))), "L1"},
		{"the second", changed(factsWith(doc("a.lic", grants, expires(-aDay))), began(90*aDay)), "L1"},
		{"the free tier has taken over",
			factsWith(doc("a.lic", grants, expires(-aDay)), doc("f.lic", role(RoleFree), id("F"))), "L1"},
		{"valid", factsWith(doc("a.lic", grants)), "the licence is valid"},
		{"the third", changed(factsWith(doc("a.lic", grants, expires(-aDay))), began(90*aDay, 50*aDay)),
			"grants 2 within a year, and none is left"},
		{"the third, after a year", changed(factsWith(doc("a.lic", grants, expires(-aDay))), began(366*aDay, 50*aDay)),
			"L1"},
		{"the third, by a clock that was false",
			changed(factsWith(doc("a.lic", grants, expires(-aDay))), began(-9000*aDay, 50*aDay)), "none is left"},
		{"one runs", changed(factsWith(doc("a.lic", grants, expires(-aDay))), began(time.Hour)),
			"an emergency is in force already"},
		{"none is granted", factsWith(doc("a.lic", expires(-aDay))), "no licence here grants emergencies"},
		{"another host", factsWith(doc("a.lic", grants, expires(-aDay), func(l *License) {
			l.AgentKeys = []string{"other"}
		})), "does not help"},
		{"no licence", factsWith(), "no licence here grants emergencies"},
		{"returned", changed(factsWith(doc("a.lic", grants, expires(-aDay))), func(f *Facts) {
			f.Returned = map[Ref]time.Time{"usher/L1": noon}
		}), "does not help"},
	} {
		l, d := MayBeginEmergency(test.f, Judge(test.f, noon), noon)
		got := ""
		if l != nil {
			got = l.ID
		} else {
			got = d.Detail
		}
		if !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
		if l == nil {
			continue
		}
		test.f.Emergencies = map[Ref][]time.Time{l.Ref(): append(test.f.Emergencies[l.Ref()], noon)}
		if v := Judge(test.f, noon); v.Code != ValidInGrace {
			t.Errorf("%s: with the emergency the verdict is %s: %s", test.name, v.Code, v.Reason)
		}
	}
}

func TestReturned(t *testing.T) {
	returned := func(f *Facts) { f.Returned = map[Ref]time.Time{"usher/L1": noon.Add(-aDay)} }
	if v := Judge(changed(factsWith(doc("a.lic")), returned), noon); v.Code != Revoked ||
		!strings.Contains(v.Reason, "it was returned to the vendor on 2026-01-04") {
		t.Errorf("%s: %s", v.Code, v.Reason)
	}
	if v := Judge(changed(factsWith(doc("a.lic", issued(-time.Hour))), returned), noon); v.Code != Valid {
		t.Errorf("what the vendor issued later is %s: %s", v.Code, v.Reason)
	}
	if v := Judge(changed(factsWith(doc("a.lic", id("L2"))), returned), noon); v.Code != Valid {
		t.Errorf("another licence is %s: %s", v.Code, v.Reason)
	}
}

func changed(f Facts, change func(*Facts)) Facts {
	change(&f)
	return f
}

func TestClockReset(t *testing.T) {
	reset := func(l *License) { l.ResetsClock, l.AgentKeys = true, []string{"thumb-1"} }
	for _, test := range []struct {
		name string
		f    Facts
		want time.Time
	}{
		{"a licence", factsWith(doc("a.lic", reset)), noon.Add(-90 * aDay)},
		{"the latest of two", factsWith(doc("a.lic", reset),
			doc("n.lic", reset, id("N"), role(RoleNotice), issued(-aDay))), noon.Add(-aDay)},
		{"one that has expired by the false time", factsWith(doc("a.lic", reset, expires(-aDay))),
			noon.Add(-90 * aDay)},
		{"one that says nothing of it", factsWith(doc("a.lic")), zeroTime},
		{"another agent's", factsWith(doc("a.lic", reset, func(l *License) {
			l.AgentKeys = []string{"other"}
		})), zeroTime},
		{"nobody's", factsWith(doc("a.lic", reset, func(l *License) { l.AgentKeys = nil })), zeroTime},
		{"another product's", factsWith(doc("a.lic", reset, func(l *License) { l.Product = "other" })), zeroTime},
		{"a revoked one", factsWith(doc("a.lic", reset), doc("n.lic", id("N"), role(RoleNotice), func(l *License) {
			l.Revokes = []string{"L1"}
		})), zeroTime},
	} {
		if got := Judge(test.f, noon).ClockReset("usher"); !got.Equal(test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
