// Package record writes and reads the fields of journal records: numbers as varints (encoding/binary), texts with their
// length before them, times in nanoseconds since 1970. It does not know whole records: the caller decides which fields
// follow one another, and in which version. Start reading at [Writer] and [Reader].
package record

import (
	"encoding/binary"
	"errors"
	"time"
)

// ErrUnreadable reports a record that no version of this program has written.
var ErrUnreadable = errors.New(
	"a record of the journal cannot be read: it was written by another version, or is not one")

// ErrNewer reports a record of a later version.
var ErrNewer = errors.New("a record of the journal was written by a newer usher: use that one")

// Writer appends fields to Bytes.
type Writer struct{ Bytes []byte }

// Uint writes a number that is not negative.
func (w *Writer) Uint(n uint64) { w.Bytes = binary.AppendUvarint(w.Bytes, n) }

// Int writes a number.
func (w *Writer) Int(n int64) { w.Bytes = binary.AppendVarint(w.Bytes, n) }

// Text writes a text.
func (w *Writer) Text(s string) {
	w.Uint(uint64(len(s)))
	w.Bytes = append(w.Bytes, s...)
}

// Flag writes a truth value, as one byte.
func (w *Writer) Flag(b bool) {
	var v byte
	if b {
		v = 1
	}
	w.Bytes = append(w.Bytes, v)
}

// Time writes an instant; the zero time is written as 0.
func (w *Writer) Time(t time.Time) {
	if t.IsZero() {
		w.Int(0)
		return
	}
	w.Int(t.UnixNano())
}

// Reader reads fields in the order in which a [Writer] wrote them. After the first field that it cannot read, Bad is
// set, Bytes is empty, and every further field is zero.
type Reader struct {
	Bytes []byte // the bytes that are still to be read
	Bad   bool
}

// Fail makes everything that follows bad.
func (r *Reader) Fail() { r.Bad, r.Bytes = true, nil }

// Ended reports whether the record was readable and has nothing left.
func (r *Reader) Ended() bool { return !r.Bad && len(r.Bytes) == 0 }

// Byte reads one byte.
func (r *Reader) Byte() byte {
	if len(r.Bytes) == 0 {
		r.Fail()
		return 0
	}
	v := r.Bytes[0]
	r.Bytes = r.Bytes[1:]
	return v
}

// Uint reads what [Writer.Uint] wrote.
func (r *Reader) Uint() uint64 {
	if len(r.Bytes) > 0 && r.Bytes[0] < 0x80 { // as most are
		v := r.Bytes[0]
		r.Bytes = r.Bytes[1:]
		return uint64(v)
	}
	return r.long()
}

// long is Uint for a number of any length. Of nine bytes, as an instant of our time has them, eight are read at a time.
func (r *Reader) long() uint64 {
	const more = 0x8080808080808080 // the bit of each byte that says that another follows
	if b := r.Bytes; len(b) > 8 && b[8] < 0x80 {
		if x := binary.LittleEndian.Uint64(b); x&more == more {
			r.Bytes = b[9:]
			x &^= more
			x = x&0x007F007F007F007F | x&0x7F007F007F007F00>>1 // 7 bits of each byte become 14 of each two,
			x = x&0x00003FFF00003FFF | x&0x3FFF00003FFF0000>>2 // 28 of each four,
			x = x&0x000000000FFFFFFF | x&0x0FFFFFFF00000000>>4 // and 56 of all
			return x | uint64(b[8])<<56
		}
	}
	v, n := binary.Uvarint(r.Bytes)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.Bytes = r.Bytes[n:]
	return v
}

// Int reads what [Writer.Int] wrote.
func (r *Reader) Int() int64 {
	v := r.Uint()
	return int64(v>>1) ^ -int64(v&1)
}

// Count reads how many things follow, each of at least one byte.
func (r *Reader) Count() int {
	n := r.Uint()
	if n > uint64(len(r.Bytes)) {
		r.Fail()
		return 0
	}
	return int(n)
}

// Into fills a slice from the bytes that follow.
func (r *Reader) Into(to []byte) {
	if len(r.Bytes) < len(to) {
		r.Fail()
		return
	}
	copy(to, r.Bytes)
	r.Bytes = r.Bytes[len(to):]
}

// Raw reads a text without copying it: the slice is part of the record.
func (r *Reader) Raw() []byte {
	n := r.Count()
	b := r.Bytes[:n]
	r.Bytes = r.Bytes[n:]
	return b
}

// Text reads what [Writer.Text] wrote.
func (r *Reader) Text() string { return string(r.Raw()) }

// Flag reads what [Writer.Flag] wrote. Any byte but 0 and 1 is bad.
func (r *Reader) Flag() bool {
	v := r.Byte()
	if v > 1 {
		r.Fail()
	}
	return v == 1
}

// Time reads what [Writer.Time] wrote, in UTC.
func (r *Reader) Time() time.Time {
	n := r.Int()
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
