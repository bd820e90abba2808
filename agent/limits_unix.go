//go:build unix

package agent

import "golang.org/x/sys/unix"

// reservedFiles are the descriptors that the agent keeps for its own files, watches and listeners.
const reservedFiles = 128

// connections returns how many connections the agent may have open: what the limit on open files leaves.
func connections() int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 0
	}
	return int(min(max(uint64(l.Cur), reservedFiles+64)-reservedFiles, 1<<16))
}

// freeBytes returns how much room a folder's file system has for the agent; -1 when that is not known.
func freeBytes(dir string) float64 {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return -1
	}
	return float64(s.Bavail) * float64(s.Bsize)
}
