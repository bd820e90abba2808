package api

import (
	"os"
	"path/filepath"
	"strconv"
)

// shorten returns a short name for a path that may be too long for the kernel: the folder's own descriptor names it. done
// ends the name's life.
func shorten(path string) (string, func(), error) {
	if len(path) <= maxPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), filepath.Base(path)), func() { dir.Close() }, nil
}
