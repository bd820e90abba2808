package journal

import (
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"unsafe"
)

// resident is a file on a file system whose pages are in memory in any case: it is looked at where it lies, and no byte
// of it is copied.
type resident struct{ *os.File }

// readable is the journal's file for its opening.
func (j *Journal) readable() io.ReaderAt {
	if f, ok := j.file.(*os.File); ok && j.c.Map && !j.c.Sync && inMemory(j.c.Dir) {
		return resident{f}
	}
	return j.file
}

const (
	// readSize is how many bytes of a file are read at a time.
	readSize = 256 << 10
	// pieceSize is how many bytes of a resident file are mapped at a time: so few hardly count in the memory of the
	// process, and yet the other processors are seldom told that a mapping is gone. It is a multiple of every page's
	// size.
	pieceSize = 8 << 20
)

// pieces gives the bytes of a file from one offset to another, piece by piece.
type pieces struct {
	r    io.ReaderAt
	file *os.File // what is mapped; nil: r is read
	to   int64
	at   int64  // of have
	have []byte // the piece at hand
	buf  []byte // what is read into
}

// piecesOf returns the pieces of r from an offset on. Defer [pieces.end] at once.
func piecesOf(r io.ReaderAt, from, to int64) *pieces {
	p := &pieces{r: r, at: from, to: to}
	if f, ok := r.(resident); ok {
		p.file = f.File
	}
	return p
}

// bytes returns n bytes from an offset on, which are good until the next call; fewer: the file ends there. No offset
// is below the one before.
func (p *pieces) bytes(at int64, n int) ([]byte, error) {
	n = int(min(int64(n), p.to-at))
	if from := at - p.at; from+int64(n) <= int64(len(p.have)) {
		return p.have[from : from+int64(n)], nil
	}
	if p.file != nil {
		if err := p.mapFrom(at, n); err == nil {
			return p.have[at-p.at:][:n], nil
		}
		p.file = nil // it is read instead
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

// mapFrom maps the piece that has n bytes from an offset on.
func (p *pieces) mapFrom(at int64, n int) error {
	unmap(p.have)
	p.have = nil
	from := at &^ (windowOverlap - 1)
	mem, err := mapToRead(p.file, from, min(max(pieceSize, at-from+int64(n)), p.to-from))
	p.at, p.have = from, mem
	return err
}

// faults has the goroutine see as a panic what the kernel sends for a byte that is mapped, and that somebody has cut
// off meanwhile (SIGBUS). Defer what it returns, which gives the piece at hand back, and calls cut in that case: the
// file ends there.
func (p *pieces) faults(cut func()) (end func()) {
	if p.file == nil {
		return func() {}
	}
	was := debug.SetPanicOnFault(true)
	return func() {
		r := recover()
		debug.SetPanicOnFault(was)
		ours := r != nil && p.caused(r)
		if p.file != nil {
			unmap(p.have)
		}
		if p.have = nil; ours {
			cut()
		} else if r != nil {
			panic(r)
		}
	}
}

// caused reports whether a panic is of the piece at hand.
func (p *pieces) caused(r any) bool {
	fault, ok := r.(interface {
		runtime.Error
		Addr() uintptr
	})
	if !ok || p.file == nil || len(p.have) == 0 {
		return false
	}
	from := uintptr(unsafe.Pointer(unsafe.SliceData(p.have)))
	return fault.Addr() >= from && fault.Addr()-from < uintptr(len(p.have))
}

// shorter reports whether what is mapped has become shorter: the rest of its last page then reads as zeros.
func (p *pieces) shorter() bool {
	if p.file == nil {
		return false
	}
	info, err := p.file.Stat()
	return err == nil && info.Size() < p.to
}
