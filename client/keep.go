package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// connectWithin is the time limit of one try to find the agent again.
const connectWithin = 5 * time.Second

// keep follows the licence and reconnects when the connection breaks, until Close.
func (s *Session) keep(l *link) {
	for ; ; l = s.mend() {
		if l == nil && s.ctx.Err() != nil {
			return
		}
		if l == nil { // no agent answered when the session was opened
			continue
		}
		s.changed()
		s.follow(l)
		<-l.over // all of its messages are handled
		s.mu.Lock()
		s.link, s.down, s.downFrom = nil, l.why(), time.Now()
		s.mu.Unlock()
	}
}

// follow reads the licence when it changes, until the connection breaks.
func (s *Session) follow(l *link) {
	for {
		select {
		case <-s.ctx.Done():
			l.fail(ErrClosed)
			return
		case <-l.done:
			return
		case <-s.stale:
			s.refresh(l)
		}
	}
}

// changed makes follow read the licence again.
func (s *Session) changed() {
	select {
	case s.stale <- struct{}{}:
	default:
	}
}

// event handles an event that the agent sends.
func (s *Session) event(ev wire.Event) {
	switch {
	case ev.Type == "license.changed":
		s.changed()
	case ev.Type == "lease.ended" && ev.Cause != "released":
		s.mu.Lock()
		l := s.leases[ev.LeaseID]
		s.mu.Unlock()
		if l != nil {
			l.lose(&Error{Problem: wire.Problem{Code: string(ErrLeaseUnknown),
				Detail: fmt.Sprintf("lease %s is over: %s", ev.LeaseID, ev.Cause)}})
		}
	}
}

func (s *Session) held() []*Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.leases))
}

// mend reconnects, with back-off and full jitter, and attaches the leases; nil when the session is closed. If that
// takes longer than the licence allows, the leases are lost.
func (s *Session) mend() *link {
	expired := time.NewTimer(s.agentAway())
	defer expired.Stop()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		try, cancel := context.WithTimeout(s.ctx, connectWithin)
		l, err := s.connect(try)
		if err == nil {
			err = s.attach(try, l)
		}
		cancel()
		if err == nil {
			return l
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = away(s.socket, fmt.Errorf("it has not answered within %v", connectWithin))
		}
		s.mu.Lock()
		s.down = err
		s.mu.Unlock()
		select {
		case <-s.ctx.Done():
			return nil
		case <-expired.C:
			s.giveUp(err)
		case <-time.After(time.Millisecond + rand.N(wait)):
		}
	}
}

// giveUp loses the leases, because no agent has answered for too long. If the agent comes back, it gets them back.
func (s *Session) giveUp(err error) {
	for _, l := range s.held() {
		id := l.ID()
		s.mu.Lock()
		s.orphans = append(s.orphans, id)
		s.mu.Unlock()
		l.lose(err)
	}
}

// attach proves to the agent that the leases' holder lives, and makes the link the session's. Then it releases the
// orphans, and acquires the unbacked leases.
func (s *Session) attach(ctx context.Context, l *link) error {
	fail := func(err error) error {
		l.fail(err)
		<-l.over
		return err
	}
	for _, lease := range s.held() {
		info := lease.Info()
		if info.Lifetime != "process" && info.Lifetime != "connection" {
			continue
		}
		raw, err := l.do(ctx, "lease.attach", idParams(info.ID), nil)
		switch {
		case err == nil:
			lease.mu.Lock()
			lease.raw = raw
			lease.mu.Unlock()
		case errors.Is(err, ErrLeaseUnknown), errors.Is(err, ErrNotHolder):
			lease.lose(err)
		default:
			return fail(err)
		}
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fail(ErrClosed)
	}
	s.link, s.agent, s.proven = l, l.agent, l.proven
	s.stats.Reconnects++
	orphans := s.orphans
	s.orphans = nil
	unbacked := slices.Collect(maps.Keys(s.unbacked))
	s.mu.Unlock()
	for _, id := range orphans {
		s.task(func() { s.giveBack(l, id) })
	}
	for _, lease := range unbacked {
		s.back(ctx, l, lease)
	}
	return nil
}

// back acquires a lease that no agent has granted yet.
func (s *Session) back(ctx context.Context, l *link, lease *Lease) {
	p, err := acquireParams(lease.request)
	if err == nil {
		_, err = l.do(ctx, "lease.acquire", p, lease)
	}
	switch {
	case err == nil:
		if lease.closing != nil {
			s.task(lease.renew)
		}
	case errors.Is(err, ErrAgentAway), ctx.Err() != nil:
	default:
		lease.lose(err)
	}
}
