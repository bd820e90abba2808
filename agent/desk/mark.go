package desk

import (
	"encoding/json"
	"time"

	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/enforcer"
)

// markVersion is the first byte of a record of the clock's mark. JSON follows it.
const markVersion = 0x81

// How often the mark is advanced, and how often it is kept besides at the end: a crash loses that much of what is known
// of the time, which gains nobody anything, and an agent that does nothing else wakes no disk for it.
const (
	advanceEvery = time.Minute
	keepEvery    = 10 * time.Minute
)

// markRecord is enforcer.Mark as it is kept.
type markRecord struct {
	Time   time.Time     `json:"time"`
	Boot   time.Duration `json:"boot_ns"`
	BootID string        `json:"boot_id"`
	Unsure time.Duration `json:"unsure_ns,omitempty"`
	Ahead  time.Duration `json:"ahead_ns,omitempty"`
	Tried  time.Time     `json:"tried,omitzero"`
	Behind time.Duration `json:"behind_ns,omitempty"`
	Reset  time.Time     `json:"reset,omitzero"`
	Signed time.Time     `json:"signed,omitzero"`
	Ran    time.Duration `json:"ran_ns,omitempty"`
	Learnt time.Time     `json:"learnt,omitzero"`
	// Former versions counted by Time, and so does a record of theirs.
	Counted time.Time     `json:"counted,omitzero"`
	Lent    time.Duration `json:"lent_ns,omitempty"`
}

// keptMark is a record of the mark.
type keptMark struct {
	markRecord
	// Host says that Boot is by the host's clock. Former versions took that of their time namespace.
	Host bool `json:"host_clock,omitempty"`
}

func encodeMark(m enforcer.Mark) ([]byte, error) {
	b, err := json.Marshal(keptMark{markRecord(m), true})
	return append([]byte{markVersion}, b...), err
}

func decodeMark(b []byte) (enforcer.Mark, error) {
	var r keptMark
	err := json.Unmarshal(b[1:], &r)
	ahead, _ := clock.Offset()
	return r.mark(ahead, clock.BootID(), clock.Boot()), err
}

// mark returns the mark by the host's clock, of which this process's time namespace is ahead. By another clock it is
// not known how much has passed since: nothing, then.
func (r keptMark) mark(ahead time.Duration, bootID string, boot time.Duration) enforcer.Mark {
	if !r.Host && ahead != 0 && r.BootID == bootID {
		r.Boot = max(r.Boot, boot)
	}
	return enforcer.Mark(r.markRecord)
}

// clocks reads the host's clocks: the wall clock first, so that what passes between the two is not taken for more than
// passed. The boot time costs a call of the kernel, so what has passed since that was read is Go's monotonic clock's to
// say, which stands still in a suspension: exact asks the kernel. d.mu is held.
func (d *Desk) clocks(exact bool) enforcer.Clocks {
	wall := d.now()
	d.glance = wall
	since := d.passed(d.asked, wall)
	if exact || d.asked.IsZero() || since >= advanceEvery {
		d.atBoot = max(d.atBoot, d.boot())
		d.asked, since = wall, 0
	}
	// Round drops the monotonic reading: the calendar is compared.
	return enforcer.Clocks{Wall: wall.Round(0).UTC(), Boot: max(d.read, d.atBoot+since), BootID: clock.Epoch()}
}

// licenceTime returns the time that licences are judged by and leases counted by. When the clock has been set since it
// was last asked, what is counted from an instant of before is moved along. d.mu is held.
func (d *Desk) licenceTime() time.Time {
	if now, ok := d.onward(); ok {
		return now
	}
	return d.timed().Time
}

// slack is how far the wall clock may have left the course of Go's monotonic clock, which is read at nearly the same
// moment, without a look at what that means.
const slack = time.Millisecond

// onward returns the licence time where it was the wall clock's within the last second, and goes on with it: nothing
// has come between, and no clock was set. It is what timed would return, to within slack, at a tenth of the cost. d.mu
// is held.
func (d *Desk) onward() (now time.Time, ok bool) {
	s := &d.steady
	if s.wall.IsZero() || d.advanced == 0 {
		return now, false
	}
	wall := d.now()
	since := d.passed(s.wall, wall)
	now = wall.Round(0).UTC()
	if drift := now.Sub(s.utc) - since; since < 0 || since >= time.Second || drift.Abs() >= slack {
		return now, false
	}
	d.wall, d.read = now, max(d.read, s.boot+since)
	if now = now.Add(s.behind); now.Before(d.last) {
		now = d.last // by less than slack
	}
	d.last = now
	return now, true
}

// steady is a reading of the clocks by which the licence time was the wall clock's.
type steady struct {
	wall   time.Time     // with Go's monotonic reading; zero: the licence time is not the wall clock's, or may not be
	utc    time.Time     // the same without
	boot   time.Duration // since boot
	behind time.Duration // the licence time was ahead of it by so much, which is less than a second
}

