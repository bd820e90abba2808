package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"
	"slices"
)

// The format, version 1; every number is little-endian.
//
//	header   magic "USHERJ1\n" · version uint32 · base uint64 · CRC32C of these 20 bytes
//	record   length uint32 · CRC32C · mark uint64 · data
//
// A record's CRC covers the offset it stands at (as uint64), its length, its mark and its data, so that bytes which
// only look like a record, because they lie inside another one or come from elsewhere, do not count as one. Base is the
// offset up to which the file was complete before it got its name: damage before it is never a torn tail. Mark is the
// offset up to which the file was known to be safe when the record was written: damage before the mark of a later
// record is never a torn tail either.
const (
	magic      = "USHERJ1\n"
	version    = 1
	headerSize = 24
	recordHead = 16
	sector     = 512 // a disk writes one whole or not at all

	// MaxRecord is the largest record, in bytes.
	MaxRecord = 1 << 20

	// searchBudget bounds the bytes summed in the search for records behind damage. Bytes that look like lengths
	// everywhere would make the search quadratic. The budget is enough for hundreds of megabytes of any other bytes.
	searchBudget int64 = 8 << 30

	// searchMax is the longest stretch behind damage that is searched, in bytes.
	searchMax = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func header(base int64) []byte {
	b := append(make([]byte, 0, headerSize), magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint64(b, uint64(base))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// parseHeader returns the base.
func parseHeader(name string, b []byte) (int64, error) {
	if len(b) < headerSize || string(b[:len(magic)]) != magic {
		return 0, &CorruptError{File: name, Reason: "it does not begin like a journal"}
	}
	if binary.LittleEndian.Uint32(b[20:]) != crc32.Checksum(b[:20], castagnoli) {
		return 0, &CorruptError{File: name, Reason: "its header is damaged"}
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != version {
		return 0, &VersionError{File: name, Version: v}
	}
	base := binary.LittleEndian.Uint64(b[12:])
	if base < headerSize || base > 1<<62 {
		return 0, &CorruptError{File: name, Reason: "its header is damaged"}
	}
	return int64(base), nil
}

// checksum returns the CRC of the record at offset at whose data is so long. rest is what stands in it behind the CRC:
// its mark and the data.
func checksum(at int64, length uint32, rest []byte) uint32 {
	// Byte by byte: a slice for crc32 is put on the heap, which a million records would feel.
	crc := ^uint32(0)
	sum := func(v uint64, bytes int) {
		for range bytes {
			crc = castagnoli[byte(crc)^byte(v)] ^ crc>>8
			v >>= 8
		}
	}
	sum(uint64(at), 8)
	sum(uint64(length), 4)
	return crc32.Update(^crc, castagnoli, rest)
}

// sumHead is how many bytes are summed before those of the record itself: its offset and its length.
const sumHead = 8 + 4

// checksumBy is checksum with room of the caller's on the heap, at two thirds of its cost.
func checksumBy(head *[sumHead]byte, at int64, length uint32, rest []byte) uint32 {
	binary.LittleEndian.PutUint64(head[:], uint64(at))
	binary.LittleEndian.PutUint32(head[8:], length)
	return crc32.Update(crc32.Update(0, castagnoli, head[:]), castagnoli, rest)
}

// appendRecord appends to b the record that will stand at offset at.
func appendRecord(b []byte, at, mark int64, data []byte) []byte {
	begin := len(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = append(binary.LittleEndian.AppendUint64(b, uint64(mark)), data...)
	binary.LittleEndian.PutUint32(b[begin+4:], checksum(at, uint32(len(data)), b[begin+8:]))
	return b
}

// parseRecord reads the record at the start of b, which stands at offset at; nil when there is none. Work counts the
// bytes that had to be summed.
func parseRecord(b []byte, at int64) (data []byte, mark int64, work int) {
	if len(b) < recordHead {
		return nil, 0, 0
	}
	length := binary.LittleEndian.Uint32(b)
	if length == 0 || length > MaxRecord || int(length) > len(b)-recordHead {
		return nil, 0, 0
	}
	m := binary.LittleEndian.Uint64(b[8:])
	if m > uint64(at) {
		return nil, 0, 0
	}
	data = b[recordHead : recordHead+int(length)]
	if checksum(at, length, b[8:recordHead+int(length)]) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, 0, len(data)
	}
	return data, int64(m), len(data)
}

// mend reads the record at the start of b, although one of its bits is wrong; nil when more is wrong with it. A CRC32C
// of up to 2^31 bits has a Hamming distance of 4 at least (Koopman, "32-Bit Cyclic Redundancy Codes for Internet
// Applications", 2002), so no other single bit explains the difference, and two wrong bits never pass for one.
func mend(b []byte, at int64) (data []byte, mark int64) {
	if len(b) <= recordHead {
		return nil, 0
	}
	length := binary.LittleEndian.Uint32(b)
	room := uint32(min(len(b)-recordHead, MaxRecord))
	stored, m := binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint64(b[8:])
	if length != 0 && length <= room {
		fixed := slices.Clone(b[8 : recordHead+length]) // the summed bytes, apart from the length
		wrong := stored ^ checksum(at, length, fixed)
		// of the stored CRC itself, or of the bytes that it sums
		if bits.OnesCount32(wrong) == 1 || turnBit(fixed, wrong) {
			if m := binary.LittleEndian.Uint64(fixed); m <= uint64(at) {
				return fixed[8:], int64(m)
			}
		}
	}
	for i := range 32 {
		n := length ^ 1<<i
		if n == 0 || n > room || m > uint64(at) {
			continue
		}
		if checksum(at, n, b[8:recordHead+n]) == stored {
			return slices.Clone(b[recordHead : recordHead+n]), int64(m)
		}
	}
	return nil, 0
}

// turnBit finds the one bit of b that makes its CRC differ by wrong, and turns it. It returns false when no single bit
// does.
func turnBit(b []byte, wrong uint32) bool {
	var by [8]uint32 // how the CRC changes with each bit of this byte
	for bit := range by {
		by[bit] = castagnoli[1<<bit]
	}
	for i := len(b) - 1; i >= 0; i-- {
		for bit, d := range by {
			if d == wrong {
				b[i] ^= 1 << bit
				return true
			}
			by[bit] = castagnoli[byte(d)] ^ d>>8
		}
	}
	return false
}

// mendHeader returns the base of a header of which one bit is wrong.
func mendHeader(name string, b []byte) (base int64, ok bool) {
	if len(b) < headerSize {
		return 0, false
	}
	head := slices.Clone(b[:headerSize])
	for i := range headerSize * 8 {
		head[i/8] ^= 1 << (i % 8)
		if base, err := parseHeader(name, head); err == nil {
			return base, true
		}
		head[i/8] ^= 1 << (i % 8)
	}
	return 0, false
}

// scan calls each for every record of r between from and to, in order, and returns where the first bad one begins: to,
// when all are good. The record is each's until it returns.
func scan(r io.ReaderAt, from, to int64, each func(record []byte) error) (good int64, err error) {
	return walk(r, from, to, true, each)
}

// walk is scan. Without sum it takes the checksums to be right: whoever has summed the records just now need not do so
// again, and a checksum that has no key stops nobody who changes the file in between.
func walk(r io.ReaderAt, from, to int64, sum bool, each func(record []byte) error) (good int64, err error) {
	in := piecesOf(r, from, to)
	good = from
	for good < to {
		head, err := in.bytes(good, recordHead)
		if err != nil || len(head) < recordHead {
			return good, err
		}
		length := binary.LittleEndian.Uint32(head)
		if length == 0 || length > MaxRecord || int64(length) > to-good-recordHead {
			return good, nil
		}
		n := recordHead + int(length)
		record, err := in.bytes(good, n)
		if err != nil || len(record) < n {
			return good, err
		}
		data := record[recordHead:]
		if sum {
			if data, _, _ = parseRecord(record, good); data == nil {
				return good, nil
			}
		}
		if err := each(data); err != nil {
			return good, err
		}
		good += int64(n)
	}
	return good, nil
}

// onlyReal drops the errors that only mean the end of the file.
func onlyReal(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// search calls each for every record it finds in b, which begins at offset at, until each says stop. It steps over
// other bytes. It reports whether it came to the end of its budget first.
func search(b []byte, at int64, each func(at int64, data []byte, mark int64) (more bool)) (exhausted bool) {
	budget := searchBudget
	for i := 0; i+recordHead < len(b); {
		data, mark, work := parseRecord(b[i:], at+int64(i))
		if budget -= int64(work); budget < 0 {
			return true
		}
		if data == nil {
			i++
			continue
		}
		if !each(at+int64(i), data, mark) {
			return false
		}
		i += recordHead + len(data)
	}
	return false
}

// torn reports whether the bytes from bad on, in a file of size bytes, can be the trace of a write that a crash cut
// short, and so was never acknowledged.
func torn(r io.ReaderAt, bad, size, base int64) (bool, error) {
	if bad < base || size-bad > searchMax {
		return false, nil
	}
	b := make([]byte, size-bad)
	if _, err := io.ReadFull(io.NewSectionReader(r, bad, size-bad), b); err != nil {
		return false, err
	}
	if unfinished(b) {
		return true, nil
	}
	if data, mark := mend(b, bad); data != nil && !lostBit(b, appendRecord(nil, bad, mark, data), bad) {
		return false, nil // all of it was written, and one bit has changed since
	}
	first, safe := int64(-1), int64(0)
	exhausted := search(b, bad, func(at int64, _ []byte, mark int64) bool {
		if first < 0 {
			first = at
		}
		safe = max(safe, mark)
		return safe <= bad
	})
	switch {
	case exhausted || safe > bad:
		return false, nil
	case first < 0:
		return true, nil
	}
	// There are good records behind bad ones, and none of them was written after the bad ones were safe. Either a power
	// cut came when the disk had written a later sector but not an earlier one, which then reads as zeros, or one of
	// the last few records was damaged afterwards.
	return lostSector(b[:first-bad], bad), nil
}

// lostBit reports whether the one bit in which b differs from record, both at offset at, went with a whole sector: what
// b has of that sector is all zeros. A power cut does that to a record of which a byte or two lie in that sector.
func lostBit(b, record []byte, at int64) bool {
	for i, c := range record {
		if b[i] == c {
			continue
		}
		from := max(0, i-int((at+int64(i))%sector))
		return lostSector(b[from:min(len(b), i+int(sector-(at+int64(i))%sector))], at+int64(from))
	}
	return false
}

// lostSector reports whether the part of some sector that lies in b, which begins at offset at, is all zeros.
func lostSector(b []byte, at int64) bool {
	for len(b) > 0 {
		n := min(int(sector-at%sector), len(b))
		zero := true
		for _, c := range b[:n] {
			zero = zero && c == 0
		}
		if zero {
			return true
		}
		b, at = b[n:], at+int64(n)
	}
	return false
}

// CorruptError says that a journal is damaged where a crash cannot have damaged it. Repair may save a part of it.
type CorruptError struct {
	File   string
	Offset int64 // of the first damaged byte's record
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf(
		"the journal %s is damaged at byte %d: %s: run `usher doctor --repair`, which keeps every record that can be "+
			"proved and the damaged file beside it", e.File, e.Offset, e.Reason)
}

// VersionError says that a journal is of a version this program does not know.
type VersionError struct {
	File    string
	Version uint32
}

func (e *VersionError) Error() string {
	return fmt.Sprintf(
		"the journal %s has version %d, and this usher reads version %d: use the usher that wrote it, or a newer one",
		e.File, e.Version, version)
}
