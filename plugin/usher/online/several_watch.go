package online

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// has takes note that a server has given a block, or given it more time.
func (s *Several) has(b *plugin.Block, at string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lent[b.ID] = loan{at, time.Now().Add(b.For)}
}

// Has takes note of the blocks that a restarted agent goes on with, by id, and for how long they last. The state of the
// calls for them says who gave each.
func (s *Several) Has(state []byte, blocks map[string]time.Duration) {
	gave := readState(state).Blocks
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, left := range blocks {
		if at := gave[id]; s.all[at] != nil {
			s.lent[id] = loan{at, time.Now().Add(left)}
		}
	}
}

// gaveBack takes note that the agent has a block no more.
func (s *Several) gaveBack(block string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.lent, block)
}

// watched returns whom the agent hears: the server that it asks first, then those others whose blocks it has.
func (s *Several) watched() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out, now := []string{s.order[s.at]}, time.Now()
	maps.DeleteFunc(s.lent, func(_ string, l loan) bool { return !now.Before(l.until) })
	others := map[string]bool{out[0]: true}
	for _, l := range s.lent {
		if !others[l.at] && s.all[l.at] != nil {
			others[l.at] = true
			out = append(out, l.at)
		}
	}
	return out
}

// leaves takes note that a server has said that it gives no more: the agent asks another, and does not hear that one
// before it gives something.
func (s *Several) leaves(at string) {
	s.leave(at)
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.lent, func(_ string, l loan) bool { return l.at == at })
}

// heard is what one server has said to a watch.
type heard struct {
	at   string
	news *plugin.News
	err  error
}

// Watch waits for news of the server that the agent asks, and of others whose blocks it has. One that stops says so,
// and the agent asks the next one. That another than the asked one does not answer is no matter of the watch.
func (s *Several) Watch(ctx context.Context, r *plugin.Watch) (*plugin.News, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all := s.watched()
	answers := make(chan heard, len(all))
	for _, at := range all {
		again := *r
		again.Nonce = rehash(append([]byte(at), r.Nonce...))
		go func() {
			news, err := s.all[at].Watch(ctx, &again)
			answers <- heard{at, news, err}
		}()
	}
	for {
		is := <-answers
		leaves := (*leavesError)(nil)
		switch {
		case errors.As(is.err, &leaves) && len(s.order) > 1:
			s.leaves(is.at)
			return &plugin.News{Moves: true}, nil
		case is.at == all[0]:
			return is.news, is.err
		case is.err == nil && len(is.news.Pools) > 0:
			return is.news, nil
		}
	}
}

// Roams reports that there is news although nothing lies idle and nothing is lacked: a server may stop.
func (s *Several) Roams() bool { return len(s.order) > 1 }

// leavesError is a server's word that it has stopped giving slots.
type leavesError struct{ fault *plugin.Error }

func (e *leavesError) Error() string { return e.fault.Error() }
func (e *leavesError) Unwrap() error { return e.fault }
