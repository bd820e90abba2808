package watch

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"
)

// ErrNoPrevious reports that there is no earlier version to go back to. It is an [fs.ErrNotExist].
var ErrNoPrevious error = noPrevious{}

type noPrevious struct{}

func (noPrevious) Error() string { return "no previous version of a licence is kept" }

func (noPrevious) Is(target error) bool { return target == fs.ErrNotExist }

// maxName is the longest name, in bytes, that Install accepts: file systems take 255.
const maxName = 200

// Install puts a document into a folder under a name, whole or not at all, with mode 0640; a file of licence keys with
// 0600. It makes the folder if it is missing. It replaces a file of that name, and a link of that name, but not the
// link's target.
func Install(dir, name string, data []byte) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("install licence: %w", err)
	}
	return install(dir, name, data, nil)
}

// Install's name is checked; that of a file that comes back may be any.
func install(dir, name string, data []byte, at steps) error {
	if len(data) == 0 {
		return fmt.Errorf("install licence %s: it is empty", plain(name))
	}
	if len(data) > MaxDocument {
		return fmt.Errorf("install licence %s: %d bytes; a licence document has at most %d (1 MiB)", plain(name),
			len(data), MaxDocument)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("install licence %s: %w", plain(name), mendFolder(dir, err))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("install licence %s: %w", plain(name), mendFolder(dir, err))
	}
	defer root.Close()
	if fi, err := root.Lstat(name); err == nil && fi.IsDir() {
		return fmt.Errorf("install licence %s: there is a folder of that name in %s", plain(name), plain(dir))
	}
	mode := fs.FileMode(0o640)
	if IsKey(name) {
		mode = 0o600
	}
	if err := replaceFile(root, name, data, mode, at); err != nil {
		return fmt.Errorf("install licence %s: %w", plain(name), mendFolder(dir, err))
	}
	return nil
}

// Remove takes a document out of a folder. A name that is not there is an error that is [fs.ErrNotExist].
func Remove(dir, name string) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("remove licence: %w", err)
	}
	return remove(dir, name)
}

// remove is Remove of a file whose name may be any.
func remove(dir, name string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("remove licence %s: %w", plain(name), mendFolder(dir, err))
	}
	defer root.Close()
	fi, err := root.Lstat(name)
	if err != nil {
		return fmt.Errorf("remove licence %s: %w", plain(name), mendFolder(dir, err))
	}
	if fi.IsDir() {
		return fmt.Errorf("remove licence %s: it is a folder", plain(name))
	}
	if err := root.Remove(name); err != nil {
		return fmt.Errorf("remove licence %s: %w", plain(name), mendFolder(dir, err))
	}
	syncDir(root)
	return nil
}

// mendFolder adds the mend to an error of writing into the folder.
func mendFolder(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("folder %s is read-only for the agent; change the licence where it comes from: %w",
			plain(dir), err)
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("the file is a mount of its own in %s; change it where it comes from: %w", plain(dir), err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf(
			"the agent, as %s, may not write to folder %s; chown %d %s, or copy the file there as its owner: %w",
			whoami(), plain(dir), os.Geteuid(), shell(dir), err)
	}
	return err
}

