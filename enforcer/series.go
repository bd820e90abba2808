package enforcer

import (
	"bytes"
	"slices"
	"time"
)

// Cursor is a place in a list of leases, which are in the order of their grants: by AcquiredAt, and by id where that is
// equal. The zero value is before the first. A lease never changes its place, and a restart changes none either.
type Cursor struct {
	At time.Time
	ID LeaseID
}

// CursorOf returns a lease's place.
func CursorOf(l *Lease) Cursor { return Cursor{l.AcquiredAt, l.ID} }

// set and isBefore look at the lease itself, which has often just been made: see Room.one.
func (c *Cursor) set(l *Lease) { c.At, c.ID = l.AcquiredAt, l.ID }

func (c *Cursor) isBefore(l *Lease) bool {
	d := c.At.Compare(l.AcquiredAt)
	return d < 0 || d == 0 && bytes.Compare(c.ID[:], l.ID[:]) < 0
}

func (c Cursor) compare(o Cursor) int {
	if d := c.At.Compare(o.At); d != 0 {
		return d
	}
	return bytes.Compare(c.ID[:], o.ID[:])
}

// blockSize is how many leases a block of a series has at the most.
const blockSize = 256

// series is leases in the order of their cursors. What lies where is known without a look at the leases themselves, and
// each of those is somewhere else in memory: adding the latest and removing it looks at none, and finding any other
// looks at those of one block. Adding one between others looks at a few of a block and moves the rest of it.
type series struct {
	blocks []block // none is empty
	n      int
	// No lease is behind high, and none but the last one is behind before.
	high, before Cursor
}

// block is some of the leases. None of them is before low, and all of the blocks before it are.
type block struct {
	low    Cursor
	leases []*held
}

// blockOf returns the block that has a place, or would have it.
func (s *series) blockOf(c Cursor) int {
	last := len(s.blocks) - 1
	if last <= 0 || s.blocks[last].low.compare(c) <= 0 {
		return max(0, last)
	}
	i, found := slices.BinarySearchFunc(s.blocks[:last], c, func(b block, c Cursor) int { return b.low.compare(c) })
	if !found {
		i--
	}
	return max(0, i)
}

// in returns the place in a block that a cursor has, or would have.
func in(leases []*held, c Cursor) (int, bool) {
	return slices.BinarySearchFunc(leases, c, func(h *held, c Cursor) int { return CursorOf(h.Lease).compare(c) })
}

func (s *series) add(h *held) {
	s.n++
	if len(s.blocks) == 0 {
		var b []*held
		if cap(s.blocks) > 0 { // what drop left
			b = s.blocks[:1][0].leases
		}
		s.blocks = append(s.blocks, block{leases: append(b, h)})
		s.blocks[0].low.set(h.Lease)
		s.high.set(h.Lease)
		s.before = Cursor{}
		return
	}
	if s.before.At, s.before.ID = s.high.At, s.high.ID; !s.high.isBefore(h.Lease) {
		s.insert(CursorOf(h.Lease), h)
		return
	}
	s.high.set(h.Lease)
	if last := &s.blocks[len(s.blocks)-1]; len(last.leases) < blockSize {
		last.leases = append(last.leases, h)
		return
	}
	// Where one block was filled, the next is likely to be.
	s.blocks = append(s.blocks, block{CursorOf(h.Lease), append(make([]*held, 0, blockSize), h)})
}

