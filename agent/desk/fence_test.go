package desk

import (
	"context"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/enforcer"
)

// fencedDesk has one pool of which n may be handed out for an hour, and what is left may be then.
func fencedDesk(n, left enforcer.Limit) *Desk {
	d := newDesk(testOptions(time.Now))
	verdict := func(n enforcer.Limit) *enforcer.Verdict {
		return &enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid, Pools: map[string]enforcer.PoolGrant{
			"streams": {Name: "streams", Limit: 9, Most: 9, Budget: n, CountBy: enforcer.CountProcess}}}
	}
	d.signals.FencePassed = func() { d.SetVerdict(verdict(left), 0) }
	d.SetVerdict(verdict(n), clock.Boot()+time.Hour)
	return d
}

// lookAt looks at a grant as its answer is looked at.
func (d *Desk) lookAt(out *outcome) *enforcer.Denial {
	l := look{desk: d, lease: out.Lease, grown: out.Grown, replayed: out.Replayed, fence: out.fence}
	denial := l.late(false)
	out.fence = l.fence
	return denial
}

func processOf(pid int32) enforcer.Caller { return enforcer.Caller{UID: 7, PID: pid, Start: 1} }

// A process that joins a lease, and is counted for that, is granted something: its answer has the same look, and what
// is withdrawn is its joining alone. Where it is counted already there is nothing to look at.
func TestFenceOfAJoin(t *testing.T) {
	d := fencedDesk(2, 1)
	g, denial := d.Acquire(context.Background(),
		&enforcer.Acquire{Pool: "streams", N: 1, Lifetime: enforcer.LifetimeProcess, Caller: processOf(1)})
	if denial != nil || g.Late == nil {
		t.Fatalf("%v; a grant that nothing is to look at: %v", denial, g.Late == nil)
	}
	out := d.settle(d.decide(&enforcer.Join{ID: g.ID, Caller: processOf(2)}))
	if out.Denial != nil || out.fence == 0 {
		t.Fatalf("joined: %v, fence %v", out.Denial, out.fence)
	}
	if again := d.settle(d.decide(&enforcer.Join{ID: g.ID, Caller: processOf(2)})); again.Denial != nil ||
		again.fence != 0 {
		t.Errorf("who has joined is granted something: %v, fence %v", again.Denial, again.fence)
	}
	if denial := d.lookAt(&out); denial != nil {
		t.Fatalf("in time: %v", denial)
	}
	out.fence = clock.Boot()
	d.SetFence(out.fence)
	if denial := d.lookAt(&out); denial == nil || denial.Code != enforcer.NotShared {
		t.Errorf("late: %v", denial)
	}
	if l, held := d.core.Lease(g.ID); !held || len(l.Others) != 0 || l.Holder.PID != 1 {
		t.Errorf("the lease: held %v, %+v", held, l)
	}
}

// The answer to a client token that was used before gives nothing new: what its holder has had in time stands, and what
// was withdrawn meanwhile is not answered as granted.
func TestFenceOfAReplay(t *testing.T) {
	for _, withdrawn := range []bool{false, true} {
		d := fencedDesk(1, 0)
		acquire := func() outcome {
			r := &enforcer.Acquire{Pool: "streams", N: 1, Lifetime: enforcer.LifetimeHeld, Token: "t",
				Caller: processOf(1)}
			r.ID[0] = 1
			return d.settle(d.decide(r))
		}
		first, again := acquire(), acquire()
		if first.Lease == nil || !again.Replayed || again.fence == 0 {
			t.Fatalf("%v; %+v", first.Denial, again)
		}
		first.fence, again.fence = clock.Boot(), clock.Boot()
		d.SetFence(again.fence)
		if withdrawn && d.lookAt(&first) == nil {
			t.Fatal("the first answer is not late")
		}
		if denial := d.lookAt(&again); (denial != nil) != withdrawn {
			t.Errorf("withdrawn %v: answered again as %v", withdrawn, denial)
		}
		if _, held := d.core.Lease(first.Lease.ID); held == withdrawn {
			t.Errorf("withdrawn %v: held %v", withdrawn, held)
		}
	}
}

