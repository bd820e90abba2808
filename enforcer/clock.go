package enforcer

import (
	"fmt"
	"time"
)

// How wall clocks are judged.
const (
	clockTolerance = 10 * time.Minute // where the licence states none
	clockPatience  = 10 * time.Minute // of this boot, before a strict licence falls
)

// Leap is how far ahead of the mark a wall clock may be and still be believed at once. It is longer than a mistaken
// time zone can be, and shorter than what anybody gains by.
const Leap = 24 * time.Hour

// firstDay is earlier than any day on which this version could run. A clock that shows an earlier time has never been
// set.
var firstDay = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Clocks is one reading of a host's clocks.
type Clocks struct {
	Wall   time.Time
	Boot   time.Duration // since the host booted, suspension included (CLOCK_BOOTTIME)
	BootID string        // distinguishes one boot of the host from another; empty: not known
}

// Mark is the latest time of which there is evidence. With it the time that licences are judged by never goes back,
// however often the wall clock is set, the host rebooted or an agent killed. The zero Mark knows nothing. Keep the mark
// where only the agent can write, and restore it at start.
//
// A wall clock up to [Leap] ahead of the mark is evidence. One further ahead is used, for it may be right. But it
// enters the mark only once the host has run with it for as long as Leap, or with signed evidence that is as late. So a
// mistake that is corrected sooner costs nothing. The first wall clock of all needs the same proof: until then, the
// mark follows a wall clock that is set back.
type Mark struct {
	Time   time.Time
	Boot   time.Duration // what Clocks.Boot was then
	BootID string        // of which boot of the host
	// Unsure is for how long the host must still run before the first wall clock is proved; zero: it is.
	Unsure time.Duration
	Ahead  time.Duration // for how long the host has run with a wall clock more than Leap ahead
	Tried  time.Time     // what that wall clock was then
	// Behind is for how long of this boot the wall clock has been behind by more than a tolerance.
	Behind time.Duration
	// Reset is the issue date of the latest document that has put the mark back. An earlier document does not put it
	// back again.
	Reset time.Time
	// Signed is the latest signed date of the documents at hand, and Ran is for how long the host has run since that
	// date was first seen. They stand apart from Time, because they count only as long as the document is there.
	Signed time.Time
	Ran    time.Duration
	// Learnt is the latest time that an upstream has signed.
	Learnt time.Time
	// Counted is the latest time by which the periods of meters were counted; zero: as late as Time. It follows Time at
	// once only where Time is proved, and otherwise no faster than Lent allows.
	Counted time.Time
	// Lent is how far Counted advanced on the wall clock's word alone, less what the host has run since to earn it
	// back.
	Lent time.Duration
}

// floor returns the earliest time that it can be: the mark and the time that has passed since.
func (m Mark) floor(c Clocks) time.Time {
	if m.Time.IsZero() {
		return zeroTime
	}
	at := m.Time.Add(m.ran(c))
	if m.Unsure > 0 && c.Wall.Before(at) {
		return c.Wall.UTC()
	}
	return at
}

// unsure returns for how long the host must still run before its first wall clock is proved.
func (m Mark) unsure(c Clocks) time.Duration {
	if m.Time.IsZero() {
		return Leap
	}
	return max(0, m.Unsure-m.ran(c))
}

// tried returns for how long the host has run with a wall clock that is more than Leap ahead. The time begins again
// when a running host's clock is set forward by more than that once more.
func (m Mark) tried(c Clocks) time.Duration {
	ran := m.ran(c)
	if m.BootID == c.BootID && !m.Tried.IsZero() && c.Wall.Sub(m.Tried)-ran > Leap {
		return 0
	}
	return m.Ahead + ran
}

// ran returns for how long the host has surely run since the mark. A later boot has been up for as long as it says. A
// reading of the same boot that is earlier (in another time namespace) proves nothing.
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

// since returns for how long the host has run since there was evidence of signed, the latest date of the documents at
// hand. Where a document replaces an earlier one, the earlier one's time counts on.
func (m Mark) since(c Clocks, signed time.Time) time.Duration {
	if signed.IsZero() || m.Signed.IsZero() || signed.Before(m.Signed) {
		return 0
	}
	return max(0, m.Signed.Add(m.Ran+m.ran(c)).Sub(signed))
}

// catchUp is how many times faster than it runs a host earns back what the time of periods was lent. A host that is on
// for an hour a day reaches its periods in time. A host whose clock is set forward again and again gains no more than
// one leap, for which it also waits.
const catchUp = time.Duration(24)

