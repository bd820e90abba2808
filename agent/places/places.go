// Package places tells those who wait of their places: what changes in a queue is gathered for a moment, and a walk
// along that queue tells each acquire whose place has changed by enough. No grant or release waits for it, and however
// many wait, a release has few told. Start reading at [Teller.Run].
package places

import (
	"context"
	"sync"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// Place is a place that is told.
type Place struct {
	enforcer.Place
	// Estimate is how long the wait will be at the pace at which others have been served since somebody waits; zero:
	// too few have been.
	Estimate time.Duration
}

// Config is what New needs.
type Config struct {
	// First is for how long changes are gathered after a quiet time, and Every the shortest time between two walks.
	First, Every time.Duration
	// Walk calls each with the places in the queues of some pools and meters, some at a time; those of one queue follow
	// on each other, in their order. It may take long.
	Walk func(names []string, each func(now time.Time, some []enforcer.Place))
	// Queues returns the names of the pools and meters that anybody waits for.
	Queues func() []string
	// Heard reports whether anybody listens. It waits for nothing.
	Heard func() bool
	// Tell tells of places. It may wait: nobody else does.
	Tell func(now time.Time, some []Place)
}

// Teller tells of places. Its methods are safe for concurrent use.
type Teller struct {
	cfg  Config
	wake chan struct{} // capacity 1: there is a change

	mu     sync.Mutex // guards all below; a leaf
	moved  map[string]int64
	all    bool             // every queue may have changed
	queues map[string]*line // written by Run alone
}

// line is what is known of one queue. It changes only while a walk makes it.
type line struct {
	since  time.Time
	served int64
	told   map[enforcer.LeaseID]int // places
}

// New makes a teller. It tells nothing until Run runs.
func New(c Config) *Teller {
	return &Teller{cfg: c, wake: make(chan struct{}, 1), moved: map[string]int64{}, queues: map[string]*line{}}
}

// Observe takes note of an event. It is called under the desk's lock, and waits for nothing.
func (t *Teller) Observe(ev *enforcer.Event) {
	if ev.Waiter == nil && ev.Kind != enforcer.EventPolicies || !t.cfg.Heard() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if ev.Waiter == nil {
		t.all = true
	} else {
		var served int64
		if ev.Kind == enforcer.EventGranted || ev.Kind == enforcer.EventDrawn {
			served = 1
		}
		for _, it := range ev.Waiter.Items {
			t.moved[it.Pool] += served
		}
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Estimate returns how long the wait at a place in a queue may last, at the pace at which others have been served while
// somebody listened; zero: not known.
func (t *Teller) Estimate(name string, position int, now time.Time) time.Duration {
	if !t.cfg.Heard() { // nobody counts
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.queues[name]
	if l == nil {
		return 0
	}
	is := line{since: l.since, served: l.served + t.moved[name]}
	return is.estimate(position, now)
}

// Run tells of places until ctx ends.
func (t *Teller) Run(ctx context.Context) error {
	for pause := t.cfg.First; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-t.wake:
		}
		rest := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			rest.Stop()
			return nil
		case <-rest.C:
		}
		t.round()
		pause = t.cfg.Every
		select {
		case <-t.wake: // something has changed meanwhile
			t.nudge()
		default:
			quiet := time.NewTimer(t.cfg.Every - t.cfg.First)
			select {
			case <-ctx.Done():
				quiet.Stop()
				return nil
			case <-quiet.C:
				pause = t.cfg.First
			}
		}
	}
}

func (t *Teller) nudge() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// round walks along the queues that have changed.
func (t *Teller) round() {
	t.mu.Lock()
	moved, all := t.moved, t.all
	t.moved, t.all = map[string]int64{}, false
	t.mu.Unlock()
	if !t.cfg.Heard() {
		t.mu.Lock()
		defer t.mu.Unlock()
		clear(t.queues)
		return
	}
	if all {
		for _, name := range t.cfg.Queues() {
			moved[name] += 0
		}
	}
	if len(moved) == 0 { // it was woken by what the round before has told
		return
	}
	names := make([]string, 0, len(moved))
	for name := range moved {
		names = append(names, name)
	}
	is := map[string]*line{}
	t.cfg.Walk(names, func(now time.Time, some []enforcer.Place) {
		var out []Place
		for _, p := range some {
			l := is[p.Pool]
			if l == nil {
				l = t.again(p.Pool, moved[p.Pool], now)
				is[p.Pool] = l
			}
			was := 0
			if before := t.queues[p.Pool]; before != nil {
				was = before.told[p.ID]
			}
			if !news(was, p.Position) {
				l.told[p.ID] = was
				continue
			}
			l.told[p.ID] = p.Position
			out = append(out, Place{Place: p, Estimate: l.estimate(p.Position, now)})
		}
		if len(out) > 0 {
			t.cfg.Tell(now, out)
		}
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range names {
		if delete(t.queues, name); is[name] != nil {
			t.queues[name] = is[name]
		}
	}
}

// again returns what is known of a queue that goes on, of which some more have been served, or begins.
func (t *Teller) again(name string, served int64, now time.Time) *line {
	l := &line{since: now, told: map[enforcer.LeaseID]int{}}
	if was := t.queues[name]; was != nil {
		l.since, l.served = was.since, was.served+served
	}
	return l
}

// fewServed is of how many that have been served a pace is made.
const fewServed = 3

func (l *line) estimate(position int, now time.Time) time.Duration {
	if took := now.Sub(l.since); l.served >= fewServed && took > 0 {
		return time.Duration(float64(took) / float64(l.served) * float64(position))
	}
	return 0
}

// news reports whether a place is to be told where another was told last; 0: none was. The first ten places are told
// each time that they change, and further ones when they have changed by a tenth. So however many wait, a release has a
// few dozen told.
func news(was, is int) bool {
	change := is - was
	if change < 0 {
		change = -change
	}
	return was == 0 || change > 0 && (is <= 10 || change*10 >= was)
}
