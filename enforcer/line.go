package enforcer

import (
	"container/list"
	"time"
)

// Place is the place of an acquire that waits, in the queue of one pool or meter.
type Place struct {
	*Waiter
	Pool     string
	Position int // 1: it is the first
	// Next is when the next lease of the pool ends unless it is renewed; zero: not known, or it is a meter.
	Next time.Time
}

// Line is a walk along those that wait for one pool or meter, in their order. It is taken in steps, and anything may
// happen between two of them: each acquire that waits throughout is met once, at the place that it has then. So no step
// takes long, however many wait.
type Line struct {
	e    *Enforcer
	name string
	q    *queue
	at   *list.Element // that was met last; nil: the walk has not begun, or all that were met have left
	n    int           // how many are before what is met next
}

// Line begins a walk along those that wait for a pool or meter. One that was under way is given up, and so is one
// during which the rules change. It changes nothing that any answer depends on.
func (e *Enforcer) Line(name string) *Line {
	l := &Line{e: e, name: name}
	if p := e.pools[name]; p != nil && p.queue.Len() > 0 {
		l.q = &p.queue
	} else {
		l.q = e.forDraws[name]
	}
	e.line = l
	return l
}

// AppendNext appends the next places to out, of no more than most; more says that there may be others.
func (l *Line) AppendNext(out []Place, most int) (_ []Place, more bool) {
	if l.e.line != l || l.q == nil {
		return out, false
	}
	x := l.q.Front()
	if l.at != nil {
		x = l.at.Next()
	}
	for ; x != nil && most > 0; x, most = x.Next(), most-1 {
		l.at = x
		l.n++
		w := x.Value.(*waiting)
		p := Place{Waiter: w.Waiter, Pool: l.name, Position: l.n}
		if !w.Draws {
			p.Next = l.e.pools[l.name].nextEnd()
		}
		out = append(out, p)
	}
	if x == nil {
		l.e.line = nil
	}
	return out, x != nil
}

// came notes a waiter that has got its place in a queue.
func (l *Line) came(q *queue, w *waiting) {
	if l != nil && l.q == q && l.at != nil && w.before(l.at.Value.(*waiting)) {
		l.n++
	}
}

// leaves notes a waiter whose place in a queue is about to go.
func (l *Line) leaves(q *queue, w *waiting, place *list.Element) {
	if l == nil || l.q != q || l.at == nil {
		return
	}
	if place == l.at {
		l.at = place.Prev()
		l.n--
	} else if w.before(l.at.Value.(*waiting)) {
		l.n--
	}
}

// Queues returns the names of the pools and meters that acquires wait for, in no particular order.
func (e *Enforcer) Queues() (out []string) {
	for name, p := range e.pools {
		if p.queue.Len() > 0 {
			out = append(out, name)
		}
	}
	for name := range e.forDraws {
		out = append(out, name)
	}
	return out
}