// counted returns the earliest time by which the periods of meters are counted, and how much of it is lent.
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
	at = m.Counted.Add(ran)
	if m.Unsure > 0 && c.Wall.Before(at) {
		at = c.Wall.UTC()
	}
	return at, lent
}

// unproved returns how far the licence time now is ahead of the time by which the periods of meters are counted.
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

// count advances the time of periods together with the mark, to the time that the clocks c show. proved says that
// signed evidence or a day of running supports that time.
func (next *Mark) count(was Mark, c Clocks, proved bool) {
	at, lent := was.counted(c)
	if ahead := next.Time.Sub(at); !proved && !at.IsZero() && ahead > 0 {
		step := min(ahead, max(0, Leap-lent))
		next.Counted, next.Lent = at.Add(step), lent+step
		return
	}
	next.Counted, next.Lent = later(at, next.Time), lent
}

// falls returns when a strict licence falls because the wall clock is behind; zero: never.
func (c Clock) falls(l *License) time.Time {
	if l.Clock != ClockStrict || c.BehindSince.IsZero() || c.Behind <= orDefault(l.ClockTolerance, clockTolerance) {
		return zeroTime
	}
	return c.BehindSince.Add(clockPatience)
}

func (c Clock) words() string {
	return fmt.Sprintf(
		"the wall clock is %s behind the time already seen; set it right, or ask `usher doctor` where that time "+
			"is from", c.by())
}

// by says how far the wall clock is behind.
func (c Clock) by() string {
	if days := int(c.Behind / (24 * time.Hour)); days >= 2 {
		return plural(days, "day")
	}
	return Span(c.Behind.Round(time.Minute))
}

// Now returns the licence time, and how the wall clock stands to it. signed is the latest signed date of the documents
// at hand that is evidence (see Evidence); zero: there is none.
func (m Mark) Now(c Clocks, signed time.Time) (time.Time, Clock) {
	floor, dated := m.floor(c), signed.Add(m.since(c, signed))
	now, clock := c.Wall.UTC(), Clock{From: FromWall}
	if floor.After(now) {
		now, clock.From = floor, FromMark
	}
	if dated.After(now) {
		if IsSet(now) {
			clock.Dated = dated.Sub(now)
		}
		now, clock.From = dated, FromDocument
	}
	if clock.Behind = now.Sub(c.Wall); clock.Behind < clockStepLeast {
		clock.From = FromWall
	}
	if ahead := c.Wall.Sub(floor); !floor.IsZero() && ahead > Leap {
		clock.Ahead, clock.AheadFor = ahead, m.tried(c)
	}
	if clock.Behind > clockTolerance {
		clock.BehindSince = now
		if m.BootID == c.BootID {
			clock.BehindSince = now.Add(-m.Behind - m.ran(c))
		}
	}
	clock.Unproved, clock.Unsure = m.unproved(c, signed, now), m.unsure(c)
	return now, clock
}

// Advance returns the mark after a reading of the clocks. Call it about every minute, and before the mark is kept: it
// takes the time since the last call to have been as it is now.
func (m Mark) Advance(c Clocks, signed time.Time) Mark { return m.advance(c, signed, signed) }

// advance is Advance with a signed date that supports a wall clock ahead.
func (m Mark) advance(c Clocks, signed, proof time.Time) Mark {
	now, clock := m.Now(c, signed)
	floor := m.floor(c)
	next := Mark{Time: floor, Unsure: m.unsure(c), Boot: c.Boot, BootID: c.BootID, Reset: m.Reset, Learnt: m.Learnt,
		Signed: signed, Ran: m.since(c, signed)}
	if clock.Behind > clockTolerance {
		next.Behind = now.Sub(clock.BehindSince)
		next.count(m, c, false)
		return next
	}
	proved := !proof.IsZero() && c.Wall.Sub(proof) <= Leap
	if clock.Ahead > 0 && !proved {
		if next.Ahead, next.Tried = clock.AheadFor, c.Wall.UTC(); next.Ahead < Leap {
			next.count(m, c, false)
			return next
		}
		proved = true
	}
	next.Ahead, next.Tried = 0, zeroTime
	if proved {
		next.Unsure = 0
	}
	// A document's own date is no reason to believe it any longer once the document has gone.
	next.Time = later(floor, c.Wall)
	next.count(m, c, proved)
	return next
}

