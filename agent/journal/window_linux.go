package journal

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// windowSize is how much of a file is mapped at one time, in bytes; a multiple of every page's size.
	windowSize = 256 << 10
	// windowOverlap is how far the next window begins before the end of the present one, so that a record which is no
	// longer than that lies in one of them whole.
	windowOverlap = 64 << 10
)

// window is the part of a file that is being written, mapped into memory. What is stored there is in the kernel's page
// cache at once, as after write(2), whatever becomes of this process; and storing it takes no call of the kernel. The
// file is longer meanwhile than the records in it: it ends in zeros, which are no record.
type window struct {
	file *os.File
	at   int64 // of mem, in the file
	mem  []byte
	next chan mapped // capacity 1: gets the window that is being made beside; nil: none is
}

// mapped is a window that has been made, or the reason that it has not.
type mapped struct {
	at  int64
	mem []byte
	err error
}

// inMemory reports whether a folder is on a tmpfs (statfs(2)): there the pages of a file are all that there is of it,
// so that a store can be no less safe than a write.
func inMemory(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && int64(st.Type) == unix.TMPFS_MAGIC
}

// newWindow returns the window of a file that grows at its end; nil: the file cannot have one.
func newWindow(f File) *window {
	file, ok := f.(*os.File)
	if !ok {
		return nil
	}
	return &window{file: file}
}

// room returns the n bytes of the file from offset at on. Each call's offset is no less than that of the one before.
func (w *window) room(at int64, n int) ([]byte, error) {
	end := at + int64(n)
	if at < w.at || end > w.at+int64(len(w.mem)) {
		if err := w.move(at, end); err != nil {
			return nil, err
		}
	}
	if w.next == nil && end > w.at+int64(len(w.mem))/2 {
		w.ahead()
	}
	return w.mem[at-w.at : end-w.at], nil
}

// move takes the window that was made beside, or makes one, so that it has the bytes from at to end.
func (w *window) move(at, end int64) error {
	old := w.mem
	w.mem = nil
	if w.next != nil {
		made := <-w.next
		w.next = nil
		if made.err == nil && at >= made.at && end <= made.at+int64(len(made.mem)) {
			w.at, w.mem = made.at, made.mem
		} else {
			unmap(made.mem)
		}
	}
	if w.mem == nil {
		from := at &^ (windowOverlap - 1)
		size := int64(windowSize)
		for from+size < end {
			size += windowSize
		}
		mem, err := mapFile(w.file, from, size)
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) { // perhaps there is room for these bytes
			page := int64(os.Getpagesize())
			mem, err = mapFile(w.file, from, (end-from+page-1)/page*page)
		}
		if err != nil {
			w.mem = old // a shorter record may fit yet
			return err
		}
		w.at, w.mem = from, mem
	}
	unmap(old)
	return nil
}

// ahead makes the next window, and nobody waits for that.
func (w *window) ahead() {
	made := make(chan mapped, 1)
	file, from := w.file, max(w.at, (w.at+int64(len(w.mem))-windowOverlap)&^(windowOverlap-1))
	w.next = made
	go func() {
		mem, err := mapFile(file, from, windowSize)
		made <- mapped{from, mem, err}
	}()
}

// mapFile maps a part of a file that is written next. Every page of it is there before it is stored to, so that a full
// disk is an error here and no signal (SIGBUS) later.
func mapFile(f *os.File, from, size int64) ([]byte, error) {
	if err := unix.Fallocate(int(f.Fd()), 0, from, size); err != nil {
		return nil, fmt.Errorf("fallocate: %w", err)
	}
	mem, err := unix.Mmap(int(f.Fd()), from, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	// The first store to each page would cost a fault. Linux before 5.14 does not know this, and has the faults.
	_ = unix.Madvise(mem, unix.MADV_POPULATE_WRITE)
	return mem, nil
}

func unmap(mem []byte) {
	if mem != nil {
		_ = unix.Munmap(mem) // our own, so that it cannot fail
	}
}

// close gives the mappings back. What was stored stays. A nil window has none.
func (w *window) close() {
	if w == nil {
		return
	}
	if w.next != nil {
		unmap((<-w.next).mem)
	}
	unmap(w.mem)
	*w = window{file: w.file}
}

// reserve has room on the disk for n bytes of a file from an offset on, where the file system can do that. The file is
// no longer for it.
func reserve(f File, at int64, n int) error {
	file, ok := f.(*os.File)
	if !ok {
		return nil
	}
	err := unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, at, int64(n))
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}
