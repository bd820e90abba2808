package enforcer

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// emergencyYear is within which [Emergency.PerYear] counts.
const emergencyYear = 365 * 24 * time.Hour

// expiresSoon are the days before expiry at which the warning EXPIRES_SOON comes, or comes anew.
var expiresSoon = []int{30, 14, 7, 1}

// Judge says what the facts permit at the instant now, and when that will next change by itself. It has no side effect:
// the same facts and instant give the same verdict.
//
// Each document gets all its findings, in the order of [Codes]. Of the good bases of this product the latest issued is
// in force, with every good add-on; a free-tier base only where no other is good. The configuration narrows what is
// signed and never widens it. The best verdict wins, and what is wrong with other documents is a warning.
func Judge(f Facts, now time.Time) *Verdict {
	j := newJudge(f)
	v := j.at(now)
	v.JudgedAt = now
	last := v
	for _, t := range j.instants(now) {
		next := j.at(t)
		if v.JudgeAgainAt.IsZero() && !slices.Equal(v.Warnings, next.Warnings) {
			v.JudgeAgainAt = t
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
			v.CoveredUntil = t
			break
		}
	}
	v.JudgeAgainAt = sooner(v.JudgeAgainAt, v.Until)
	return v
}

// judge is the facts, prepared so that they can be judged at many instants.
type judge struct {
	Facts
	docs []candidate
}

// candidate is one document and what of it does not depend on the time.
type candidate struct {
	Document
	license *License // narrowed; nil where there is none
	match   HostMatch
	fixed   []Finding
	ignored []string
	up      Upstream
	seen    time.Time   // first, by this agent; zero: not recorded yet
	broken  []time.Time // when emergencies began
	clock   Clock
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
			reason := d.Problem.Reason
			c.fixed = []Finding{{d.Problem.Code, reason}}
		} else {
			c.fixed = []Finding{{Unavailable, fmt.Sprintf("document %s: it has not been read", d.Name)}}
		}
		j.docs = append(j.docs, c)
	}
	// By their names, so that what counts does not hang on the order in which they were read.
	slices.SortStableFunc(j.docs, func(a, b candidate) int { return cmp.Compare(a.Name, b.Name) })
	return j
}

// fixed returns what is found whatever the time.
func (j *judge) fixed(c *candidate) (out []Finding) {
	l := c.license
	find := func(code Code, format string, args ...any) {
		out = append(out, Finding{code, fmt.Sprintf("licence %s: ", c.label()) + fmt.Sprintf(format, args...)})
	}
	if len(j.Products) > 0 && !slices.Contains(j.Products, l.Product) {
		find(ProductMismatch, "it is for product %q, and this agent serves %s; install it where that product runs",
			l.Product, strings.Join(j.Products, ", "))
	}
	if l.Revoked {
		find(Revoked, "its issuer has revoked it; ask the vendor for another")
	}
	if l.Banned {
		find(Banned, "its issuer has banned it; ask the vendor")
	}
	if l.Suspended {
		find(Suspended, "its issuer has suspended it; ask the vendor")
	}
	if code := c.up.Refused; code != "" {
		find(code, "the upstream says: %s", cmp.Or(c.up.RefusedReason, strings.ToLower(string(code))))
	}
	if f, found := c.unproved(j.UpstreamLost); found {
		out = append(out, f)
	}
	if at := c.up.Released; !at.IsZero() {
		find(HeartbeatNotStarted, "this host gave its place back on %s; `usher upstream call` takes one again", day(at))
	}
	if l.IsTest() && j.Narrowing.RequireProduction {
		find(TestLicense, "it is a test licence, and license.require_production is set; install a production licence")
	}
	if c.match.Bound && !c.match.OK {
		find(FingerprintMismatch,
			"it is bound to another host: %d of %d components match (%s); have it bound to this host: `usher "+
				"fingerprint --request`",
			c.match.Matched, c.match.Of, strings.Join(c.match.Misses, "; "))
	}
	if len(l.AgentKeys) > 0 && (j.AgentKey == "" || !slices.Contains(l.AgentKeys, j.AgentKey)) {
		find(AgentKeyMismatch,
			"it is bound to another agent's key, and this one's is %s; have it bound again: `usher fingerprint "+
				"--request`", cmp.Or(j.AgentKey, "missing"))
	}
	if l.Trial > 0 && len(l.AgentKeys) == 0 {
		find(AgentKeyMismatch,
			"it is a trial, and a trial must name the key of the agent that it is for; have it bound: `usher "+
				"fingerprint --request`")
	}
	if l.CoreCap != 0 && l.CoreCap != Unlimited {
		kind := orDefault(l.CoreKind, CoresPhysical)
		switch n := j.Host.Cores(kind); {
		case n == 0:
			find(TooManyCores,
				"it allows %d %s cores, and how many this host has could not be read; mount /sys for the agent",
				l.CoreCap, kind)
		case !l.CoreCap.Covers(int64(n)):
			find(TooManyCores, "it allows %d %s cores, and this host has %d; have it extended, or give the host fewer",
				l.CoreCap, kind, n)
		}
	}
	for _, x := range []struct {
		code Code
		what string
		cap  Limit
		has  int64
	}{{TooMuchMemory, "memory", l.MemoryCap, j.Host.Memory}, {TooMuchDisk, "disk", l.DiskCap, j.Host.Disk}} {
		switch {
		case x.cap == 0 || x.cap == Unlimited:
		case x.has == 0:
			find(x.code, "it allows %d bytes of %s, and how much this host has could not be read", x.cap, x.what)
		case !x.cap.Covers(x.has):
			find(x.code, "it allows %d bytes of %s, and this host has %d; have it extended, or give the host less",
				x.cap, x.what, x.has)
		}
	}
	if l.Versions != "" {
		switch covered, err := coversVersion(l.Versions, cmp.Or(j.Version, "0")); {
		case err != nil && j.Version == "":
			find(Malformed, "its versions %q cannot be read: %v; ask the vendor for a mended one", l.Versions, err)
		case err != nil:
			find(VersionNotCovered, "whether it covers version %q cannot be told: %v", j.Version, err)
		case j.Version != "" && !covered:
			find(VersionNotCovered, "it covers versions %s, and the product is %s; have it extended", l.Versions,
				j.Version)
		}
	}
	if !l.ReleasedBefore.IsZero() && !j.Released.IsZero() && !j.Released.Before(l.ReleasedBefore) {
		find(VersionNotCovered, "it covers releases before %s, and this one is of %s; have it extended",
			day(l.ReleasedBefore), day(j.Released))
	}
	return out
}

