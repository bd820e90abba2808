package journal

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// journalOf returns the bytes of a journal of records, of which the first few were there when it got its name.
func journalOf(records [][]byte, base int) []byte {
	var b []byte
	end := int64(headerSize)
	for i, r := range records {
		b = appendRecord(b, headerSize+int64(len(b)), headerSize+int64(len(b)), r)
		if i < base {
			end = headerSize + int64(len(b))
		}
	}
	return append(header(end), b...)
}

// TestEveryBitIsMended flips every single bit of journals: each record comes back as it was, and no flip is taken for a
// torn tail.
func TestEveryBitIsMended(t *testing.T) {
	records := [][]byte{[]byte("a"), bytes.Repeat([]byte{0}, 40), []byte(strings.Repeat("long ", 120)), {0xff, 0},
		[]byte("last")}
	sound := journalOf(records, 2)
	j := &Journal{path: "j"}
	for i := range len(sound) * 8 {
		b := bytes.Clone(sound)
		b[i/8] ^= 1 << (i % 8)
		var r Repaired
		got, whole, err := j.salvage(b, &r)
		if err != nil || whole || r.Dropped != 0 || !slices.EqualFunc(got, records, slices.Equal[[]byte]) {
			t.Fatalf("bit %d: %q, sound %t, %+v, %v", i, got, whole, r, err)
		}
		if i < headerSize*8 {
			continue
		}
		good, err := scan(bytes.NewReader(b), headerSize, int64(len(b)), func([]byte) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if isTorn, err := torn(bytes.NewReader(b), good, int64(len(b)), headerSize); isTorn || err != nil {
			t.Fatalf("bit %d is taken for a torn tail: %v", i, err)
		}
	}
}

// TestTwoBitsAreNotMended: a record with more than one wrong bit never becomes one that was not written.
func TestTwoBitsAreNotMended(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := rapid.SliceOfN(rapid.Byte(), 1, 3000).Draw(t, "data")
		at := rapid.Int64Range(headerSize, 1<<40).Draw(t, "at")
		b := appendRecord(nil, at, at, data)
		bits := rapid.SliceOfNDistinct(rapid.IntRange(0, len(b)*8-1), 2, 2, rapid.ID).Draw(t, "bits")
		for _, i := range bits {
			b[i/8] ^= 1 << (i % 8)
		}
		if got, _ := mend(b, at); got != nil {
			t.Fatalf("bits %d: %q became %q", bits, data, got)
		}
	})
}

// TestMendingHostileBytes: bytes that only look like records cause no panic and no endless search.
func TestMendingHostileBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "bytes")
		mend(b, rapid.Int64Range(0, 1<<62).Draw(t, "at"))
		(&Journal{path: "j"}).salvage(append(header(headerSize), b...),
			&Repaired{})
	})
}
