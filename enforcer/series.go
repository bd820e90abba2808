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

func (c Cursor) compare(o Cursor) int {
	if d := c.At.Compare(o.At); d != 0 {
		return d
	}
	return bytes.Compare(c.ID[:], o.ID[:])
}

// blockSize is how many leases a block of a series has at the most.
const blockSize = 256

// series is leases in the order of their cursors. Adding the latest takes always as long, and so does removing it. Any
// other lease takes a binary search and a move within one block. No block is empty.
type series struct {
	blocks [][]*held
	n      int
}

// blockOf returns the block that has a place, or would have it.
func (s *series) blockOf(c Cursor) int {
	last := len(s.blocks) - 1
	if last <= 0 || CursorOf(s.blocks[last][0].Lease).compare(c) <= 0 {
		return max(0, last)
	}
	i, found := slices.BinarySearchFunc(s.blocks[:last], c, func(b []*held, c Cursor) int {
		return CursorOf(b[0].Lease).compare(c)
	})
	if !found {
		i--
	}
	return max(0, i)
}

// in returns the place in a block that a cursor has, or would have.
func in(block []*held, c Cursor) (int, bool) {
	return slices.BinarySearchFunc(block, c, func(h *held, c Cursor) int { return CursorOf(h.Lease).compare(c) })
}

func (s *series) add(h *held) {
	s.n++
	if len(s.blocks) == 0 {
		var b []*held
		if cap(s.blocks) > 0 { // what drop left
			b = s.blocks[:1][0]
		}
		s.blocks = append(s.blocks, append(b, h))
		return
	}
	c := CursorOf(h.Lease)
	i := s.blockOf(c)
	b := s.blocks[i]
	at := len(b)
	if CursorOf(b[at-1].Lease).compare(c) > 0 {
		at, _ = in(b, c)
	}
	switch {
	case len(b) < blockSize:
		s.blocks[i] = slices.Insert(b, at, h)
	case at == len(b) && i+1 < len(s.blocks) && len(s.blocks[i+1]) < blockSize:
		s.blocks[i+1] = slices.Insert(s.blocks[i+1], 0, h)
	case at == len(b):
		s.blocks = slices.Insert(s.blocks, i+1, []*held{h})
	default:
		half := len(b) / 2
		second := slices.Clone(b[half:])
		clear(b[half:])
		first := b[:half]
		if at <= half {
			first = slices.Insert(first, at, h)
		} else {
			second = slices.Insert(second, at-half, h)
		}
		s.blocks[i] = first
		s.blocks = slices.Insert(s.blocks, i+1, second)
	}
}

// remove takes a lease out, which is in it.
func (s *series) remove(h *held) {
	s.n--
	i := s.blockOf(CursorOf(h.Lease))
	b := s.blocks[i]
	at := len(b) - 1
	if b[at] != h {
		at = slices.Index(b, h)
	}
	b = slices.Delete(b, at, at+1)
	s.blocks[i] = b
	if len(b) == 0 {
		s.drop(i)
		s.join(i - 1)
	} else if len(b) <= blockSize/4 && !s.join(i) {
		s.join(i - 1)
	}
}

// join makes one block of two that follow on each other, where both have few leases, and reports whether it did.
func (s *series) join(i int) bool {
	if i < 0 || i+1 >= len(s.blocks) || len(s.blocks[i])+len(s.blocks[i+1]) > blockSize/2 {
		return false
	}
	s.blocks[i] = append(s.blocks[i], s.blocks[i+1]...)
	s.drop(i + 1)
	return true
}

// leastBlock is how much room an empty series keeps, so that one lease that comes and goes makes none each time.
const leastBlock = 8

func (s *series) drop(i int) {
	if len(s.blocks) == 1 && cap(s.blocks) <= leastBlock && cap(s.blocks[0]) <= leastBlock {
		s.blocks[0] = s.blocks[0][:0] // its leases were cleared
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
		if at, found = in(s.blocks[i], c); found {
			at++
		}
	}
	return func() (*held, bool) {
		for ; i < len(s.blocks); i, at = i+1, 0 {
			if at < len(s.blocks[i]) {
				at++
				return s.blocks[i][at-1], true
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
	next := s.from(c)
	for h, ok := next(); ok && yield(h); h, ok = next() {
	}
}

// all calls yield with each lease in its order, until it returns false.
func (s *series) all(yield func(*held) bool) {
	for _, b := range s.blocks {
		for _, h := range b {
			if !yield(h) {
				return
			}
		}
	}
}

// latest calls yield with each lease, the latest first, until it returns false.
func (s *series) latest(yield func(*held) bool) {
	for _, b := range slices.Backward(s.blocks) {
		for _, h := range slices.Backward(b) {
			if !yield(h) {
				return
			}
		}
	}
}
