package enforcer

import (
	"cmp"
	"fmt"
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
	out.Next = r.license != nil && len(r.findings) == 1 && r.code() == NotYetValid && now.Before(r.license.NotBefore)
	return out
}

// supersede sets aside the documents that other documents supersede: from those documents' start on, and after their
// end too, since otherwise an old document would come back to life.
func (j *judge) supersede(all []*ruling, now time.Time) {
	for _, by := range all {
		if by.license == nil || now.Before(by.license.NotBefore) || by.foreign() {
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
// licence that is renewed with another key does not count twice.
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
		if r.before(other) {
			r, other = other, r
		}
		other.setAside(Superseded, fmt.Sprintf("document %s is a later issue of it; it may be removed", r.Name))
		last[k] = r
	}
}

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
func (j *judge) refuse(v *Verdict, all []*ruling) {
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
		v.Code, v.Reason = NotFound,
			"there is no licence; drop the licence file into the licence folder, or run `usher license install FILE`"
		if i := slices.IndexFunc(all, func(r *ruling) bool { return r.unused != "" }); i >= 0 {
			v.Reason = all[i].unused
		}
		v.State = v.Code.State()
		return
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
