package enforcer

import (
	"fmt"
	"time"
)

// What wall clocks are measured by.
const (
	clockTolerance = 10 * time.Minute // where the licence states none
	clockPatience  = 10 * time.Minute // of this boot, before a strict licence falls
)

// Leap is how far ahead of the mark a wall clock may be and still be believed at once: longer than a time zone that was
// mistaken for another, shorter than what anybody gains by.
const Leap = 24 * time.Hour

// Clocks is one reading of a host's clocks.
type Clocks struct {
	Wall   time.Time
	Boot   time.Duration // since the host was started, suspension included (CLOCK_BOOTTIME)
	BootID string        // tells one start of the host from another; empty where that is not known
}

// Mark is the latest time of which there is evidence. It makes the time that licences are judged by one that does not
// go back, however often the wall clock is set, the host started anew, or an agent killed. The zero Mark knows nothing.
// It is to be kept where only the agent can write, and restored at start.
//
// A wall clock up to [Leap] ahead of the mark is local evidence. One further ahead is used, for it may be right, but it
// enters the mark only after the host has run with it for as long as Leap, or with signed evidence that is as late: a
// mistake that is put right sooner costs nothing.
type Mark struct {
	Time   time.Time
	Boot   time.Duration // what Clocks.Boot was then
	BootID string        // in which start of the host
	Ahead  time.Duration // for how long the host has run with a wall clock more than Leap ahead
	// Behind is for how long of this start of the host the wall clock has been behind by more than a tolerance.
	Behind time.Duration
	// Reset is the issue of the latest document that has put the mark back; an earlier one does not again.
	Reset time.Time
	// Signed is the latest date that a document at hand was signed with, and Ran for how long the host has run since
	// that was first seen. They are kept apart from Time, for they count no longer than the document is there.
	Signed time.Time
	Ran    time.Duration
	// Learnt is the latest time that an upstream has signed.
	Learnt time.Time
	// Counted is the latest time that meters' periods are counted by; zero: as late as Time. It follows Time at once
	// only where that is proved, and else no faster than Lent allows.
	Counted time.Time
	// Lent is how far Counted went on the wall clock's word alone, as far as the host has not run since to earn it
	// back.
	Lent time.Duration
}

// floor returns the earliest time that it can be: the mark, and what has passed since.
func (m Mark) floor(c Clocks) time.Time {
	if m.Time.IsZero() {
		return zeroTime
	}
	return m.Time.Add(m.ran(c))
}

// ran returns for how long the host has surely run since the mark. A later start has been up for as long as it has; a
// reading of the same start that is earlier (in another time namespace) says nothing.
func (m Mark) ran(c Clocks) time.Duration {
	switch {
	case m.BootID == c.BootID && c.Boot >= m.Boot:
		return c.Boot - m.Boot
	case m.BootID == c.BootID && m.BootID != "":
		return 0
	default:
		return c.Boot
	}
}

// since returns for how long the host has run since there was evidence that it is signed, the latest date of the
// documents at hand. Of a document that replaces an earlier one the other's time counts on.
func (m Mark) since(c Clocks, signed time.Time) time.Duration {
	if signed.IsZero() || m.Signed.IsZero() || signed.Before(m.Signed) {
		return 0
	}
	return max(0, m.Signed.Add(m.Ran+m.ran(c)).Sub(signed))
}

// catchUp is how much faster than it runs a host earns back what was lent to the time that periods are counted by: one
// that is on for an hour a day has its periods in time, and one whose clock is set forward again and again gains no
// more than by a single leap that it waits for.
const catchUp = time.Duration(24)

// counted returns the earliest time that meters' periods are to be counted by, and what is lent of it.
func (m Mark) counted(c Clocks) (at time.Time, lent time.Duration) {
	ran := m.ran(c)
	if lent = m.Lent; ran >= lent/catchUp { // compared first, for the product may not fit
		lent = 0
	} else {
		lent -= ran * catchUp
	}
	if m.Counted.IsZero() {
		return m.floor(c), lent
	}
	return m.Counted.Add(ran), lent
}

