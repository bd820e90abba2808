package online

import (
	"context"
	"encoding/json"
	"errors"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// Several is several site servers of one site, each of which gives slots of one fleet. The agent asks one of them, and
// another where that one does not answer or cannot reach the fleet. It implements [plugin.Watcher].
type Several struct {
	*Client // the first, for all that is no matter of slots
	all     map[string]*Client
	order   []string // their addresses, from the one that this agent asks first

	mu   sync.Mutex      // guards what follows
	at   int             // in order: whom the agent asks
	lent map[string]loan // by block: who has given it, or given it more time
}

// loan is a server's block that the agent has, as far as is known: until then, if it does not give it back sooner.
type loan struct {
	at    string
	until time.Time
}

var _ plugin.Watcher = (*Several)(nil)

// NewSeveral returns the servers at these addresses as one. Agents begin with different ones.
func NewSeveral(addresses []string, open func(address string) (*Client, error)) (*Several, error) {
	s := &Several{all: map[string]*Client{}, lent: map[string]loan{}}
	for _, at := range addresses {
		c, err := open(at)
		if err != nil {
			return nil, err
		}
		if s.Client == nil {
			s.Client = c
		}
		if s.all[at] == nil {
			s.order = append(s.order, at)
		}
		s.all[at] = c
	}
	if len(s.order) == 0 {
		return nil, errors.New("no site server is named")
	}
	h := fnv.New32a()
	h.Write([]byte(s.jkt))
	first := int(h.Sum32() % uint32(len(s.order)))
	s.order = slices.Concat(s.order[first:], s.order[:first])
	return s, nil
}

// severalState is the state of the calls for one licence's blocks.
type severalState struct {
	Chains map[string]string `json:"chains"` // by server: what it said last
	Blocks map[string]string `json:"blocks"` // by block: the server that gave it
}

func readState(state []byte) (s severalState) {
	if json.Unmarshal(state, &s) != nil { // of a former version, or none: a check-out begins anew
		s = severalState{}
	}
	if s.Chains == nil {
		s.Chains = map[string]string{}
	}
	if s.Blocks == nil {
		s.Blocks = map[string]string{}
	}
	return s
}

// text returns the state, without the words of servers that have no block of this agent where there are too many.
func (s severalState) text(at string) []byte {
	b, err := json.Marshal(s)
	if err == nil && len(b) > plugin.MaxState {
		maps.DeleteFunc(s.Chains, func(server, _ string) bool {
			return server != at && !slices.Contains(slices.Collect(maps.Values(s.Blocks)), server)
		})
		b, err = json.Marshal(s)
	}
	if err != nil || len(b) > plugin.MaxState {
		b, _ = json.Marshal(severalState{Chains: map[string]string{at: s.Chains[at]}, Blocks: s.Blocks})
	}
	return b
}

// asked returns whom the agent asks now.
func (s *Several) asked() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.order[s.at]
}

// leave has the agent ask the next one from now on, if it asks this one.
func (s *Several) leave(at string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.order[s.at] == at {
		s.at = (s.at + 1) % len(s.order)
	}
}

// isAway reports whether an error says nothing but that this server cannot give slots now, so that another one may.
func isAway(err error) bool {
	var e *plugin.Error
	if !errors.As(err, &e) {
		return err != nil
	}
	return e.SystemCode == plugin.SystemAway || e.Class == plugin.Transient && e.SystemCode == ""
}

// transiently returns an error of a server that cannot reach the fleet as one that passes.
func transiently(err error) error {
	var e *plugin.Error
	if errors.As(err, &e) && e.SystemCode == plugin.SystemAway {
		e.Class = plugin.Transient
	}
	return err
}

// CheckOut takes a block of slots from the server that the agent asks, or from the first of the others that answers.
func (s *Several) CheckOut(ctx context.Context, r *plugin.CheckOut) (*plugin.Block, error) {
	state := readState(r.State)
	var last error
	for range s.order {
		at, again := s.asked(), *r
		again.State = []byte(state.Chains[at])
		again.Nonce = rehash(append([]byte(at), r.Nonce...))
		try, cancel := s.within(ctx)
		b, err := s.all[at].CheckOut(try, &again)
		cancel()
		if err == nil {
			s.has(b, at)
			state.took(at, b)
			b.State = state.text(at)
			return b, nil
		}
		if last = transiently(err); !isAway(err) || ctx.Err() != nil {
			break
		}
		s.leave(at)
	}
	return nil, last
}

