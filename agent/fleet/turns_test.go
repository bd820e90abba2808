package fleet

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// passings are the times that an agent took slots which another's ticket, made before, lacked then.
type passings struct {
	times  map[passing]int
	claims map[passing]int64 // by ticket: see [sim.claim]
	// looks are the revisions at which agents last read the tickets of a pool, by the beginning of its keys and agent.
	looks map[string]int64
	worst string // the first that should not have been; empty: none
}

// passing is one agent that takes what one ticket waits for.
type passing struct {
	ticket string
	made   int64 // the revision
	copy   int   // which copy of the store
	by     string
}

func newPassings() *passings {
	return &passings{times: map[passing]int{}, claims: map[passing]int64{}, looks: map[string]int64{}}
}

// judge looks at the writes of a transaction before they are done. mu is held.
func (s *sim) judge(ops []Op) {
	if s.passed == nil {
		return
	}
	list := slices.IndexFunc(ops, func(o Op) bool { return strings.HasSuffix(o.List, "/w/") })
	for _, o := range ops {
		if pool, by, ok := strings.Cut(o.Get, "/g/"); ok && list >= 0 {
			s.passed.looks[pool+"/"+by] = s.rev
		}
	}
	if _, settles := s.kvs["/u/q"]; settles {
		return // nobody gets more: blocks are stated again
	}
	for _, o := range ops {
		if pool, by, ok := strings.Cut(o.Put, "/g/"); ok {
			s.judgeGrowth(ops, pool+"/", by)
		}
	}
}

// claim is what is left of what a ticket asked for when it was made. A ticket that asks for more later claims no more.
func (s *sim) claim(kv KV, got int64) int64 {
	w, _ := read[ticket](kv, true)
	is := passing{kv.Key, kv.Create, s.copy, ""}
	left, ok := s.passed.claims[is]
	if !ok {
		left = w.Slots
	}
	left = max(0, min(left, w.Slots)-got)
	s.passed.claims[is] = left
	return left
}

// sumOf returns the slots of the blocks of a pool, whose keys begin with prefix, and by how many these writes make them
// more. What one takes over from another is taken from nobody who waits.
func (s *sim) sumOf(prefix string, ops []Op) (out, more int64) {
	for k, kv := range s.kvs {
		if strings.HasPrefix(k, prefix+"g/") {
			h, _ := read[held](kv, true)
			out += h.sum()
		}
	}
	for _, o := range ops {
		key := o.Put + o.Delete
		if !strings.HasPrefix(key, prefix+"g/") {
			continue
		}
		was, ok := s.kvs[key]
		before, _ := read[held](was, ok)
		after, _ := read[held](KV{Value: o.Value}, o.Put != "")
		more += after.sum() - before.sum()
	}
	return out, more
}

// judgeGrowth looks whom an agent passes that gets more slots of a pool.
func (s *sim) judgeGrowth(ops []Op, prefix, by string) {
	if _, ruled := s.kvs[keys{"/u/"}.rules()]; ruled { // a rule may keep those that wait first from what is free
		return
	}
	out, more := s.sumOf(prefix, ops)
	kv, ok := s.kvs[prefix+"t"]
	t, _ := read[terms](kv, ok)
	if more <= 0 || t.Limit <= 0 {
		return
	}
	var tickets, seen []KV
	looked := s.passed.looks[prefix+by]
	for k, kv := range s.kvs {
		if !strings.HasPrefix(k, prefix+"w/") {
			continue
		}
		if tickets = append(tickets, kv); kv.Create <= looked {
			seen = append(seen, kv)
		}
	}
	own := prefix + "w/" + by
	if s.takesFromOthers(seen, own, more, t.Limit-out) && s.passed.worst == "" {
		s.passed.worst = fmt.Sprintf("%s takes %d of %d free slots, and the tickets are %v", by, more, t.Limit-out,
			tickets)
	}
	if s.takesFromOthers(tickets, own, more, t.Limit-out) {
		for _, w := range tickets {
			s.pass(w, own, by)
		}
	}
	if kv, waits := s.kvs[own]; waits {
		s.claim(kv, more)
	}
}

// takesFromOthers reports whether more of the free slots are taken than the tickets leave to the one with the key own.
func (s *sim) takesFromOthers(tickets []KV, own string, more, free int64) bool {
	slices.SortFunc(tickets, func(a, b KV) int { return int(a.Create - b.Create) })
	for _, w := range tickets {
		if w.Key == own {
			more -= max(0, min(more, free, s.claim(w, 0)))
		}
		free -= s.claim(w, 0)
	}
	return more > max(0, free)
}

// pass notes that an agent took what others waited for. It may do so once for each ticket: one that was made after it
// had looked.
func (s *sim) pass(w KV, own, by string) {
	if w.Key == own || s.claim(w, 0) == 0 {
		return
	}
	is := passing{w.Key, w.Create, s.copy, by}
	if s.passed.times[is]++; s.passed.times[is] > 1 && s.passed.worst == "" {
		s.passed.worst = fmt.Sprintf("%s has passed the ticket %s %d times", by, w.Key, s.passed.times[is])
	}
}

// Where hosts want more than there is, each for a while, they are served in the order of their tickets: no host passes
// one that asked before it more than once, and a ticket that was made is served however much others want after it.
func TestTurnsOfACrowd(t *testing.T) {
	for seed := range uint64(2) {
		bubble.Test(t, func(t *testing.T) {
			c, rng := newCrowd(t, seed, 8, 16), rand.New(rand.NewPCG(seed, 11))
			for _, h := range c.agents {
				h.way.set(false, nil, func(call string) time.Duration {
					return time.Duration(h.chance.float("delay "+call) * 1e8)
				})
				h.start()
			}
			time.Sleep(12 * time.Second)
			busy := map[*host]bool{}
			for range 1500 {
				time.Sleep(100 * time.Millisecond)
				h := c.agents[rng.IntN(len(c.agents))]
				if rng.IntN(8) == 0 {
					busy[h] = !busy[h]
				}
				c.mu.Lock()
				if busy[h] {
					if h.waiting == 0 {
						h.since = time.Now()
					}
					h.waiting = min(20, h.waiting+1+rng.Int64N(4))
				} else {
					h.inUse, h.waiting = h.inUse/2, 0
				}
				c.mu.Unlock()
				h.changed()
				h.keeper.Nudge()
			}
			for _, h := range c.agents {
				h.die()
			}
			if worst := c.sim.passed.worst; worst != "" {
				t.Error(worst)
			}
			if c.wrong != "" || c.served < 100 {
				t.Error(c.served, "slots were served", c.wrong)
			}
		})
	}
}

// An agent that gives slots back hears in the answer how many others wait for besides, so that its other idle slots
// need no further word.
func TestWhoGivesBackHearsWhoElseWaits(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		var all []*Bound
		for _, id := range []string{"a", "b", "c"} {
			f, _ := r.agent(id, new([]byte))
			r.join(f)
			all = append(all, r.bound(f, 10))
		}
		had := r.must(r.checkOut(all[0], "1", 10))
		for i, n := range []int64{4, 2} {
			if _, err := r.checkOut(all[1+i], "2", n); !isFull(err) {
				t.Fatal(err)
			}
		}
		got := r.must(all[0].Extend(t.Context(), &plugin.Extend{Block: had.ID, Slots: 9, For: time.Hour}))
		if got.Slots != 9 || got.Wanted != 5 {
			t.Errorf("of 10 slots %d are kept, others wait for 6, and the agent hears of %d", got.Slots, got.Wanted)
		}
	})
}
