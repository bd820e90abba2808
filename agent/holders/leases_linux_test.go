package holders

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/usher-agent/usher/enforcer"
)

// A leaseSet is a set however many it has, and what it has of most goes when it is empty.
func TestLeaseSetOfVeryMany(t *testing.T) {
	t.Parallel()
	const n = 3 * manyLeases
	for _, reserved := range []int{0, 1, n} {
		var s leaseSet
		s.add(enforcer.LeaseID{15: 1}) // it is one of those that are added
		s.reserve(reserved)
		for i := range n {
			id := enforcer.LeaseID{byte(i), byte(i >> 8), 15: 1}
			s.add(id)
			s.add(id)
		}
		all := s.all()
		slices.SortFunc(all, func(a, b enforcer.LeaseID) int { return bytes.Compare(a[:], b[:]) })
		if len(slices.Compact(all)) != n || s.len() != n {
			t.Errorf("it has %d ids, counted as %d, want %d", len(all), s.len(), n)
		}
		if s.most == nil || s.many != nil || s.few != nil {
			t.Errorf("%d ids are not in a table", n)
		}
		for _, id := range all {
			s.remove(id)
			s.remove(id)
		}
		if s.len() != 0 || s.most != nil || len(s.all()) != 0 {
			t.Errorf("when all are removed it has %d", s.len())
		}
	}
}

// A leaseSet is a set, whether it has few or many, and keeps no map once it is empty.
func TestLeaseSetIsASet(t *testing.T) {
	var s leaseSet
	r, want := rand.New(rand.NewPCG(1, 1)), map[enforcer.LeaseID]struct{}{}
	s.reserve(fewLeases + 1)
	for i := range 4000 {
		id := enforcer.LeaseID{byte(r.IntN(3 * fewLeases))}
		if r.IntN(100) < 50+45*(1-2*(i/200%2)) { // it grows and shrinks
			s.add(id)
			want[id] = struct{}{}
		} else {
			s.remove(id)
			delete(want, id)
		}
		got := s.all()
		slices.SortFunc(got, func(a, b enforcer.LeaseID) int { return int(a[0]) - int(b[0]) })
		all := slices.SortedFunc(maps.Keys(want), func(a, b enforcer.LeaseID) int { return int(a[0]) - int(b[0]) })
		if s.len() != len(all) || !slices.Equal(got, all) {
			t.Fatalf("after %d steps it has %v, counted as %d, want %v", i, got, s.len(), all)
		}
		if len(want) == 0 && i > 400 && s.many != nil || len(s.few) > fewLeases {
			t.Fatalf("after %d steps it is %+v", i, s)
		}
	}
}
