package watch

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A change of the licence folder is written down before it is made. The present version of the path is kept as
// pending/<path>.<next>, where next is the SHA-256 of its replacement, or "none" where it has none. When the change is
// made, that record becomes the previous version. After a crash at any step the folder tells which of the two it was.
// If next lies there, the change was completed. If not, the previous version is still that of the change before. (A
// change to the very bytes that are there is none.)

// change puts data at a name of the licence folder or, where data is nil, removes the file. It keeps the former version
// for Rollback; with only, it changes nothing where it cannot. w.install is held.
func (w *Watcher) change(dir, name string, data []byte, only bool) error {
	w.finish()
	before := present(dir, name)
	// Installed twice: the version before the first stays.
	same := data != nil && !before.none && !before.lost && bytes.Equal(before.data, data)
	var err error
	if !same {
		err = w.intend(before, data)
	}
	if err != nil && only && !before.none {
		return fmt.Errorf(
			"remove licence %s: it could not be kept, and nothing would bring it back: %w; see to the disk "+
				"of state.dir, or delete the file by hand", plain(name), err)
	}
	noted := err == nil
	if data == nil {
		if err = remove(dir, name); err == nil {
			w.steps.done()
		}
	} else {
		err = install(dir, name, data, w.steps)
	}
	w.finish()
	if err != nil {
		return err
	}
	if !noted { // the disk may be full: better no version to go back to than a wrong one
		if err := dropRecord(w.cfg.KeepDir, keepPrevious, before.path); err != nil {
			w.cfg.Log.Warn("an older version of a licence is still kept, and a rollback would bring that one back",
				"path", before.path, "keep", w.cfg.KeepDir, "err", err)
		}
	}
	w.Rescan()
	return nil
}

// intend writes down what a change is about to replace. It logs a failure.
func (w *Watcher) intend(before recordFile, data []byte) error {
	if w.cfg.KeepDir == "" {
		return nil
	}
	dir := filepath.Join(w.cfg.KeepDir, keepPending)
	err := writeKept(dir, recordName(before.path)+"."+digest(data), before, w.steps)
	if err != nil {
		w.cfg.Log.Warn("previous licence is not kept", "path", before.path, "keep", w.cfg.KeepDir, "err", err)
	}
	return err
}

// finish completes changes that are written down and have been made, and forgets the others. w.install is held.
func (w *Watcher) finish() {
	if w.cfg.KeepDir == "" {
		return
	}
	dir := filepath.Join(w.cfg.KeepDir, keepPending)
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(maxKept)
	for _, name := range names {
		if strings.HasPrefix(name, ".") {
			continue
		}
		if err := w.finishOne(filepath.Join(dir, name)); err != nil {
			w.cfg.Log.Warn("previous licence is not kept", "keep", w.cfg.KeepDir, "err", err)
		}
	}
}

// finishOne completes or forgets one change. It leaves a change for later where it cannot see the path now.
func (w *Watcher) finishOne(file string) error {
	rec, err := readRecord(file)
	if err != nil {
		return os.Remove(file)
	}
	_, next, _ := strings.Cut(filepath.Base(file), ".")
	dir, name := filepath.Split(rec.path)
	now := present(filepath.Clean(dir), name)
	switch {
	case now.lost:
		return nil
	case digest(now.data) != next:
		return os.Remove(file)
	case rec.lost:
		err = dropRecord(w.cfg.KeepDir, keepPrevious, rec.path)
	default:
		err = writeKept(filepath.Join(w.cfg.KeepDir, keepPrevious), recordName(rec.path), rec, w.steps)
	}
	if err != nil {
		return err
	}
	err = os.Remove(file)
	w.steps.done()
	return err
}

// digest names a change's new bytes; nil is nothing.
func digest(data []byte) string {
	if data == nil {
		return "none"
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// present returns the file at a name now, as a record; it is lost where the file cannot be kept or seen.
func present(dir, name string) recordFile {
	rec := recordFile{path: filepath.Join(dir, name), modTime: time.Now()}
	root, err := os.OpenRoot(dir)
	if err == nil {
		defer root.Close()
		var fi fs.FileInfo
		if fi, err = root.Lstat(name); err == nil && (fi.Mode().Type() == fs.ModeSymlink || fi.Mode().IsRegular()) {
			data, _, failed := contents(root, name)
			if failed == nil && len(data) <= MaxDocument {
				rec.data = data
				return rec
			}
		}
	}
	rec.none = isMissing(err)
	rec.lost = !rec.none
	return rec
}

// clean removes what a crash left: temporary files in the licence folder and in the keep folder, and changes that were
// not completed.
func (w *Watcher) clean() {
	w.install.Lock()
	defer w.install.Unlock()
	if at := locate(w.cfg.Path); at.dir != "" {
		sweep(at.dir)
	}
	if w.cfg.KeepDir == "" {
		return
	}
	for _, kind := range []string{keepGood, keepPrevious, keepPending} {
		sweep(filepath.Join(w.cfg.KeepDir, kind))
	}
	w.finish()
}
