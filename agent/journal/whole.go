package journal

import (
	"io"
)

const (
	// halvesFrom is from how many bytes on a journal is looked at in two halves at a time.
	halvesFrom = 4 << 20
	// halfWithin is how many bytes behind the middle the second half may begin. A record longer than that may lie over
	// the middle: such a journal is looked at from one end to the other.
	halfWithin = 8 << 10
)

// whole is scan that only counts the records. It looks at a long journal in two halves at a time.
func whole(r io.ReaderAt, from, to int64) (good int64, records int, err error) {
	middle := to
	if to-from >= halvesFrom {
		if middle, err = boundary(r, from+(to-from)/2, to); err != nil {
			return from, 0, err
		}
	}
	second := make(chan struct{})
	var behind struct {
		good    int64
		records int
		err     error
	}
	go func() {
		defer close(second)
		behind.good, behind.records, behind.err = count(r, middle, to)
	}()
	good, records, err = count(r, from, middle)
	<-second
	switch {
	case err != nil:
		return good, records, err
	case good == middle:
		return behind.good, records + behind.records, behind.err
	}
	// Either the first half is damaged, or what looked like a boundary was within a record.
	good, more, err := count(r, good, to)
	return good, records + more, err
}

// count is scan that only counts the records.
func count(r io.ReaderAt, from, to int64) (good int64, records int, err error) {
	good, err = scan(r, from, to, func([]byte) error {
		records++
		return nil
	})
	return good, records, err
}

// boundary returns where a good record begins, at an offset or soon behind it; to: none was found.
func boundary(r io.ReaderAt, at, to int64) (int64, error) {
	b := make([]byte, min(2*halfWithin, to-at))
	n, err := r.ReadAt(b, at)
	if err = onlyReal(err); err != nil {
		return 0, err
	}
	for i := range min(n, halfWithin) {
		if data, _, _ := parseRecord(b[i:n], at+int64(i)); data != nil {
			return at + int64(i), nil
		}
	}
	return to, nil
}
