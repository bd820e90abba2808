package watch

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// maxEntries bounds how many names of a folder are read at all.
const maxEntries = 10_000

// survey is the outcome of one look at the folder.
type survey struct {
	dir    string // the folder; empty: there is none, see problem
	folder stamp  // its own, taken before the files'

	began, ended time.Time // of the look

	only       string // the one file that counts; empty: all
	seen       map[string]sighting
	omitted    int
	problem    *enforcer.Problem
	unreadable bool // problem does not say that nothing is there
	moved      bool // another folder took this one's place since it was located
}

// reader reads changed files. It remembers the others, by name.
type reader struct {
	check func(name string, data []byte) *enforcer.Problem
	gen   uint64
	seen  map[string]*reading
}

// reading is a file as it was last read.
type reading struct {
	sighting
	again    bool // to be read again although the stamps have not changed
	readable bool // problem, if any, is check's answer to data
}

func newReader(check func(string, []byte) *enforcer.Problem) *reader {
	return &reader{check: check, seen: map[string]*reading{}}
}

// survey looks at every file of the folder and reads those that changed, or all with force. Of more than MaxFiles the
// known ones come first.
func (r *reader) survey(at place, force bool, known func(string) bool) survey {
	p := survey{seen: map[string]sighting{}, problem: at.problem, unreadable: at.unreadable}
	if at.dir == "" {
		if !at.unreadable {
			clear(r.seen)
		}
		return p
	}
	p.only = at.only
	root, err := os.OpenRoot(at.dir)
	if err != nil {
		p.moved = isMissing(err)
		p.problem, p.unreadable = unreachable(at.dir, err), true
		return p
	}
	defer root.Close()
	if fi, err := root.Stat("."); err != nil {
		p.moved = true
	} else {
		p.folder = stampOf(fi)
		p.moved = p.folder.id != at.id
	}
	names := []string{at.only}
	if at.only == "" {
		if names, err = list(root); err != nil {
			p.problem, p.unreadable = unreachable(at.dir, err), true
			return p
		}
		if p.omitted = len(names) - MaxFiles; p.omitted > 0 {
			slices.SortStableFunc(names, func(a, b string) int {
				switch ka, kb := known(a), known(b); {
				case ka == kb:
					return 0
				case ka:
					return -1
				default:
					return 1
				}
			})
			names = names[:MaxFiles]
			p.problem = tooMany(at.dir, p.omitted)
		}
		p.omitted = max(0, p.omitted)
	}
	p.dir = at.dir
	before := r.seen
	r.seen = make(map[string]*reading, len(names))
	for _, name := range names {
		if f := r.look(root, name, before[name], force); f != nil {
			r.seen[name] = f
			p.seen[name] = f.sighting
		}
	}
	return p
}

