package enforcer

import (
	"fmt"
	"slices"
	"time"
)

// Hopeless reports whether no passing of time can make a document count here: it is for another product, host or
// agent, it cannot be read, or its licence was taken back. A hopeless document is not installed.
func (j Judged) Hopeless() bool {
	switch j.Code {
	case ProductMismatch, FingerprintMismatch, AgentKeyMismatch, Malformed, Revoked, Banned:
		return true
	}
	return false
}

// UpstreamMayHeal reports whether an answer of the licence's upstream may make the document good: each finding is one
// that an answer or a renewed document can end. u is what the upstream said last. Without a licence there is nobody
// to ask.
func (j Judged) UpstreamMayHeal(u Upstream) bool {
	return j.License != nil && !slices.ContainsFunc(j.Findings, func(f Finding) bool { return !u.mayHeal(f.Code) })
}

// mayHeal reports whether a later answer of this upstream may end a finding: one that time or the upstream made, or
// that the upstream itself stated.
func (u Upstream) mayHeal(c Code) bool {
	switch c {
	case Valid, ValidInGrace, HeartbeatNotStarted, HeartbeatDead, Overdue, Expired, Preparing:
		return true
	}
	return c == u.Refused
}

// CheckRenewal returns why a licence that an upstream brought does not renew another; nil: it does. It must be that
// licence or supersede it, be of its system and of no weaker environment, and be for the product and later than the
// latest issue of it that v knows. v may be nil.
func (l *License) CheckRenewal(of *License, v *Verdict) error {
	present := v.latestIssue(of.Ref())
	switch {
	case l.ID != of.ID && !slices.Contains(l.Supersedes, of.ID):
		return fmt.Errorf("it is licence %s, which does not replace %s", l.ID, of.ID)
	case !l.MayActOn(of):
		return fmt.Errorf("it is a licence of the system %s (%s), and replaces none of the system %s (%s)", l.System,
			l.strength(), of.System, of.strength())
	case present != nil && l.Product != present.Product:
		return fmt.Errorf("it is for product %q", l.Product)
	case present != nil && !l.Issued.After(present.Issued):
		return fmt.Errorf("it was issued at %s, no later than the one at hand", l.Issued.UTC().Format(time.RFC3339))
	}
	return nil
}

// CheckReplacement returns why a licence that an upstream has in the place of another does not replace it; nil: it
// does. It is for systems that give each renewal an id of its own. The licence must be of the other's system and
// product, of no weaker environment, and issued later than it and than the latest issue of itself that v knows. v may
// be nil.
func (l *License) CheckReplacement(of *License, v *Verdict) error {
	switch {
	case l.Product != of.Product:
		return fmt.Errorf("it is for product %q", l.Product)
	case !l.Issued.After(of.Issued):
		return fmt.Errorf("it was issued at %s, no later than the one at hand", l.Issued.UTC().Format(time.RFC3339))
	case !l.MayActOn(of):
		return fmt.Errorf("it is a licence of the system %s (%s), and replaces none of the system %s (%s)", l.System,
			l.strength(), of.System, of.strength())
	}
	return l.CheckRenewal(l, v)
}

// latestIssue returns the latest issue of a licence that the verdict has judged; nil: there is none.
func (v *Verdict) latestIssue(ref Ref) (latest *License) {
	if v == nil {
		return nil
	}
	for _, j := range v.Licenses {
		if l := j.License; l != nil && l.Ref() == ref && (latest == nil || l.Issued.After(latest.Issued)) {
			latest = l
		}
	}
	return latest
}

// strength returns the environment that the licence's word counts in: see [License.IsTest].
func (l *License) strength() Environment {
	if l.IsTest() {
		return Test
	}
	return Production
}

// Meant returns the document that an id names. Of several it is a production licence before a test licence, then one of
// the system that tells the time, then the latest issued. A notice is no licence. nil: the id names none.
func Meant(documents []Document, id, timeTeller string) (meant *Document) {
	for i, d := range documents {
		if l := d.License; l != nil && l.ID == id && l.Role != RoleNotice &&
			(meant == nil || l.meantBefore(meant.License, timeTeller)) {
			meant = &documents[i]
		}
	}
	return meant
}

func (l *License) meantBefore(other *License, timeTeller string) bool {
	if l.IsTest() != other.IsTest() {
		return other.IsTest()
	}
	if tells := l.TellsTime(timeTeller); tells != other.TellsTime(timeTeller) {
		return tells
	}
	return l.Issued.After(other.Issued)
}
