package enforcer

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// emergencyYear is the span that [Emergency.PerYear] counts within.
const emergencyYear = 365 * 24 * time.Hour

// expiresSoon are the days before expiry at which the warning EXPIRES_SOON is given again.
var expiresSoon = []int{30, 14, 7, 1}

// Judge says what the facts permit at the instant now, and when that will next change by itself. It has no side effect:
// the same facts and instant give the same verdict.
//
// Each document gets all its findings, in the order of [Codes]. Of the good bases of this product the latest issued is
// in force, together with every good add-on. A free-tier base is in force only where no other is good. The
// configuration narrows the signed terms and never widens them. The best verdict wins; the faults of other documents
// are warnings.
func Judge(f Facts, now time.Time) *Verdict {
	j := newJudge(f)
	v := j.at(now)
	v.JudgedAt = now
	last := v
	for _, t := range j.instants(now) {
		next, all, inForce := j.grants(t)
		if v.JudgeAgainAt.IsZero() { // the warnings of what comes later are judged then
			if j.warn(next, all, inForce, t); !slices.Equal(v.Warnings, next.Warnings) {
				v.JudgeAgainAt = t
			}
		}
		if !differ(last, next) {
			continue
		}
		if v.Until.IsZero() {
			v.Until = t
		}
		if !v.Good() {
			break
		}
		next.JudgedAt = t
		v.Next, last = append(v.Next, next), next
		if !next.Good() {
			v.HoldsUntil = t
			break
		}
	}
	if v.Good() {
		j.coverage(v, now)
	}
	v.JudgeAgainAt = sooner(v.JudgeAgainAt, v.Until)
	return v
}

// judge is the facts, prepared for judging at many instants.
type judge struct {
	Facts
	docs     []candidate
	outlooks map[string]outlook // by the state of the duties
}

// candidate is one document, with what does not depend on the time.
type candidate struct {
	Document
	license *License // narrowed; nil: there is none
	match   HostMatch
	fixed   []Finding
	ignored []string
	up      Upstream
	seen    time.Time   // when this agent first used it; zero: not recorded yet
	broken  []time.Time // when emergencies began
	clock   Clock
	owed    []lapse       // see lapses
	met     map[Code]bool // which duties are taken for met, whatever was heard: see kept
}

func newJudge(f Facts) *judge {
	j := &judge{Facts: f}
	revoked := j.revoked()
	for _, d := range f.Documents {
		c := candidate{Document: d}
		if d.License != nil && (d.Problem == nil || d.Problem.Stale) {
			c.license, c.ignored = Narrow(d.License, f.Narrowing)
			ref := d.License.Ref()
			c.up, c.seen, c.broken = f.Upstream[ref], f.Seen[ref], f.Emergencies[ref]
			c.match = matchHosts(c.license, f.Narrowing.Strategy, f.Host)
			c.fixed, c.clock = j.fixed(&c), f.Clock
			if by := revoked.by(c.license); by != "" && c.license.Role != RoleNotice {
				c.fixed = append(c.fixed, Finding{Revoked,
					fmt.Sprintf("licence %s: notice %s revokes it; ask the vendor for another", c.label(), by)})
			}
			if at := f.Returned[ref]; !at.IsZero() && !d.License.Issued.After(at) && c.license.Role != RoleNotice {
				c.fixed = append(c.fixed,
					Finding{Revoked,
						fmt.Sprintf(
							"licence %s: it was returned to the vendor on %s; take it out of the folder, or ask for "+
								"another", c.label(), day(at))})
			}
		} else if d.Problem != nil {
			c.fixed = []Finding{{d.Problem.Code, d.Problem.Sentence()}}
		} else {
			c.fixed = []Finding{{Unavailable, fmt.Sprintf("document %s: it has not been read", d.Name)}}
		}
		j.docs = append(j.docs, c)
	}
	// By name, so that the result does not depend on the order in which the documents were read.
	slices.SortStableFunc(j.docs, func(a, b candidate) int { return cmp.Compare(a.Name, b.Name) })
	return j
}

