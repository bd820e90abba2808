package holders

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/usher-agent/usher/enforcer"
)

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
