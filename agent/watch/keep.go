package watch

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/usher-agent/usher/agent/files"
)

// The keep folder has a folder of last good bytes, one of versions before the last install, each with a file a path,
// and one of installations under way.
const (
	keepGood     = "good"
	keepPrevious = "previous"
	keepPending  = "pending"
)

// tempPrefix begins the name of each file that waits for its rename; a crash may leave one.
const tempPrefix = ".usher-"

// maxKept bounds how many kept files are looked at.
const maxKept = 4 * MaxFiles

// recordFile is a kept file: one line that names the path, then its bytes as they were.
//
//	usher-kept/1 file 2026-08-01T12:00:00Z "/etc/usher/license.d/acme.lic"
//
// In place of "file" stands "none" for a path where nothing was, and "lost" where there was what cannot be kept.
type recordFile struct {
	path    string
	modTime time.Time
	none    bool
	lost    bool
	data    []byte
	file    string // the path that it was read from
}

const recordMagic = "usher-kept/1"

func recordName(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:16])
}

func (r recordFile) header() string {
	what := "file"
	switch {
	case r.none:
		what = "none"
	case r.lost:
		what = "lost"
	}
	return fmt.Sprintf("%s %s %s %s\n", recordMagic, what, r.modTime.UTC().Format(time.RFC3339Nano),
		strconv.Quote(r.path))
}

func parseHeader(line string) (recordFile, error) {
	bad := errors.New("not a kept document")
	fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
	if len(fields) != 4 || fields[0] != recordMagic ||
		fields[1] != "file" && fields[1] != "none" && fields[1] != "lost" {
		return recordFile{}, bad
	}
	at, err := time.Parse(time.RFC3339Nano, fields[2])
	if err != nil {
		return recordFile{}, bad
	}
	path, err := strconv.Unquote(fields[3])
	if err != nil {
		return recordFile{}, bad
	}
	return recordFile{path: path, modTime: at, none: fields[1] == "none", lost: fields[1] == "lost"}, nil
}

// openRecord reads a kept file's first line and returns a reader of the rest. The caller closes it.
func openRecord(file string) (recordFile, *bufio.Reader, io.Closer, error) {
	f, err := files.Open(file, os.O_RDONLY)
	if err != nil {
		return recordFile{}, nil, nil, err
	}
	// The kernel's longest path has 4096 bytes, each at most four when quoted.
	b := bufio.NewReaderSize(io.LimitReader(f, MaxDocument+32<<10), 32<<10)
	line, err := b.ReadSlice('\n')
	if err != nil {
		return recordFile{}, nil, nil, errors.Join(errors.New("not a kept document"), f.Close())
	}
	rec, err := parseHeader(string(line))
	if err != nil {
		return recordFile{}, nil, nil, errors.Join(err, f.Close())
	}
	rec.file = file
	return rec, b, f, nil
}

// readRecord reads a kept file.
func readRecord(file string) (recordFile, error) {
	rec, rest, c, err := openRecord(file)
	if err != nil {
		return recordFile{}, err
	}
	defer c.Close()
	rec.data, err = io.ReadAll(rest)
	if err == nil && len(rec.data) > MaxDocument {
		err = errors.New("not a kept document")
	}
	return rec, err
}

// listRecords returns the kept files of a folder, or of a single file, without their bytes.
func listRecords(keepDir, path string) []recordFile {
	return records(keepDir, keepGood, func(p string) bool { return p == path || filepath.Dir(p) == path })
}