// insert adds a lease that may have others behind it.
func (s *series) insert(c Cursor, h *held) {
	i := s.blockOf(c)
	b := &s.blocks[i]
	at, _ := in(b.leases, c)
	if at == 0 {
		b.low = c
	}
	switch {
	case len(b.leases) < blockSize:
		b.leases = slices.Insert(b.leases, at, h)
	case at == len(b.leases) && i+1 < len(s.blocks) && len(s.blocks[i+1].leases) < blockSize:
		next := &s.blocks[i+1]
		next.low, next.leases = c, slices.Insert(next.leases, 0, h)
	case at == len(b.leases):
		s.blocks = slices.Insert(s.blocks, i+1, block{c, []*held{h}})
	default:
		half := len(b.leases) / 2
		second := slices.Clone(b.leases[half:])
		low := CursorOf(second[0].Lease)
		clear(b.leases[half:])
		b.leases = b.leases[:half]
		if at <= half {
			b.leases = slices.Insert(b.leases, at, h)
		} else {
			second = slices.Insert(second, at-half, h)
		}
		s.blocks = slices.Insert(s.blocks, i+1, block{low, second})
	}
}

// remove takes a lease out, which is in it.
func (s *series) remove(h *held) {
	s.n--
	i := len(s.blocks) - 1
	b := s.blocks[i].leases
	at := len(b) - 1
	if b[at] == h {
		s.high.At, s.high.ID = s.before.At, s.before.ID
	} else {
		i = s.blockOf(CursorOf(h.Lease))
		b = s.blocks[i].leases
		at = slices.Index(b, h)
	}
	b = slices.Delete(b, at, at+1)
	s.blocks[i].leases = b
	if len(b) == 0 {
		s.drop(i)
		s.join(i - 1)
	} else if len(b) <= blockSize/4 && !s.join(i) {
		s.join(i - 1)
	}
}

// join makes one block of two that follow on each other, where both have few leases, and reports whether it did.
func (s *series) join(i int) bool {
	if i < 0 || i+1 >= len(s.blocks) || len(s.blocks[i].leases)+len(s.blocks[i+1].leases) > blockSize/2 {
		return false
	}
	s.blocks[i].leases = append(s.blocks[i].leases, s.blocks[i+1].leases...)
	s.drop(i + 1)
	return true
}

// leastBlock is how much room an empty series keeps, so that one lease that comes and goes makes none each time.
const leastBlock = 8

func (s *series) drop(i int) {
	if len(s.blocks) == 1 && cap(s.blocks) <= leastBlock && cap(s.blocks[0].leases) <= leastBlock {
		s.blocks[0].leases = s.blocks[0].leases[:0] // its leases were cleared
		s.blocks = s.blocks[:0]
		return
	}
	s.blocks = slices.Delete(s.blocks, i, i+1)
	if len(s.blocks) == 0 {
		s.blocks = nil
	}
}

// from returns a function that returns the leases behind a place, one after the other in their order, until there are
// no more.
func (s *series) from(c Cursor) func() (*held, bool) {
	i, at := 0, 0
	if s.n > 0 {
		i = s.blockOf(c)
		found := false
		if at, found = in(s.blocks[i].leases, c); found {
			at++
		}
	}
	return func() (*held, bool) {
		for ; i < len(s.blocks); i, at = i+1, 0 {
			if at < len(s.blocks[i].leases) {
				at++
				return s.blocks[i].leases[at-1], true
			}
		}
		return nil, false
	}
}

// behind is after for a range.
func (s *series) behind(c Cursor) func(func(*held) bool) {
	return func(yield func(*held) bool) { s.after(c, yield) }
}

// after calls yield with the leases behind a place, in their order, until it returns false.
func (s *series) after(c Cursor, yield func(*held) bool) {
	if s == nil {
		return
	}
	next := s.from(c)
	for h, ok := next(); ok && yield(h); h, ok = next() {
	}
}

// all calls yield with each lease in its order, until it returns false.
func (s *series) all(yield func(*held) bool) {
	if s == nil {
		return
	}
	for _, b := range s.blocks {
		for _, h := range b.leases {
			if !yield(h) {
				return
			}
		}
	}
}

// latest calls yield with each lease, the latest first, until it returns false.
func (s *series) latest(yield func(*held) bool) {
	if s == nil {
		return
	}
	for _, b := range slices.Backward(s.blocks) {
		for _, h := range slices.Backward(b.leases) {
			if !yield(h) {
				return
			}
		}
	}
}