// unproved returns how far the licence time now is beyond the time that meters' periods are counted by.
func (m Mark) unproved(c Clocks, signed, now time.Time) time.Duration {
	at, _ := m.counted(c)
	if at.IsZero() { // nothing is known, and nothing has been drawn
		return 0
	}
	if !signed.IsZero() {
		at = later(at, signed.Add(m.since(c, signed)))
	}
	if by := now.Sub(at); by >= clockStepLeast {
		return by
	}
	return 0
}

// count takes the time that periods are counted by along with the mark's, of which the clocks c say that it has come.
// proved says that signed evidence, or a day of running, is behind that.
func (next *Mark) count(was Mark, c Clocks, proved bool) {
	at, lent := was.counted(c)
	if ahead := next.Time.Sub(at); !proved && !at.IsZero() && ahead > 0 {
		step := min(ahead, max(0, Leap-lent))
		next.Counted, next.Lent = at.Add(step), lent+step
		return
	}
	next.Counted, next.Lent = later(at, next.Time), lent
}

// falls returns when a strict licence falls for the wall clock's being behind; zero: never.
func (c Clock) falls(l *License) time.Time {
	if l.Clock != ClockStrict || c.BehindSince.IsZero() || c.Behind <= orDefault(l.ClockTolerance, clockTolerance) {
		return zeroTime
	}
	return c.BehindSince.Add(clockPatience)
}

func (c Clock) words() string {
	by := c.Behind.Round(time.Minute).String()
	if days := int(c.Behind / (24 * time.Hour)); days >= 2 {
		by = plural(days, "day")
	}
	return fmt.Sprintf(
		"the wall clock is %s behind the time already seen; set it right, or ask `usher doctor` where that time "+
			"is from", by)
}

// Now returns the time that licences are judged by, and how the wall clock stands to it. signed is the latest date that
// a document at hand was signed with; zero: there is none.
func (m Mark) Now(c Clocks, signed time.Time) (time.Time, Clock) {
	floor, dated := m.floor(c), signed.Add(m.since(c, signed))
	now, clock := c.Wall.UTC(), Clock{From: FromWall}
	if floor.After(now) {
		now, clock.From = floor, FromMark
	}
	if dated.After(now) {
		now, clock.From = dated, FromDocument
	}
	if clock.Behind = now.Sub(c.Wall); clock.Behind < clockStepLeast {
		clock.From = FromWall
	}
	if ahead := c.Wall.Sub(floor); !floor.IsZero() && ahead > Leap {
		clock.Ahead, clock.AheadFor = ahead, m.Ahead+m.ran(c)
	}
	if clock.Behind > clockTolerance {
		clock.BehindSince = now
		if m.BootID == c.BootID {
			clock.BehindSince = now.Add(-m.Behind - m.ran(c))
		}
	}
	clock.Unproved = m.unproved(c, signed, now)
	return now, clock
}

// Advance returns the mark as a reading of the clocks makes it. It is to be called every minute or so, and before the
// mark is kept: what has passed since the last call is believed to have been as it is now.
func (m Mark) Advance(c Clocks, signed time.Time) Mark { return m.advance(c, signed, signed) }

// advance is Advance, with a date that a wall clock ahead is believed by.
func (m Mark) advance(c Clocks, signed, proof time.Time) Mark {
	now, clock := m.Now(c, signed)
	floor := m.floor(c)
	next := Mark{Time: floor, Boot: c.Boot, BootID: c.BootID, Reset: m.Reset, Learnt: m.Learnt, Signed: signed,
		Ran: m.since(c, signed)}
	if clock.Behind > clockTolerance {
		next.Behind = now.Sub(clock.BehindSince)
		next.count(m, c, false)
		return next
	}
	proved := !proof.IsZero() && c.Wall.Sub(proof) <= Leap
	if clock.Ahead > 0 && !proved {
		if next.Ahead = clock.AheadFor; next.Ahead < Leap {
			next.count(m, c, false)
			return next
		}
		proved = true
	}
	next.Ahead = 0
	// A document's own date is no reason to go on believing it when the document has gone.
	next.Time = later(floor, c.Wall)
	next.count(m, c, proved)
	return next
}

