package enforcer

import (
	"cmp"
	"container/list"
	"slices"
	"time"
)

// Place is the place of an acquire that waits, in the queue of one pool or meter.
type Place struct {
	*Waiter
	Pool     string
	Position int // 1: it is the first
	// Next is when the next lease of the pool ends unless it is renewed; zero: not known, or it is a meter.
	Next     time.Time
	Priority int // that the rules give the acquire

	rank time.Time
	turn uint64
}

// Compare orders the places of all queues as the acquires would be served were nothing in their way.
func (p Place) Compare(o Place) int {
	return cmp.Or(p.rank.Compare(o.rank), cmp.Compare(p.turn, o.turn))
}

// InQueue is an acquire that waits, with its places in all its queues. Of Place, Pool is the one where most are before
// it, Position its place there, and Next is of its first pool.
type InQueue struct {
	Place
	Positions []int   // by item; 0: not met
	Barred    *Denial // why it is not served whatever comes free; nil: nothing keeps it but others
}

// NewInQueue returns an acquire that waits, of which one place is known.
func NewInQueue(p Place) *InQueue {
	q := &InQueue{Place: p, Positions: make([]int, len(p.Items))}
	q.Position, q.Next = 0, zeroTime
	q.Meet(p)
	return q
}

// Meet notes a place of the acquire.
func (q *InQueue) Meet(p Place) {
	for i, it := range q.Items {
		if it.Pool == p.Pool {
			q.Positions[i] = p.Position
		}
	}
	if p.Pool == q.Items[0].Pool {
		q.Next = p.Next
	}
	if p.Position > q.Position {
		q.Pool, q.Position = p.Pool, p.Position
	}
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
	over bool
}

// Line begins a walk along those that wait for a pool or meter; several may be under way. It is over when all have been
// met, when the rules change, or by Close. It changes nothing that any answer depends on.
func (e *Enforcer) Line(name string) *Line {
	l := &Line{e: e, name: name}
	if p := e.pools[name]; p != nil && p.queue.Len() > 0 {
		l.q = p.queue
	} else {
		l.q = e.forDraws[name]
	}
	if l.over = l.q == nil; !l.over {
		e.lines = append(e.lines, l)
	}
	return l
}

// Close ends a walk; it may be over.
func (l *Line) Close() {
	if i := slices.Index(l.e.lines, l); i >= 0 {
		l.e.lines = slices.Delete(l.e.lines, i, i+1)
	}
	l.over = true
}

// endLines ends all walks.
func (e *Enforcer) endLines() {
	for _, l := range e.lines {
		l.over = true
	}
	e.lines = nil
}

// AppendNext appends the next places to out, of no more than most; more says that there may be others.
func (l *Line) AppendNext(out []Place, most int) (_ []Place, more bool) {
	if l.over {
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
		p := Place{Waiter: w.Waiter, Pool: l.name, Position: l.n, Priority: w.priority(), rank: w.rank, turn: w.turn}
		if !w.Draws {
			p.Next = l.e.pools[l.name].nextEnd()
		}
		out = append(out, p)
	}
	if x == nil {
		l.Close()
	}
	return out, x != nil
}

// came notes a waiter that has got its place in a queue.
func (l *Line) came(q *queue, w *waiting) {
	if l.q == q && l.at != nil && w.before(l.at.Value.(*waiting)) {
		l.n++
	}
}

// leaves notes a waiter whose place in a queue is about to go.
func (l *Line) leaves(q *queue, w *waiting, place *list.Element) {
	if l.q != q || l.at == nil {
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
