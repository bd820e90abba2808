package holders

import (
	"maps"
	"slices"

	"github.com/usher-agent/usher/enforcer"
)

// leaseSet is ids of leases. Most processes hold few at one time: a row of them costs an acquire and its release less
// than a map. An empty set takes next to no memory, however many there were.
type leaseSet struct {
	few  []enforcer.LeaseID // in no order
	many map[enforcer.LeaseID]struct{}
}

// fewLeases is how many ids are kept in a row, at the most.
const fewLeases = 16

func (s *leaseSet) len() int { return len(s.few) + len(s.many) }

func (s *leaseSet) add(id enforcer.LeaseID) {
	switch {
	case s.many != nil:
		s.many[id] = struct{}{}
	case slices.Contains(s.few, id):
	case len(s.few) < fewLeases:
		s.few = append(s.few, id)
	default:
		s.many = map[enforcer.LeaseID]struct{}{id: {}}
		for _, id := range s.few {
			s.many[id] = struct{}{}
		}
		s.few = nil
	}
}

// reserve makes room for so many ids more, where the set is empty.
func (s *leaseSet) reserve(n int) {
	if s.len() == 0 && n > fewLeases {
		s.many = make(map[enforcer.LeaseID]struct{}, n)
	}
}

func (s *leaseSet) remove(id enforcer.LeaseID) {
	if s.many != nil {
		if delete(s.many, id); len(s.many) == 0 {
			s.many = nil // a map never gives memory back
		}
		return
	}
	if i := slices.Index(s.few, id); i >= 0 {
		last := len(s.few) - 1
		s.few[i] = s.few[last]
		s.few = s.few[:last]
	}
}

// all returns the ids in no particular order.
func (s *leaseSet) all() []enforcer.LeaseID {
	return slices.AppendSeq(slices.Clone(s.few), maps.Keys(s.many))
}
