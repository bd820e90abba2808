package journal

import (
	"io"
	"os"
	"path/filepath"
)

// Verify reads a journal as [Open] does, calls replay for every record, and changes nothing. Its errors are those of
// Open; where there is no journal, an [fs.ErrNotExist]. Nobody may be writing to it.
func Verify(path string, replay func(record []byte) error) error {
	j := &Journal{path: path}
	j.c = Config{Dir: filepath.Dir(path), Name: filepath.Base(path), File: func(name string, _ int) (File, error) {
		return openPlain(name, os.O_RDONLY)
	}}
	f, err := openPlain(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	f.Close() // it is there
	if _, err := j.openFile(); err != nil || j.file == nil {
		return err
	}
	defer j.file.Close()
	good, _, err := j.soundEnd()
	if err != nil {
		return err
	}
	_, err = scan(j.file, headerSize, good, replay)
	return err
}

// Remote returns the kind of network file system that a folder lies on, which journals refuse; empty: on none that is
// known.
func Remote(dir string) string { return remoteKind(dir) }

// soundEnd returns where the journal's last whole record ends, and how many records there are. What follows is the
// trace of a crash. It changes nothing.
func (j *Journal) soundEnd() (good int64, records int, err error) {
	head := make([]byte, min(headerSize, j.size))
	if _, err := io.ReadFull(io.NewSectionReader(j.file, 0, j.size), head); err != nil {
		return 0, 0, j.cannot("read", err)
	}
	if j.base, err = parseHeader(j.path, head); err != nil {
		return 0, 0, err
	}
	if good, records, err = whole(j.file, headerSize, j.size); err != nil {
		return 0, 0, j.cannot("read", err)
	}
	if good < j.size {
		isTorn, err := torn(j.file, good, j.size, j.base)
		if err != nil {
			return 0, 0, j.cannot("read", err)
		}
		if !isTorn {
			return 0, 0, &CorruptError{File: j.path, Offset: good,
				Reason: "a record there is wrong, and a crash cannot have done it"}
		}
	}
	if good < j.base {
		return 0, 0, &CorruptError{File: j.path, Offset: good, Reason: "its end is missing"}
	}
	return good, records, nil
}
