package enforcer

import (
	"encoding/binary"
	"iter"
)

// tableParts is how many parts a Table has: so few leases are in each that growing one, or going through one, is short
// work even with a million leases.
const tableParts = 256

// Table maps the ids of leases to values. It takes memory for what is in it and not for what once was, and never stops
// for long to grow or to shrink. Ids are random, so that their own bits say where a value lies. A zero Table is empty.
// It is not safe for concurrent use.
type Table[V any] struct {
	parts *[tableParts]tablePart[V] // nil: nothing was ever put in
	n     int
	zero  *V // the value of the id of zeros, which marks a free slot
}

// tablePart is a hash table with linear probing (Knuth, The Art of Computer Programming, vol. 3, section 6.4,
// algorithms L and R).
type tablePart[V any] struct {
	slots []tableSlot[V]
	n     int
}

// leastSlots is how many slots a part has at the least, once anything was put in.
const leastSlots = 4

type tableSlot[V any] struct {
	id    LeaseID
	value V
}

// hash mixes the bits of an id, so that ids that somebody counted up are told apart as well (the finaliser of
// MurmurHash3).
func (id *LeaseID) hash() uint64 {
	x := binary.LittleEndian.Uint64(id[:8]) ^ binary.LittleEndian.Uint64(id[8:])*0x9E3779B97F4A7C15
	x = (x ^ x>>33) * 0xFF51AFD7ED558CCD
	x = (x ^ x>>33) * 0xC4CEB9FE1A85EC53
	return x ^ x>>33
}

// partOf returns the part that an id belongs to.
func (id *LeaseID) partOf() int { return int(id.hash() >> 56) }

// home is where an id lies by its hash, if nothing lies there before it.
func (p *tablePart[V]) home(hash uint64) int {
	return int(hash & 0xFFFFFFFF * uint64(len(p.slots)) >> 32)
}

func (p *tablePart[V]) next(i int) int {
	if i++; i == len(p.slots) {
		return 0
	}
	return i
}

// Len returns how many values there are.
func (t *Table[V]) Len() int { return t.n }

// Get returns the value of an id.
func (t *Table[V]) Get(id LeaseID) (v V, ok bool) {
	if v := t.Find(id); v != nil {
		return *v, true
	}
	return v, false
}

// Find returns the place of an id's value, which is good until the next Put or Delete; nil: there is none.
func (t *Table[V]) Find(id LeaseID) *V {
	if id == (LeaseID{}) {
		return t.zero
	}
	if t.parts == nil {
		return nil
	}
	hash := id.hash()
	p := &t.parts[hash>>56]
	if len(p.slots) == 0 {
		return nil
	}
	for i := p.home(hash); ; i = p.next(i) {
		switch s := &p.slots[i]; s.id {
		case id:
			return &s.value
		case LeaseID{}:
			return nil
		}
	}
}

// Reserve makes room for n values in all, so that none of the next Puts has to make it.
func (t *Table[V]) Reserve(n int) {
	if t.parts == nil {
		t.parts = new([tableParts]tablePart[V])
	}
	// Ids are random, so that a part may get a few more than its share.
	each := n/tableParts + n/(8*tableParts)
	for i := range t.parts {
		if p := &t.parts[i]; each > leastSlots && len(p.slots) < each*16/13 {
			p.resize(each*16/13 + 1)
		}
	}
}

// Fit gives back the room of a Reserve that turned out to be far too large.
func (t *Table[V]) Fit() {
	if t.parts == nil {
		return
	}
	for i := range t.parts {
		if p := &t.parts[i]; p.n == 0 {
			p.slots = nil
		} else if p.n*2 < len(p.slots) && len(p.slots) > leastSlots {
			p.resize(max(leastSlots, p.n*3/2))
		}
	}
}

// Touch reads the place where an id lies or would lie, and returns what is of no use but to have it read. Each place is
// somewhere else in memory: a processor that touches many fetches several at a time, and each is at hand when it is
// looked at.
func (t *Table[V]) Touch(id *LeaseID) byte {
	if t.parts == nil {
		return 0
	}
	hash := id.hash()
	p := &t.parts[hash>>56]
	if len(p.slots) == 0 {
		return 0
	}
	return p.slots[p.home(hash)].id[0]
}

