package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Repaired says what Repair found in a journal.
type Repaired struct {
	Kept    int // records that the journal holds now
	Mended  int // of those: records of which one bit was turned back
	Dropped int // damaged bytes, in which no record could be proved
	Rewrote bool
}

// Repair rewrites the journal dir/name with every record that its checksum proves, before and after the damage, and
// with records of which a single bit is wrong, which the checksum identifies too. It keeps the damaged file beside the
// journal as name.damaged-<time>, and the owner and mode of the file.
//
// Replay gets the records found, in order, and returns those that the journal is to hold: only what its reader is known
// to accept. nil keeps all. An error of replay ends Repair, which then changes nothing. Repair leaves a sound journal
// alone, if replay keeps every record as it is. It refuses, with a *VersionError, a journal of another version, and one
// in which it finds nothing. The journal must not be open.
func Repair(dir, name string, replay func(records [][]byte) ([][]byte, error)) (r Repaired, err error) {
	j := &Journal{path: filepath.Join(dir, name)}
	f, err := openPlain(j.path, os.O_RDONLY)
	if err != nil {
		return r, j.cannot("open", err)
	}
	defer f.Close()
	was, err := f.Stat()
	if err != nil {
		return r, j.cannot("look at", err)
	}
	if !was.Mode().IsRegular() {
		return r, fmt.Errorf("the journal %s is not a regular file: move it away", j.path)
	}
	j.c = Config{Dir: dir, Name: name, Sync: true, File: func(name string, flag int) (File, error) {
		return createLike(name, was)
	}}
	b, err := j.slurp(f)
	if err != nil {
		return r, err
	}
	records, sound, err := j.salvage(b, &r)
	if err != nil {
		return r, err
	}
	keep := records
	if replay != nil {
		if keep, err = replay(records); err != nil {
			return r, fmt.Errorf("the journal %s cannot be repaired, and is as it was: %w", j.path, err)
		}
	}
	r.Kept = len(keep)
	if sound && slices.EqualFunc(records, keep, slices.Equal[[]byte]) {
		return r, nil
	}
	if err := j.rewrite(b, keep, was); err != nil {
		return r, err
	}
	r.Rewrote = true
	return r, nil
}

// Provable returns the records of the journal at path that [Repair] would find, and changes nothing.
func Provable(path string) ([][]byte, error) {
	j := &Journal{path: path}
	f, err := openPlain(path, os.O_RDONLY)
	if err != nil {
		return nil, j.cannot("open", err)
	}
	defer f.Close()
	b, err := j.slurp(f)
	if err != nil {
		return nil, err
	}
	records, _, err := j.salvage(b, &Repaired{})
	return records, err
}

// slurp reads a journal whole that can be repaired.
func (j *Journal) slurp(f io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(f, searchMax+1))
	if err != nil {
		return nil, j.cannot("read", err)
	}
	if len(b) > searchMax {
		return nil, fmt.Errorf("the journal %s has more than %d bytes, too many to repair: move it away", j.path,
			searchMax)
	}
	return b, nil
}

// salvage returns the records that b, a whole journal, provably holds. Sound says that nothing is wrong with it.
func (j *Journal) salvage(b []byte, r *Repaired) (records [][]byte, sound bool, err error) {
	base, headErr := parseHeader(j.path, b)
	if v := (*VersionError)(nil); errors.As(headErr, &v) {
		return nil, false, headErr
	}
	sound = headErr == nil
	mendedHead := false
	if headErr != nil {
		base, mendedHead = mendHeader(j.path, b)
	}
	// A record with a wrong bit can only be told where one must begin: after another.
	for at := min(headerSize, len(b)); at < len(b); {
		data, _, _ := parseRecord(b[at:], int64(at))
		if data == nil && len(bytes.TrimRight(b[at:], "\x00")) == 0 { // made ready for records, and got none
			break
		}
		if data == nil {
			sound = false
			if data, _ = mend(b[at:], int64(at)); data != nil {
				r.Mended++
			}
		}
		if data != nil {
			records = append(records, data)
			at += recordHead + len(data)
			continue
		}
		next := len(b)
		if search(b[at:], int64(at), func(found int64, _ []byte, _ int64) bool {
			next = int(found)
			return false
		}) {
			return nil, false, fmt.Errorf(
				"the journal %s has too many bytes that only look like records: move it away", j.path)
		}
		r.Dropped += next - at
		at = next
	}
	if headErr != nil && !mendedHead && len(records) == 0 && len(b) > 0 {
		return nil, false, fmt.Errorf("nothing in %s can be proved to be a journal's: move it away to begin a new one",
			j.path)
	}
	return records, sound && int64(len(b)) >= base, nil
}

// rewrite replaces the journal, whose contents were b, by one of records. At no time is there no journal.
func (j *Journal) rewrite(b []byte, records [][]byte, was fs.FileInfo) error {
	if err := os.Remove(j.tmp()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove what an earlier compaction left: %w", err)
	}
	s, err := j.begin()
	if err != nil {
		return err
	}
	out := &batch{s: s}
	for _, r := range records {
		if err := out.write(r); err != nil {
			return errors.Join(err, s.drop())
		}
	}
	if err := errors.Join(out.flush(), s.finish(), s.file.Close()); err != nil {
		return errors.Join(err, os.Remove(j.tmp()))
	}
	if err := j.setAside(b, was); err != nil {
		return errors.Join(err, os.Remove(j.tmp()))
	}
	if err := os.Rename(j.tmp(), j.path); err != nil {
		return j.cannot("replace", err)
	}
	if err := syncDir(j.c.Dir); err != nil {
		return j.cannot("sync the folder of", err)
	}
	return nil
}

// setAside keeps the damaged file's bytes under another name. The journal keeps its own name until it is replaced, so
// that at no time there is none.
func (j *Journal) setAside(b []byte, was fs.FileInfo) (err error) {
	aside := j.path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	f, err := createLike(aside, was)
	if err != nil {
		return j.cannot("keep the damaged copy of", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(j.cannot("keep the damaged copy of", err), os.Remove(aside))
	}
	return nil
}

// createLike makes a new file with the owner, group and mode of another: a journal that root repairs must remain the
// agent's.
func createLike(name string, like fs.FileInfo) (*os.File, error) {
	f, err := openPlain(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(own(f, like), f.Chmod(like.Mode().Perm())); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(name))
	}
	return f, nil
}
