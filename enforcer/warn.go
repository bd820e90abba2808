package enforcer

import (
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
	for _, r := range inForce {
		l := r.license
		if at := r.expires(); !at.IsZero() && now.Before(at) {
			for _, days := range slices.Backward(expiresSoon) {
				if left := time.Duration(days) * 24 * time.Hour; !now.Before(at.Add(-left)) {
					warn(WarnExpiresSoon, at, "licence %s expires at %s, in less than %s", r.label(), minute(at),
						plural(days, "day"))
					break
				}
			}
		}
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
	if j.Clock.Behind > clockTolerance {
		warn(WarnClockBehind, zeroTime, "%s", j.clockWords(inForce))
	}
	for _, r := range all {
		switch {
		case r.unused != "":
			warn(WarnAddOnUnused, zeroTime, "%s", r.unused)
		case r.inForce && r.Problem != nil:
			warn(WarnDocument, zeroTime, "document %s is broken, and its last good version counts on: %s", r.Name,
				r.Problem.Reason)
		case r.code() == TestLicense && len(inForce) > 0:
			warn(WarnTestLicense, zeroTime, "%s", r.findings[0].Reason)
		case r.role() == RoleNotice && r.good():
		case !r.inForce && r.code() != Superseded && r.code() != NotYetValid && r.findings[0].Reason != v.Reason:
			warn(WarnDocument, zeroTime, "%s", r.findings[0].Reason)
		}
	}
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