// checkName accepts a document's file name that would not be ignored.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("no file name given")
	case len(name) > maxName:
		return fmt.Errorf("file name %s is longer than %d bytes", plain(name), maxName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("file name %s has characters that do not print", plain(name))
	case strings.ContainsAny(name, `/\`) || !filepath.IsLocal(name):
		return fmt.Errorf("file name %s is a path; give the name within the licence folder", plain(name))
	case Ignored(name):
		return fmt.Errorf(
			"file name %s would be ignored (dotfiles, and what editors, downloads and package managers leave: ~ "+
				".bak .old .orig #…# .tmp .swp .part .rpm* .dpkg-*); choose another", plain(name))
	}
	return nil
}

// NameFor returns the file name for a licence of an id, and the name that a former version gave it. Where the path is a
// single file, both are that file's. An id that is no name as it stands gets a mark of its own in the name, so that two
// ids never have one name.
func (w *Watcher) NameFor(id string) (name, former string) {
	if fi, err := os.Stat(w.cfg.Path); err == nil && fi.Mode().IsRegular() {
		return filepath.Base(w.cfg.Path), filepath.Base(w.cfg.Path)
	}
	plain := readable(id)
	if plain == id && !marked.MatchString(id) {
		return id + ".lic", id + ".lic"
	}
	sum := sha256.Sum256([]byte(id))
	return plain[:min(len(plain), 80)] + "__" + hex.EncodeToString(sum[:6]) + ".lic", plain + ".lic"
}

// marked is the form of a name with a mark.
var marked = regexp.MustCompile(`__[0-9a-f]{12}$`)

// readable makes an id a file's name that reminds of it.
func readable(id string) string {
	id = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		default:
			return '-'
		}
	}, id)
	if id = strings.Trim(id, "-"); id == "" {
		id = "licence"
	}
	return id[:min(len(id), 100)]
}

// Accepts returns why [Watcher.Install] takes no file of a name; nil: it takes one. It changes nothing.
func (w *Watcher) Accepts(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if at := locate(w.cfg.Path); at.unreadable {
		return nil // that is not the name's fault
	}
	_, err := w.home(name)
	return err
}

// Install puts a document into the licence folder as the function of that name does, keeps the former version for
// [Watcher.Rollback], and asks for a rescan. When the path is a single file, the name must be its name. It is safe to
// call from any goroutine.
func (w *Watcher) Install(name string, data []byte) error {
	w.install.Lock()
	defer w.install.Unlock()
	if err := checkName(name); err != nil {
		return fmt.Errorf("install licence: %w", err)
	}
	dir, err := w.home(name)
	if err != nil {
		return fmt.Errorf("install licence: %w", err)
	}
	return w.change(dir, name, data, false)
}

// Remove takes a document out of the licence folder, keeps it for [Watcher.Rollback], and asks for a rescan. The name
// is the file's, or what answers call the file, which is returned. Its error is [fs.ErrNotExist] where there is none.
// It is safe to call from any goroutine.
func (w *Watcher) Remove(name string) (of string, err error) {
	w.install.Lock()
	defer w.install.Unlock()
	if only := filepath.Base(w.cfg.Path); locate(w.cfg.Path).only != "" && called(only, name) {
		name = only
	}
	dir, err := w.home(name)
	if err != nil {
		return name, fmt.Errorf("remove licence: %w", err)
	}
	file, err := there(dir, name)
	if err != nil {
		return name, fmt.Errorf("remove licence: %w", err)
	}
	if file == name {
		// A name that anybody may give; one that lies in the folder may be odd, but is no path.
		if err := checkName(name); err != nil && !liesIn(dir, name) {
			return name, fmt.Errorf("remove licence: %w", err)
		}
	}
	return shown(file), w.change(dir, file, nil, true)
}

// Rollback undoes the last completed Install or Remove of a name, or, when name is empty, the last of all, and returns
// what answers call the file, and whether there is no such file now. One version is kept, so that a second Rollback
// undoes the first. Its error is [ErrNoPrevious] when there is nothing to go back to. It is safe to call from any
// goroutine.
func (w *Watcher) Rollback(name string) (of string, removed bool, err error) {
	w.install.Lock()
	defer w.install.Unlock()
	w.finish()
	rec, err := w.previous(name)
	if err != nil {
		return name, false, err
	}
	dir, name := filepath.Split(rec.path)
	dir = filepath.Clean(dir)
	if rec.none {
		rec.data = nil
	}
	if err = w.change(dir, name, rec.data, false); rec.none && errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return shown(name), false, fmt.Errorf("roll back: %w", err)
	}
	return shown(name), rec.none, nil
}

// home returns the folder for a document of that name.
func (w *Watcher) home(name string) (string, error) {
	at := locate(w.cfg.Path)
	base := filepath.Base(w.cfg.Path)
	switch {
	case at.unreadable:
		return "", errors.New(at.problem.Reason)
	case at.dir != "" && at.only == "":
		return at.dir, nil
	case at.dir != "" && name != base:
		return "", fmt.Errorf("the licence path is the single file %s; install under that name", plain(w.cfg.Path))
	case at.dir != "" || name == base:
		return filepath.Dir(w.cfg.Path), nil
	default:
		return w.cfg.Path, nil
	}
}

// previous returns the kept version of a name, or the one kept last, with its bytes.
func (w *Watcher) previous(name string) (recordFile, error) {
	all := records(w.cfg.KeepDir, keepPrevious, func(p string) bool {
		return p == w.cfg.Path || filepath.Dir(p) == w.cfg.Path
	})
	if name != "" {
		var names []string
		for _, rec := range all {
			names = append(names, filepath.Base(rec.path))
		}
		meant, err := Named(names, name)
		if err != nil {
			return recordFile{}, fmt.Errorf("roll back: %w", err)
		}
		all = slices.DeleteFunc(all, func(rec recordFile) bool {
			return meant == "" || filepath.Base(rec.path) != meant
		})
	}
	var last recordFile
	for _, rec := range all {
		if last.file == "" || rec.modTime.After(last.modTime) {
			last = rec
		}
	}
	if last.file == "" {
		return last, ErrNoPrevious
	}
	rec, err := readRecord(last.file)
	if err != nil {
		return rec, fmt.Errorf("roll back %s: %w", plain(filepath.Base(last.path)), err)
	}
	return rec, nil
}