// records returns the kept files of the wanted paths, without their bytes.
func records(keepDir, kind string, want func(path string) bool) []recordFile {
	if keepDir == "" {
		return nil
	}
	dir := filepath.Join(keepDir, kind)
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(maxKept)
	var recs []recordFile
	for _, name := range names {
		if strings.HasPrefix(name, ".") {
			continue
		}
		rec, _, c, err := openRecord(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		_ = c.Close()
		if want(rec.path) {
			recs = append(recs, rec)
		}
	}
	return recs
}

// writeRecord keeps the bytes of a path below the keep folder. It does not write bytes that are there already.
func writeRecord(keepDir, kind string, rec recordFile) error {
	dir := filepath.Join(keepDir, kind)
	name := recordName(rec.path)
	if old, err := readRecord(filepath.Join(dir, name)); err == nil && old.path == rec.path && old.none == rec.none &&
		old.modTime.Equal(rec.modTime) && bytes.Equal(old.data, rec.data) {
		return nil
	}
	return writeKept(dir, name, rec, nil)
}

func writeKept(dir, name string, rec recordFile, at steps) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return replaceFile(root, name, append([]byte(rec.header()), rec.data...), 0o600, at)
}

func dropRecord(keepDir, kind, path string) error {
	err := os.Remove(filepath.Join(keepDir, kind, recordName(path)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// steps is called at each step of a change of files, after which the agent may be killed; nil: nothing is called.
type steps func()

func (s steps) done() {
	if s != nil {
		s()
	}
}

// replaceFile puts bytes into place as a whole: temporary file, sync, rename, sync of the directory. Another agent that
// starts on the same folder may sweep the temporary file away; then replaceFile makes it again.
func replaceFile(root *os.Root, name string, data []byte, perm fs.FileMode, at steps) (err error) {
	for range 3 {
		if err = tryReplace(root, name, data, perm, at); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return err
}

func tryReplace(root *os.Root, name string, data []byte, perm fs.FileMode, at steps) error {
	tmp := tempPrefix + rand.Text()
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	at.done()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(perm) // whatever the umask says
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	at.done()
	if err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		_ = root.Remove(tmp)
		return err
	}
	at.done()
	syncDir(root)
	return nil
}

// sweep removes the temporary files that a crash left in a folder, which need not exist.
func sweep(dir string) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return
	}
	defer root.Close()
	d, err := root.Open(".")
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(maxEntries)
	for _, name := range names {
		if !strings.HasPrefix(name, tempPrefix) || len(name) != len(tempPrefix)+len(rand.Text()) {
			continue
		}
		if fi, err := root.Lstat(name); err == nil && fi.Mode().IsRegular() {
			_ = root.Remove(name) // it does not count, and the next start tries again
		}
	}
}

// syncDir makes the last rename or removal last. Not every file system can. The change is made all the same.
func syncDir(root *os.Root) {
	if d, err := root.Open("."); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
}

// saver writes the good bytes to disk on a goroutine of its own: a disk may be slow, and documents must count at once.
type saver struct {
	dir  string
	log  *slog.Logger
	wake chan struct{}

	mu   sync.Mutex        // guards todo; held for no I/O
	todo map[string]change // by path
}

func newSaver(dir string, log *slog.Logger) *saver {
	return &saver{dir: dir, log: log, wake: make(chan struct{}, 1), todo: map[string]change{}}
}

// put queues a change; a later one of the same path replaces it.
func (s *saver) put(path string, c change) {
	if s.dir == "" {
		return
	}
	s.mu.Lock()
	s.todo[path] = c
	s.mu.Unlock()
	nudge(s.wake)
}

// close ends run once all queued changes are made.
func (s *saver) close() { close(s.wake) }

func (s *saver) run() {
	failing := false
	for open := true; open; {
		_, open = <-s.wake
		s.mu.Lock()
		todo := s.todo
		s.todo = map[string]change{}
		s.mu.Unlock()
		for _, path := range sortedKeys(todo) {
			var err error
			if c := todo[path]; c.data == nil {
				err = dropRecord(s.dir, keepGood, path)
			} else {
				err = writeRecord(s.dir, keepGood, recordFile{path: path, modTime: c.modTime, data: c.data})
			}
			if err != nil && !failing {
				s.log.Warn("the last good licence is kept in memory only", "path", path, "keep", s.dir, "err", err)
			}
			failing = err != nil
		}
	}
}
