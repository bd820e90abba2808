package enforcer

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// answered returns facts in which every upstream answers in time for ever: no licence has a duty that is not missed
// already at the instant now, and a trial that waits begins with its licence.
func answered(f Facts, now time.Time) Facts {
	missed := map[string]map[Code]bool{}
	for _, c := range newJudge(f).docs {
		if c.license == nil || now.Before(c.begins()) {
			continue
		}
		missed[c.Name] = map[Code]bool{}
		for _, x := range c.lapses() {
			missed[c.Name][x.code] = !now.Before(x.ends)
		}
	}
	out := f
	out.Documents = slices.Clone(f.Documents)
	for i, d := range out.Documents {
		if d.License == nil {
			continue
		}
		l := *d.License
		is := missed[d.Name]
		notStarted := l.Heartbeat.Stated() && f.Upstream[l.Ref()].LastHeartbeat.IsZero()
		if !is[HeartbeatDead] && !is[HeartbeatNotStarted] || is[HeartbeatNotStarted] && !notStarted {
			l.Heartbeat = Period{}
		}
		if !is[HeartbeatNotStarted] {
			l.Activation.Required = false
		}
		if !is[Overdue] {
			l.CheckIn = Period{}
		}
		if is == nil && l.Trial > 0 && f.Seen[l.Ref()].IsZero() && len(l.AgentKeys) > 0 {
			c := candidate{Document: d, license: &l}
			l.Expires, l.Trial = sooner(l.Expires, c.begins().Add(l.Trial)), 0
		}
		out.Documents[i].License = &l
	}
	return out
}

// inForce returns the names of the documents in force, in order.
func inForce(v *Verdict) (out []string) {
	for _, j := range v.Licenses {
		if j.InForce {
			out = append(out, j.Document)
		}
	}
	slices.Sort(out)
	return out
}

// TestCoverage: a licence covers the time until it stops being good though every upstream answers in time, and what
// comes before that are the changes of the documents in force.
func TestCoverage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, now := genFacts(t), genNow(t)
		v := Judge(f, now)
		if !v.Good() {
			if !v.CoveredUntil.IsZero() || v.Coming != nil {
				t.Fatalf("not good, and covered until %v with %v", v.CoveredUntil, v.Coming)
			}
			return
		}
		kept := answered(f, now)
		w := Judge(kept, now)
		if !w.Good() || !v.CoveredUntil.Equal(w.HoldsUntil) {
			t.Fatalf("covered until %v; with all upstreams answering good %t until %v (%s)", v.CoveredUntil, w.Good(),
				w.HoldsUntil, w.Code)
		}
		in, at := inForce(w), now
		for _, c := range append(v.Coming, Change{At: v.CoveredUntil}) {
			end := c.At
			if end.IsZero() {
				end = at.Add(800 * aDay)
			}
			for _, x := range []time.Time{at, end.Add(-1)} {
				if got := inForce(Judge(kept, x)); !slices.Equal(got, in) {
					t.Fatalf("at %v in force are %v, by the changes %v: %+v", x, got, in, v.Coming)
				}
			}
			for _, s := range c.Ends {
				in = slices.DeleteFunc(slices.Clone(in), func(name string) bool { return name == s.Document })
			}
			for _, s := range c.Begins {
				in = append(in, s.Document)
			}
			slices.Sort(in)
			at = c.At
		}
	})
}

// contacts demands heartbeats and check-ins.
func contacts(l *License) {
	l.Heartbeat, l.CheckIn = Period{Every: 10 * time.Minute}, Period{Every: 7 * aDay}
}

// heard is what an upstream says that has answered right now.
func heard(f Facts) Facts {
	f.Upstream = map[Ref]Upstream{}
	for _, d := range f.Documents {
		f.Upstream[d.License.Ref()] = Upstream{Activated: noon.Add(-aDay), LastHeartbeat: noon, LastCheckIn: noon}
	}
	return f
}

// TestContactsAreNoCoverage: a licence of 90 days with heartbeats every ten minutes covers 90 days.
func TestContactsAreNoCoverage(t *testing.T) {
	f := heard(factsWith(doc("a.lic", expires(90*aDay), contacts)))
	v := Judge(f, noon)
	if want := noon.Add(90 * aDay); !v.CoveredUntil.Equal(want) {
		t.Errorf("covered until %v, want %v", v.CoveredUntil, want)
	}
	if want := noon.Add(10 * time.Minute); !v.HoldsUntil.Equal(want) || !v.Until.Equal(want) {
		t.Errorf("holds until %v, until %v; without another heartbeat it falls at %v", v.HoldsUntil, v.Until, want)
	}
	if len(v.Warnings) > 0 {
		t.Errorf("a healthy licence warns: %v", v.Warnings)
	}
}

