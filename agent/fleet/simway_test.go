package fleet

import (
	"context"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// way is one agent's way to a sim, with what a network does to calls.
type way struct {
	sim *sim

	mu    sync.Mutex // guards all below
	cut   bool       // nothing comes through
	lose  func(call string) bool
	delay func(call string) time.Duration
	twice func(call string) bool          // a call is made twice
	late  func(call string) time.Duration // a call that is lost is made after that time; 0: never
	lag   time.Duration                   // of watches

	chance *chance // nil: a call takes no time of its own
}

// set makes the faults of the way.
func (w *way) set(cut bool, lose func(call string) bool, delay func(call string) time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut, w.lose, w.delay = cut, lose, delay
}

// through has a call come through, or not; both ways may take time, and an answer may be lost after the call was made.
func through[T any](ctx context.Context, w *way, what string, call func() (T, error)) (T, error) {
	var none T
	step := func(late func()) error {
		w.mu.Lock()
		cut, lose, delay, after := w.cut, w.lose, w.delay, w.late
		w.mu.Unlock()
		var wait time.Duration
		if w.chance != nil {
			wait = w.chance.trip(what)
		}
		if delay != nil {
			wait += delay(what)
		}
		if cut || lose != nil && lose(what) {
			if !cut && late != nil && after != nil {
				if wait := after(what); wait > 0 {
					time.AfterFunc(wait, late)
				}
			}
			<-ctx.Done()
			return ctx.Err()
		}
		if wait > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(wait):
			}
		}
		return ctx.Err()
	}
	within := 5 * time.Second
	if w.chance != nil {
		within += w.chance.trip("within " + what)
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := step(func() { call() }); err != nil {
		return none, err
	}
	out, err := call()
	w.mu.Lock()
	twice := w.twice
	w.mu.Unlock()
	if twice != nil && twice(what) {
		out, err = call()
	}
	if err := step(nil); err != nil {
		return none, err
	}
	return out, err
}

func (w *way) Txn(ctx context.Context, t *Txn) (*Result, error) {
	what := string(t.Kind)
	for _, o := range t.Then {
		what += o.Get + o.List + o.Put + o.Delete
	}
	return through(ctx, w, what, func() (*Result, error) { return w.sim.txn(t) })
}

func (w *way) Grant(ctx context.Context, ttl time.Duration) (Lease, time.Duration, error) {
	l, err := through(ctx, w, "grant", func() (Lease, error) {
		s := w.sim
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.down {
			return 0, errNoQuorum
		}
		if s.full {
			return 0, rpctypes.ErrNoSpace
		}
		s.calls++
		s.next++
		s.grant(s.next, ttl, nil)
		return s.next, nil
	})
	return l, ttl, err
}

func (w *way) Renew(ctx context.Context, l Lease) (ttl, late time.Duration, err error) {
	ttl, err = through(ctx, w, "renew", func() (time.Duration, error) {
		s := w.sim
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.down {
			return 0, errNoQuorum
		}
		s.calls++
		s.expire()
		is := s.leases[l]
		if is == nil {
			return 0, ErrLeaseGone
		}
		is.expires = time.Now().Add(is.ttl)
		return is.ttl, nil
	})
	return ttl, 0, err
}

func (w *way) Watch(ctx context.Context, prefix string, after int64) <-chan Change {
	out := make(chan Change)
	x := w.sim.watch(prefix, after)
	go func() {
		defer close(out)
		defer w.sim.unwatch(x)
		for {
			news, ok := w.sim.news(x)
			if !ok {
				return
			}
			for _, c := range news {
				w.mu.Lock()
				cut, lag := w.cut, w.lag
				w.mu.Unlock()
				if cut {
					return
				}
				<-time.After(lag)
				select {
				case out <- c:
				case <-ctx.Done():
					return
				}
			}
			if len(news) > 0 {
				continue // there may be more
			}
			select {
			case <-x.changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}
