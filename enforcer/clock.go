package enforcer

import "time"

// Leap is how far ahead of the mark a wall clock may be and still be believed at once: longer than a time zone that was
// mistaken for another, shorter than what anybody gains by.
const Leap = 24 * time.Hour

// Clocks is one reading of a host's clocks.
type Clocks struct {
	Wall   time.Time
	Boot   time.Duration // since the host was started, suspension included (CLOCK_BOOTTIME)
	BootID string        // tells one start of the host from another; empty where that is not known
}

// Mark is the latest time of which there is evidence. It makes the time that licences are judged by one that does not go
// back, however often the wall clock is set, the host started anew, or an agent killed. The zero Mark knows nothing. It is
// to be kept where only the agent can write, and restored at start.
//
// A wall clock up to [Leap] ahead of the mark is local evidence. One further ahead is used, for it may be right, but it enters
// the mark only after the host has run with it for as long as Leap, or with signed evidence that is as late: a mistake that is
// put right sooner costs nothing.
type Mark struct {
	Time   time.Time
	Boot   time.Duration // what Clocks.Boot was then
	BootID string        // in which start of the host
	Ahead  time.Duration // for how long the host has run with a wall clock more than Leap ahead
	// Behind is for how long of this start of the host the wall clock has been behind by more than a tolerance.
	Behind time.Duration
	// Reset is the issue of the latest document that has put the mark back; an earlier one does not again.
	Reset time.Time
}

// floor returns the earliest time that it can be: the mark, and what has passed since.
func (m Mark) floor(c Clocks) time.Time {
	if m.Time.IsZero() {
		return zeroTime
	}
	return m.Time.Add(m.ran(c))
}

// ran returns for how long the host has surely run since the mark. A later start has been up for as long as it has.
func (m Mark) ran(c Clocks) time.Duration {
	if m.BootID == c.BootID && c.Boot >= m.Boot {
		return c.Boot - m.Boot
	}
	return c.Boot
}

// Now returns the time that licences are judged by, and how the wall clock stands to it. signed is the latest date that a
// document at hand was signed with; zero: there is none.
func (m Mark) Now(c Clocks, signed time.Time) (time.Time, Clock) {
	evidence := later(m.floor(c), signed)
	now := later(c.Wall, evidence).UTC()
	clock := Clock{Behind: now.Sub(c.Wall)}
	if clock.Behind > clockTolerance && m.BootID == c.BootID {
		clock.BehindFor = m.Behind + m.ran(c)
	}
	return now, clock
}

// Advance returns the mark as a reading of the clocks makes it. It is to be called every minute or so, and before the mark
// is kept: what has passed since the last call is believed to have been as it is now.
func (m Mark) Advance(c Clocks, signed time.Time) Mark {
	now, clock := m.Now(c, signed)
	floor, ran := m.floor(c), m.ran(c)
	next := Mark{Time: floor, Boot: c.Boot, BootID: c.BootID, Reset: m.Reset}
	if clock.Behind > clockTolerance {
		next.Behind = clock.BehindFor
		return next
	}
	ahead := !floor.IsZero() && c.Wall.Sub(floor) > Leap
	if ahead && !signed.IsZero() && c.Wall.Sub(signed) <= Leap {
		ahead = false
	}
	if ahead {
		if next.Ahead = m.Ahead + ran; next.Ahead < Leap {
			return next
		}
	}
	next.Ahead = 0
	// A document's own date is no reason to go on believing it when the document has gone.
	if next.Time = later(floor, c.Wall); next.Time.After(now) {
		next.Time = now
	}
	return next
}

// Learn returns the mark after somebody who can be believed (an upstream that signed this agent's own nonce) has said what
// time it is.
func (m Mark) Learn(c Clocks, at time.Time) Mark {
	next := m.Advance(c, at)
	next.Time = later(next.Time, at)
	return next
}

// Heal returns the mark after a document that [License.ResetsClock] and is bound to this agent: whatever was believed of a
// time after its issue was false. One document does so once.
func (m Mark) Heal(c Clocks, issued time.Time) (Mark, bool) {
	if !issued.After(m.Reset) {
		return m, false
	}
	return Mark{Time: issued, Boot: c.Boot, BootID: c.BootID, Reset: issued}, true
}
