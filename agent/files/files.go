// Package files reads and writes the agent's own files: whole-file replacement, locks, and the seal by which an agent
// knows that a file is as it wrote it.
//
// A [Vault] seals the files of one folder: see there for what it notices, and in which order it writes. Start reading
// at [Open] and [Vault].
package files

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// TempPrefix begins the name of each file that waits for its rename. [Sweep] removes those that a crash left.
const TempPrefix = ".usher-"

// MaxSize is the size in bytes of the largest file that [Read] reads for a caller without a bound of its own.
const MaxSize = 16 << 20

// Replace writes a file whole, with a mode of its own: temporary file, sync, rename, and the folder's sync. Whatever
// stops it, the file is the old one or the new one.
func Replace(path string, data []byte, mode fs.FileMode) error {
	return replace(path, data, mode, true)
}

// ReplaceVolatile is Replace for a folder that does not outlive the host: it waits for no disk.
func ReplaceVolatile(path string, data []byte, mode fs.FileMode) error {
	return replace(path, data, mode, false)
}

func replace(path string, data []byte, mode fs.FileMode, sync bool) error {
	tmp := filepath.Join(filepath.Dir(path), TempPrefix+rand.Text())
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|openFlags, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode) // whatever the umask says
	}
	if err == nil {
		err = likeFolder(f, filepath.Dir(path))
	}
	if err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if sync {
		syncDir(filepath.Dir(path))
	}
	return nil
}

// syncDir makes the last rename or removal in a folder last. Not every system can. The change is made all the same.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		d.Sync() // not every system can sync a folder
		d.Close()
	}
}

// Read returns the content of a file of the agent's own, of at most max bytes. [Open] says what the file must be. Where
// there is none, the error is [fs.ErrNotExist].
func Read(path string, max int64) ([]byte, error) {
	f, err := Open(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case fi.Size() > max:
		return nil, fmt.Errorf("%s: it has %d bytes, and the most is %d; move it away", path, fi.Size(), max)
	}
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(b)) > max {
		err = fmt.Errorf("%s: it grows while it is read, beyond %d bytes; move it away", path, max)
	}
	return b, err
}

// LikeFolder gives files that root has made in a folder to the owner of the folder.
func LikeFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		f, err := os.OpenFile(filepath.Join(dir, e.Name()), os.O_RDONLY|openFlags, 0)
		if err != nil {
			return err
		}
		if err := errors.Join(likeFolder(f, dir), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// Sweep removes from a folder the temporary files that a crash left. The agent that owns the folder must hold its lock.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), TempPrefix) && !e.IsDir() {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