// list returns the names in the folder that are not ignored, sorted, at most maxEntries.
func list(root *os.Root) ([]string, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var names []string
	for len(names) < maxEntries {
		some, err := dir.ReadDir(512)
		for _, e := range some {
			if name := e.Name(); !Ignored(name) && (!e.IsDir() || name != "lost+found") {
				names = append(names, name)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	return names, nil
}

// Ignored reports whether the agent passes over a folder's entry of that name in silence: one that begins with a dot,
// or that an editor, a backup or a package manager left.
func Ignored(name string) bool {
	n := strings.ToLower(name)
	for _, end := range ignoredEnds {
		if strings.HasSuffix(n, end) {
			return true
		}
	}
	return strings.HasPrefix(n, ".") || strings.HasPrefix(n, "#") && strings.HasSuffix(n, "#") ||
		strings.Contains(n, ".rpm") || strings.Contains(n, ".dpkg-") || strings.Contains(n, ".ucf-") ||
		strings.Contains(n, ".pacnew") || strings.Contains(n, ".pacsave") || n == "thumbs.db" || n == "desktop.ini"
}

// ignoredEnds are the ends of names that editors, backups, merges and unfinished downloads leave.
var ignoredEnds = []string{"~", ".bak", ".old", ".orig", ".save", ".rej", ".tmp", ".swp", ".swo", ".swx", ".part",
	".partial", ".crdownload", ".download", ",v"}

// IsKey reports whether a file of that name is no document, but holds licence keys, which open documents beside it.
func IsKey(name string) bool { return strings.HasSuffix(strings.ToLower(name), ".key") }

// look returns the file as it lies there now, read again only where it has changed; nil: it is not there.
func (r *reader) look(root *os.Root, name string, before *reading, force bool) *reading {
	now := time.Now()
	f := &reading{}
	fi, err := root.Lstat(name)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		f.problem, f.again = unreadable(root.Name(), name, nil, err), true
		return r.generation(f, before)
	}
	f.link = stampOf(fi)
	f.modTime = fi.ModTime()
	if fi.Mode().Type() == fs.ModeSymlink {
		if fi, err = root.Stat(name); err != nil {
			f.problem = badLink(root, name, err)
			f.vacant = isMissing(err)
			return r.generation(f, before)
		}
	}
	f.target = stampOf(fi)
	f.modTime = fi.ModTime()
	f.written = time.Unix(0, f.target.changed)
	if before != nil && !before.again && !force && before.link == f.link && before.target == f.target {
		return before
	}
	f.again = f.target.recent(now) || f.link.recent(now)
	switch {
	case !fi.Mode().IsRegular():
		f.problem = notRegular(name, fi.Mode())
	case fi.Size() > MaxDocument:
		f.problem = tooLarge(name, fi.Size())
	default:
		r.read(root, name, fi, f, before)
	}
	return r.generation(f, before)
}

// read fills in the file's content, or why there is none.
func (r *reader) read(root *os.Root, name string, fi fs.FileInfo, f, before *reading) {
	data, whole, err := contents(root, name)
	switch {
	case isMissing(err):
		f.problem, f.again = vanished(name), true
		return
	case errors.Is(err, errNotRegular):
		f.problem, f.again = vanished(name), true
		return
	case err != nil:
		f.problem, f.again = unreadable(root.Name(), name, fi, err), true
		return
	case len(data) > MaxDocument:
		f.problem = tooLarge(name, int64(len(data)))
		return
	}
	f.data, f.readable = data, true
	f.again = f.again || !whole
	switch {
	case len(data) == 0:
		f.problem = empty(name)
		f.readable = false
	case before != nil && before.readable && bytes.Equal(before.data, data):
		f.data, f.problem = before.data, before.problem
	default:
		f.problem = r.check(name, data)
	}
}

// generation numbers a reading: as before when it says the same as before.
func (r *reader) generation(f, before *reading) *reading {
	if before != nil && sameProblem(f.problem, before.problem) && f.vacant == before.vacant &&
		(f.data == nil) == (before.data == nil) && bytes.Equal(f.data, before.data) {
		f.gen = before.gen
		return f
	}
	r.gen++
	f.gen = r.gen
	return f
}

// recheck verifies the known bytes again.
func (r *reader) recheck() {
	for _, name := range sortedKeys(r.seen) {
		if f := r.seen[name]; f.readable {
			f.problem = r.check(name, f.data)
		}
	}
}

var errNotRegular = errors.New("not a regular file")

// contents reads a file, at most one byte more than MaxDocument of it. It never waits for a pipe. The bytes are whole
// unless the file went on changing during three readings.
func contents(root *os.Root, name string) (data []byte, whole bool, err error) {
	for range 3 {
		if data, whole, err = readOnce(root, name); whole || err != nil {
			break
		}
	}
	return data, whole, err
}

func readOnce(root *os.Root, name string) (data []byte, whole bool, err error) {
	f, err := root.OpenFile(name, os.O_RDONLY|openNow, 0)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	if !before.Mode().IsRegular() {
		return nil, false, errNotRegular // it was when the reader looked
	}
	data, err = io.ReadAll(io.LimitReader(f, MaxDocument+1))
	if err != nil {
		return nil, false, err
	}
	if data == nil {
		data = []byte{}
	}
	after, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	return data, stampOf(before) == stampOf(after), nil
}

// escapes reports whether an error of os.Root means a path that leaves it: the one error that no system call made.
func escapes(err error) bool {
	var errno syscall.Errno
	return !errors.As(err, &errno)
}
