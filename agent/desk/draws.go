package desk

import (
	"context"
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// DrawDemand is the demand for a meter, in draws. A request is in one of both numbers: it is drawn, or it waits.
type DrawDemand struct {
	Drawn, Waiting int64
	Capacity       int64 // what this agent may draw in all, overage included
}

// DrawDemand returns the demand for a meter.
func (d *Desk) DrawDemand(meter string) DrawDemand {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.licenceTime()
	d.tick(now)
	p, ok := d.core.Pool(meter, now)
	if !ok {
		return DrawDemand{}
	}
	return DrawDemand{Drawn: p.InUse, Waiting: d.awaited(meter), Capacity: int64(p.Budget.Plus(p.Overage))}
}

// turn is the place of an acquire among those that wait for draws.
type turn struct {
	items   []enforcer.Item
	decided bool // it waits for the disk alone: what it was granted is drawn
}

// queueForDraws gives an acquire its place among those that wait for draws. d.mu is held.
func (d *Desk) queueForDraws(r *enforcer.Acquire) *turn {
	t := &turn{items: itemsOf(r)}
	d.forDraws = append(d.forDraws, t)
	d.demandChanged()
	return t
}

func itemsOf(r *enforcer.Acquire) []enforcer.Item {
	if r.Pool != "" {
		return []enforcer.Item{{Pool: r.Pool, N: r.N}}
	}
	return r.Items
}

// shares reports whether two acquires wait for draws of one meter.
func (t *turn) shares(items []enforcer.Item) bool {
	return slices.ContainsFunc(t.items, func(a enforcer.Item) bool {
		return slices.ContainsFunc(items, func(b enforcer.Item) bool { return a.Pool == b.Pool })
	})
}

// othersWait reports whether others wait for draws of a meter that a request is for. d.mu is held.
func (d *Desk) othersWait(r *enforcer.Acquire) bool {
	return slices.ContainsFunc(d.forDraws, func(t *turn) bool { return t.shares(itemsOf(r)) })
}

// isNext reports whether nobody waits for draws of the same meters before. d.mu is held.
func (d *Desk) isNext(t *turn) bool {
	for _, before := range d.forDraws {
		if before == t {
			return true
		}
		if before.shares(t.items) {
			return false
		}
	}
	return false
}

// leaveDraws takes an acquire out of those that wait for draws; the next one looks again.
func (d *Desk) leaveDraws(t *turn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forDraws = slices.DeleteFunc(d.forDraws, func(o *turn) bool { return o == t })
	d.rejudged()
	d.demandChanged()
}

// awaited returns how many draws of a meter are waited for. d.mu is held.
func (d *Desk) awaited(meter string) (n int64) {
	for _, t := range d.forDraws {
		if t.decided {
			continue
		}
		for _, it := range t.items {
			if it.Pool == meter {
				n += it.N
			}
		}
	}
	return n
}

// decideInTurn decides an acquire that waits for draws, where it is its turn, and reports whether it is. What it is
// granted is drawn from then on, and waited for no more: the answer may still wait for the disk. d.mu is held.
func (d *Desk) decideInTurn(a *pending) bool {
	if !d.isNext(a.turn) {
		return false
	}
	d.ask(a, nil)
	a.turn.decided = a.out.Denial == nil || !a.out.Denial.MayGrow
	return true
}

// awaitDraws waits for draws that the agent may take more of, and decides again each time that the verdict has changed
// and it is the acquire's turn. It says for how long it waited.
func (d *Desk) awaitDraws(ctx context.Context, a *pending) (dec enforcer.Decision, waited time.Duration) {
	defer d.leaveDraws(a.turn)
	began := time.Now()
	over := time.NewTimer(a.r.Wait)
	defer over.Stop()
	for {
		d.enter()
		judged := d.judged
		if d.drained.Load() {
			d.mu.Unlock()
			return enforcer.Decision{Denial: drainingDenial()}, time.Since(began)
		}
		next := d.decideInTurn(a)
		d.mu.Unlock()
		if next {
			if dec = d.await(a.out); dec.Denial == nil || !dec.Denial.MayGrow {
				return dec, time.Since(began)
			}
		}
		select {
		case <-judged:
			continue
		case <-over.C:
		case <-ctx.Done():
		}
		if dec.Denial == nil { // its turn has not come
			dec = enforcer.Decision{Denial: &enforcer.Denial{Code: enforcer.MeterEmpty, Pool: a.turn.items[0].Pool,
				MayGrow: true,
				Detail:  "others wait for draws of meter " + a.turn.items[0].Pool,
				Hint:    "wait for longer (wait_seconds), or try again later"}}
		}
		dec.Denial.Waited = time.Since(began)
		return dec, dec.Denial.Waited
	}
}

// rejudged has the acquires that wait for draws look again. d.mu is held.
func (d *Desk) rejudged() {
	close(d.judged)
	d.judged = make(chan struct{})
}
