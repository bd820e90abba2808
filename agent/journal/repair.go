package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Repair rewrites the journal dir/name with every record that its checksum proves, before and after what is damaged, and keeps the
// damaged file beside it as name.damaged-<time>. It returns how many records it kept and how many bytes it dropped; a journal with
// nothing wrong is left alone. It refuses, with a *VersionError, a journal of another version, and one in which it finds nothing. The
// journal must not be open.
func Repair(dir, name string) (kept, dropped int, err error) {
	j := &Journal{path: filepath.Join(dir, name)}
	j.c = Config{Dir: dir, Name: name, Sync: true, File: func(name string, flag int) (File, error) {
		return os.OpenFile(name, flag, 0o600)
	}}
	f, err := os.Open(j.path)
	if err != nil {
		return 0, 0, j.cannot("open", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, searchMax+1))
	if err != nil {
		return 0, 0, j.cannot("read", err)
	}
	if len(b) > searchMax {
		return 0, 0, fmt.Errorf("the journal %s has more than %d bytes, too many to repair: move it away", j.path, searchMax)
	}
	base, headErr := parseHeader(j.path, b)
	if v := (*VersionError)(nil); errors.As(headErr, &v) {
		return 0, 0, headErr
	}
	dropped = max(0, len(b)-headerSize)
	var records [][]byte
	if search(b[min(headerSize, len(b)):], headerSize, func(_ int64, data []byte, _ int64) bool {
		records = append(records, data)
		dropped -= recordHead + len(data)
		return true
	}) {
		return 0, 0, fmt.Errorf("the journal %s has too many bytes that look like records and are none: move it away", j.path)
	}
	kept = len(records)
	switch {
	case headErr == nil && dropped == 0 && int64(len(b)) >= base:
		return kept, 0, nil
	case headErr != nil && kept == 0 && len(b) > 0:
		return 0, dropped, fmt.Errorf("nothing in %s can be proved to be a journal's: move it away to begin a new one", j.path)
	}

	s, err := j.begin()
	if err != nil {
		return 0, 0, err
	}
	out := &batch{s: s}
	for _, r := range records {
		if err := out.write(r); err != nil {
			return 0, 0, errors.Join(err, s.drop())
		}
	}
	if err := errors.Join(out.flush(), s.finish(), s.file.Close()); err != nil {
		return 0, 0, errors.Join(err, os.Remove(j.tmp()))
	}
	if err := j.setAside(b); err != nil {
		return 0, 0, errors.Join(err, os.Remove(j.tmp()))
	}
	if err := os.Rename(j.tmp(), j.path); err != nil {
		return 0, 0, j.cannot("replace", err)
	}
	if err := syncDir(dir); err != nil {
		return 0, 0, j.cannot("sync the folder of", err)
	}
	return kept, dropped, nil
}

// setAside keeps the damaged file's bytes under another name. The journal keeps its own name until it is replaced, so that at no time
// there is none.
func (j *Journal) setAside(b []byte) (err error) {
	aside := j.path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	f, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return j.cannot("keep the damaged copy of", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(j.cannot("keep the damaged copy of", err), os.Remove(aside))
	}
	return nil
}
