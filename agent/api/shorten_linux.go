package api

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// nameIn returns a name for what is to lie in a folder, by the folder's own descriptor: it is short enough for the
// kernel, and whoever can give the folder's name to another changes nothing about it. done ends the name's life.
func nameIn(folder *os.Root, _, name string) (string, func(), error) {
	dir, err := folder.Open(".")
	if err != nil {
		return "", nil, err
	}
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), name), func() { dir.Close() }, nil
}

// isOwn reports whether a folder is the agent's, and nobody else can enter it.
func isOwn(fi fs.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && fi.IsDir() && int(st.Uid) == os.Geteuid() && fi.Mode().Perm()&0o077 == 0
}
