package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// closeWithin bounds how long giving back may take.
const closeWithin = 5 * time.Second

// Lease is a lease that a session holds. It is safe for concurrent use.
type Lease struct {
	session *Session
	request *Request      // of one that nothing backs
	done    chan struct{} // closed when it is lost
	closing chan struct{} // closed by Close; nil: nobody waits for that

	mu     sync.Mutex // guards all below
	id     string
	raw    []byte // the agent's words; nil: info has them
	info   wire.Lease
	draw   bool // it does not come back
	proven Proven
	closed bool
	err    error // why it is lost
}

// Acquire asks for slots, which this process holds until it ends or until [Lease.Close]. The request may name another
// lifetime; one with a time to live is renewed here. A refusal is an error to be compared: errors.Is(err,
// [ErrNoSlots]). What comes after ctx has ended is given back.
func (s *Session) Acquire(ctx context.Context, r Request) (*Lease, error) {
	lease := &Lease{session: s, done: make(chan struct{}), proven: ProvenNone}
	ttl := r.TTLSeconds > 0 || r.Lifetime == "ttl"
	if ttl {
		lease.closing = make(chan struct{})
	}
	params, err := acquireParams(&r)
	if err != nil {
		return nil, err
	}
	l, err := s.live()
	if err == nil {
		_, err = l.do(ctx, "lease.acquire", params, lease)
	}
	switch {
	case err != nil && s.failOpen && errors.Is(err, ErrAgentAway):
		r.WaitSeconds = 0 // when the agent is back, nobody waits
		lease.request = &r
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

func acquireParams(r *Request) ([]byte, error) {
	if r.Pool != "" && plainText(r.Pool) && r.N == nil && r.Items == nil && r.MinN == 0 && r.Lifetime == "" &&
		r.TTLSeconds == 0 && r.WaitSeconds == 0 &&
		r.ClientToken == "" && r.Nonce == "" && r.Labels == nil && r.Priority == 0 && r.PID == 0 && r.Until == nil &&
		r.Version == "" {
		return []byte(`{"pool":"` + r.Pool + `"}`), nil
	}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("write the request: %w", err)
	}
	return b, nil
}

func idParams(id string) []byte { return []byte(`{"id":"` + id + `"}`) }

// granted takes a lease that the agent has granted, before anything else that it says is heard. One that nobody waits
// for is given back.
func (s *Session) granted(l *link, lease *Lease, raw []byte, given bool) error {
	id, ok := leaseID(raw)
	if !ok {
		return away(s.socket, errors.New("its answer is no lease"))
	}
	draw := bytes.Contains(raw, []byte(`"lifetime":"draw"`)) // in a text its quotes would be escaped
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
			l.write(nil, "lease.release", idParams(id))
		} // a link that breaks takes it back too
		if !s.task(back) {
			back()
		}
	}
	return nil
}

// leaseID reads a lease's id, which the agent writes first. The rest is read when somebody asks.
func leaseID(raw []byte) (string, bool) {
	if rest, ok := bytes.CutPrefix(raw, []byte(`{"id":"`)); ok {
		if id, _, ok := bytes.Cut(rest, []byte(`"`)); ok && plainText(string(id)) {
			return string(id), len(id) > 0
		}
	}
	var l struct{ ID string }
	err := json.Unmarshal(raw, &l)
	return l.ID, err == nil && l.ID != "" && plainText(l.ID)
}

// Join makes this process a co-holder of a lease, whose id its holder has passed on. It ends when the last has gone.
func (s *Session) Join(ctx context.Context, id string) (*Lease, error) {
	lease := &Lease{session: s, done: make(chan struct{}), proven: ProvenNone}
	params, err := json.Marshal(wire.LeaseRequest{ID: id})
	if err != nil {
		return nil, err
	}
	l, err := s.live()
	if err != nil {
		return nil, err
	}
	if _, err := l.do(ctx, "lease.join", params, lease); err != nil {
		return nil, err
	}
	return lease, nil
}

// Info returns the lease as it was last seen; its zero while nothing backs it.
func (l *Lease) Info() wire.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.raw != nil {
		l.info = wire.Lease{}
		if json.Unmarshal(l.raw, &l.info) != nil {
			l.info.ID = l.id
		}
		l.raw = nil
	}
	return l.info
}

// ID returns the lease's id, which may be passed on for [Session.Join]; empty while nothing backs it.
func (l *Lease) ID() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id
}

// Backed reports whether an agent has granted the lease; false only where [FailOpen] was asked for.
func (l *Lease) Backed() bool { return l.ID() != "" }

// Proven says how much of the lease is proved: [ProvenLease] or [ProvenNone].
func (l *Lease) Proven() Proven {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.proven
}

// Done is closed when the lease is lost: revoked, forced, or no agent has answered for as long as the licence allows. A
// restart of the agent does not close it, nor does Close.
func (l *Lease) Done() <-chan struct{} { return l.done }

// Err says why the lease was lost; nil while it is held.
func (l *Lease) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// end marks the lease as closed; false when it was closed or lost before.
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

// Close gives the lease back, a draw not; while the agent is away, as soon as it is there again. It may be called more
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

// giveBack gives a lease back. Where the connection breaks before the agent has answered, it is done on the next one.
func (s *Session) giveBack(l *link, id string) error {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
		_, err := l.do(ctx, "lease.release", idParams(id), nil)
		cancel()
		switch {
		case errors.Is(err, ErrLeaseUnknown), errors.Is(err, ErrClosed):
			return nil
		case !errors.Is(err, ErrAgentAway):
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

// lose says that the lease is lost.
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
	close(l.done)
	s := l.session
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leases, l.id)
	delete(s.unbacked, l)
}

// renew renews a lease with a time to live, at a third of it, until the lease is over.
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
