package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// closeWithin is the time limit for giving leases back.
const closeWithin = 5 * time.Second

// Lease is a lease that a session holds. It is safe for concurrent use.
type Lease struct {
	session *Session
	request *Request      // of an unbacked lease
	closing chan struct{} // closed by Close; nil: nothing renews it

	mu     sync.Mutex // guards all below
	id     string
	raw    string        // the agent's JSON; empty: info has it
	info   *wire.Lease   // nil: zero
	done   chan struct{} // closed when the lease is lost; nil: nobody has asked for it
	places chan Waiting  // the latest place, capacity 1; nil: nobody asks for it
	draw   bool          // it is a draw, which cannot be given back
	proven Proven
	closed bool
	err    error // the reason of the loss
}

// Acquire asks for slots, which this process holds until it ends or until [Lease.Close]. The request may name another
// lifetime; the session renews a lease with a time to live. A refusal is an error with a code: errors.Is(err,
// [ErrNoSlots]). If ctx ends first, a lease that comes later is given back.
func (s *Session) Acquire(ctx context.Context, r Request) (*Lease, error) {
	return s.acquire(ctx, r, nil)
}

func (s *Session) acquire(ctx context.Context, r Request, places chan Waiting) (*Lease, error) {
	lease := &Lease{session: s, proven: ProvenNone, places: places}
	ttl := r.TTLSeconds > 0 || r.Lifetime == "ttl"
	if ttl {
		lease.closing = make(chan struct{})
	}
	p, err := acquireParams(&r)
	if err != nil {
		return nil, err
	}
	l, err := s.live()
	if err == nil {
		_, err = l.do(ctx, "lease.acquire", p, lease)
	}
	switch {
	case err != nil && s.failOpen && errors.Is(err, ErrAgentAway):
		later := r
		later.WaitSeconds = 0 // nobody waits for it
		lease.request = &later
		s.mu.Lock()
		s.stats.FailedOpen++
		s.unbacked[lease] = struct{}{}
		s.mu.Unlock()
	case err != nil:
		return nil, err
	}
	if err := s.checkToken(lease, r.Nonce); err != nil {
		return nil, errors.Join(err, lease.Close())
	}
	if ttl && lease.request == nil {
		s.task(lease.renew)
	}
	return lease, nil
}

func acquireParams(r *Request) (params, error) {
	if r.Pool != "" && plainText(r.Pool) && r.N == nil && r.Of == 0 && r.Items == nil && r.MinN == 0 &&
		r.Lifetime == "" &&
		r.TTLSeconds == 0 && r.WaitSeconds == 0 &&
		r.ClientToken == "" && r.Nonce == "" && r.Labels == nil && r.Priority == 0 && r.PID == 0 && r.Until == nil &&
		r.Version == "" {
		return params{`{"pool":"`, r.Pool, `"}`}, nil
	}
	b, err := json.Marshal(*r) // a copy: the commonest request stays on the stack
	if err != nil {
		return params{}, fmt.Errorf("write the request: %w", err)
	}
	return params{before: string(b)}, nil
}

func idParams(id string) params { return params{`{"id":"`, id, `"}`} }

// granted records a lease that the agent granted, before the link handles its next message. If nobody waits for the
// lease, granted gives it back.
func (s *Session) granted(l *link, lease *Lease, raw string, given bool) error {
	id, ok := leaseID(raw)
	if !ok {
		return away(s.socket, errors.New("its answer is not a lease"))
	}
	draw := strings.Contains(raw, `"lifetime":"draw"`) // within a text the quotes would be escaped
	lease.mu.Lock()
	if given = given || lease.closed; !given {
		lease.id, lease.raw, lease.draw = id, raw, draw
		if l.proven == ProvenLicense {
			lease.proven = ProvenLease
		}
		s.mu.Lock()
		if !draw {
			s.leases[id] = lease
		}
		delete(s.unbacked, lease)
		s.mu.Unlock()
	}
	lease.mu.Unlock()
	if given && !draw {
		back := func() {
			l.write(noAnswer, "lease.release", idParams(id))
		} // a broken link gives it back too
		if !s.task(back) {
			back()
		}
	}
	return nil
}

// leaseID reads a lease's id, which the agent writes first. [Lease.Info] reads the rest.
func leaseID(raw string) (string, bool) {
	if rest, ok := strings.CutPrefix(raw, `{"id":"`); ok {
		if id, _, ok := strings.Cut(rest, `"`); ok && plainText(id) {
			return id, len(id) > 0
		}
	}
	var l struct{ ID string }
	err := json.Unmarshal([]byte(raw), &l)
	return l.ID, err == nil && l.ID != "" && plainText(l.ID)
}

