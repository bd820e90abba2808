package agent

import (
	"encoding/json"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// markVersion is the first byte of a record that keeps the clock's mark; what follows is JSON.
const markVersion = 0x81

// How often the mark is advanced, and how often it is kept besides at the end: a crash loses that much of what is known of
// the time, which gains nobody anything, and an agent that does nothing else wakes no disk for it.
const (
	advanceEvery = time.Minute
	keepEvery    = 10 * time.Minute
)

// markRecord is enforcer.Mark as it is kept.
type markRecord struct {
	Time   time.Time     `json:"time"`
	Boot   time.Duration `json:"boot_ns"`
	BootID string        `json:"boot_id"`
	Ahead  time.Duration `json:"ahead_ns,omitempty"`
	Behind time.Duration `json:"behind_ns,omitempty"`
	Reset  time.Time     `json:"reset,omitzero"`
}

func encodeMark(m enforcer.Mark) ([]byte, error) {
	b, err := json.Marshal(markRecord(m))
	return append([]byte{markVersion}, b...), err
}

func decodeMark(b []byte) (enforcer.Mark, error) {
	var r markRecord
	err := json.Unmarshal(b[1:], &r)
	return enforcer.Mark(r), err
}

// clocks reads the host's clocks.
func (d *desk) clocks() enforcer.Clocks {
	return enforcer.Clocks{Wall: d.now().Round(0).UTC(), Boot: sinceBoot(), BootID: presentMeta().Boot}
}

// restore begins with the mark that an earlier agent has kept: the licence time goes on from there, wherever the wall clock is.
// A wall clock that was far ahead for less than a day has not entered the mark (enforcer.Mark), and is forgotten by a restart.
// It returns that time.
func (d *desk) restore(m enforcer.Mark) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !m.Time.IsZero() {
		d.mark = m
		if now, _ := m.Now(d.clocks(), time.Time{}); now.After(d.last) {
			d.last = now
		}
	}
	return d.licenceTime()
}

// advance brings the mark up to the present, and keeps it when that is due, or in any case. d.mu is held.
func (d *desk) advance(keep bool) {
	if d.store == nil {
		return
	}
	c := d.clocks()
	ran := c.Boot - d.mark.Boot
	if !keep && d.mark.BootID == c.BootID && ran >= 0 && ran < advanceEvery && !d.mark.Time.IsZero() {
		return
	}
	d.mark = d.mark.Advance(c, time.Time{})
	if since := c.Boot - d.markKept; !keep && d.markKept != 0 && since < keepEvery {
		return
	}
	b, err := encodeMark(d.mark)
	if err == nil {
		_, err = d.store.durable.Append(b) // nobody waits for it: a group of others, or the end, takes it to the disk
	}
	if err != nil {
		d.store.log.Warn("the latest time seen was not kept; after a crash it may be known less well", "error", err)
		return
	}
	d.markKept = c.Boot
}

// heal puts the mark back to the issue of a document that says so, and with it the licence time; a document does so once. It
// returns from when to when.
func (d *desk) heal(issued time.Time) (from, to time.Time, healed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.clocks()
	mark, ok := d.mark.Heal(c, issued)
	if !ok {
		return from, to, false
	}
	from = d.licenceTime()
	d.mark = mark
	d.last, _ = mark.Now(c, time.Time{})
	d.advance(true)
	return from, d.last, true
}
