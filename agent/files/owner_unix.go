//go:build unix

package files

import (
	"io/fs"
	"os"
	"syscall"
)

// hasModes says that a file's mode tells who may write to it.
const hasModes = true

// ownerOf returns a file's owner, and whether that is neither root nor the agent's user. An owner that the agent's user
// namespace does not map is outside of it, where its root comes from.
func ownerOf(fi fs.FileInfo) (uid int, others bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	uid = int(st.Uid)
	return uid, uid != 0 && uid != os.Geteuid() && !unmapped(uid)
}

// writableByOthers returns the bits of a mode by which others than a file's owner may write to it. The group with gid 0
// is root's.
func writableByOthers(fi fs.FileInfo) fs.FileMode {
	bits := fi.Mode().Perm() & 0o022
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Gid == 0 {
		bits &^= 0o020
	}
	return bits
}

// belongs reports whether a file is a user's and a group's.
func belongs(fi fs.FileInfo, uid, gid int) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == uid && int(st.Gid) == gid
}