// Join makes this process a co-holder of a lease. Its holder passes the id on. The lease ends with its last holder.
func (s *Session) Join(ctx context.Context, id string) (*Lease, error) {
	lease := &Lease{session: s, proven: ProvenNone}
	b, err := json.Marshal(wire.LeaseRequest{ID: id})
	if err != nil {
		return nil, err
	}
	l, err := s.live()
	if err != nil {
		return nil, err
	}
	if _, err := l.do(ctx, "lease.join", params{before: string(b)}, lease); err != nil {
		return nil, err
	}
	return lease, nil
}

// Info returns the lease as the agent last stated it; zero while it is not backed.
func (l *Lease) Info() wire.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.raw != "" {
		l.info = new(wire.Lease)
		if json.Unmarshal([]byte(l.raw), l.info) != nil {
			l.info.ID = l.id
		}
		l.raw = ""
	}
	if l.info == nil {
		return wire.Lease{}
	}
	return *l.info
}

// ID returns the lease's id, for [Session.Join] too; empty while it is not backed.
func (l *Lease) ID() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id
}

// Backed reports whether an agent has granted the lease; false only with [FailOpen].
func (l *Lease) Backed() bool { return l.ID() != "" }

// Proven returns how much of the lease is proved: [ProvenLease] or [ProvenNone].
func (l *Lease) Proven() Proven {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.proven
}

// Done is closed when the lease is lost: it was revoked, or ended by force, or no agent answered for longer than the
// licence allows. Neither a restart of the agent nor Close closes it.
func (l *Lease) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == nil {
		l.done = make(chan struct{})
		if l.err != nil {
			close(l.done)
		}
	}
	return l.done
}

// Err returns the reason of the loss; nil while the lease is held.
func (l *Lease) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// end marks the lease as closed; ok is false if it was closed or lost before.
func (l *Lease) end() (id string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return "", false
	}
	l.closed = true
	if l.closing != nil {
		close(l.closing)
	}
	if l.draw {
		return "", true
	}
	return l.id, true
}

// Close gives the lease back, or does so once the agent is back. A draw cannot be given back. Close may be called more
// than once.
func (l *Lease) Close() error {
	s := l.session
	if getpid() != s.pid {
		return forked(s.pid) // the lease is the parent's
	}
	id, ok := l.end()
	if !ok {
		return nil
	}
	s.mu.Lock()
	delete(s.leases, id)
	delete(s.unbacked, l)
	link := s.link
	if link == nil && id != "" && !s.closed {
		s.orphans = append(s.orphans, id)
	}
	s.mu.Unlock()
	if link == nil || id == "" {
		return nil
	}
	return s.giveBack(link, id)
}

// giveBack gives a lease back. If the connection breaks before the answer, it tries again on the next connection.
func (s *Session) giveBack(l *link, id string) error {
	for {
		_, err := l.doBy(context.Background(), time.Now().Add(closeWithin), "lease.release", idParams(id), nil)
		switch {
		case errors.Is(err, ErrLeaseUnknown), errors.Is(err, ErrClosed):
			return nil
		case !errors.Is(err, ErrAgentAway) && !l.isBroken():
			return err
		}
		s.mu.Lock()
		now := s.link
		again := !s.closed && now != nil && now != l
		if !again {
			s.orphans = append(s.orphans, id)
		}
		s.mu.Unlock()
		if !again {
			return nil
		}
		l = now
	}
}

// lose marks the lease as lost.
func (l *Lease) lose(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed, l.err = true, err
	if l.closing != nil {
		close(l.closing)
	}
	if l.done != nil {
		close(l.done)
	}
	s := l.session
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leases, l.id)
	delete(s.unbacked, l)
}

// renew renews a lease with a time to live, each time after a third of it, until the lease ends.
func (l *Lease) renew() {
	info := l.Info()
	if info.ExpiresAt == nil {
		return
	}
	every := max(100*time.Millisecond, info.ExpiresAt.Sub(info.AcquiredAt)/3)
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-l.session.ctx.Done():
			return
		case <-l.closing:
			return
		case <-t.C:
		}
		link, err := l.session.live()
		if err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(l.session.ctx, every)
		raw, err := link.do(ctx, "lease.renew", idParams(info.ID), nil)
		cancel()
		switch {
		case err == nil:
			l.mu.Lock()
			l.raw = raw
			l.mu.Unlock()
		case errors.Is(err, ErrLeaseUnknown), errors.Is(err, ErrNotHolder):
			l.lose(err)
		}
	}
}
