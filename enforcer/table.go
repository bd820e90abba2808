package enforcer

import (
	"encoding/binary"
	"iter"
	"math/bits"
)

// tableParts is how many parts a Table has: so few leases are in each that growing one, or going through one, is short
// work even with a million leases.
const tableParts = 256

// mostYoung is how many of the latest ids a Table keeps by themselves.
const mostYoung = 1000

// Table maps the ids of leases to values. It takes memory for what is in it and not for what once was, and never stops
// for long to grow or to shrink. Ids are random, so that their own bits say where a value lies. A zero Table is empty.
// It is not safe for concurrent use.
//
// Most leases that end are young. So the latest ids have a part of their own, which is so small that a processor has it
// at hand: what comes and soon goes again touches nothing else, however many there are. When that part is full, each
// that comes sends one on to the old ones.
type Table[V any] struct {
	young tablePart[V]
	hand  int                       // the entry of young that is sent on next
	parts *[tableParts]tablePart[V] // the old ones, by their hash; nil: there are none
	old   int                       // how many they are
}

// tablePart is a hash table with linear probing (Knuth, The Art of Computer Programming, vol. 3, section 6.4,
// algorithms L and R). The index alone is probed. It is so small that with a million leases a processor still has most
// of it in its second cache, and its pages at hand. The entries lie close together, and the one that was freed last is
// used next, so that a lease that comes and goes is at the same place each time.
type tablePart[V any] struct {
	// index has for an entry its number in the lower shift bits, counted from 1, and bits of its hash above. 0: free.
	index   []uint32
	entries []tableEntry[V]
	free    uint32 // the number of the first free entry, whose id begins with the number of the next; 0: none
	n       int32
	shift   uint8
}

// leastPlaces is how many places the index of a part has at the least, once anything was put in.
const leastPlaces = 4

// No more than mostUsed in mostOf places of an index are used, so that an id is found, or missed, after two to four
// looks (Knuth, section 6.4, formulas 36 and 37). With thirteen in sixteen there would be up to fifteen.
const mostUsed, mostOf = 5, 8

type tableEntry[V any] struct {
	id    LeaseID
	value V
}