// took takes note of what a server gave.
func (s *severalState) took(at string, b *plugin.Block) {
	s.Chains[at], s.Blocks[b.ID] = string(b.State), at
	if len(s.Blocks) > maxBlocksKnown {
		delete(s.Blocks, slices.Sorted(maps.Keys(s.Blocks))[0])
	}
}

// maxBlocksKnown is of how many blocks an agent knows which server gave them. It has fewer.
const maxBlocksKnown = 128

// within bounds one try, so that there is time for the others.
func (s *Several) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if until, ok := ctx.Deadline(); ok && len(s.order) > 1 {
		return context.WithTimeout(ctx, time.Until(until)/2)
	}
	return context.WithCancel(ctx)
}

// Extend has the server that gave a block give it more time. Where that one does not answer, another takes the block
// over.
func (s *Several) Extend(ctx context.Context, r *plugin.Extend) (*plugin.Block, error) {
	state := readState(r.State)
	gave, ok := state.Blocks[r.Block]
	if !ok || s.all[gave] == nil {
		gave = s.asked()
	}
	b, err := s.extend(ctx, r, &state, gave, "")
	if err == nil || !isAway(err) {
		return b, err
	}
	s.leave(gave)
	for _, at := range s.order {
		if at == gave || ctx.Err() != nil || state.Chains[gave] == "" {
			continue
		}
		b, again := s.extend(ctx, r, &state, at, state.Chains[gave])
		if again == nil {
			return b, nil
		}
		if !isAway(again) { // it is over for good
			return nil, transiently(again)
		}
		err = again
	}
	return nil, transiently(err)
}

// extend asks one server. moved is the chain of the one that gave the block, if that is another.
func (s *Several) extend(ctx context.Context, r *plugin.Extend, state *severalState, at, moved string) (
	*plugin.Block, error) {
	again := *r
	again.State = []byte(state.Chains[at])
	again.Nonce = rehash(append([]byte(at), r.Nonce...))
	try, cancel := s.within(ctx)
	defer cancel()
	b, err := s.all[at].extend(try, &again, moved)
	if err != nil {
		return nil, err
	}
	s.stay(at)
	s.has(b, at)
	state.took(at, b)
	b.State = state.text(at)
	return b, nil
}

// stay has the agent ask the server that has given it more time: it hears from that one when it stops.
func (s *Several) stay(at string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = slices.Index(s.order, at)
}

// Return gives a block back to the server that gave it. Where that one does not answer, or has stopped, another takes
// the block over and back: else its slots would be nobody's until the block's time is over.
func (s *Several) Return(ctx context.Context, r *plugin.Return) error {
	state := readState(r.State)
	gave, ok := state.Blocks[r.Block]
	if !ok || s.all[gave] == nil {
		gave = s.asked()
	}
	err := s.giveBack(ctx, r, &state, gave, "")
	if err == nil || !isAway(err) {
		s.gaveBack(r.Block)
		return err
	}
	for _, at := range s.order {
		if at == gave || ctx.Err() != nil || state.Chains[gave] == "" {
			continue
		}
		again := s.giveBack(ctx, r, &state, at, state.Chains[gave])
		var e *plugin.Error
		if again == nil || errors.As(again, &e) && e.SystemCode == plugin.SystemLapsed {
			return nil
		}
		err = again
	}
	return transiently(err)
}

// giveBack has one server take a block back. moved is the chain of the one that gave it, if that is another.
func (s *Several) giveBack(ctx context.Context, r *plugin.Return, state *severalState, at, moved string) error {
	again := *r
	again.State = []byte(state.Chains[at])
	again.Nonce = rehash(append([]byte(at), r.Nonce...))
	try, cancel := s.within(ctx)
	defer cancel()
	return s.all[at].giveBack(try, &again, moved)
}
