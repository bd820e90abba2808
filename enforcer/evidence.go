package enforcer

import (
	"slices"
	"time"
)

// maxAhead is how many dates ahead of the clock Evidence tries; later ones are no evidence.
const maxAhead = 16

// IsSet reports whether a clock that shows this time has been set since its host was switched on.
func IsSet(t time.Time) bool { return !t.Before(firstDay) }

// early returns how far ahead of the clock a document may be dated and still count at once: [Leap], or with a strict
// clock its tolerance.
func (l *License) early() time.Duration {
	if l.Clock == ClockStrict {
		return min(Leap, orDefault(l.ClockTolerance, clockTolerance))
	}
	return Leap
}

// dated returns when a document that is dated ahead counts, by clock and mark; zero: at once, whatever the time.
func (c *candidate) dated() time.Time {
	l := c.license
	switch {
	case c.Arrived.IsZero():
		return l.Issued.Add(-l.early())
	case l.Issued.After(c.Arrived.Add(l.early())):
		return l.Issued
	default:
		return zeroTime
	}
}

// begins returns when a document begins to count, in licence time: at its start, and no sooner than it is dated.
func (c *candidate) begins() time.Time {
	begins := c.license.NotBefore
	if at := c.dated(); !at.IsZero() && !c.license.Issued.IsZero() {
		begins = later(begins, at.Add(c.clock.Dated))
	}
	return begins
}

// Evidence returns the latest signed date of the documents that is evidence of the time; zero: there is none. system is
// the one whose dates are (see [License.TellsTime]). would returns the licence time with such a date; zero: with none.
//
// Only a document that counts here tells the time: one in force, and, as far as the clock has come already, a good
// notice. A date ahead of clock and mark counts up to Leap (with a strict clock up to the tolerance), and only where
// a document of that date is in force at that time too. So no document worsens a verdict by its date. A clock that has
// never been set says nothing: then the latest date counts at which the document itself counts, or only another one
// replaces it.
func Evidence(f Facts, system string, would func(signed time.Time) (time.Time, Clock)) (signed time.Time) {
	bare, clock := would(zeroTime)
	f.Clock = clock
	all, inForce := newJudge(f).rule(bare)
	unset, most := !IsSet(bare), bare.Add(Leap)
	for _, r := range inForce {
		most = sooner(most, bare.Add(r.license.early()))
	}
	var ahead []time.Time
	for _, r := range all {
		l := r.license
		switch {
		case l == nil || !l.TellsTime(system):
		case !l.Issued.After(bare):
			if r.inForce || r.role() == RoleNotice && r.good() {
				signed = later(signed, l.Issued)
			}
		case unset, r.inForce && !l.Issued.After(most):
			ahead = append(ahead, l.Issued)
		}
	}
	if unset {
		return fromUnset(f, system, ahead, signed, would)
	}
	return fromSet(f, system, ahead, signed, would)
}

// fromSet returns the latest of the dates ahead at which a document of that date is in force; otherwise signed.
func fromSet(f Facts, system string, ahead []time.Time, signed time.Time,
	would func(time.Time) (time.Time, Clock)) time.Time {
	for _, at := range latestFew(ahead) {
		var now time.Time
		now, f.Clock = would(at)
		_, then := newJudge(f).rule(now)
		if slices.ContainsFunc(then, func(r *ruling) bool {
			return r.license.Issued.Equal(at) && r.license.TellsTime(system)
		}) {
			return at
		}
	}
	return signed
}

// fromUnset returns the latest of the dates at which the verdict is good and a document of that date counts, or only
// another one replaces it; or else, for an upstream may tell the time yet, at which nothing but an upstream's answer is
// missing; or else signed.
func fromUnset(f Facts, system string, ahead []time.Time, signed time.Time,
	would func(time.Time) (time.Time, Clock)) time.Time {
	var asks time.Time
	for _, at := range latestFew(ahead) {
		var now time.Time
		now, f.Clock = would(at)
		docs, then := newJudge(f).rule(now)
		for _, r := range docs {
			if l := r.license; l == nil || !l.Issued.Equal(at) || !l.TellsTime(system) {
				continue
			}
			if len(then) > 0 && r.only(func(c Code) bool { return c.State() == StateValid || c == Superseded }) {
				return at
			}
			if asks.IsZero() && r.only(r.up.mayHeal) && r.code() != Expired {
				asks = at
			}
		}
	}
	var now time.Time
	now, f.Clock = would(signed)
	// a licence without a date may be good as it is
	if _, then := newJudge(f).rule(now); asks.IsZero() || len(then) > 0 {
		return signed
	}
	return asks
}

// latestFew returns the dates, the latest first, and no more than maxAhead of them.
func latestFew(dates []time.Time) []time.Time {
	slices.SortFunc(dates, func(a, b time.Time) int { return b.Compare(a) })
	dates = slices.CompactFunc(dates, time.Time.Equal)
	return dates[:min(len(dates), maxAhead)]
}

// only reports whether all findings on a document are such.
func (r *ruling) only(such func(Code) bool) bool {
	return !slices.ContainsFunc(r.findings, func(f Finding) bool { return !such(f.Code) })
}