// leastPart is what the smallest part has, made at once.
type leastPart[V any] struct {
	index   [leastPlaces]uint32
	entries [leastPlaces * mostUsed / mostOf]tableEntry[V]
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

// home is where an entry lies by the lower 32 bits of its hash, or what the index has of them, if nothing lies there
// before it.
func (p *tablePart[V]) home(hash uint32) int {
	return int(uint64(hash>>p.shift) * uint64(len(p.index)) >> (32 - p.shift))
}

// Len returns how many values there are.
func (t *Table[V]) Len() int { return int(t.young.n) + t.old }

// Get returns the value of an id.
func (t *Table[V]) Get(id LeaseID) (v V, ok bool) {
	if v := t.Find(id); v != nil {
		return *v, true
	}
	return v, false
}

// Find returns the place of an id's value, which is good until the next Put or Delete; nil: there is none.
func (t *Table[V]) Find(id LeaseID) *V {
	hash := id.hash()
	if at, there := t.young.find(uint32(hash), &id); there {
		return &t.young.entry(at).value
	}
	if t.old == 0 {
		return nil
	}
	p := &t.parts[hash>>56]
	if at, there := p.find(uint32(hash), &id); there {
		return &p.entry(at).value
	}
	return nil
}

// entry returns the entry of a place that has one.
func (p *tablePart[V]) entry(at int) *tableEntry[V] { return &p.entries[p.index[at]&(1<<p.shift-1)-1] }

// find returns the place of an id, or else the free place that it would get; -1: the part has no places.
func (p *tablePart[V]) find(hash uint32, id *LeaseID) (at int, there bool) {
	index := p.index
	if len(index) == 0 {
		return -1, false
	}
	for at = p.home(hash); index[at] != 0; {
		if (index[at]^hash)>>p.shift == 0 && p.entry(at).id == *id {
			return at, true
		}
		if at++; at == len(index) {
			at = 0
		}
	}
	return at, false
}

// Reserve makes room for n values in all, so that none of the next Puts has to make it.
func (t *Table[V]) Reserve(n int) {
	if n <= mostYoung {
		if t.old == 0 && cap(t.young.entries) < n {
			t.young.resize(placesFor(n))
		}
		return
	}
	if t.parts == nil {
		t.parts = new([tableParts]tablePart[V])
	}
	// Ids are random, so that a part may get a few more than its share.
	each := n/tableParts + n/(8*tableParts)
	for i := range t.parts {
		if p := &t.parts[i]; each > 2 && cap(p.entries) < each {
			p.resize(placesFor(each))
		}
	}
}

// Fit gives back the room of a Reserve that turned out to be far too large.
func (t *Table[V]) Fit() {
	t.young.fit()
	if t.old == 0 {
		t.parts = nil
		return
	}
	for i := range t.parts {
		t.parts[i].fit()
	}
}

func (p *tablePart[V]) fit() {
	if p.n == 0 {
		*p = tablePart[V]{}
	} else if int(p.n)*mostOf/mostUsed < cap(p.entries) {
		p.resize(placesFor(int(p.n)))
	}
}

// placesFor returns how many places an index of n entries needs.
func placesFor(n int) int { return max(leastPlaces, (n*mostOf+mostUsed-1)/mostUsed) }

// Touch reads the place where an id lies or would lie, and returns what is of no use but to have it read. Each place is
// somewhere else in memory: a processor that touches many fetches several at a time, and each is at hand when it is
// looked at.
func (t *Table[V]) Touch(id *LeaseID) byte {
	if t.parts == nil {
		return 0
	}
	hash := id.hash()
	p := &t.parts[hash>>56]
	if len(p.index) == 0 {
		return 0
	}
	return byte(p.index[p.home(uint32(hash))])
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
	hash := id.hash()
	if t.old == 0 {
		return t.place(hash, &id)
	}
	if at, there := t.young.find(uint32(hash), &id); there {
		return &t.young.entry(at).value, true
	}
	p := &t.parts[hash>>56]
	at, there := p.find(uint32(hash), &id)
	if there {
		return &p.entry(at).value, true
	}
	t.old++
	return &p.place(at, uint32(hash), &id, len(p.index)*3/2).value, false
}

// New is Place for an id of which the caller knows that it is not there: the old ones are not looked at.
func (t *Table[V]) New(id LeaseID) *V {
	v, _ := t.place(id.hash(), &id)
	return v
}

// place is Place among the young.
func (t *Table[V]) place(hash uint64, id *LeaseID) (v *V, known bool) {
	p := &t.young
	at, there := p.find(uint32(hash), id)
	if there {
		return &p.entry(at).value, true
	}
	if p.n >= mostYoung {
		t.sendOn()
		at, _ = p.find(uint32(hash), id)
	}
	return &p.place(at, uint32(hash), id, min(len(p.index)*3/2, placesFor(mostYoung))).value, false
}

// sendOn makes one of the young, who are as many as may be, one of the old.
func (t *Table[V]) sendOn() {
	if t.parts == nil {
		t.parts = new([tableParts]tablePart[V])
	}
	e := &t.young.entries[t.hand%len(t.young.entries)]
	t.hand++
	hash, id, value := e.id.hash(), e.id, e.value
	at, _ := t.young.find(uint32(hash), &id)
	t.young.remove(at)
	p := &t.parts[hash>>56]
	at, _ = p.find(uint32(hash), &id)
	p.place(at, uint32(hash), &id, len(p.index)*3/2).value = value
	t.old++
}

// place makes an entry without a value for an id that is not there, and gives it a free place. Where there is no room,
// the index gets so many places.
func (p *tablePart[V]) place(at int, hash uint32, id *LeaseID, places int) *tableEntry[V] {
	if int(p.n) == cap(p.entries) {
		p.resize(max(leastPlaces, places))
		at, _ = p.find(hash, id)
	}
	return p.put(at, hash, *id)
}

// put makes an entry without a value for an id, and gives it a free place.
func (p *tablePart[V]) put(at int, hash uint32, id LeaseID) *tableEntry[V] {
	number := p.free
	if number == 0 {
		p.entries = append(p.entries, tableEntry[V]{})
		number = uint32(len(p.entries))
	}
	e := &p.entries[number-1]
	if number == p.free {
		p.free = binary.LittleEndian.Uint32(e.id[:])
	}
	e.id = id
	p.index[at] = hash>>p.shift<<p.shift | number
	p.n++
	return e
}

// resize gives a part an index of so many places, and room for as many entries as that may have.
func (p *tablePart[V]) resize(places int) {
	was := *p
	if places == leastPlaces {
		least := new(leastPart[V])
		*p = tablePart[V]{index: least.index[:], entries: least.entries[:0]}
	} else {
		*p = tablePart[V]{index: make([]uint32, places), entries: make([]tableEntry[V], 0, places*mostUsed/mostOf)}
	}
	p.shift = uint8(bits.Len(uint(cap(p.entries))))
	for at, x := range was.index {
		if x != 0 {
			e := was.entry(at)
			hash := uint32(e.id.hash())
			free, _ := p.find(hash, &e.id)
			p.put(free, hash, e.id).value = e.value
		}
	}
}

// Delete takes an id out, if it is there.
func (t *Table[V]) Delete(id LeaseID) {
	hash := id.hash()
	if at, there := t.young.find(uint32(hash), &id); there {
		t.young.remove(at)
		t.young.shrink()
		return
	}
	if t.old == 0 {
		return
	}
	p := &t.parts[hash>>56]
	if at, there := p.find(uint32(hash), &id); there {
		p.remove(at)
		p.shrink()
		t.old--
	}
}

// remove frees a place and its entry.
func (p *tablePart[V]) remove(at int) {
	p.n--
	e := p.entry(at)
	*e = tableEntry[V]{}
	binary.LittleEndian.PutUint32(e.id[:], p.free)
	p.free = p.index[at] & (1<<p.shift - 1)
	p.unplace(at)
}

// shrink gives back room that is not needed.
func (p *tablePart[V]) shrink() {
	switch n := int(p.n); {
	case n == 0 && len(p.index) > leastPlaces: // the fewest stay, for the one lease that comes and goes
		*p = tablePart[V]{}
	case n*4 < cap(p.entries) && len(p.index) > 2*leastPlaces:
		p.resize(len(p.index) / 2)
	}
}

// unplace frees a place. What lies behind only because of it moves up.
func (p *tablePart[V]) unplace(free int) {
	index := p.index
	for at := free; ; {
		if at++; at == len(index) {
			at = 0
		}
		if index[at] == 0 {
			break
		}
		home := p.home(index[at])
		if stays := free < at && home > free && home <= at || free > at && (home > free || home <= at); !stays {
			index[free] = index[at]
			free = at
		}
	}
	index[free] = 0
}

// All calls yield for every id and value, in no particular order, until it returns false. Nothing may be put in or
// taken out meanwhile.
func (t *Table[V]) All(yield func(LeaseID, V) bool) {
	if !t.young.all(yield) || t.old == 0 {
		return
	}
	for i := range t.parts {
		if !t.parts[i].all(yield) {
			return
		}
	}
}

// all reports whether yield wants more.
func (p *tablePart[V]) all(yield func(LeaseID, V) bool) bool {
	for at, x := range p.index {
		if x != 0 {
			if e := p.entry(at); !yield(e.id, e.value) {
				return false
			}
		}
	}
	return true
}
