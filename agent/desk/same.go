package desk

import (
	"bytes"

	"github.com/usher-agent/usher/enforcer"
)

// sameParts are the parts that many records have alike, by their bytes: the leases of one holder share it, those of as
// many slots of one pool their items, and those of one licence its terms. None of these is ever changed.
type sameParts struct {
	version byte // of the records that they are of
	holders known[*enforcer.Holder]
	items   known[[]enforcer.Item]
	terms   known[*enforcer.Terms]
	// What follows is room to read in.
	reader, ahead recordReader
	holder        enforcer.Holder
}

// known are the parts of one kind that were read. A record mostly has the part that the record before it has.
type known[T any] struct {
	last  []byte // of the record that was read last
	value T      // as last says
	all   map[string]T
}

// mostSame bounds how many of each kind are remembered.
const mostSame = 1 << 16

func newSameParts() *sameParts {
	return &sameParts{holders: known[*enforcer.Holder]{all: map[string]*enforcer.Holder{}},
		items: known[[]enforcer.Item]{all: map[string][]enforcer.Item{}}}
}

// forget forgets all parts.
func (s *sameParts) forget() {
	s.holders.forget()
	s.items.forget()
	s.terms.forget()
}

func (k *known[T]) forget() {
	k.last = k.last[:0]
	clear(k.all)
}

// skip reports whether r is at the part that was read last, and takes r behind it. Where a part ends follows from its
// own bytes, so that the same bytes are the same part whatever comes behind.
func (k *known[T]) skip(r *recordReader) bool {
	if len(k.last) == 0 || !bytes.HasPrefix(r.Bytes, k.last) {
		return false
	}
	r.Bytes = r.Bytes[len(k.last):]
	return true
}

// set says what was read last.
func (k *known[T]) set(raw []byte, v T) { k.last, k.value = append(k.last[:0], raw...), v }

// remembered returns the part that r is at, as read makes it of r the first time.
func remembered[T any](r *recordReader, k *known[T], read func(*recordReader) T) T {
	if k.skip(r) {
		return k.value
	}
	ahead := &r.same.ahead
	*ahead = *r
	ahead.dry = true
	read(ahead)
	if ahead.Bad {
		return read(r)
	}
	raw := r.Bytes[:len(r.Bytes)-len(ahead.Bytes)]
	v, ok := k.all[string(raw)]
	if ok {
		r.Bytes = ahead.Bytes
	} else {
		v = read(r)
		if len(k.all) == mostSame {
			clear(k.all)
		}
		k.all[string(raw)] = v
	}
	k.set(raw, v)
	return v
}

// sameTerms is terms that makes none where those of the record before are the same.
func (r *recordReader) sameTerms() *enforcer.Terms {
	if r.same == nil {
		return r.terms()
	}
	k := &r.same.terms
	if k.skip(r) {
		return k.value
	}
	from := r.Bytes
	t := r.terms()
	if !r.Bad {
		k.set(from[:len(from)-len(r.Bytes)], t)
	}
	return t
}