// timed returns the licence time and all that it comes from. d.mu is held.
func (d *Desk) timed() Reading {
	c := d.clocks(false)
	if enforcer.Stepped(d.wall, c.Wall, c.Boot-d.read) != 0 { // the wall clock was set, or the host was suspended
		c = d.clocks(true)
	}
	now, k := d.mark.Now(c, d.signed)
	by := enforcer.Stepped(d.last, now, c.Boot-d.read)
	if by != 0 || c.Boot-d.advanced >= time.Second {
		was := d.mark
		d.mark, d.advanced = d.mark.Advance(c, d.signed), c.Boot
		_, k = d.mark.Now(c, d.signed)
		if enforcer.Stepped(was.Time, d.mark.Time, c.Boot-was.Boot) > 0 {
			// before what it opens is drawn: a crash must not have the same day of running prove another leap
			d.keepMark()
		}
	}
	d.last, d.wall, d.read = now, c.Wall, c.Boot
	d.steady = steady{}
	if by == 0 && k.From == enforcer.FromWall && k.Ahead == 0 {
		d.steady = steady{wall: d.glance, utc: c.Wall, boot: c.Boot, behind: now.Sub(c.Wall)}
	}
	if by != 0 {
		if d.steps++; d.store != nil {
			d.store.wake()
		}
	}
	if by != 0 || enforcer.Drifted(d.unproved, k.Unproved) || d.unsure != (k.Unsure > 0) {
		d.unproved, d.unsure = k.Unproved, k.Unsure > 0
		d.apply(d.core.Decide(&enforcer.Step{By: by, Unproved: k.Unproved, Unsure: k.Unsure}, now).Events, nil)
	}
	k.Unproved = d.unproved                        // as the core counts by it
	k.Behind = k.Behind.Truncate(time.Millisecond) // less lies between two readings
	return Reading{Clock: k, Time: now, Wall: c.Wall, Mark: d.mark, Steps: d.steps}
}

// restore begins with the mark that an earlier agent has kept: the licence time goes on from there, wherever the wall
// clock is. A wall clock that was far ahead for less than a day has not entered the mark (enforcer.Mark), and is
// forgotten by a restart. It returns that time.
func (d *Desk) restore(m enforcer.Mark) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	// Whether the document of that date is still there is known when the folder has been read.
	d.believe(m, m.Signed)
	d.last = time.Time{}
	return d.licenceTime()
}

// advance brings the mark up to the present, and keeps it when that is due, or in any case. d.mu is held.
func (d *Desk) advance(keep bool) {
	d.advanced = 0
	d.carry(d.core.Decide(&enforcer.TakeOver{}, d.licenceTime())) // what a false time had begun, if that is known now
	if since := d.read - d.markKept; !keep && d.markKept != 0 && since < keepEvery {
		return
	}
	d.keepMark()
}

// keepStart keeps the mark as the start of this agent makes it: see timed.
func (d *Desk) keepStart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.advance(true)
}

// keepMark has the journal keep the mark, before all that follows. d.mu is held.
func (d *Desk) keepMark() {
	if d.store == nil {
		return
	}
	b, err := encodeMark(d.mark)
	if err == nil {
		_, err = d.store.durable.Append(b) // nobody waits for it: a group of others, or the end, takes it to the disk
	}
	if err != nil {
		d.store.log.Warn("the latest time seen was not kept; after a crash it may be known less well", "error", err,
			"time", d.mark.Time)
		return
	}
	d.markKept = d.read
}

// Heal puts the mark back to the issue of a document that says so, and with it the licence time; a document does so
// once. It returns from when to when.
func (d *Desk) Heal(issued time.Time) (from, to time.Time, healed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	from = d.licenceTime()
	mark, ok := d.mark.Heal(d.clocks(false), issued)
	if !ok {
		return from, from, false
	}
	d.believe(mark, d.signed)
	d.advance(true)
	return from, d.last, true
}

// Learn takes a time that somebody has signed for this agent alone: whatever the wall clock says, it is no earlier.
func (d *Desk) Learn(at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	from := d.licenceTime()
	d.believe(d.mark.Learn(d.clocks(false), d.signed, at), d.signed)
	// Most answers only repeat the wall clock: such a time is kept when the next record is due.
	d.advance(d.licenceTime().Sub(from) > advanceEvery)
}

// Sign says with what date the latest of the documents at hand is signed, and returns the time that this makes it.
func (d *Desk) Sign(signed time.Time) Reading {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.licenceTime() // what has passed so far passed as it was
	d.believe(d.mark, signed)
	d.advanced = 0
	return d.timed()
}

// believe replaces what is known of the time. d.mu is held.
func (d *Desk) believe(m enforcer.Mark, signed time.Time) {
	d.mark, d.signed = m, signed
	d.steady = steady{}
}

// Would returns what the licence time would be with that date.
func (d *Desk) Would(signed time.Time) (time.Time, enforcer.Clock) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mark.Now(d.clocks(false), signed)
}

// Reading is the licence time and all that it comes from.
type Reading struct {
	enforcer.Clock
	Time, Wall time.Time // the licence time, and the wall clock
	Mark       enforcer.Mark
	Steps      int // how often the time was set
}

// Counted returns the proved part of the licence time, by which periods are counted.
func (t Reading) Counted() time.Time { return t.Time.Add(-t.Unproved) }

// Timing returns the licence time and its sources.
func (d *Desk) Timing() Reading {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.timed()
}

// Now returns the licence time.
func (d *Desk) Now() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.licenceTime()
}

// Counted returns the time that meters' periods are counted by.
func (d *Desk) Counted() time.Time { return d.Timing().Counted() }

// Dated returns the time that a request to an upstream is dated with: the licence time, or where nothing but a document
// tells that, the wall clock, by which the upstream sees that this host has not been told the time yet.
func (d *Desk) Dated() time.Time {
	at := d.Timing()
	if at.From == enforcer.FromDocument {
		return at.Wall
	}
	return at.Time
}
