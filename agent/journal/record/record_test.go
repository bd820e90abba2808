package record

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A reader returns what a writer wrote, and every cut of it is bad.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n, i, s := rapid.Uint64().Draw(t, "n"), rapid.Int64().Draw(t, "i"), rapid.String().Draw(t, "s")
		flag, at := rapid.Bool().Draw(t, "flag"), time.Unix(0, rapid.Int64Min(1).Draw(t, "at")).UTC()
		var w Writer
		w.Uint(n)
		w.Int(i)
		w.Text(s)
		w.Flag(flag)
		w.Time(at)
		w.Time(time.Time{})
		w.Bytes = append(w.Bytes, 7, 8, 9)
		read := func(b []byte) (*Reader, bool) {
			r := &Reader{Bytes: b}
			var three [3]byte
			same := r.Uint() == n
			same = r.Int() == i && same
			same = r.Text() == s && same
			same = r.Flag() == flag && same
			same = r.Time().Equal(at) && same
			same = r.Time().IsZero() && same
			r.Into(three[:])
			return r, same && bytes.Equal(three[:], []byte{7, 8, 9})
		}
		if r, same := read(w.Bytes); !same || !r.Ended() {
			t.Fatalf("it reads another: %+v", r)
		}
		cut := rapid.IntRange(0, len(w.Bytes)-1).Draw(t, "cut")
		if r, _ := read(w.Bytes[:cut]); !r.Bad || r.Ended() || len(r.Bytes) > 0 {
			t.Fatalf("%d of %d bytes are read: %+v", cut, len(w.Bytes), r)
		}
	})
}

// A number of any length is read as encoding/binary does, whatever follows it, and what is none is bad.
func TestNumbers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.OneOf(rapid.SliceOfN(rapid.Byte(), 0, 12), rapid.SliceOfN(rapid.ByteMin(0x80), 0, 12)).Draw(t, "b")
		b = append(b, rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "more")...)
		want, n := binary.Uvarint(b)
		bad := n <= 0
		if bad {
			want, n = 0, len(b)
		}
		r := &Reader{Bytes: b}
		if got := r.Uint(); got != want || r.Bad != bad || len(r.Bytes) != len(b)-n {
			t.Fatalf("% x is %d, bad %v, and %d bytes are left; want %d, %v, %d", b, got, r.Bad, len(r.Bytes), want,
				bad,
				len(b)-n)
		}
	})
}

// A record that no writer has written is bad: a flag of 2, a number without an end, more things than there are bytes.
func TestBad(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(*Reader){
		"\x02":         func(r *Reader) { r.Flag() },
		"\x80":         func(r *Reader) { r.Uint() },
		"\x80\x80":     func(r *Reader) { r.Int() },
		"\x05abcd":     func(r *Reader) { r.Text() },
		"\xff\xff\x03": func(r *Reader) { r.Count() },
		"ab":           func(r *Reader) { r.Into(make([]byte, 3)) },
		"":             func(r *Reader) { r.Byte() },
	} {
		r := &Reader{Bytes: []byte(name)}
		if read(r); !r.Bad || len(r.Bytes) > 0 {
			t.Errorf("%q: %+v", name, r)
		}
	}
}
