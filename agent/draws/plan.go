package draws

import (
	"cmp"
	"time"
)

// Meter is what is kept of one meter of one licence. What is recorded is what a restarted agent goes on with.
type Meter struct {
	Period  time.Time `json:"period,omitzero"` // whose draws Taken counts; zero: the meter never resets
	Taken   int64     `json:"taken"`           // for good, in the period
	Pending *Pending  `json:"pending,omitempty"`

	total       int64         // what the licence grants the whole site, overage included
	missed      int64         // the largest of the acquires that were denied lately
	missedUntil time.Duration // on the keeper's own clock, as all spans here
	drawn       int64         // when it was last looked
	recent      [2]int64      // drawn in this window, and in the one before it
	window      time.Duration // when this window ends
	most        int64         // of the next call; 0: as much as is needed. Fewer are left upstream than were asked for
	notBefore   time.Duration // no call sooner
	tries       int           // that have failed since one that did not
}

// Pending is a call that was made, or was about to be: whether it took anything is not known before it is answered.
type Pending struct {
	Token string `json:"token"`
	N     int64  `json:"n"`
}

// Demand is what is asked of a meter on this host.
type Demand struct {
	Drawn    int64 // in the period
	Waiting  int64 // draws that are waited for
	Capacity int64 // what may have been drawn in the period under the verdict in force, overage included
}

// Bounds of what is taken ahead, and of waits.
const (
	window      = 2 * time.Second // what was drawn in as long as that is had ahead
	mostAhead   = 32              // at the most
	missedFor   = 5 * time.Second // for how long an acquire that was denied counts as need
	firstRetry  = 250 * time.Millisecond
	longestWait = time.Minute     // between calls of which it is not known whether they took anything
	refusedWait = 5 * time.Minute // before an upstream that has no more, or refuses, is asked again
)

// roll begins another period, and reports whether there is one. What was taken, or may have been, is over with the old one. A
// period that lies ahead (the clock was set back) goes on, as it does in the enforcer.
func (m *Meter) roll(start time.Time) bool {
	if !m.Period.Before(start) {
		return false
	}
	*m = Meter{Period: start, total: m.total}
	return true
}

// look takes note of what has been drawn.
func (m *Meter) look(now time.Duration, d Demand) {
	if now >= m.window {
		if m.recent[1] = m.recent[0]; now >= m.window+window {
			m.recent[1] = 0
		}
		m.recent[0], m.window = 0, now+window
	}
	m.recent[0] += max(0, d.Drawn-m.drawn)
	m.drawn = d.Drawn
}

// spare is how many draws are had ahead of need: one until there is demand, so that the first is granted, and then as many as
// were drawn in the last seconds. What an agent takes and does not hand out is lost to the site for the period, so it is never
// more than a few, nor a sixteenth of all.
func (m *Meter) spare() int64 {
	return max(1, min(max(m.recent[0], m.recent[1]), mostAhead, m.total/16))
}

// Next says how many draws are to be taken now; 0: none, and when to look again (zero: when something changes). It is pure. A call
// that has not been answered is made again as it was before any other.
func (m *Meter) Next(now time.Duration, d Demand) (n int64, again time.Duration) {
	left := m.total - m.Taken
	switch {
	case m.total <= 0 || m.Pending == nil && left <= 0:
		return 0, 0
	case m.Pending == nil && d.Drawn > d.Capacity:
		return 0, 0 // more was drawn than taken, by the word of an admin: to take that much and hand out none would be waste
	case m.Pending != nil:
		n = m.Pending.N
	default:
		need := d.Waiting
		if now < m.missedUntil {
			need += m.missed
		}
		free, spare := d.Capacity-d.Drawn, m.spare()
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

// backoff returns how long to wait after so many failures: full jitter under a bound that doubles.
func backoff(tries int, jitter float64) time.Duration {
	bound := min(firstRetry<<min(tries, 16), longestWait)
	return firstRetry/2 + time.Duration(jitter*float64(bound))
}

// failed takes note of a call that took nothing, or of which that is not known. It reports whether it may have taken something.
func (m *Meter) failed(now time.Duration, open, full bool, after time.Duration, jitter float64) {
	switch {
	case full && m.Pending.N > 1: // there may be fewer
		m.most, m.notBefore = m.Pending.N/2, now+backoff(0, jitter)
	case open && !full:
		m.notBefore = now + cmp.Or(min(after, longestWait), backoff(m.tries, jitter))
		m.tries++
	default:
		m.most, m.notBefore = 0, now+refusedWait+time.Duration(jitter*float64(refusedWait)/4)
	}
	if full || !open {
		m.Pending, m.tries = nil, 0
	}
}