// rule returns all documents at one instant, those in force first, the base before its add-ons.
func (j *judge) rule(now time.Time) (all, inForce []*ruling) {
	all = make([]*ruling, len(j.docs))
	for i := range j.docs {
		c := &j.docs[i]
		r := &ruling{candidate: c}
		r.findings, r.graceEnds = c.findings(now)
		all[i] = r
	}
	j.supersede(all, now)
	j.dedupe(all)
	base := j.choose(all)
	if base != nil {
		j.succeed(all, base)
		inForce = append(inForce, base)
		for _, r := range all {
			if r.good() && r.license.Role == RoleAddOn && r.addsTo(base) {
				inForce = append(inForce, r)
			}
		}
	} else {
		for _, r := range all {
			if r.good() && r.license.Role == RoleAddOn {
				r.unused = fmt.Sprintf(
					"licence %s: it adds to another licence, and none is in force; install that one too", r.label())
			}
		}
	}
	for _, r := range all {
		r.inForce = slices.Contains(inForce, r)
	}
	slices.SortStableFunc(all, func(a, b *ruling) int {
		return cmp.Or(compareBool(b == base, a == base), compareBool(b.inForce, a.inForce))
	})
	return all, inForce
}

// at judges at one instant, without the future.
func (j *judge) at(now time.Time) *Verdict {
	v, all, inForce := j.grants(now)
	j.warn(v, all, inForce, now)
	return v
}

// grants judges at one instant, without the future and the warnings.
func (j *judge) grants(now time.Time) (v *Verdict, all, inForce []*ruling) {
	v = &Verdict{Environment: Production, OnExpiry: Drain, Withheld: j.Withheld, Pools: map[string]PoolGrant{},
		Meters: map[string]MeterGrant{}, Features: map[string]Value{}}
	all, inForce = j.rule(now)
	if len(inForce) > 0 {
		j.grant(v, inForce)
	} else {
		j.refuse(v, all, now)
	}
	for _, r := range all {
		v.Licenses = append(v.Licenses, r.judged(now))
	}
	return v, all, inForce
}

// instants returns, in order and after now, every instant at which a judgement may change by itself.
func (j *judge) instants(now time.Time) []time.Time {
	var out []time.Time
	add := func(t time.Time) {
		if t.After(now) {
			out = append(out, t)
		}
	}
	for i := range j.docs {
		c := &j.docs[i]
		if c.license == nil {
			continue
		}
		add(c.begins())
		if c.met != nil && len(c.fixed) > 0 {
			continue // it is never good
		}
		add(c.clock.falls(c.license))
		for _, x := range c.lapses() {
			add(x.due)
			add(x.ends)
		}
		if at := c.expires(); !at.IsZero() && c.met == nil { // nobody is warned of what is only looked ahead at
			for _, days := range expiresSoon {
				add(at.Add(-time.Duration(days) * 24 * time.Hour))
			}
		}
		for _, began := range c.broken {
			add(began)
			add(began.Add(c.license.Emergency.Length))
		}
	}
	slices.SortFunc(out, time.Time.Compare)
	return slices.CompactFunc(out, time.Time.Equal)
}

// differ reports whether two verdicts permit different things, or say so for different reasons.
func differ(a, b *Verdict) bool {
	return a.State != b.State || a.Paused != b.Paused || a.Code != b.Code || a.OnExpiry != b.OnExpiry ||
		a.Environment != b.Environment ||
		baseID(a) != baseID(b) ||
		!maps.EqualFunc(a.Pools, b.Pools, PoolGrant.equal) || !maps.EqualFunc(a.Meters, b.Meters, MeterGrant.equal) ||
		!maps.Equal(a.Features, b.Features) || !slices.Equal(a.Versions, b.Versions)
}

// baseID names the base in force.
func baseID(v *Verdict) string {
	if len(v.Licenses) == 0 || !v.Licenses[0].InForce {
		return ""
	}
	return v.Licenses[0].Document
}
