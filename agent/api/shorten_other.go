//go:build !linux

package api

import (
	"io/fs"
	"os"
	"path/filepath"
)

// nameIn returns the path of a file in a folder. Only Linux has a name for a folder that is open.
func nameIn(_ *os.Root, dir, name string) (string, func(), error) {
	return filepath.Join(dir, name), func() {}, nil
}

// isOwn reports whether a folder is one.
func isOwn(fi fs.FileInfo) bool { return fi.IsDir() }
