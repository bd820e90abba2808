package enforcer

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"time"
)

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// ruling is a document at one instant.
type ruling struct {
	*candidate
	findings  []Finding
	graceEnds time.Time
	inForce   bool
	spare     bool   // a good base that comes after another
	unused    string // why a good add-on does not count
}

func (r *ruling) code() Code { return r.findings[0].Code }

func (r *ruling) good() bool { return r.license != nil && r.code().State() == StateValid }

// isBase reports whether the document is good and grants on its own.
func (r *ruling) isBase() bool { return r.good() && (r.role() == RoleBase || r.role() == RoleFree) }

func (r *ruling) role() Role {
	if r.license == nil {
		return RoleBase
	}
	return orDefault(r.license.Role, RoleBase)
}

// setAside adds a finding to a document that would be good.
func (r *ruling) setAside(code Code, reason string) {
	if r.good() {
		r.findings = nil
	}
	r.findings = append(r.findings, Finding{code, fmt.Sprintf("licence %s: %s", r.label(), reason)})
	slices.SortStableFunc(r.findings, func(a, b Finding) int { return cmp.Compare(a.Code.rank(), b.Code.rank()) })
	r.graceEnds = zeroTime
}

// addsTo reports whether a good add-on adds to the base in force. Where it does not, the ruling says why.
func (r *ruling) addsTo(base *ruling) bool {
	l := r.license
	switch {
	case l.System != base.license.System:
		r.unused = fmt.Sprintf("licence %s: it is of the system %s, and adds to no licence of the system %s, which is "+
			"in force", r.label(), l.System, base.license.System)
	case l.AddOnTo != "" && l.AddOnTo != base.license.ID:
		r.unused = fmt.Sprintf("licence %s: it adds to licence %s, which is not in force", r.label(), l.AddOnTo)
	case !l.MayActOn(base.license):
		r.setAside(TestLicense, "it is a test add-on, and a test licence never adds to a production one")
	default:
		return true
	}
	return false
}

func (r *ruling) judged(now time.Time) Judged {
	out := Judged{Document: r.Name, License: r.license, Role: r.role(), InForce: r.inForce, Spare: r.spare,
		Code: r.code(), Reason: r.findings[0].Reason,
		Findings: r.findings, Problem: r.Problem, Match: r.match}
	if r.license != nil && r.license.Trial > 0 && !r.seen.IsZero() {
		out.TrialEnds = r.expires()
	}
	out.Next = r.license != nil && len(r.findings) == 1 && r.code() == NotYetValid
	return out
}

// supersede sets aside the documents that other documents supersede: from those documents' start on, and after their
// end too, since otherwise an old document would come back to life.
func (j *judge) supersede(all []*ruling, now time.Time) {
	for _, by := range all {
		if by.license == nil || now.Before(by.begins()) || by.foreign() {
			continue
		}
		for _, r := range all {
			if r == by || r.license == nil || !by.license.MayActOn(r.license) ||
				!slices.Contains(by.license.Supersedes, r.license.ID) || r.license.ID == by.license.ID {
				continue
			}
			r.setAside(Superseded, fmt.Sprintf("licence %s replaces it; it may be removed", by.label()))
		}
	}
}

// foreign reports whether the document is not for this product and host.
func (r *ruling) foreign() bool {
	return slices.ContainsFunc(r.fixed, func(f Finding) bool {
		switch f.Code {
		case ProductMismatch, FingerprintMismatch, AgentKeyMismatch, Revoked, Banned, TestLicense, Malformed:
			return true
		}
		return false
	})
}

// dedupe keeps the good document of a licence that was issued last, whichever of a vendor's keys signed it. So a
// licence that is renewed with another key does not count twice. What cannot stand alone never replaces what can.
func (j *judge) dedupe(all []*ruling) {
	last := map[Ref]*ruling{}
	for _, r := range all {
		if !r.good() {
			continue
		}
		k := r.license.Ref()
		other := last[k]
		if other == nil {
			last[k] = r
			continue
		}
		if d := cmp.Compare(r.standing(), other.standing()); d < 0 || d == 0 && r.before(other) {
			r, other = other, r
		}
		other.setAside(Superseded, r.replaces(other))
		last[k] = r
	}
}

// standing orders the documents of one licence by role: one that grants by itself, one that adds, one that grants
// nothing.
func (r *ruling) standing() int {
	switch r.role() {
	case RoleBase, RoleFree:
		return 2
	case RoleAddOn:
		return 1
	default:
		return 0
	}
}

// replaces says why another document of the same licence does not count.
func (r *ruling) replaces(other *ruling) string {
	switch {
	case other.standing() != r.standing():
		return fmt.Sprintf(
			"document %s has the same id and is a %s, which a %s never replaces; ask the vendor for one with "+
				"an id of its own", r.Name, r.role(), other.role())
	case other.license.Issued.Before(r.license.Issued):
		return fmt.Sprintf("document %s is a later issue of it; it may be removed", r.Name)
	case reflect.DeepEqual(r.license, other.license):
		return fmt.Sprintf("document %s is a copy of it; one of the two may be removed", r.Name)
	default:
		return fmt.Sprintf("document %s was issued at the same time with other terms, and counts; remove the one that "+
			"is not meant", r.Name)
	}
}