func (c *candidate) label() string {
	if c.license == nil || c.license.ID == "" {
		return c.Name
	}
	if c.Name == "" {
		return c.license.ID
	}
	return c.license.ID + " (" + c.Name + ")"
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }

func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") + " UTC" }

// findings returns all that is found of a document at an instant, and when its grace ends if it is in grace.
func (c *candidate) findings(now time.Time) (out []Finding, graceEnds time.Time) {
	out = slices.Clone(c.fixed)
	if l := c.license; l != nil {
		if now.Before(l.NotBefore) {
			out = append(out,
				Finding{NotYetValid, fmt.Sprintf("licence %s: it is good from %s on", c.label(), minute(l.NotBefore))})
		}
		if at := c.clock.falls(l); !at.IsZero() && !now.Before(at) {
			out = append(out, Finding{ClockTampered, fmt.Sprintf("licence %s: %s", c.label(), c.clock.words())})
		}
		if l.Trial > 0 && c.seen.IsZero() {
			out = append(out, Finding{Preparing,
				fmt.Sprintf("licence %s: its trial begins when the agent has recorded its first use", c.label())})
		}
		var grace []Finding
		emergency := c.emergency(now)
		for _, x := range c.lapses() {
			switch {
			case !now.Before(x.ends) && !emergency.IsZero():
				grace = append(grace, Finding{ValidInGrace,
					fmt.Sprintf("%s; an operator's emergency holds until %s", x.reason, minute(emergency))})
				graceEnds = sooner(graceEnds, emergency)
			case !now.Before(x.ends):
				out = append(out, Finding{x.code, x.reason})
			case !now.Before(x.due):
				grace = append(grace, Finding{ValidInGrace, x.late})
				graceEnds = sooner(graceEnds, x.ends)
			}
		}
		if len(out) == 0 {
			out = grace
		} else {
			graceEnds = zeroTime
		}
		if len(out) == 0 {
			out = []Finding{{Valid, "licence " + c.label() + c.validWords()}}
		}
	}
	slices.SortStableFunc(out, func(a, b Finding) int { return cmp.Compare(a.Code.rank(), b.Code.rank()) })
	return out, graceEnds
}

// validWords says what a licence is that is good, but for its name.
func (c *candidate) validWords() string {
	switch at := c.expires(); {
	case c.license.Role == RoleNotice:
		return " is a notice of " + plural(len(c.license.Revokes), "revoked licence") + ", and grants nothing"
	case at.IsZero():
		return " is valid, without an end"
	default:
		return " is valid until " + minute(at)
	}
}

// rank is the code's place in the order of precedence.
func (c Code) rank() int {
	if i := slices.Index(precedence, c); i >= 0 {
		return i
	}
	return len(precedence)
}