// TestStagedRenewal: a renewal that waits for its start silences EXPIRES_SOON, and is named with what it grants less.
func TestStagedRenewal(t *testing.T) {
	old := doc("old.lic", expires(5*aDay), streams(8), func(l *License) {
		l.Features = map[string]Value{"hd": {Kind: KindBool, Bool: true}}
	})
	next := func(change ...func(*License)) Document {
		return doc("new.lic", append([]func(*License){id("L2"), starts(4 * aDay), expires(370 * aDay), streams(8),
			func(l *License) { l.Features = old.License.Features }, issued(-aDay)}, change...)...)
	}
	addOn := doc("add.lic", id("A1"), role(RoleAddOn), expires(300*aDay), streams(2), func(l *License) {
		l.AddOnTo = "L1"
	})
	for name, row := range map[string]struct {
		docs  []Document
		warns string // codes
		says  string // in the last warning
	}{
		"none":           {[]Document{old}, "EXPIRES_SOON", "licence L1 (old.lic) expires at"},
		"the same again": {[]Document{old, next()}, "", ""},
		"with duties": {[]Document{old, next(contacts, func(l *License) {
			l.Activation.Required = true
		})}, "", ""},
		"fewer slots": {[]Document{old, next(streams(4))}, "GRANTS_LESS_SOON", "pool streams 8 → 4"},
		"no feature": {[]Document{old, next(func(l *License) {
			l.Features = nil
		})}, "GRANTS_LESS_SOON", "feature hd is gone"},
		"loses its add-on": {[]Document{old, addOn, next()}, "GRANTS_LESS_SOON", "pool streams 10 → 8"},
		"of the whole site": {[]Document{old, next(unbound)}, "GRANTS_LESS_SOON",
			"8 on this host → 8 of the whole site"},
		"too late": {[]Document{old, next(starts(6 * aDay))}, "EXPIRES_SOON", "L1 (old.lic) expires"},
		"too short": {[]Document{old, next(expires(12 * aDay))}, "EXPIRES_SOON",
			"licence L2 (new.lic), which follows licence L1 (old.lic), expires at"},
		"of a test licence": {[]Document{old, next(testOnly)}, "EXPIRES_SOON", "L1 (old.lic)"},
		"a free tier":       {[]Document{old, next(role(RoleFree), starts(-aDay))}, "EXPIRES_SOON", "L1 (old.lic)"},
		"an older one that grants less": {[]Document{old, doc("new.lic", id("L2"), issued(-99*aDay), streams(4),
			expires(370*aDay))}, "EXPIRES_SOON", "L1 (old.lic)"},
		"an older one that grants the same": {[]Document{old, next(starts(-aDay), issued(-99*aDay))}, "", ""},
		"never expires": {[]Document{old, next(func(l *License) {
			l.Expires = time.Time{}
		})}, "", ""},
		"for an add-on": {[]Document{doc("base.lic"), doc("a.lic", id("A1"), role(RoleAddOn), expires(5*aDay)),
			doc("b.lic", id("A2"), role(RoleAddOn), starts(5*aDay))}, "", ""},
		"none for an add-on": {[]Document{doc("base.lic"), doc("a.lic", id("A1"), role(RoleAddOn), expires(5*aDay))},
			"EXPIRES_SOON", "A1 (a.lic)"},
	} {
		t.Run(name, func(t *testing.T) {
			v := Judge(factsWith(row.docs...), noon)
			var codes []string
			for _, w := range v.Warnings {
				if w.Code != WarnTestLicense && w.Code != WarnDocument {
					codes = append(codes, string(w.Code))
				}
			}
			if got := strings.Join(codes, " "); got != row.warns {
				t.Fatalf("warnings %v, want %q", v.Warnings, row.warns)
			}
			if row.says != "" && !slices.ContainsFunc(v.Warnings, func(w Warning) bool {
				return string(w.Code) == row.warns && strings.Contains(w.Detail, row.says)
			}) {
				t.Errorf("the warning does not say %q: %v", row.says, v.Warnings)
			}
		})
	}
}

// TestComing: the day of a renewal, what begins and what ends are named.
func TestComing(t *testing.T) {
	v := Judge(factsWith(doc("old.lic", expires(5*aDay)),
		doc("new.lic", id("L2"), issued(-aDay), starts(4*aDay), expires(370*aDay), streams(2))), noon)
	if len(v.Coming) != 1 {
		t.Fatalf("coming: %+v", v.Coming)
	}
	c := v.Coming[0]
	if !c.At.Equal(noon.Add(4*aDay)) || len(c.Begins) != 1 || c.Begins[0].License != "L2" ||
		!c.Begins[0].Expires.Equal(noon.Add(370*aDay)) || len(c.Ends) != 1 || c.Ends[0].Document != "old.lic" ||
		len(c.Losses) != 1 || c.Losses[0] != (Loss{LossPool, "streams", "4", "2"}) {
		t.Errorf("coming: %+v", c)
	}
}

// TestFailingRemote: a remote side that does not answer is a warning with the reason and the mend, and costs nothing.
func TestFailingRemote(t *testing.T) {
	f := heard(factsWith(doc("a.lic", contacts)))
	ref := f.Documents[0].License.Ref()
	u := f.Upstream[ref]
	u.Failing = Failing{"transient", "connection refused", "start it", noon.Add(-time.Minute), ""}
	f.Upstream[ref] = u
	f.SharesFailing = map[Share]Failing{{ref, "streams"}: {"refused", "the host is not enrolled", "", noon, ""}}
	v := Judge(f, noon)
	for code, says := range map[WarningCode]string{
		WarnUpstream:   "calls to the upstream fail since 2026-01-05 11:59 UTC: connection refused; start it",
		WarnSiteServer: "refuses since 2026-01-05 12:00 UTC: the host is not enrolled",
	} {
		if got := warned(v, code); len(got) != 1 || !strings.Contains(got[0], says) {
			t.Errorf("%s: %v, want %q", code, got, says)
		}
	}
	if v.Code != Valid {
		t.Errorf("the verdict is %s", v.Code)
	}
}

// TestNoLicenceNamesTheFolder: where there is no licence, the reason says where one goes, or why it cannot be read.
func TestNoLicenceNamesTheFolder(t *testing.T) {
	f := factsWith()
	f.Folder = "/etc/acme/license.d"
	if v := Judge(f, noon); !strings.Contains(v.Reason,
		"no licence in /etc/acme/license.d; drop the licence file there") {
		t.Error(v.Reason)
	}
	f.FolderFault = "licence folder /etc/acme/license.d cannot be read; chown it"
	if v := Judge(f, noon); v.Code != NotFound || !strings.HasSuffix(v.Reason, f.FolderFault) {
		t.Error(v.Reason)
	}
}