// Learn returns the mark after a trusted source (an upstream that signed this agent's own nonce) has told the time.
func (m Mark) Learn(c Clocks, signed, at time.Time) Mark {
	next := m.advance(c, signed, later(signed, at))
	next.Time, next.Learnt, next.Unsure = later(next.Time, at).UTC(), later(next.Learnt, at).UTC(), 0
	next.Counted = later(next.Counted, at).UTC()
	return next
}

// Heal returns the mark after a document that [License.ResetsClock] and is bound to this agent. Whatever was believed
// of a time after that document's issue was false. One document heals once.
func (m Mark) Heal(c Clocks, issued time.Time) (Mark, bool) {
	if !issued.After(m.Reset) {
		return m, false
	}
	return Mark{Time: issued, Boot: c.Boot, BootID: c.BootID, Reset: issued, Counted: issued}, true
}

// TellsTime reports whether signed dates of the licence (its issue, an upstream's answer) are evidence of the time. One
// time judges all licences of an agent, and one system tells it: otherwise a false date of another system would end its
// licences. Test licences never tell the time.
func (l *License) TellsTime(system string) bool { return l.System == system && !l.IsTest() }

// clockStepLeast is how far two clocks may drift apart between two readings.
const clockStepLeast = time.Second

// Stepped returns by how much the wall clock was set between two readings, the earlier of which is before: its change
// beyond the time that has passed. Zero: it was not set.
func Stepped(before, now time.Time, ran time.Duration) time.Duration {
	by := now.Sub(before) - ran
	if before.IsZero() || by.Abs() < clockStepLeast {
		return 0
	}
	return by
}

// Drifted reports whether the later of two readings of Clock.Unproved says something new.
func Drifted(was, is time.Duration) bool {
	return (was == 0) != (is == 0) || (is-was).Abs() >= clockStepLeast
}

// Step says that the time was set by By. What is counted from an earlier instant (a time to live, a doubt, a wait, the
// memory of tokens) stays as far off as it was. What ends at a date does not change.
//
// Unproved is how far the time is ahead of what is proved of it (Clock.Unproved). The periods of meters follow the
// proved time, so that setting the clock forward opens no period before its time.
//
// Unsure is for how long the host must still run until its first wall clock is proved (Clock.Unsure). Until then a
// meter that has been drawn stays in its period: the clock may yet be set to any other time.
type Step struct{ By, Unproved, Unsure time.Duration }

func (r *Step) decide(_ *Enforcer, now time.Time) Decision {
	return Decision{Events: []Event{{Kind: EventStepped, At: now, By: r.By, Unproved: r.Unproved, Unsure: r.Unsure}}}
}

func (e *Enforcer) applyStepped(ev Event) {
	by := ev.By
	e.unproved, e.sureAt = ev.Unproved, zeroTime
	if ev.Unsure > 0 {
		e.sureAt = ev.At.Add(ev.Unsure)
	}
	if by == 0 {
		return
	}
	e.stepCounts(ev.At, by)
	for _, h := range e.leases.All {
		if h.ExpiresAt.IsZero() || h.Lifetime == LifetimeBorrow {
			continue
		}
		l := *h.Lease
		l.ExpiresAt = l.ExpiresAt.Add(by)
		e.replace(h, &l)
	}
	for _, p := range e.pools { // in the order of their places: the same step always makes the same state
		for i := range p.expiry.len() {
			p.expiry.at(i).refresh()
		}
		for i := p.expiry.len()/2 - 1; i >= 0; i-- {
			p.down(i)
		}
	}
	for _, w := range e.waiters {
		moved := *w.Waiter
		moved.Since, moved.Until = moved.Since.Add(by), sooner(moved.Until.Add(by), moved.Request.Until)
		w.Waiter, w.rank = &moved, w.rank.Add(by)
		e.patience.moved(w)
	}
	for _, r := range e.tokens { // all by as much, so that their order stays
		e.saveToken(r)
		r.until = r.until.Add(by)
	}
	e.stepHoldOffs(by)
	e.stepLingers(by)
	e.stepTimers(by)
	for _, p := range e.pools {
		if !p.revokeAt.IsZero() {
			p.revokeAt = p.revokeAt.Add(by)
		}
		e.reschedule(p)
	}
	for _, t := range e.tenures {
		if !t.turnedAt.IsZero() {
			t.turnedAt = t.turnedAt.Add(by)
			t.revokeAt = t.whenToRevoke()
		}
	}
}