// A glance at the clock that is fooled grants what is over. The look at the answer goes by the clock itself.
func TestFenceAndAFooledGlance(t *testing.T) {
	d := fencedDesk(1, 0)
	d.past = func(time.Duration) bool { return false }
	d.SetFence(clock.Boot())
	g, denial := d.Acquire(context.Background(),
		&enforcer.Acquire{Pool: "streams", N: 1, Lifetime: enforcer.LifetimeProcess, Caller: processOf(1)})
	if denial != nil || g.Late == nil {
		t.Fatalf("%v; a look: %v", denial, g.Late != nil)
	}
	if denial := g.Late(false); denial == nil || denial.Code != enforcer.NotShared || len(d.core.Leases(nil)) != 0 {
		t.Errorf("answered as %v; %d leases stand", denial, len(d.core.Leases(nil)))
	}
}

// The look after an answer was sent goes on from the reading of the one before, and sees an end that has come since.
func TestFenceOnceSent(t *testing.T) {
	d := fencedDesk(1, 0)
	out := d.settle(d.decide(&enforcer.Acquire{ID: enforcer.LeaseID{1}, Pool: "streams", N: 1,
		Lifetime: enforcer.LifetimeProcess, Caller: processOf(1)}))
	l := look{desk: d, lease: out.Lease, fence: out.fence}
	if before, after := l.late(false), l.late(true); before != nil || after != nil {
		t.Fatalf("in time: %v, %v", before, after)
	}
	l.fence = clock.Boot()
	d.SetFence(l.fence)
	if denial := l.late(true); denial == nil || len(d.core.Leases(nil)) != 0 {
		t.Errorf("late: %v; %d leases stand", denial, len(d.core.Leases(nil)))
	}
}

// queueing tells of each acquire that begins to wait.
type queueing struct {
	nobody
	waiting chan struct{}
}

func (q queueing) Observe(ev *enforcer.Event) {
	if ev.Kind == enforcer.EventQueued {
		q.waiting <- struct{}{}
	}
}

// An acquire that may wait, and was granted what was over by the time that it was written, waits on for what is left of
// its time: it is granted the slots that come, and its client token is good for it. Where none come, it is denied for
// want of slots when its time is up. One that does not wait is told to try again, and may
// with the same client token.
func TestLateGrantWaitsOn(t *testing.T) {
	for name, wait := range map[string]time.Duration{"slots come": time.Hour, "none come": time.Second, "no wait": 0} {
		t.Run(name, func(t *testing.T) {
			d := fencedDesk(1, 0)
			d.past = func(time.Duration) bool { return false } // it is stopped between its decision and its look
			watch := queueing{waiting: make(chan struct{}, 9)}
			d.watcher = watch
			d.SetFence(clock.Boot())
			r := &enforcer.Acquire{Pool: "streams", N: 1, Lifetime: enforcer.LifetimeHeld, Token: "t", Wait: wait,
				Caller: processOf(1)}
			type answer struct {
				grant  Grant
				denial *enforcer.Denial
			}
			got := make(chan answer, 1)
			go func() {
				g, denial := d.Acquire(context.Background(), r)
				got <- answer{g, denial}
			}()
			more := &enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
				Pools: map[string]enforcer.PoolGrant{"streams": {Name: "streams", Limit: 9, Most: 9, Budget: 1}}}
			switch {
			case wait == 0:
				a := <-got
				if a.denial == nil {
					a.denial = a.grant.Late(false)
				}
				if a.denial == nil || !a.denial.Late {
					t.Fatalf("answered with %+v", a)
				}
				d.SetVerdict(more, 0)
				if g, denial := d.Acquire(context.Background(), r); denial != nil || g.Replayed {
					t.Errorf("tried again: %v", denial)
				}
			case wait == time.Hour:
				<-watch.waiting
				d.SetVerdict(more, 0)
				if a := <-got; a.denial != nil || a.grant.Lease == nil || len(d.core.Leases(nil)) != 1 {
					t.Errorf("answered with %v", a.denial)
				}
			default:
				<-watch.waiting
				d.mu.Lock()
				d.tick(time.Now().Add(wait))
				d.mu.Unlock()
				if a := <-got; a.denial == nil || a.denial.Code != enforcer.NoSlots || a.denial.Late ||
					a.denial.Waited < wait-time.Millisecond || len(d.core.Leases(nil)) != 0 {
					t.Errorf("answered with %+v", a.denial)
				}
			}
		})
	}
}

// Where nothing ends, nothing is looked at.
func TestNoFenceNoLook(t *testing.T) {
	d := fencedDesk(2, 2)
	d.SetFence(0)
	g, denial := d.Acquire(context.Background(),
		&enforcer.Acquire{Pool: "streams", N: 1, Lifetime: enforcer.LifetimeHeld})
	if denial != nil || g.Late != nil {
		t.Errorf("%v; a look: %v", denial, g.Late != nil)
	}
}
