package shares

import (
	"crypto/rand"
	"slices"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// Block is slots that the upstream has given, as this agent has them. Instants are times since boot (CLOCK_BOOTTIME).
type Block struct {
	ID    string `json:"id"`
	Slots int64  `json:"slots"` // as the upstream knows it
	// of which may be handed out here; fewer than Slots from before they are given back
	Use  int64         `json:"use"`
	Sent time.Duration `json:"sent"` // when the request was sent that its time counts from
	For  time.Duration `json:"for"`
	// Keep is how long leases that are held then still count, from Sent; zero: as long as more are granted.
	Keep time.Duration `json:"keep,omitempty"`

	kept      int64         // the most that a restarted agent would hand out of it, by the record
	extend    time.Duration // when more time is asked for
	notBefore time.Duration // no call about it sooner, after one that failed
	tries     int           // that have failed since one that did not
	lapsed    bool          // nothing more is handed out of it
}

// Until is when the agent stops handing out of a block: a sixteenth sooner than the upstream gives its slots to others,
// because no two clocks go alike.
func (b *Block) Until() time.Duration { return b.Sent + b.For - b.For/16 }

// End is when nothing may be held of a block any more. Keep has its margin already.
func (b *Block) End() time.Duration { return max(b.Until(), b.Sent+b.Keep) }

// unkeptWait is when the next call about a block is tried after the record could not be written: soon enough for more
// time.
func (b *Block) unkeptWait() time.Duration { return min(longestWait, b.For/12) }

// outlives reports whether a block is to be extended as it is, although part of it is to be given back: the upstream
// could not make it smaller, and what is held of it must not end for that. Every second call is so, since the upstream
// may have made it smaller after all.
func (b *Block) outlives(now time.Duration) bool {
	return b.Use > 0 && now >= b.extend && b.tries%2 == 1
}

// Kind is what is done next for a pool.
type Kind string

// The kinds. All but Reduce are calls to the upstream; Reduce comes before a call that gives slots back, so that they
// are not handed out here any more when somebody else may have them.
const (
	CheckOut Kind = "check_out"
	Extend   Kind = "extend"
	Return   Kind = "return"
	Reduce   Kind = "reduce"
)

// Step is what is done next for a pool.
type Step struct {
	Kind  Kind
	Block string // of all but CheckOut
	Slots int64  // Extend: its size from then on; Reduce: what may be handed out of it from then on
	Ahead int64  // of Slots, those that nobody needs yet
}

// PoolDemand is what is asked of a pool on this host.
type PoolDemand struct {
	InUse    int64
	Waiting  int64 // slots that are waited for
	Capacity int64 // what may be in use under the verdict in force, overage included
	Draining bool  // no more leases are granted: what is not in use is given back at once
}

// Pool is what is kept of one pool of one licence, and the plan for it. What is recorded is what a restarted agent goes
// on with.
type Pool struct {
	Blocks []*Block `json:"blocks"`
	// Ended: the last block is over that leases could be held of after its time. Until another comes, none may be held.
	Ended bool `json:"ended,omitempty"`

	total  int64         // what the licence grants the whole site
	span   time.Duration // for how long blocks are given here; zero until the first is
	peak   int64         // the most that was needed since peakAt
	peakAt time.Duration
	// slots that would have let the largest of the acquires denied lately be granted, beside those in use
	missed      int64
	missedUntil time.Duration
	wanted      int64 // what others ask for in vain
	wantedUntil time.Duration
	refused     bool          // the upstream serves no slots of it
	full        bool          // the last check-out was refused because others have all
	resting     bool          // the agent has none, and asks for none until somebody needs some
	rigid       bool          // the upstream makes no block smaller
	failing     bool          // the last call for more failed, and more is needed still
	stuck       bool          // a block did not grow when it was asked to; a check-out will show why
	fixed       bool          // the upstream makes no block larger
	notBefore   time.Duration // no check-out sooner
	freed       bool          // slots have come free since the call under way, if any, was sent
	tries       int           // check-outs that brought less than they asked for, since one that brought all
	token       string        // of the check-out that may have been lost on the way, and for how much it was
	tokenSlots  int64
	asked       []chan<- Outcome // of operators who wait for what comes of the next call
}

// Limits of what is kept and asked.
const (
	maxBlocks   = 8                // of one pool; where there are so many, one grows
	longestWait = 15 * time.Second // between check-outs while somebody needs slots
	quietWait   = time.Minute      // more, between those that nobody needs yet
	callLeast   = 2 * time.Second  // the shortest time that one call is given
)

// have returns what may be handed out, and when the first of it is over; zero: never.
func (p *Pool) have(now time.Duration) (n int64, until time.Duration) {
	for _, b := range p.Blocks {
		if u := b.Until(); u > now && b.Use > 0 {
			if n += b.Use; until == 0 || u < until {
				until = u
			}
		}
	}
	return n, until
}

// planned returns how many slots the blocks have, with those of which nothing is handed out until they are extended.
func (p *Pool) planned(now time.Duration) (n int64) {
	for _, b := range p.Blocks {
		if b.End() > now {
			n += b.Use
		}
	}
	return n
}

// keeps returns how many slots may stay held although none of them may be handed out, and until when; bounded says that
// nothing else may stay held.
func (p *Pool) keeps(now time.Duration) (n int64, until time.Duration, bounded bool) {
	bounded = p.Ended
	for _, b := range p.Blocks {
		if b.Keep == 0 || b.Until() > now {
			continue
		}
		bounded = true
		if end := b.End(); end > now {
			if n += b.Use; until == 0 || end < until {
				until = end
			}
		}
	}
	return n, until, bounded
}

// lapse forgets the blocks that are over, and reports whether less may be handed out or held than before.
func (p *Pool) lapse(now time.Duration) (lapsed bool) {
	p.Blocks = slices.DeleteFunc(p.Blocks, func(b *Block) bool {
		if b.Until() > now {
			b.lapsed = false
			return false
		}
		over := b.End() <= now
		lapsed = lapsed || over || !b.lapsed
		b.lapsed = true
		p.Ended = p.Ended || over && b.Keep > 0
		return over
	})
	return lapsed
}

// need returns how many slots the pool needs of this licence: what is in use or asked for, less what comes from
// elsewhere.
func (p *Pool) need(now time.Duration, d PoolDemand) int64 {
	have := p.planned(now)
	n := d.InUse
	if !d.Draining {
		n += d.Waiting
	}
	if now < p.missedUntil && !d.Draining {
		n += p.missed
	}
	return min(p.total, max(0, n-max(0, d.Capacity-have)))
}

// idleAfter is for how long what is not needed is kept.
func (p *Pool) idleAfter() time.Duration { return max(p.span, time.Second) }

// Next returns what is to be done now, nil for nothing, and when to look again; zero: when something changes. Closing,
// the agent gives back all that is not in use.
func (p *Pool) Next(now time.Duration, d PoolDemand, closing bool) (*Step, time.Duration) {
	have := p.planned(now)
	need := p.need(now, d)
	if need >= p.peak || now-p.peakAt > p.idleAfter() {
		p.peak, p.peakAt = need, now
	}
	if need > 0 || have > 0 {
		p.resting = false
	} else if p.full {
		p.resting = true // the agent leaves to others what it does not need
	}
	p.failing = p.failing && need > have
	if s := p.onDemand(now, have, need, d.Draining); s != nil && !closing {
		return s, 0
	}
	var again time.Duration
	later := func(at time.Duration) {
		if at > now && (again == 0 || at < again) {
			again = at
		}
	}
	for _, b := range p.Blocks {
		due, size := b.extend, b.Use
		switch {
		case b.Use < b.Slots:
			due = b.notBefore
			if b.outlives(now) {
				size = b.Slots
			}
		case closing:
			continue
		}
		if due = max(due, b.notBefore); due > now {
			later(due)
			continue
		}
		if b.Use == 0 {
			return &Step{Kind: Return, Block: b.ID}, 0
		}
		return &Step{Kind: Extend, Block: b.ID, Slots: size}, 0
	}
	if s := p.shrink(now, have, need, closing || d.Draining); s != nil {
		return s, 0
	}
	if closing {
		return nil, again
	}
	if s := p.grow(now, have, need); s != nil && !d.Draining {
		at := p.notBefore
		if need <= have && have > 0 && p.tries > 0 {
			at += min(quietWait, p.span/3)
		}
		if at <= now {
			return s, 0
		}
		later(at)
	}
	for _, b := range p.Blocks {
		later(b.extend)
		later(b.Until())
		later(b.End())
	}
	if len(p.Blocks) > 0 {
		later(p.peakAt + p.idleAfter() + 1)
	}
	later(p.missedUntil)
	later(p.wantedUntil)
	return nil, again
}

// spare is how many slots the agent keeps beyond its need, so that an acquire finds them.
func spare(n int64) int64 { return max(1, n/4) }

// grow returns how the agent gets more slots: as many as it lacks, and while nobody else lacks any as many again as it
// has, but never more than a quarter of the site's slots ahead of need.
func (p *Pool) grow(now time.Duration, have, need int64) *Step {
	lacks := max(0, need-have)
	more := lacks
	if now >= p.wantedUntil && !p.resting {
		if have-need < spare(need) {
			more = max(more, min(max(have, 1), max(1, p.total/4), need+spare(need)))
		}
	}
	if more = min(more, p.total-have); more <= 0 {
		return nil
	}
	// One block that grows takes fewer calls than two. Where it does not grow, another block may bring more.
	if n := len(p.Blocks); n > 0 && !p.fixed && p.tries == 0 || n >= maxBlocks {
		b := slices.MaxFunc(p.Blocks, func(a, b *Block) int { return int(min(1, max(-1, a.Use-b.Use))) })
		if b.Use < b.Slots {
			return nil // the upstream hears of that first: it cannot tell the one from the other
		}
		return &Step{Kind: Extend, Block: b.ID, Slots: b.Use + more, Ahead: more - min(more, lacks)}
	}
	return &Step{Kind: CheckOut, Slots: more, Ahead: more - min(more, lacks)}
}

// shrink returns what is given back: what was not needed for a while, and at once what others ask for in vain, or all.
func (p *Pool) shrink(now time.Duration, have, need int64, all bool) *Step {
	idle := have - p.peak - spare(p.peak)
	urgent := now < p.wantedUntil || all
	switch {
	case all:
		idle = have - need
	case urgent:
		idle = max(idle, min(have-need, p.wanted))
	}
	if idle <= 0 {
		return nil
	}
	var whole, part *Block
	for _, b := range p.Blocks {
		switch {
		case b.Use < b.Slots || b.Use == 0: // on its way already
		case now < b.notBefore: // it could not be recorded
		case b.Use <= idle && (whole == nil || b.Use > whole.Use):
			whole = b
		case b.Use > idle && (part == nil || b.Use < part.Use):
			part = b
		}
	}
	switch {
	case whole != nil:
		return &Step{Kind: Reduce, Block: whole.ID}
	case part != nil && !p.rigid && (urgent || idle*2 >= part.Use):
		return &Step{Kind: Reduce, Block: part.ID, Slots: part.Use - idle}
	}
	return nil
}

func (p *Pool) block(id string) *Block {
	for _, b := range p.Blocks {
		if b.ID == id {
			return b
		}
	}
	return nil
}

// size returns how many slots a block has; 0: there is none of the id.
func (p *Pool) size(id string) int64 {
	if b := p.block(id); b != nil {
		return b.Slots
	}
	return 0
}

// limit sets what the licence grants the whole site; zero: it is no pool of the licence any more.
func (p *Pool) limit(total int64) { p.total = total }

// miss takes note of an acquire that was denied for want of n slots.
func (p *Pool) miss(now time.Duration, n int64) {
	if now >= p.missedUntil {
		p.missed = 0
	}
	p.missed, p.missedUntil = max(p.missed, n), now+missedFor
}

// load makes a pool that was recorded ready for use.
func (p *Pool) load(now time.Duration) {
	p.Blocks = slices.DeleteFunc(p.Blocks, func(b *Block) bool { return b == nil })
	p.lapse(now)
	for _, b := range p.Blocks {
		p.span = b.For
		b.Use = min(b.Use, b.Slots)
		b.kept = b.Use
	}
}

// openToken returns the token of a check-out, and has it ask for the same again where the last answer was lost.
func (p *Pool) openToken(s *Step) string {
	if p.token == "" {
		p.token, p.tokenSlots = rand.Text(), s.Slots
	}
	lacks := s.Slots - s.Ahead // what was asked for then may be more than anybody needs by now
	s.Slots, s.Ahead = p.tokenSlots, max(0, p.tokenSlots-lacks)
	return p.token
}

// callWithin returns how long a call may take: an answer that hangs leaves time for another try before the blocks end.
func (p *Pool) callWithin(most time.Duration) time.Duration {
	if p.span > 0 {
		return min(most, max(callLeast, p.span/4))
	}
	return most
}

// unrecorded puts a step off that the record could not be written for.
func (p *Pool) unrecorded(s *Step, now time.Duration) {
	if b := p.block(s.Block); b != nil {
		b.notBefore = now + b.unkeptWait()
	} else {
		p.notBefore = now + longestWait
	}
}

// answered takes the answer to a step, whose request was sent at sent; got is nil for Return.
func (p *Pool) answered(s *Step, got *plugin.Block, sent, now time.Duration, jitter float64) {
	p.refused, p.Ended = false, p.Ended && s.Kind == Return
	b := p.block(s.Block)
	if s.Kind == Return {
		if b != nil {
			p.wanted = max(0, p.wanted-b.Slots)
		}
		p.Blocks = slices.DeleteFunc(p.Blocks, func(x *Block) bool { return x == b })
		return
	}
	p.span = got.For
	if p.wanted = got.Wanted; got.Wanted > 0 {
		p.wantedUntil = now + got.For/2
	}
	if s.Kind == CheckOut {
		p.token = ""
		if b = p.block(got.ID); b == nil {
			b = &Block{ID: got.ID}
			p.Blocks = append(p.Blocks, b)
		}
		p.fixed = p.fixed || p.stuck
		p.stuck = false
		p.short(s.Slots-got.Slots, now, jitter)
	} else if b == nil {
		return // it was over before the answer came
	} else if s.Slots > b.Slots {
		p.stuck = got.Slots == b.Slots
		p.short(s.Slots-got.Slots, now, jitter)
	} else if s.Slots < got.Slots {
		p.rigid = true
	}
	b.Slots, b.Use, b.Sent, b.For, b.Keep, b.tries, b.notBefore = got.Slots, got.Slots, sent, got.For, got.Keep, 0, 0
	b.extend = sent + time.Duration(float64(got.For)/3*(0.9+0.2*jitter))
}

// short takes note of how many slots fewer a check-out brought than it asked for.
func (p *Pool) short(lacking int64, now time.Duration, jitter float64) {
	p.full = false
	if lacking <= 0 {
		p.tries, p.notBefore, p.missed = 0, 0, 0
		return
	}
	p.later(now, jitter)
}

// later sets when the next check-out may be.
func (p *Pool) later(now time.Duration, jitter float64) {
	p.notBefore = now + backoff(p.tries, p.longest(), jitter)
	p.tries++
}

// longest returns the longest wait between check-outs that fail.
func (p *Pool) longest() time.Duration {
	if p.span > 0 {
		return min(longestWait, p.span/6)
	}
	return longestWait
}

// failed takes what a step's call failed with.
func (p *Pool) failed(s *Step, now time.Duration, err *plugin.Error, jitter float64) {
	b := p.block(s.Block)
	switch {
	case s.Kind == CheckOut:
		if err.Class != plugin.Transient {
			p.token = ""
		}
		p.later(now, jitter)
		if p.full = err.SystemCode == plugin.SystemFull; p.full || err.SystemCode == plugin.SystemSettling {
			p.stuck = false
		}
		if err.SystemCode == plugin.SystemNoPools {
			p.refused, p.notBefore = true, now+refusedWait
		}
		// No signature covers a Retry-After: it puts a check-out off for no longer than a failure does by itself.
		p.notBefore = max(p.notBefore, now+min(err.RetryAfter, p.longest()))
	case b == nil:
	case err.SystemCode == plugin.SystemLapsed:
		// Its slots may be another's: at once.
		p.Ended = p.Ended || b.Keep > 0
		p.Blocks = slices.DeleteFunc(p.Blocks, func(x *Block) bool { return x == b })
	default: // it goes on until its own time is over
		if s.Slots > b.Slots {
			p.later(now, jitter)
		}
		b.notBefore = now + max(min(err.RetryAfter, b.For/12), backoff(b.tries, b.For/12, jitter))
		b.tries++
	}
}