// InOrder returns ids in an order in which every Table takes them fastest: those that lie in the same part of it follow
// one another, and a part is so small that a processor has it at hand. It goes through the ids twice.
func InOrder(ids iter.Seq[LeaseID]) []LeaseID {
	var next [tableParts + 1]int
	for id := range ids {
		next[id.partOf()+1]++
	}
	for i := range tableParts {
		next[i+1] += next[i]
	}
	out := make([]LeaseID, next[tableParts])
	for id := range ids {
		at := &next[id.partOf()]
		out[*at] = id
		*at++
	}
	return out
}

// Put sets the value of an id.
func (t *Table[V]) Put(id LeaseID, v V) {
	is, _ := t.Place(id)
	*is = v
}

// Add sets the value of an id that has none, and returns nil; known reports that it has one, which stays, and where it
// is until the next Put or Delete.
func (t *Table[V]) Add(id LeaseID, v V) (is *V, known bool) {
	if is, known = t.Place(id); known {
		return is, true
	}
	*is = v
	return nil, false
}

// Place returns the place of an id's value, which is good until the next Put or Delete. known reports whether the id
// was there: if not, it is now, with a zero value.
func (t *Table[V]) Place(id LeaseID) (v *V, known bool) {
	if id == (LeaseID{}) {
		if known = t.zero != nil; !known {
			t.n++
			t.zero = new(V) // allocated only here
		}
		return t.zero, known
	}
	if t.parts == nil {
		t.parts = new([tableParts]tablePart[V])
	}
	hash := id.hash()
	p := &t.parts[hash>>56]
	i := 0
	if len(p.slots) > 0 {
		for i = p.home(hash); p.slots[i].id != (LeaseID{}); i = p.next(i) {
			if p.slots[i].id == id {
				return &p.slots[i].value, true
			}
		}
	}
	t.n++
	if p.n++; p.n*16 > len(p.slots)*13 {
		p.resize(max(leastSlots, len(p.slots)*3/2))
		i = p.free(hash)
	}
	s := &p.slots[i]
	s.id = id
	return &s.value, false
}

// free returns the free slot in which an id lies that is put in now.
func (p *tablePart[V]) free(hash uint64) int {
	i := p.home(hash)
	for p.slots[i].id != (LeaseID{}) {
		i = p.next(i)
	}
	return i
}

func (p *tablePart[V]) resize(slots int) {
	was := p.slots
	p.slots = make([]tableSlot[V], slots)
	for i := range was {
		if s := &was[i]; s.id != (LeaseID{}) {
			p.slots[p.free(s.id.hash())] = *s
		}
	}
}

// Delete takes an id out, if it is there.
func (t *Table[V]) Delete(id LeaseID) {
	if t.Find(id) == nil {
		return
	}
	t.n--
	if id == (LeaseID{}) {
		t.zero = nil
		return
	}
	hash := id.hash()
	p := &t.parts[hash>>56]
	free := p.home(hash)
	for p.slots[free].id != id {
		free = p.next(free)
	}
	// What lies behind only because of it moves up.
	for i := p.next(free); p.slots[i].id != (LeaseID{}); i = p.next(i) {
		home := p.home(p.slots[i].id.hash())
		if stays := free < i && home > free && home <= i || free > i && (home > free || home <= i); !stays {
			p.slots[free] = p.slots[i]
			free = i
		}
	}
	p.slots[free] = tableSlot[V]{}
	switch p.n--; {
	case p.n == 0 && len(p.slots) > leastSlots: // the fewest stay, for the one lease that comes and goes
		p.slots = nil
	case p.n*4 < len(p.slots) && len(p.slots) > 8:
		p.resize(len(p.slots) / 2)
	}
}

// All calls yield for every id and value, in no particular order, until it returns false. Nothing may be put in or
// taken out meanwhile.
func (t *Table[V]) All(yield func(LeaseID, V) bool) {
	if t.zero != nil && !yield(LeaseID{}, *t.zero) || t.parts == nil {
		return
	}
	for i := range t.parts {
		for _, s := range t.parts[i].slots {
			if s.id != (LeaseID{}) && !yield(s.id, s.value) {
				return
			}
		}
	}
}