// succeed sets aside the expired bases in whose place the base in force has come: they need no renewal.
func (j *judge) succeed(all []*ruling, base *ruling) {
	for _, r := range all {
		if r == base || r.license == nil || r.code() != Expired || r.role() != RoleBase && r.role() != RoleFree ||
			base.role() == RoleFree && r.role() != RoleFree || !base.license.MayActOn(r.license) ||
			r.license.Issued.After(base.license.Issued) {
			continue
		}
		if r.license.Ref() == base.license.Ref() {
			r.setAside(Superseded, r.expiredWords()+base.replaces(r))
			continue
		}
		r.setAside(Superseded, fmt.Sprintf("%slicence %s is in force in its place; it may be removed", r.expiredWords(),
			base.label()))
	}
}

// expiredWords says when a document expired, before what came in its place.
func (r *ruling) expiredWords() string { return "it expired at " + minute(r.expires()) + ", and " }

// before orders two documents by issue, then by name, so that the order is total.
func (r *ruling) before(o *ruling) bool {
	if d := r.license.Issued.Compare(o.license.Issued); d != 0 {
		return d < 0
	}
	return r.Name < o.Name
}

// choose returns the base in force and sets the other good bases aside; nil: none is good.
func (j *judge) choose(all []*ruling) *ruling {
	var best *ruling
	for _, r := range all {
		if !r.isBase() {
			continue
		}
		if best == nil || j.better(r, best) {
			best = r
		}
	}
	for _, r := range all {
		if r == best || !r.isBase() {
			continue
		}
		r.spare = true
		switch {
		case r.license.IsTest() && !best.license.IsTest():
			r.setAside(TestLicense,
				fmt.Sprintf("it is a test licence, and the production licence %s is in force", best.label()))
		case r.role() == RoleFree && best.role() != RoleFree:
			r.setAside(Superseded, fmt.Sprintf("it is the free tier, and licence %s is in force", best.label()))
		default:
			r.setAside(Superseded, fmt.Sprintf(
				"licence %s was issued later and is in force; two base licences are never added up", best.label()))
		}
	}
	return best
}

// better reports whether a good base a goes before a good base b: production before test, paid before free tier, one
// not in grace before one in grace, then the latest issued.
func (j *judge) better(a, b *ruling) bool {
	if d := compareBool(a.license.IsTest(), b.license.IsTest()); d != 0 {
		return d < 0
	}
	if d := compareBool(a.role() == RoleFree, b.role() == RoleFree); d != 0 {
		return d < 0
	}
	if d := compareBool(a.code() == ValidInGrace, b.code() == ValidInGrace); d != 0 {
		return d < 0
	}
	return b.before(a)
}

// refuse says why nothing is permitted: by the document that is closest to being good.
func (j *judge) refuse(v *Verdict, all []*ruling, now time.Time) {
	var best *ruling
	for _, r := range all {
		if r.good() || r.role() == RoleNotice { // an add-on without a base
			continue
		}
		if best == nil || r.closer(best) {
			best = r
		}
	}
	if best == nil {
		v.Code, v.Reason = NotFound, j.none()
		if i := slices.IndexFunc(all, func(r *ruling) bool { return r.unused != "" }); i >= 0 {
			v.Reason = all[i].unused
		}
		v.State = v.Code.State()
		return
	}
	if best.emergencyHelps(now) {
		best.findings[0].Reason += ", or begin an emergency: `usher emergency start`"
	}
	v.Code, v.Reason, v.State = best.code(), best.findings[0].Reason, best.code().State()
	v.Match = best.match
	if best.Problem != nil {
		v.SystemCode = best.Problem.SystemCode
	}
	if l := best.license; l != nil {
		v.SystemCode, v.TerminatesAt, v.OnExpiry = cmp.Or(l.SystemCode, v.SystemCode), best.terminates(),
			orDefault(l.OnExpiry, Drain)
		v.AgentAway, v.MaxBorrow, v.EarlyReturn = l.AgentAway, l.MaxBorrow, l.EarlyReturn
		if l.IsTest() {
			v.Environment = Test
		}
	}
}

// none says that there is no licence, and where one goes.
func (j *judge) none() string {
	switch {
	case j.FolderFault != "":
		return "there is no licence: " + j.FolderFault
	case j.Folder != "":
		return fmt.Sprintf(
			"there is no licence in %s; drop the licence file there, or run `usher license install FILE`",
			j.Folder)
	default:
		return "there is no licence; drop the licence file into the licence folder, or run `usher license install FILE`"
	}
}

// emergencyHelps reports whether an operator may begin an emergency now, and the licence would be good by it.
func (r *ruling) emergencyHelps(now time.Time) bool {
	if r.license == nil || r.role() == RoleAddOn || r.role() == RoleNotice {
		return false
	}
	counted := now.Add(-r.clock.Unproved)
	if at, ever := r.license.Emergency.Free(r.broken, counted); !ever || at.After(counted) {
		return false
	}
	tried := *r.candidate
	tried.broken = []time.Time{now}
	findings, _ := tried.findings(now)
	return findings[0].Code.State() == StateValid && r.only(func(c Code) bool {
		return c != Superseded && c != TestLicense
	})
}

// closer reports whether a bad document a is closer to being good than b.
func (a *ruling) closer(b *ruling) bool {
	if d := compareBool(a.license != nil, b.license != nil); d != 0 {
		return d > 0
	}
	if a.license != nil {
		if d := compareBool(a.role() == RoleBase, b.role() == RoleBase); d != 0 {
			return d > 0
		}
	}
	if d := cmp.Compare(a.code().rank(), b.code().rank()); d != 0 {
		return d > 0
	}
	if a.license != nil {
		return b.before(a)
	}
	return a.Name < b.Name
}
