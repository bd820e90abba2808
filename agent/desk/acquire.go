package desk

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// waiter receives the answer to an acquire that waits in the enforcer's queue.
type waiter struct {
	answer chan outcome // capacity 1
	// called first, under the desk's lock, and so in the order of the answers; nil: nothing is called
	ready func()
}

func (w waiter) tell(o outcome) {
	if w.ready != nil {
		w.ready()
	}
	w.answer <- o
}

// origin is an instant to count from: the time since another is read from one clock, and the present from two.
var origin = time.Now()

// pending is an acquire that was decided, or has its place among those that wait.
type pending struct {
	r      *enforcer.Acquire
	start  time.Duration // since origin
	out    outcome
	answer chan outcome // nil: it does not wait
}

// waits reports whether finish waits for others.
func (a *pending) waits() bool { return a.answer != nil }

// Acquire grants a lease or says why not. It fills in the lease's id. A request that waits is answered when its slots
// are free or its draws have arrived, when its time is up, and when ctx ends. One that was granted what is over by the
// time that it is written waits on.
func (d *Desk) Acquire(ctx context.Context, r *enforcer.Acquire) (Grant, *enforcer.Denial) {
	a := d.begin(r, nil)
	g, denial := d.finish(ctx, &a)
	if denial == nil && g.Late != nil && r.Wait > 0 {
		return d.inTime(ctx, r, a.start, g)
	}
	return g, denial
}

// inTime looks at the grant of an acquire that began at start, since origin, and may wait. Where the grant is over, the
// acquire waits for what is left of its time.
func (d *Desk) inTime(ctx context.Context, r *enforcer.Acquire, start time.Duration, g Grant) (Grant,
	*enforcer.Denial) {
	for g.Late != nil {
		late := g.Late(false)
		if late == nil {
			break
		}
		late.Waited = time.Since(origin) - start
		again := r.Again(late, late.Waited)
		if again == nil || ctx.Err() != nil {
			return Grant{}, late
		}
		a := d.begin(again, nil)
		var denial *enforcer.Denial
		if g, denial = d.finish(ctx, &a); denial != nil {
			said := *denial
			said.Waited += late.Waited
			return Grant{}, &said
		}
	}
	return g, nil
}

// Begin decides an acquire, or gives it its place among those that wait. finish, to be called once, returns the answer;
// waits says whether it waits for others. ready is called right before a waiter's answer is there, under the desk's
// lock, and so in the order in which waiters are answered; nil: nobody is told.
func (d *Desk) Begin(r *enforcer.Acquire, ready func()) (finish func(context.Context) (Grant, *enforcer.Denial),
	waits bool) {
	a := d.begin(r, ready)
	return func(ctx context.Context) (Grant, *enforcer.Denial) { return d.finish(ctx, &a) }, a.waits()
}

// idsAhead is how many ids are drawn at a time: a call for each would cost more than its bytes.
const idsAhead = 32

// ids are ids of leases that were drawn, and that nobody has yet.
type ids struct {
	drawn [idsAhead * len(enforcer.LeaseID{})]byte
	left  int // of them, the first ones
}

// draw returns an id that nobody else has.
func (x *ids) draw() (id enforcer.LeaseID) {
	if x.left == 0 {
		rand.Read(x.drawn[:]) // never fails: see crypto/rand
		x.left = idsAhead
	}
	x.left--
	copy(id[:], x.drawn[x.left*len(id):])
	return id
}

// begin is the first half of Acquire: when it returns, the request was decided or has its place among those that wait.
// ready is as a waiter's.
func (d *Desk) begin(r *enforcer.Acquire, ready func()) pending {
	a := pending{r: r, start: time.Since(origin)}
	d.Place(&r.Caller)
	d.enter()
	defer d.mu.Unlock()
	r.ID = d.ids.draw()
	dec, _ := d.decideNow(r, d.refuse)
	if dec.Waiter != nil {
		a.answer = make(chan outcome, 1)
		d.waiting[dec.Waiter.ID] = waiter{a.answer, ready}
	}
	a.out = d.carry(dec)
	return a
}

// refuse denies every acquire while the desk drains. It is looked at under the lock: else one might begin to wait once
// the others were turned away. d.mu is held.
func (d *Desk) refuse() *enforcer.Denial {
	if d.drained.Load() {
		return drainingDenial()
	}
	return nil
}

// finish is the second half of Acquire.
func (d *Desk) finish(ctx context.Context, a *pending) (Grant, *enforcer.Denial) {
	dec, waited := d.awaitAnswer(ctx, a)
	if waited > 0 {
		d.seen.Waited(waited)
	}
	r, pool := a.r, a.r.Pool
	if pool == "" && len(r.Items) > 0 {
		pool = r.Items[0].Pool
	}
	if d.signals.Short != nil && dec.Denial != nil && (dec.Denial.Code == enforcer.NoSlots || dec.Denial.MayGrow) &&
		ctx.Err() == nil { // a caller that has gone wants nothing
		d.signals.Short(r)
	}
	d.seen.Acquired(pool, time.Since(origin)-a.start-waited, dec.Denial, dec.Replayed)
	dec.Denial = d.ofSite(dec.Denial)
	if d.signals.Denied != nil && dec.Denial != nil && ctx.Err() == nil {
		d.signals.Denied(r, dec.Denial)
	}
	return d.grant(dec)
}

// ofSite returns a denial with what is known of the site's other slots, and of why this host gets none of them.
func (d *Desk) ofSite(is *enforcer.Denial) *enforcer.Denial {
	if is == nil {
		return nil
	}
	if d.signals.Drained != nil {
		if end := d.signals.Drained(is.Pool); end != "" {
			return is.Drained(end)
		}
	}
	if d.signals.Elsewhere != nil && is.Site != 0 {
		if out, idle, rule, known := d.signals.Elsewhere(is.Pool); known {
			return is.Elsewhere(out, idle, rule)
		}
	}
	return is
}

// awaitAnswer waits for the answer where the acquire waits for one, and says for how long it did.
func (d *Desk) awaitAnswer(ctx context.Context, a *pending) (dec outcome, waited time.Duration) {
	if a.answer == nil {
		return d.settle(a.out), 0
	}
	began := time.Now()
	select {
	case out := <-a.answer:
		waited = time.Since(began)
		return d.settle(out), waited
	case <-ctx.Done():
	}
	d.Do(&enforcer.Cancel{ID: a.r.ID})
	// it may have been granted in the last moment: the caller gives back what it cannot deliver
	return d.settle(<-a.answer), time.Since(began)
}

// Give decides a request that gives its caller something, and returns the answer.
func (d *Desk) Give(r enforcer.Request) (Grant, *enforcer.Denial) {
	return d.grant(d.settle(d.decide(r)))
}

// Renew extends a lease.
func (d *Desk) Renew(r *enforcer.Renew) (Grant, *enforcer.Denial) {
	q := *r
	d.Place(&q.Caller)
	return d.Give(&q)
}

// Release gives a lease back.
func (d *Desk) Release(r *enforcer.Release) *enforcer.Denial { return d.Do(r).Denial }
