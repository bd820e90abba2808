package api

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// nameIn returns a name for a file in a folder, by the folder's own descriptor. The name is short enough for the
// kernel, and no other user can change what it means by giving the folder's name to another. done ends the name's life.
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
