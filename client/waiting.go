package client

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// Waiting is the place of an acquire that waits.
type Waiting struct {
	Pool     string
	Position int           // in the pool's queue; 1: it is the first
	NextEnds time.Time     // when the next lease of the pool ends unless it is renewed; zero: not known
	Estimate time.Duration // how long it may still wait, at the pace of late; zero: not known
}

// AcquireTold is [Session.Acquire] of a request that waits (WaitSeconds). It calls told with the place in the queue of
// each pool when that has changed by enough, at most about once a second, until it returns. A told that is slow gets
// the latest place, and not every one. Agents of before tell of no place.
func (s *Session) AcquireTold(ctx context.Context, r Request, told func(Waiting)) (*Lease, error) {
	places, over := make(chan Waiting, 1), make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
		for {
			select {
			case <-over:
				return
			case w := <-places:
				told(w)
			}
		}
	})
	defer telling.Wait()
	defer close(over)
	return s.acquire(ctx, r, places)
}

// placed hands the place of an acquire that waits to its call.
func (l *link) placed(b json.RawMessage) {
	var ev struct {
		wire.Event
		Request *uint64 `json:"request"`
	}
	if json.Unmarshal(b, &ev) != nil || ev.Request == nil {
		return
	}
	w := Waiting{Pool: ev.Pool, Position: ev.Position,
		Estimate: time.Duration(ev.EstimateSeconds * float64(time.Second))}
	if ev.NextEndsAt != nil {
		w.NextEnds = *ev.NextEndsAt
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.pending[*ev.Request]
	if c == nil || c.lease == nil || c.lease.places == nil {
		return
	}
	select {
	case <-c.lease.places: // an earlier one
	default:
	}
	select {
	case c.lease.places <- w:
	default:
	}
}
