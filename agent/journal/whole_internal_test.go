package journal

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// A long journal that is looked at in two halves is found to be as one that is looked at from one end to the other,
// wherever it is damaged, and also where a record has bytes that look like one.
func TestHalves(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	records := func(size func() int) (b []byte) {
		b = header(headerSize)
		for len(b) < halvesFrom+halvesFrom/4 {
			data := bytes.Repeat([]byte{byte(rng.Uint32())}, size())
			b = appendRecord(b, int64(len(b)), headerSize, data)
		}
		return b
	}
	short := records(func() int { return 1 + rng.IntN(4000) })
	long := records(func() int { return MaxRecord })
	// A record that lies over the middle, and has there what is a record in its own place.
	fake := slices.Clone(long[:headerSize])
	for len(fake) < halvesFrom/2 {
		fake = appendRecord(fake, int64(len(fake)), headerSize, make([]byte, 1000))
	}
	data := make([]byte, MaxRecord)
	at := int64(headerSize + (2*halvesFrom-headerSize)/2)
	for len(fake) < 2*halvesFrom {
		from := int64(len(fake) + recordHead)
		clear(data)
		if at > from && at < from+MaxRecord-100 {
			copy(data[at-from:], appendRecord(nil, at, headerSize, []byte("looks like one")))
		}
		data := data[:min(MaxRecord, max(1, 2*halvesFrom-len(fake)-recordHead))]
		fake = appendRecord(fake, int64(len(fake)), headerSize, data)
	}
	for name, b := range map[string][]byte{"short": short, "long": long, "fake": fake} {
		size := int64(len(b))
		if name == "fake" {
			if got, err := boundary(bytes.NewReader(b), at, size); got != at || err != nil {
				t.Errorf("the bytes in the middle do not look like a record: %d, want %d; %v", got, at, err)
			}
		}
		for _, damage := range []int64{-1, headerSize, size / 4, size/2 - 100, size / 2, size/2 + 100, size * 3 / 4,
			size - 1} {
			if damage >= 0 {
				b[damage] ^= 4
			}
			want, n, err := count(bytes.NewReader(b), headerSize, size)
			if err != nil {
				t.Fatal(err)
			}
			good, records, err := whole(bytes.NewReader(b), headerSize, size)
			if good != want || records != n || err != nil || damage < 0 && good != size {
				t.Errorf("%s, damaged at %d: good up to %d with %d records, %v; want %d, %d", name, damage, good,
					records,
					err, want, n)
			}
			if damage >= 0 {
				b[damage] ^= 4
			}
		}
	}
}