// at judges at one instant, without the future.
func (j *judge) at(now time.Time) *Verdict {
	all := make([]*ruling, len(j.docs))
	for i := range j.docs {
		c := &j.docs[i]
		r := &ruling{candidate: c}
		r.findings, r.graceEnds = c.findings(now)
		all[i] = r
	}
	j.supersede(all, now)
	j.dedupe(all)
	base := j.choose(all)
	v := &Verdict{Environment: Production, OnExpiry: Drain, Withheld: j.Withheld, Pools: map[string]PoolGrant{},
		Meters: map[string]MeterGrant{}, Features: map[string]Value{}}
	var inForce []*ruling
	if base != nil {
		inForce = append(inForce, base)
		for _, r := range all {
			if r.good() && r.license.Role == RoleAddOn {
				switch {
				case r.license.System != base.license.System:
					r.unused = fmt.Sprintf(
						"licence %s: it is of the system %s, and adds to no licence of the system %s, which is in force", r.label(), r.license.System, base.license.System)
				case r.license.AddOnTo != "" && r.license.AddOnTo != base.license.ID:
					r.unused = fmt.Sprintf("licence %s: it adds to licence %s, which is not in force", r.label(),
						r.license.AddOnTo)
				case !r.license.MayActOn(base.license):
					r.setAside(TestLicense, "it is a test add-on, and a test licence never adds to a production one")
				default:
					inForce = append(inForce, r)
				}
			}
		}
		j.grant(v, inForce)
	} else {
		for _, r := range all {
			if r.good() && r.license.Role == RoleAddOn {
				r.unused = fmt.Sprintf(
					"licence %s: it adds to another licence, and none is in force; install that one too", r.label())
			}
		}
		j.refuse(v, all)
	}
	for _, r := range all {
		r.inForce = slices.Contains(inForce, r)
	}
	slices.SortStableFunc(all, func(a, b *ruling) int {
		return cmp.Or(compareBool(b == base, a == base), compareBool(b.inForce, a.inForce))
	})
	for _, r := range all {
		v.Licenses = append(v.Licenses, r.judged(now))
	}
	j.warn(v, all, inForce, now)
	return v
}

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
	spare     bool   // a good base that another is set before
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

func (r *ruling) judged(now time.Time) Judged {
	out := Judged{Document: r.Name, License: r.license, Role: r.role(), InForce: r.inForce, Spare: r.spare,
		Code: r.code(), Reason: r.findings[0].Reason,
		Findings: r.findings, Problem: r.Problem, Match: r.match}
	out.Next = r.license != nil && len(r.findings) == 1 && r.code() == NotYetValid && now.Before(r.license.NotBefore)
	return out
}

// supersede retires what other documents say they replace: from their start on, and after their end too, else an old
// document would come back to life.
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

// foreign reports whether the document is none for this product and host.
func (r *ruling) foreign() bool {
	return slices.ContainsFunc(r.fixed, func(f Finding) bool {
		switch f.Code {
		case ProductMismatch, FingerprintMismatch, AgentKeyMismatch, Revoked, Banned, TestLicense, Malformed:
			return true
		}
		return false
	})
}

// dedupe keeps, of the good documents of one licence, the one issued last: by whichever of a vendor's keys, so that one
// that is renewed with another key does not count twice.
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

// before orders two documents: by their issue, then by their names so that the order is total.
func (r *ruling) before(o *ruling) bool {
	if d := r.license.Issued.Compare(o.license.Issued); d != 0 {
		return d < 0
	}
	return r.Name < o.Name
}

// choose returns the base in force and sets the other good ones aside; nil where none is good.
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

// better reports whether a good base a goes before a good base b: production before test, paid before free tier, what
// is not in grace before what is, and then the latest issued.
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

// refuse says why nothing is permitted: the best of what is wrong.
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

// closer reports whether a bad document a is nearer to being good than b.
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
		add(c.license.NotBefore)
		add(c.clock.falls(c.license))
		for _, x := range c.lapses() {
			add(x.due)
			add(x.ends)
		}
		if at := c.expires(); !at.IsZero() {
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
	return a.State != b.State || a.Code != b.Code || a.OnExpiry != b.OnExpiry || a.Environment != b.Environment ||
		baseID(a) != baseID(b) ||
		!maps.Equal(a.Pools, b.Pools) || !maps.EqualFunc(a.Meters, b.Meters, MeterGrant.equal) ||
		!maps.Equal(a.Features, b.Features) || !slices.Equal(a.Versions, b.Versions)
}

// baseID names the base in force.
func baseID(v *Verdict) string {
	if len(v.Licenses) == 0 || !v.Licenses[0].InForce {
		return ""
	}
	return v.Licenses[0].Document
}
