package enforcer

import (
	"container/heap"
	"time"
)

// timed is due at an instant and knows its place in a timetable.
type timed interface {
	due() time.Time
	place() *int
}

// timetable is a heap, the soonest first. Each entry knows its place, so that taking one out costs one sift.
type timetable[T timed] struct{ heap timedHeap[T] }

func (t *timetable[T]) add(x T)    { heap.Push(&t.heap, x) }
func (t *timetable[T]) remove(x T) { heap.Remove(&t.heap, *x.place()) }
func (t *timetable[T]) moved(x T)  { heap.Fix(&t.heap, *x.place()) }

// next returns when the first entry is due; zero: there is none.
func (t *timetable[T]) next() time.Time {
	if len(t.heap) == 0 {
		return zeroTime
	}
	return t.heap[0].due()
}

// until returns the entries that are due by now, at most a given number, in no particular order. It looks at no more
// than about twice as many.
func (t *timetable[T]) until(now time.Time, most int) (out []T) {
	stack := []int{0}
	for len(stack) > 0 && len(out) < most {
		i := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if i < len(t.heap) && !t.heap[i].due().After(now) {
			out = append(out, t.heap[i])
			stack = append(stack, 2*i+2, 2*i+1)
		}
	}
	return out
}

// timedHeap is for container/heap.
type timedHeap[T timed] []T

func (h timedHeap[T]) Len() int           { return len(h) }
func (h timedHeap[T]) Less(i, j int) bool { return h[i].due().Before(h[j].due()) }
func (h timedHeap[T]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	*h[i].place(), *h[j].place() = i, j
}

// Push adds one at the end.
func (h *timedHeap[T]) Push(x any) {
	*x.(T).place() = len(*h)
	*h = append(*h, x.(T))
}

// Pop takes the last.
func (h *timedHeap[T]) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	var none T
	(*h)[last] = none
	*h = (*h)[:last]
	return x
}
