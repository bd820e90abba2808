package enforcer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// warn adds the warnings.
func (j *judge) warn(v *Verdict, all, inForce []*ruling, now time.Time) {
	warn := func(code WarningCode, at time.Time, format string, args ...any) {
		v.Warnings = append(v.Warnings, Warning{code, fmt.Sprintf(format, args...), at})
	}
	if len(inForce) > 0 {
		j.warnEnds(inForce, now, warn)
	}
	for _, r := range inForce {
		l := r.license
		if r.code() == ValidInGrace {
			warn(WarnInGrace, r.graceEnds, "%s", r.findings[0].Reason)
		}
		for _, x := range r.lapses() {
			if x.code != Expired && !now.Before(x.due) && now.Before(x.ends) {
				warn(WarnCheckInDue, x.due, "%s", x.late)
			}
		}
		if at := r.emergency(now); !at.IsZero() {
			warn(WarnEmergency, at,
				"licence %s: an operator's emergency is in force until %s; it is reported to the vendor", r.label(),
				minute(at))
		}
		if l.IsTest() {
			warn(WarnTestLicense, zeroTime, "licence %s is for tests only", r.label())
		}
		j.warnShares(r, warn)
		if r.match.Bound && r.match.OK && r.match.Matched < r.match.Of {
			warn(WarnHostMatchLow, zeroTime, "licence %s: only %d of %d components of this host match: %s", r.label(),
				r.match.Matched, r.match.Of, strings.Join(r.match.Misses, "; "))
		}
		for _, s := range r.ignored {
			warn(WarnConfigIgnored, zeroTime, "%s", s)
		}
	}
	j.warnRemote(all, len(inForce) > 0, warn)
	if j.Clock.Behind > clockTolerance {
		warn(WarnClockBehind, zeroTime, "%s", j.clockWords(inForce))
	}
	for _, r := range all {
		switch {
		case r.unused != "":
			warn(WarnAddOnUnused, zeroTime, "%s", r.unused)
		case r.inForce && r.Problem != nil:
			warn(WarnDocument, zeroTime, "document %s is broken, and its last good version counts on: %s", r.Name,
				r.Problem.Sentence())
		case r.code() == TestLicense && len(inForce) > 0:
			warn(WarnTestLicense, zeroTime, "%s", r.findings[0].Reason)
		case r.role() == RoleNotice && r.good():
		case !r.inForce && r.code() != Superseded && r.code() != NotYetValid && r.findings[0].Reason != v.Reason:
			warn(WarnDocument, zeroTime, "%s", r.findings[0].Reason)
		}
	}
}

// warnEnds warns of licences in force that end soon with nothing at hand to follow them, and of those that follow and
// grant less.
func (j *judge) warnEnds(inForce []*ruling, now time.Time, warn func(WarningCode, time.Time, string, ...any)) {
	o := j.outlook(now)
	for _, r := range inForce {
		last, chain := r, "licence "+r.label()
		by, at, renewed := o.follows(r, 0, now)
		for ; by != nil && renewed; by, at, renewed = o.follows(by, at, now) {
			last = by
			chain = fmt.Sprintf("licence %s, which follows licence %s,", last.label(), r.label())
		}
		if renewed {
			continue
		}
		end := last.expires()
		if end.IsZero() || !now.Before(end) {
			continue
		}
		for _, days := range slices.Backward(expiresSoon) {
			if left := time.Duration(days) * 24 * time.Hour; !now.Before(end.Add(-left)) {
				warn(WarnExpiresSoon, end, "%s expires at %s, in less than %s", chain, minute(end), plural(days, "day"))
				break
			}
		}
	}
	for _, c := range o.shrinking(now) {
		var less []string
		for _, l := range c.Losses {
			less = append(less, l.String())
		}
		warn(WarnGrantsLess, c.At,
			"from %s on licence %s (%s) is in force, and grants less: %s; ask the vendor if that "+
				"is not meant", minute(c.At), c.Begins[0].License, c.Begins[0].Document, strings.Join(less, ", "))
	}
}

// warnRemote warns of remote sides that do not answer, or refuse: those of the licences in force, or where none is of
// those that they might heal.
func (j *judge) warnRemote(all []*ruling, some bool, warn func(WarningCode, time.Time, string, ...any)) {
	for _, r := range all {
		if r.license == nil || !r.inForce && (some || r.code() == Superseded || r.code() == NotYetValid) {
			continue
		}
		if f := r.up.Failing; f.Class != "" {
			warn(WarnUpstream, f.Since, "licence %s: %s", r.label(), f.words("the upstream"))
		}
		for _, f := range j.failing(r.license) {
			warn(WarnSiteServer, f.Since, "licence %s, %s: %s", r.label(), strings.Join(f.pools, ", "),
				f.words(shareServer))
		}
	}
}

// failingShares is what one remote side cannot be asked for, and why.
type failingShares struct {
	Failing
	pools []string // and meters, in order
}

// failing returns what fails of a licence's shares, in the order of the pools.
func (j *judge) failing(l *License) (out []failingShares) {
	var names []string
	for share, f := range j.SharesFailing {
		if share.License == l.Ref() && f.Class != "" {
			names = append(names, share.Pool)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		f := j.SharesFailing[Share{l.Ref(), name}]
		i := slices.IndexFunc(out, func(o failingShares) bool { return o.Failing == f })
		if i < 0 {
			i, out = len(out), append(out, failingShares{Failing: f})
		}
		out[i].pools = append(out[i].pools, name)
	}
	return out
}

// shareServer is what people are told of a site server, a fleet, or another upstream that gives slots.
const shareServer = "the server that gives this agent its share of the site"

// words says since when and why calls to somebody fail. One that fails for a while may have been answered, such as that
// the permission is lacking; the reason says which.
func (f Failing) words(who string) string {
	who = cmp.Or(f.Who, who)
	what := "calls to " + who + " fail"
	switch f.Class {
	case "refused":
		what = who + " refuses"
	case "misconfigured":
		what = who + " cannot be used as it is configured"
	}
	s := fmt.Sprintf("%s since %s: %s", what, minute(f.Since), f.Reason)
	if f.Hint != "" && !strings.Contains(f.Reason, f.Hint) {
		s += "; " + f.Hint
	}
	return s
}

// clockWords says by what the wall clock is behind: by a document's date, or by a time that has been seen.
func (j *judge) clockWords(inForce []*ruling) string {
	var by *ruling
	for _, r := range inForce {
		if by == nil || r.license.Issued.After(by.license.Issued) {
			by = r
		}
	}
	if j.Clock.Dated == 0 || by == nil { // a clock that has never been set is at fault itself
		return j.Clock.words()
	}
	return fmt.Sprintf(
		"licence %s is dated %s, and the time is taken from it, %s ahead of the wall clock; ask the vendor "+
			"for one with the right date, or set the clock if that is wrong", by.label(), minute(by.license.Issued),
		j.Clock.by())
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
