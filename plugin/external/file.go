package external

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// open opens a plugin's binary and checks it. It must be a regular file that only its owner can change, in folders that
// only their owners can change, with the SHA-256 that the configuration names.
func open(path string, sum [sha256.Size]byte) (*os.File, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("the path must be absolute")
	}
	// The target of a link is checked. The link itself may lie anywhere, because the sum holds.
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	for dir := filepath.Dir(real); ; dir = filepath.Dir(dir) {
		fi, err := os.Stat(dir)
		if err != nil {
			return nil, err
		}
		if err := safe("the folder "+dir, fi); err != nil {
			return nil, err
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	f, err := os.Open(real)
	if err != nil {
		return nil, err
	}
	if err := check(real, f, sum); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func check(real string, f *os.File, sum [sha256.Size]byte) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", real)
	}
	if err := safe(real, fi); err != nil {
		return err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := h.Sum(nil); subtle.ConstantTimeCompare(got, sum[:]) != 1 {
		return fmt.Errorf(
			"its SHA-256 is %x, and the configuration names %x; if it was updated on purpose, write the new one there",
			got, sum)
	}
	return nil
}
