package shares

import (
	"cmp"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// Meter is what is kept of one meter of one licence. What is recorded is what a restarted agent goes on with.
type Meter struct {
	Period  time.Time `json:"period,omitzero"` // whose draws Taken counts; zero: the meter never resets
	Taken   int64     `json:"taken"`           // for good, in the period
	Pending *Pending  `json:"pending,omitempty"`

	total       int64         // what the licence grants the whole site, overage included
	missed      int64         // the largest acquire that was denied lately, less what was drawn since
	missedUntil time.Duration // on the keeper's own clock, as all spans here
	looked      bool          // drawn is known
	drawn       int64         // when it was last looked
	asked       [2]bool       // whether anybody wanted draws in this period, and in the one before it
	recent      [2]int64      // drawn in this window, and in the one before it
	window      time.Duration // when this window ends
	most        int64         // of the next call; 0: as much as is needed. Fewer are left upstream than were asked for
	notBefore   time.Duration // no call sooner
	tries       int           // that have failed since one that did not
	refused     bool          // the upstream gives no draws of it
	spent       bool          // the upstream has none left
	others      int64         // of spent: draws that other hosts have taken
}

// Pending is a call that was made, or was about to be: whether it took anything is not known before it is answered.
type Pending struct {
	Token string `json:"token"`
	N     int64  `json:"n"`
}

// MeterDemand is what is asked of a meter on this host.
type MeterDemand struct {
	Drawn    int64 // in the period
	Waiting  int64 // draws that are waited for, without those that were granted: Drawn has them
	Capacity int64 // what may have been drawn in the period under the verdict in force, overage included
	// Taken is what all licences have taken in the period, by the record, and what open calls may have. The keeper
	// states it. The verdict may come to know of it later, and what is there already must not be taken again.
	Taken int64
}

// Bounds of what is taken ahead, and of waits.
const (
	window      = 2 * time.Second // the agent keeps ahead what was drawn within that time
	mostAhead   = 32              // draws, at the most
	longestOpen = time.Minute     // between calls of which it is not known whether they took anything
	spentFor    = 2 * refusedWait // that none is left counts: the upstream is asked again before
)

// roll begins another period, and reports whether there is one. What was taken, or may have been, is over with the old
// one. A period that lies ahead (the clock was set back) goes on, as it does in the enforcer.
func (m *Meter) roll(start time.Time) bool {
	if !m.Period.Before(start) {
		return false
	}
	*m = Meter{Period: start, total: m.total, asked: [2]bool{1: m.asked[0]}}
	return true
}

// limit sets what the licence grants the whole site; zero: it is no meter of the licence any more.
// Of a larger one there may be draws at once.
func (m *Meter) limit(total int64) {
	if total > m.total {
		m.most, m.notBefore, m.spent = 0, 0, false
	}
	m.total = total
}

// miss takes note of an acquire of n draws that was denied.
func (m *Meter) miss(now time.Duration, n int64) {
	if now >= m.missedUntil {
		m.missed = 0
	}
	m.missed, m.missedUntil = max(m.missed, n), now+missedFor
}

// look takes note of what has been drawn. What was drawn before the first look says nothing about the present demand. A
// want that has been granted counts no longer.
func (m *Meter) look(now time.Duration, d MeterDemand) {
	if now >= m.window {
		if m.recent[1] = m.recent[0]; now >= m.window+window {
			m.recent[1] = 0
		}
		m.recent[0], m.window = 0, now+window
	}
	if m.looked {
		granted := max(0, d.Drawn-m.drawn)
		m.recent[0] += granted
		m.missed = max(0, m.missed-granted)
	}
	m.drawn, m.looked = d.Drawn, true
	m.asked[0] = m.used(now, d)
}

// used reports whether anybody has wanted draws in this period.
func (m *Meter) used(now time.Duration, d MeterDemand) bool {
	return m.asked[0] || d.Drawn > 0 || m.need(now, d) > 0
}

// need is how many draws are wanted and not granted. A caller that was denied may be among those that wait now, so its
// want counts once.
func (m *Meter) need(now time.Duration, d MeterDemand) int64 {
	if now < m.missedUntil {
		return max(d.Waiting, m.missed)
	}
	return d.Waiting
}

// spare is how many draws the agent keeps ahead of need: none of a meter that nobody asks for, then one, and while
// there is demand as many as were drawn in the last seconds. The site loses for the period what an agent takes and does
// not hand out, so that is never more than a few, nor a sixteenth of all.
func (m *Meter) spare(now time.Duration, d MeterDemand) int64 {
	if !m.asked[1] && !m.used(now, d) {
		return 0
	}
	return max(1, min(max(m.recent[0], m.recent[1]), mostAhead, m.total/16))
}

// Next says how many draws are to be taken now; 0: none, and when to look again (zero: when something changes). It is
// pure. A call that has not been answered is made again as it was before any other.
func (m *Meter) Next(now time.Duration, d MeterDemand) (n int64, again time.Duration) {
	left := m.total - m.Taken
	switch {
	case m.total <= 0 || m.Pending == nil && left <= 0:
		return 0, 0
	case m.Pending == nil && d.Drawn > d.Capacity:
		// more was drawn than taken, by the word of an admin: to take that much and hand out none would be waste
		return 0, 0
	case m.Pending != nil:
		n = m.Pending.N
	default:
		need, spare := m.need(now, d), m.spare(now, d)
		free := max(d.Capacity, d.Taken) - d.Drawn
		// Half of what is ahead is used up before more is taken: fewer calls.
		if free >= need+(spare+1)/2 {
			return 0, m.fades(now)
		}
		n = min(need+spare-free, left)
		if m.most > 0 {
			n = min(n, m.most)
		}
	}
	if now < m.notBefore {
		return 0, m.notBefore
	}
	return n, 0
}

// fades is when the need may be less; zero: it will not.
func (m *Meter) fades(now time.Duration) time.Duration {
	if now < m.missedUntil {
		return m.missedUntil
	}
	return 0
}

// full takes note that the upstream has too few draws: none where it says what others have, or has not even one more.
func (m *Meter) full(said *plugin.Elsewhere) {
	switch {
	case said != nil:
		m.spent, m.others = true, said.Out
	case m.Pending.N == 1:
		m.spent, m.others = true, max(0, m.total-m.Taken)
	}
}

// failed takes note of a call that took nothing, or of which that is not known. It reports whether it may have taken
// something.
func (m *Meter) failed(now time.Duration, open, full bool, after time.Duration, jitter float64) {
	switch {
	case full && m.Pending.N > 1: // there may be fewer
		m.most, m.notBefore = m.Pending.N/2, now+backoff(0, longestOpen, jitter)
	case open && !full:
		m.notBefore = now + cmp.Or(min(after, longestOpen), backoff(m.tries, longestOpen, jitter))
		m.tries++
	default:
		m.most, m.notBefore = 0, now+refusedWait+time.Duration(jitter*float64(refusedWait)/4)
	}
	if full || !open {
		m.Pending, m.tries = nil, 0
	}
}
