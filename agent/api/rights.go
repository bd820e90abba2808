package api

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// rights is what rules let a peer do.
type rights struct {
	rules          *Rules
	allowed, admin bool
}

func (r *Rules) rights(p *peer) *rights {
	out := &rights{rules: r, admin: r.admin(p)}
	out.allowed = out.admin || r.allowed(p)
	return out
}

// hashed reports whether a rule names an executable by its hash: that is looked at with each call, for a process may
// become another program.
func (r *Rules) hashed() bool {
	hash := func(r Rule) bool { return r.ExeSHA256 != "" }
	return slices.ContainsFunc(r.Allow, hash) || slices.ContainsFunc(r.Admin, hash)
}

// rightsOf returns what a caller may do by the rules in force. k is its connection, which remembers it; nil: none does.
func (s *Server) rightsOf(k *conn, p *peer) *rights {
	now := s.rules.Load()
	if k == nil {
		return now.rights(p)
	}
	if was := k.rights.Load(); was != nil && was.rules == now {
		return was
	}
	r := now.rights(p)
	if !now.hashed() {
		k.rights.Store(r)
	}
	return r
}

// same reports whether two peers may do the same.
func (r *rights) same(o *rights) bool { return r.allowed == o.allowed && r.admin == o.admin }

// SetRules replaces the rules of who may call. When it returns, the new ones judge calls and messages, and the streams
// and waiting acquires of callers that may no longer call have ended.
func (s *Server) SetRules(r Rules) {
	s.ruling.Lock()
	defer s.ruling.Unlock()
	s.rules.Store(&r)
	s.watching.Range(func(told, _ any) bool {
		switch told := told.(type) {
		case *session:
			told.ruled(&r)
		case *func(*Rules):
			(*told)(&r)
		}
		return true
	})
}

// endAll has streams and sessions end.
func (s *Server) endAll() {
	s.end()
	s.watching.Range(func(told, _ any) bool {
		if x, is := told.(*session); is {
			x.stop()
		}
		return true
	})
}

// onRules calls called whenever there are new rules, at most once at a time, until stop is called.
func (s *Server) onRules(told func(*Rules)) (stop func()) {
	s.watching.Store(&told, nil)
	return func() { s.watching.Delete(&told) }
}

// while returns a context that ends when enough says so of what new rules let a peer do.
func (s *Server) while(ctx context.Context, p *peer, was *rights,
	enough func(*rights) bool) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	judge := func(r *Rules) {
		if !enough(r.rights(p)) {
			cancel(errRights)
		}
	}
	stop := s.onRules(judge)
	if now := s.rules.Load(); now != was.rules { // they changed meanwhile
		judge(now)
	}
	return ctx, func() { stop(); cancel(nil) }
}

func mayCall(r *rights) bool { return r.allowed }

// rightsLost is the cause of a context's end when its caller's rights have changed.
type rightsLost struct{}

func (rightsLost) Error() string { return "the rules of who may call have changed" }

var errRights error = rightsLost{}

// lostRights reports whether a context of while has ended because of the rules.
func lostRights(ctx context.Context) bool {
	return errors.Is(context.Cause(ctx), errRights)
}

// judged returns what the session's peer may do by the rules in force.
func (x *session) judged() *rights {
	now := x.server.rules.Load()
	if was := x.rights.Load(); was.rules == now {
		return was
	}
	r := now.rights(&x.conn.peer)
	x.rights.Store(r)
	return r
}

// isAdmin reports whether the session's peer is an admin by the rules in force.
func (x *session) isAdmin() bool { return x.judged().admin }

// subscription is what a session hears of events.
type subscription struct {
	mu    sync.Mutex // guards all below
	on    bool       // the session has asked for them
	mine  bool       // those of its own process alone
	as    *rights    // the rights that decide what it may see
	end   func()     // nil: it hears nothing at present
	ended bool       // the session is over
}

// ruled puts new rules in force for a session: one that may no longer call neither waits nor hears of events.
func (x *session) ruled(r *Rules) {
	now := r.rights(&x.conn.peer)
	x.rights.Store(now)
	if !now.allowed {
		x.cancels.Range(func(_, cancel any) bool {
			cancel.(context.CancelFunc)()
			return true
		})
	}
	x.sub.mu.Lock()
	defer x.sub.mu.Unlock()
	if x.sub.on && !x.sub.ended && !x.sub.as.same(now) {
		x.listen(now) // its share of its user's subscriptions is free again
	}
}

// hush ends the session's subscription for good.
func (x *session) hush() {
	x.sub.mu.Lock()
	defer x.sub.mu.Unlock()
	x.sub.ended = true
	if x.sub.end != nil {
		x.sub.end()
	}
}

// subscribe begins notifications; the event's type is the method.
func (x *session) subscribe(r *rpcRequest) (any, *enforcer.Denial, *rpcError) {
	var in wire.Subscribe
	if d := params(r, &in); d != nil {
		return nil, d, nil
	}
	x.sub.mu.Lock()
	defer x.sub.mu.Unlock()
	if !x.sub.on {
		x.sub.mine = in.Mine
		if d := x.listen(x.judged()); d != nil {
			return nil, d, nil
		}
		x.sub.on = true
	}
	return struct{}{}, nil, nil
}
