package registry

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// restored is a server that is once started on an old copy of its store, and its agents.
type restored struct {
	b, copied *blocks
	now       time.Duration
	n         int
	done      bool // it was started on the copy
	l         *enforcer.License
	agents    map[string]*holding
}

// holding is what an agent has, and has shown that it was given.
type holding struct {
	has  map[string]*believed
	had  map[string]Had
	lost string // the token of a check-out whose answer was lost
}

// oldLimit and oldTTL are the slots of the licence, and how long a block lasts.
const (
	oldLimit = 10
	oldTTL   = 12 * time.Second
)

// usable is how many slots the agents may use together; they forget what is over.
func (s *restored) usable() (sum int64) {
	for _, own := range s.agents {
		for id, x := range own.has {
			if x.until <= s.now {
				delete(own.has, id)
				continue
			}
			sum += x.slots
		}
	}
	return sum
}

// extend asks for more time for a block, and for another size.
func (s *restored) extend(t *rapid.T, own *holding, a *ask, hear func(*Block)) {
	a.ID = rapid.SampledFrom(slices.Sorted(maps.Keys(own.has))).Draw(t, "block")
	had := own.has[a.ID]
	if had.slots < own.had[a.ID].Slots {
		// an agent asks for no more before the server has answered that it is to have less
		a.Slots = min(a.Slots, had.slots)
	}
	if had.slots > a.Slots {
		had.slots = a.Slots // out of use before it is said
	}
	x, c, refused := s.b.extend(a)
	s.b.apply(c)
	switch {
	case refused == nil:
		if x.size() < min(a.Slots, had.slots) {
			t.Fatalf("a block of %d has %d slots", had.slots, x.size())
		}
		hear(x)
	case s.done || refused.System != plugin.SystemLapsed:
		t.Fatalf("a block that an agent has is not extended: %s", refused.Reason)
	}
}

// copy keeps a copy of the store.
func (s *restored) copy() {
	s.copied = newBlocks()
	for _, x := range s.b.by {
		y := *x
		s.copied.apply(change{put: []*Block{&y}})
	}
}

// restore starts the server on the copy.
func (s *restored) restore() {
	s.done = true
	for _, x := range s.copied.by {
		x.until = s.now + x.span()
		x.old = x.until
	}
	s.b = s.copied
	s.b.settling = s.now + oldTTL
}

// step is one thing that an agent asks, or that happens to the server.
func (s *restored) step(t *rapid.T) {
	who := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "agent")
	own := s.agents[who]
	s.n++
	a := &ask{agent: who, license: s.l, newID: fmt.Sprint("b", s.n), now: s.now, ttl: oldTTL, had: maps.Clone(own.had),
		BlockRequest: &online.BlockRequest{Pool: "seats",
			Slots: rapid.Int64Range(1, 6).Draw(t, "slots"), AtLeast: 1}}
	lost := rapid.IntRange(0, 4).Draw(t, "lost") == 0
	hear := func(x *Block) {
		if own.had = maps.Clone(own.had); !lost {
			own.has[x.ID], own.had[x.ID] = &believed{x.ID, x.size(), s.now + oldTTL}, Had{x.Pool, x.size()}
		}
	}
	switch step := rapid.IntRange(0, 11).Draw(t, "step"); {
	case step < 4:
		if a.Token = own.lost; a.Token == "" {
			a.Token = a.newID
		}
		x, c, refused := s.b.checkOut(a)
		s.b.apply(c)
		if own.lost = ""; lost {
			own.lost = a.Token
		}
		if refused == nil {
			hear(x)
		}
	case step < 8 && len(own.has) > 0:
		s.extend(t, own, a, hear)
	case step == 8 && len(own.has) > 0:
		id := rapid.SampledFrom(slices.Sorted(maps.Keys(own.has))).Draw(t, "block")
		delete(own.has, id)
		s.b.apply(s.b.giveBack(who, id))
	case step == 9 && !s.done:
		s.copy()
	case step == 10 && !s.done && rapid.Bool().Draw(t, "restore"):
		s.restore()
	default:
		s.now += time.Duration(rapid.Int64Range(0, int64(oldTTL/2)).Draw(t, "time"))
	}
}

// A server is started on an old copy of its store. Until all that it may have given since is over, it gives no slots
// that an agent does not have. Agents go on with what they have, whether the copy knows of it or not, and at no time
// may they use more than the limit.
func TestOldStore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &restored{b: newBlocks(), copied: newBlocks(), l: siteLicence(oldLimit, 0), agents: map[string]*holding{}}
		if rapid.Bool().Draw(t, "revoke") {
			s.l.OnExpiry = enforcer.Revoke
		}
		for _, who := range []string{"a", "b", "c", "d"} {
			s.agents[who] = &holding{has: map[string]*believed{}, had: map[string]Had{}}
		}
		for range rapid.IntRange(5, 60).Draw(t, "steps") {
			s.usable() // what is over is forgotten before anybody asks
			s.step(t)
			if sum := s.usable(); sum > oldLimit {
				t.Fatalf("agents may use %d slots of %d", sum, oldLimit)
			}
		}
	})
}