// Learn returns the mark after somebody who can be believed (an upstream that signed this agent's own nonce) has said
// what time it is.
func (m Mark) Learn(c Clocks, signed, at time.Time) Mark {
	next := m.advance(c, signed, later(signed, at))
	next.Time, next.Learnt = later(next.Time, at).UTC(), later(next.Learnt, at).UTC()
	next.Counted = later(next.Counted, at).UTC()
	return next
}

// Heal returns the mark after a document that [License.ResetsClock] and is bound to this agent: whatever was believed
// of a time after its issue was false. One document does so once.
func (m Mark) Heal(c Clocks, issued time.Time) (Mark, bool) {
	if !issued.After(m.Reset) {
		return m, false
	}
	return Mark{Time: issued, Boot: c.Boot, BootID: c.BootID, Reset: issued, Counted: issued}, true
}

// TellsTime reports whether what is signed of the licence, its issue or an upstream's answer, is evidence of the time.
// All licences of an agent are judged by one time, and one system tells it: else a false date of one would end the
// licences of another. Test licences never do.
func (l *License) TellsTime(system string) bool { return l.System == system && !l.IsTest() }

// Signed returns the latest date that those of the documents at hand were signed with that tell the time; zero: there
// is none.
func Signed(documents []Document, system string) (at time.Time) {
	for _, d := range documents {
		if d.License != nil && (d.Problem == nil || d.Problem.Stale) && d.License.TellsTime(system) {
			at = later(at, d.License.Issued)
		}
	}
	return at
}

// clockStepLeast is what two clocks may drift apart between two readings.
const clockStepLeast = time.Second

// Stepped returns by how much the time was set between two readings, of which before is the earlier: what has changed
// of it beyond what has passed. Zero: it was not set.
func Stepped(before, now time.Time, ran time.Duration) time.Duration {
	by := now.Sub(before) - ran
	if before.IsZero() || by.Abs() < clockStepLeast {
		return 0
	}
	return by
}

// Drifted reports whether of two readings of Clock.Unproved the later says something new.
func Drifted(was, is time.Duration) bool {
	return (was == 0) != (is == 0) || (is-was).Abs() >= clockStepLeast
}

// Step says that the time was set by By. What is counted from an instant of before (a time to live, a doubt, a wait,
// what is remembered of tokens) is as far off as it was; what ends at a date is not changed.
//
// Unproved is how far the time is ahead of what is proved of it (Clock.Unproved). Meters' periods are counted by what
// is proved, so that setting the clock forward opens none before it has come.
type Step struct{ By, Unproved time.Duration }

func (r *Step) decide(_ *Enforcer, now time.Time) Decision {
	return Decision{Events: []Event{{Kind: EventStepped, At: now, By: r.By, Unproved: r.Unproved}}}
}

func (e *Enforcer) applyStepped(by, unproved time.Duration) {
	e.unproved = unproved
	if by == 0 {
		return
	}
	for _, h := range e.leases {
		if h.ExpiresAt.IsZero() || h.Lifetime == LifetimeBorrow {
			continue
		}
		l := *h.Lease
		l.ExpiresAt = l.ExpiresAt.Add(by)
		e.replace(h, &l)
	}
	for _, p := range e.pools { // in the order of their places, so that the same step makes the same state
		for i := len(p.expiry)/2 - 1; i >= 0; i-- {
			p.down(i)
		}
	}
	for _, w := range e.waiters {
		moved := *w.Waiter
		moved.Since, moved.Until = moved.Since.Add(by), sooner(moved.Until.Add(by), moved.Request.Until)
		w.Waiter = &moved
		e.patience.moved(w)
	}
	for _, r := range e.tokens { // all by as much, so that their order stays
		r.until = r.until.Add(by)
	}
	for _, p := range e.pools {
		if !p.revokeAt.IsZero() {
			p.revokeAt = p.revokeAt.Add(by)
		}
	}
	for _, t := range e.tenures {
		if !t.turnedAt.IsZero() {
			t.turnedAt = t.turnedAt.Add(by)
			t.revokeAt = t.whenToRevoke()
		}
	}
}
