package holders

import (
	"maps"
	"slices"

	"github.com/usher-agent/usher/enforcer"
)

// leaseSet is ids of leases. Most processes hold few at one time: a row of them costs an acquire and its release less
// than a map. A process that holds very many has them in a table, which grows in steps, and is
// filled fast in a recovery (see [enforcer.InOrder]). An empty set takes next to no memory, however many there were.
type leaseSet struct {
	few  []enforcer.LeaseID // in no order
	many map[enforcer.LeaseID]struct{}
	most *enforcer.Table[struct{}]
}

const (
	// fewLeases is how many ids are kept in a row, at the most. So many are gone through faster than one is put into a
	// map and taken out.
	fewLeases = 64
	// manyLeases is how many ids are kept in a map, at the most.
	manyLeases = 4096
)

func (s *leaseSet) len() int {
	n := len(s.few) + len(s.many)
	if s.most != nil {
		n += s.most.Len()
	}
	return n
}

func (s *leaseSet) add(id enforcer.LeaseID) {
	switch {
	case s.most != nil:
		s.most.Put(id, struct{}{})
	case s.many != nil:
		if s.many[id] = struct{}{}; len(s.many) > manyLeases {
			s.enlarge(len(s.many))
		}
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

// enlarge moves the ids to a table that has room for n.
func (s *leaseSet) enlarge(n int) {
	s.most = &enforcer.Table[struct{}]{}
	s.most.Reserve(n)
	for _, id := range s.few {
		s.most.Put(id, struct{}{})
	}
	for id := range s.many {
		s.most.Put(id, struct{}{})
	}
	s.few, s.many = nil, nil
}

// reserve makes room for so many ids more, where they are very many.
func (s *leaseSet) reserve(n int) {
	if n += s.len(); s.most == nil && n > manyLeases {
		s.enlarge(n)
	}
}

// addAll adds ids.
func (s *leaseSet) addAll(ids []enforcer.LeaseID) {
	s.reserve(len(ids))
	for _, id := range ids {
		s.add(id)
	}
}

func (s *leaseSet) remove(id enforcer.LeaseID) {
	switch {
	case s.most != nil:
		if s.most.Delete(id); s.most.Len() == 0 {
			s.most = nil
		}
	case s.many != nil:
		if delete(s.many, id); len(s.many) == 0 {
			s.many = nil // a map never gives memory back
		}
	default:
		if i := slices.Index(s.few, id); i >= 0 {
			last := len(s.few) - 1
			s.few[i] = s.few[last]
			s.few = s.few[:last]
		}
	}
}

// all returns the ids in no particular order.
func (s *leaseSet) all() []enforcer.LeaseID {
	out := slices.AppendSeq(make([]enforcer.LeaseID, 0, s.len()), maps.Keys(s.many))
	out = append(out, s.few...)
	if s.most != nil {
		for id := range s.most.All {
			out = append(out, id)
		}
	}
	return out
}
