package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// Held is a folder of the agent's own while its lock is held. It is safe for concurrent use.
type Held struct {
	place Place

	mu   sync.Mutex // guards all below; nobody who decides waits for it
	lock *os.File
}

// Hold locks a folder until the Held is closed.
func (p Place) Hold() (*Held, error) {
	f, err := p.Lock()
	if err != nil {
		return nil, err
	}
	return &Held{place: p, lock: f}, nil
}

// ErrGone says that a folder of the agent's was removed or replaced, or its lock.
var ErrGone = errors.New("it or its lock is gone, or others have its place")

// Look says that the folder is no longer the one that is locked; nil: it is.
func (h *Held) Look() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.look()
}

func (h *Held) look() error {
	open, err := h.lock.Stat()
	if err == nil {
		var is fs.FileInfo
		is, err = os.Lstat(filepath.Join(h.place.Path, h.place.lock))
		if err == nil && os.SameFile(open, is) {
			return nil
		}
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = ErrGone
	}
	return fmt.Errorf("%s %s: %w", h.place.name, h.place.Path, err)
}

// Restore makes the folder and locks it again, where that is not so. restored reports that it had to.
func (h *Held) Restore() (restored bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	gone := h.look()
	if gone == nil {
		return false, nil
	}
	if _, err := Folder(h.place.Path, h.place.mode); err != nil {
		return false, fmt.Errorf("%w; it cannot be made again: %w", gone, err)
	}
	f, err := h.place.Lock()
	if err != nil {
		return false, fmt.Errorf("%w; it cannot be locked again: %w", gone, err)
	}
	h.lock.Close() // it locks nothing that others could find
	h.lock = f
	return true, nil
}

// Close gives the lock back.
func (h *Held) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	Unlock(h.lock)
	return h.lock.Close()
}

// Mend writes those files again that are listed and are no longer there, as after their folder was removed. Journals
// are their owners' to mend.
func (v *Vault) Mend() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.missing(v.cfg.Manifest) {
		v.stale = true
	}
	if v.stale {
		if err := v.write(); err != nil {
			return err
		}
	}
	var errs []error
	for name, e := range v.m.Files {
		body := v.kept[name]
		if e.Generation == 0 || e.Journal != nil || body == nil || !v.missing(name) {
			continue
		}
		errs = append(errs, v.save(name, body))
	}
	return errors.Join(errs...)
}

// Missing reports whether a file that the vault has written is no longer there.
func (v *Vault) Missing() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.missing(v.cfg.Manifest) {
		return fmt.Errorf("%s was removed", v.path)
	}
	for name, e := range v.m.Files {
		if e.Generation > 0 && e.Journal == nil && v.kept[name] != nil && v.missing(name) {
			return fmt.Errorf("%s was removed", filepath.Join(v.cfg.Dir, name))
		}
	}
	return nil
}

func (v *Vault) missing(name string) bool {
	_, err := os.Lstat(filepath.Join(v.cfg.Dir, name))
	return errors.Is(err, fs.ErrNotExist)
}
