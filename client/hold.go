package client

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// awayGrace is how long a lease is thought to stand while no agent answers.
const awayGrace = 10 * time.Minute

// Held is a lease that is kept alive until Close.
type Held struct {
	client *Client
	stop   context.CancelFunc
	over   sync.WaitGroup
	done   chan struct{}

	mu    sync.Mutex // guards all below
	lease wire.Lease
	err   error
}

// Hold acquires a ttl lease and renews it at a third of its time, in the background, until Close or until it is lost; see
// [Held.Done]. ctx is for the acquire alone. While the agent is away the lease is thought to stand for ten minutes.
func (c *Client) Hold(ctx context.Context, r wire.AcquireRequest) (*Held, error) {
	l, err := c.Acquire(ctx, r)
	if err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(context.Background())
	h := &Held{client: c, stop: stop, done: make(chan struct{}), lease: *l}
	if l.ExpiresAt != nil {
		h.over.Go(func() { h.renew(run, l.ExpiresAt.Sub(l.AcquiredAt)) })
	}
	return h, nil
}

// Lease returns the lease as it was last seen.
func (h *Held) Lease() wire.Lease {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lease
}

// Done is closed when the lease is lost: it expired, was revoked or forced, or no agent has answered for ten minutes.
func (h *Held) Done() <-chan struct{} { return h.done }

// Err says why the lease was lost; nil while it is held.
func (h *Held) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// renew renews the lease until ctx ends or it is lost.
func (h *Held) renew(ctx context.Context, ttl time.Duration) {
	every := max(100*time.Millisecond, ttl/3)
	t := time.NewTicker(every)
	defer t.Stop()
	seen := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		try, cancel := context.WithTimeout(ctx, every)
		l, err := h.client.Renew(try, h.lease.ID, 0)
		cancel()
		if err == nil {
			seen = time.Now()
			h.mu.Lock()
			h.lease = *l
			h.mu.Unlock()
			continue
		}
		lost := errors.Is(err, ErrLeaseUnknown) || errors.Is(err, ErrNotHolder) || time.Since(seen) > max(awayGrace, ttl)
		if ctx.Err() == nil && lost {
			h.mu.Lock()
			h.err = err
			h.mu.Unlock()
			close(h.done)
			return
		}
	}
}

// Close stops renewing and gives the lease back. It may be called more than once.
func (h *Held) Close() error {
	h.stop()
	h.over.Wait()
	select {
	case <-h.done:
		return nil // lost: there is nothing to give back
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := h.client.Release(ctx, h.lease.ID, false)
	if errors.Is(err, ErrLeaseUnknown) {
		return nil
	}
	return err
}
