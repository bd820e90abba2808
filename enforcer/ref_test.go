package enforcer

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestRef(t *testing.T) {
	for _, row := range []struct {
		l    *License
		want Ref
	}{
		{terms(), "usher/L1"},
		{terms(key("2027-a")), "usher/L1"},
		{terms(testOnly), "usher:test/L1"},
		{terms(testKey), "usher:test/L1"},
		{terms(of("other"), id("a/b")), "other/a/b"},
	} {
		if got := row.l.Ref(); got != row.want || got.ID() != row.l.ID || got.Former() {
			t.Errorf("%s, id %s, former %t; want %s", got, got.ID(), got.Former(), row.want)
		}
	}
	for ref, want := range map[Ref]string{"usher/L1": "L1", "usher/a/b": "usher/a/b", "usher:test/L1": "usher:test/L1",
		"other/L1": "other/L1", "/L1": "/L1", "usher/": "usher/"} {
		if got := ref.Written(); got != want || ReadRef(got) != ref {
			t.Errorf("%s is written %s and read %s; want %s", ref, got, ReadRef(got), want)
		}
	}
	if r := FormerRef("usher/L1"); !r.Former() || r.ID() != "usher/L1" {
		t.Errorf("%s: id %s, former %t", r, r.ID(), r.Former())
	}
}

// native reports whether a document is a production licence of the system whose licences are watched.
func native(l *License) bool { return l != nil && l.System == "usher" && !l.IsTest() }

// TestOthersChangeNothingNative: a document of another system, or of a test environment, whatever it says and whatever
// is known of it, changes nothing of the production licences of the native system: neither what they permit, nor their
// standing, nor the time. Only as a base that counts itself may it take their place.
func TestOthersChangeNothingNative(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, now := genFacts(t), genNow(t)
		more := f
		more.Documents = slices.Clone(f.Documents)
		for i := range rapid.IntRange(1, 3).Draw(t, "others") {
			l := genLicense(t)
			switch l.ResetsClock = rapid.Bool().Draw(t, "resets the clock"); rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				l.System = "other"
			case 1:
				l.AnchorEnvironment, l.KeyID = Test, "qa"
			case 2:
				l.Environment = Test
			}
			l.Issued = noon.Add(pick(t, "issued", -aDay, 0, 9999*aDay))
			more.Documents = append(more.Documents,
				Document{Name: fmt.Sprintf("%s%d.lic", pick(t, "name", "!", "z"), i), License: l})
		}
		wall := func(signed time.Time) (time.Time, Clock) { return Mark{}.Now(Clocks{Wall: now}, signed) }
		if a, b := Evidence(f, "usher", wall), Evidence(more, "usher", wall); b.After(a) && b.After(now) {
			// Another's base may bring an add-on of ours into force, whose date counts then. One that is past moves
			// nothing.
			t.Fatalf("the documents tell the time %v, and with the others %v", a, b)
		}
		v, w := Judge(f, now), Judge(more, now)
		if a, b := v.ClockReset("usher"), w.ClockReset("usher"); !a.Equal(b) {
			t.Fatalf("the clock is put back to %v, and with the others to %v", a, b)
		}
		base := func(v *Verdict) *License {
			if !v.Good() {
				return nil
			}
			return v.Licenses[0].License
		}
		switch was, is := base(v), base(w); {
		case native(is) && (was == nil || native(was)): // else what the others retire is of their own system
			if a, b := permitted(v), permitted(w); !reflect.DeepEqual(a, b) {
				t.Fatalf("without the others\n%+v\nwith them\n%+v", a, b)
			}
		case native(was) && (is == nil || is.IsTest()):
			t.Fatalf("the licence in force is lost to the others: %s %s", w.Code, w.Reason)
		}
		same := permitted(v).Base == permitted(w).Base
		for _, j := range v.Licenses {
			if !native(j.License) {
				continue
			}
			i := slices.IndexFunc(w.Licenses, func(o Judged) bool { return o.Document == j.Document })
			a, b := standing(j, same), standing(w.Licenses[i], same)
			if !slices.Equal(a, b) {
				t.Fatalf("%s: without the others %v, with them %v", j.Document, a, b)
			}
		}
	})
}

// standing returns what is found of a document; where another base is in force, without what depends on that.
func standing(j Judged, sameBase bool) (out []Code) {
	for _, f := range j.Findings {
		if sameBase || f.Code != Superseded && f.Code.State() != StateValid {
			out = append(out, f.Code)
		}
	}
	return out
}
