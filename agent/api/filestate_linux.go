package api

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// fileState tells a file and its contents from all others. Every change of a file changes its ctime, which nobody can
// set.
type fileState struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

// settled reports whether knowledge of the file in this state stays true. The clock of files is coarse: a file may
// change twice in one of its ticks.
func (s fileState) settled() bool { return time.Since(time.Unix(s.ctime.Unix())) > 2*time.Second }

func stateOf(f *os.File) (fileState, bool) {
	var s unix.Stat_t
	if unix.Fstat(int(f.Fd()), &s) != nil || s.Mode&unix.S_IFMT != unix.S_IFREG {
		return fileState{}, false
	}
	return fileState{uint64(s.Dev), s.Ino, s.Size, s.Mtim, s.Ctim}, true
}
