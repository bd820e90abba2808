package journal

import "io"

// readSize is how many bytes of a file are read at a time.
const readSize = 256 << 10

// pieces gives the bytes of a file from one offset to another, piece by piece.
type pieces struct {
	r    io.ReaderAt
	to   int64
	at   int64  // of have
	have []byte // the piece at hand
	buf  []byte // what is read into
}

// piecesOf returns the pieces of r from an offset on.
func piecesOf(r io.ReaderAt, from, to int64) *pieces { return &pieces{r: r, at: from, to: to} }

// bytes returns n bytes from an offset on, which are good until the next call; fewer: the file ends there. No offset
// is below the one before.
func (p *pieces) bytes(at int64, n int) ([]byte, error) {
	n = int(min(int64(n), p.to-at))
	if from := at - p.at; from+int64(n) <= int64(len(p.have)) {
		return p.have[from : from+int64(n)], nil
	}
	size := max(n, int(min(readSize, p.to-at)))
	if cap(p.buf) < size {
		p.buf = make([]byte, size)
	}
	got, err := p.r.ReadAt(p.buf[:size], at)
	p.at, p.have = at, p.buf[:got]
	if err = onlyReal(err); err != nil && got < n {
		return nil, err
	}
	return p.have[:min(got, n)], nil
}
