package enforcer

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// FirstUses returns the licences that are used for the first time, each with the instant from which that counts. These
// are the licences whose trial, activation or first heartbeat counts from their first use, which have no other fault,
// and which would be in force. v is the verdict on f at now; since is when the agent's record of first uses begins.
//
// A first use counts only once it is in [Facts.Seen], which holds only what has been recorded durably.
func FirstUses(f Facts, v *Verdict, now, since time.Time) map[Ref]time.Time {
	seen, tried := maps.Clone(f.Seen), map[Ref]bool{}
	if seen == nil {
		seen = map[Ref]time.Time{}
	}
	for _, j := range v.Licenses {
		l := j.License
		if l == nil || !l.countsFirstUse() || !f.Seen[l.Ref()].IsZero() ||
			slices.ContainsFunc(j.Findings, func(x Finding) bool {
				return !firstUseHeals(x.Code)
			}) {
			continue
		}
		if at := l.firstUse(now, since); !tried[l.Ref()] || at.Before(seen[l.Ref()]) {
			seen[l.Ref()], tried[l.Ref()] = at, true
		}
	}
	if len(tried) == 0 {
		return nil
	}
	f.Seen = seen
	out := map[Ref]time.Time{}
	for _, j := range Judge(f, now).Licenses {
		if l := j.License; l != nil && tried[l.Ref()] && (j.InForce || l.Trial > 0 && j.Code == Expired) {
			out[l.Ref()] = seen[l.Ref()]
		}
	}
	return out
}

func (l *License) countsFirstUse() bool {
	return l.Trial > 0 || l.Activation.Required || l.Heartbeat.Stated()
}

func firstUseHeals(c Code) bool {
	switch c {
	case Valid, ValidInGrace, Preparing, HeartbeatNotStarted, Overdue:
		return true
	}
	return false
}

// firstUse returns the instant from which a first use at now counts. No licence is used before it is issued. A trial
// that is older than the agent's record may have been used before, so it counts from its issue: losing the record does
// not begin a trial again.
func (l *License) firstUse(now, since time.Time) time.Time {
	if l.Trial > 0 && l.Issued.Before(since) {
		return l.Issued
	}
	return later(now, l.Issued)
}

// SeenBy returns the instant from which a recorded first use counts. One that a false clock has put into the future
// counts from now.
func (l *License) SeenBy(recorded, now time.Time) time.Time {
	if recorded.After(now) {
		return later(now, l.Issued)
	}
	return recorded
}

// Free returns when the next emergency may begin, given when the earlier ones began: at once if that is not after now;
// never where the licence grants none. now is the proved time (Clock.Unproved).
func (e Emergency) Free(began []time.Time, now time.Time) (at time.Time, ever bool) {
	if e.Length <= 0 || e.PerYear <= 0 {
		return zeroTime, false
	}
	// An emergency that a false clock has put into the future counts like one that begins now.
	sorted := slices.Clone(began)
	for i, t := range sorted {
		if t.After(now) {
			sorted[i] = now
		}
	}
	slices.SortFunc(sorted, time.Time.Compare)
	if len(sorted) < e.PerYear {
		return now, true
	}
	return later(now, sorted[len(sorted)-e.PerYear].Add(emergencyYear)), true
}

// MayBeginEmergency returns the licence that an emergency begun now is spent on, or says why there is none. It is the
// licence in force while its grace runs, or one that only a lapse keeps from being in force. v is the verdict on f at
// now. The caller sets the denial's code.
func MayBeginEmergency(f Facts, v *Verdict, now time.Time) (*License, *Denial) {
	refuse := func(detail, hint string) (*License, *Denial) {
		return nil, &Denial{Detail: detail, Hint: hint, Verdict: v}
	}
	var spent *License
	var next time.Time
	grants, counted := false, now.Add(-f.Clock.Unproved) // a year that was leaped over has not passed
	for _, j := range v.Licenses {
		l := j.License
		if l == nil || j.Code == Valid {
			continue
		}
		at, ever := l.Emergency.Free(f.Emergencies[l.Ref()], counted)
		if !ever {
			continue
		}
		grants = true
		tried := f
		tried.Emergencies = maps.Clone(f.Emergencies)
		if tried.Emergencies == nil {
			tried.Emergencies = map[Ref][]time.Time{}
		}
		tried.Emergencies[l.Ref()] = []time.Time{now}
		would := Judge(tried, now)
		if !slices.ContainsFunc(would.Licenses, func(j Judged) bool {
			return j.InForce && j.License.Ref() == l.Ref()
		}) {
			continue
		}
		if slices.ContainsFunc(f.Emergencies[l.Ref()], func(t time.Time) bool {
			return !now.Before(t) && now.Before(t.Add(l.Emergency.Length))
		}) {
			return refuse("licence "+l.ID+": an emergency is in force already", "")
		}
		if at.After(counted) {
			if spent == nil || at.Before(next) {
				spent, next = l, at
			}
			continue
		}
		return l, nil
	}
	switch {
	case spent != nil:
		_, d := refuse(fmt.Sprintf("licence %s grants %d within a year, and none is left", spent.ID,
			spent.Emergency.PerYear), "the next may begin at "+minute(next)+"; ask the vendor")
		d.Next = next
		return nil, d
	case v.Code == Valid:
		return refuse("the licence is valid: an emergency would be spent for nothing",
			"begin one when the licence is in its grace, or has lapsed")
	case grants:
		return refuse("an emergency does not help here: "+v.Reason,
			"it bridges an expiry, a heartbeat or a check-in that is missed, and nothing else")
	default:
		return refuse("no licence here grants emergencies", "ask the vendor for a licence that does")
	}
}

// ClockReset returns the issue date of the latest document that resets the clock here (see [Mark.Heal]): one whose
// dates are evidence of the time (see [License.TellsTime]), that names this agent's key, and that has no fault which
// time will not mend. Zero: there is none.
func (v *Verdict) ClockReset(system string) (issued time.Time) {
	for _, j := range v.Licenses {
		l := j.License
		if l == nil || !l.ResetsClock || !l.TellsTime(system) || len(l.AgentKeys) == 0 || j.Problem != nil ||
			slices.ContainsFunc(j.Findings, func(f Finding) bool {
				return !timeMends(f.Code)
			}) {
			continue
		}
		issued = later(issued, l.Issued)
	}
	return issued
}

// timeMends reports whether another time may end the finding.
func timeMends(c Code) bool {
	switch c {
	case Valid, ValidInGrace, Superseded, Expired, NotYetValid, HeartbeatNotStarted, HeartbeatDead, Overdue, Preparing,
		ClockTampered:
		return true
	}
	return false
}
