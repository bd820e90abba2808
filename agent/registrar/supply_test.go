package registrar

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/enforcer"
)

// silent is a store without an answer.
type silent struct{ fleet.Store }

func (silent) Txn(context.Context, *fleet.Txn) (*fleet.Result, error) {
	return nil, errors.New("no answer")
}

// What a site server gives back to the fleet may be another's although no answer came: it uses that no more. What it
// has asked for in vain changes nothing.
func TestGivenBackWithoutAnAnswer(t *testing.T) {
	f, err := fleet.New(fleet.Config{Store: silent{}, Agent: "a", Prefix: "/u/", Time: time.Now,
		Now:  func() time.Duration { return time.Hour },
		Load: func() ([]byte, error) { return nil, nil }, Save: func([]byte) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	l := &enforcer.License{ID: "L1", System: "usher", Product: "acme",
		Pools: map[string]enforcer.PoolTerm{"streams": {Max: 8}}}
	bound := f.For(l, []byte("{}"), nil, func(string) bool { return true }).(*fleet.Bound)
	b := &broker{fleet: f, now: func() time.Duration { return time.Hour }}
	s := &supply{pool: "streams", bound: bound, block: fleet.BlockID(brokerToken), has: 8,
		portions: []*portion{{license: "L1", has: 4}, {license: "L2", has: 4}}}
	if s.owes {
		t.Error("it owes what nobody asked it for")
	}
	for _, c := range []struct{ want, has int64 }{{6, 6}, {9, 6}, {0, 0}} {
		if err := b.call(t.Context(), s, c.want, 4); err == nil {
			t.Fatal("a call without an answer succeeds")
		}
		if s.has != c.has {
			t.Errorf("it has %d of 8 slots after it asked in vain to have %d, want %d", s.has, c.want, c.has)
		}
	}
	if !s.owes {
		t.Error("it does not try again to give its block back")
	}
}
