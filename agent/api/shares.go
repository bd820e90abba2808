package api

import (
	"context"
	"fmt"
	"sync"

	"github.com/usher-agent/usher/enforcer"
)

// key names the user that something is counted for.
type key struct {
	uid uint32
	tcp bool // all callers over TCP, where the kernel does not tell one from another
	ops bool // of these, those of the operators' listener
}

// overTCP stands for all callers over TCP.
var overTCP = key{uid: Nobody, tcp: true}

// overOps stands for all callers of the operators' listener.
var overOps = key{uid: Nobody, tcp: true, ops: true}

func (p *peer) key() key { return key{uid: p.uid} }

// String names the user for people.
func (k key) String() string {
	if k.ops {
		return "the group of callers of the operators' listener"
	}
	if k.tcp {
		return "the group of TCP callers"
	}
	return fmt.Sprint("uid ", k.uid)
}

// shares are something that callers take and give back. No caller has more of it than is left for all others
// ([enforcer.OverShare]).
type shares struct {
	most, mostOfOne int // mostOfOne, where it is not 0, is the operator's limit, which replaces the rule

	mu    sync.Mutex // guards all below
	taken int
	by    map[key]int
}

func newShares(most, mostOfOne int) *shares {
	return &shares{most: most, mostOfOne: mostOfOne, by: map[key]int{}}
}

// take counts n more in, if that is not too many.
func (s *shares) take(k key, n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.by[k]
	if s.mostOfOne > 0 && (own+n > s.mostOfOne || s.taken+n > s.most) ||
		s.mostOfOne <= 0 && enforcer.OverShare(own, s.taken, s.most, n) {
		return false
	}
	s.taken += n
	s.by[k] = own + n
	return true
}

// give counts n out.
func (s *shares) give(k key, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken -= n
	if s.by[k] -= n; s.by[k] == 0 {
		delete(s.by, k)
	}
}

// of returns how many a caller has.
func (s *shares) of(k key) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.by[k]
}

// turns lets a few callers do costly work at one time, each of them one piece.
type turns struct {
	all chan struct{} // one for each caller that has its turn

	mu sync.Mutex // guards of
	of map[key]*turn
}

// turn belongs to one caller.
type turn struct {
	taken chan struct{} // capacity 1
	refs  int           // callers that have it or wait for it
}

func newTurns(n int) *turns {
	return &turns{all: make(chan struct{}, n), of: map[key]*turn{}}
}

// take waits for a caller's turn until ctx ends. It returns what ends the turn.
func (t *turns) take(ctx context.Context, k key) (done func(), err error) {
	t.mu.Lock()
	own := t.of[k]
	if own == nil {
		own = &turn{taken: make(chan struct{}, 1)}
		t.of[k] = own
	}
	own.refs++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if own.refs--; own.refs == 0 {
			delete(t.of, k)
		}
	}
	select {
	case own.taken <- struct{}{}:
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
	select {
	case t.all <- struct{}{}:
	case <-ctx.Done():
		<-own.taken
		leave()
		return nil, ctx.Err()
	}
	return func() {
		<-t.all
		<-own.taken
		leave()
	}, nil
}
