package files

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// fileSystem names the type of the file system that a file lies on: as /proc/self/mountinfo does (proc(5)), else by its
// number (statfs(2)).
func fileSystem(f *os.File) string {
	var s unix.Statfs_t
	number := "unknown"
	if unix.Fstatfs(int(f.Fd()), &s) == nil {
		number = fmt.Sprintf("0x%x", uint32(s.Type))
	}
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return number
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return number
	}
	device := fmt.Sprintf("%d:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)))
	for line := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(line, " - ")
		if of := strings.Fields(before); ok && len(of) > 2 && of[2] == device {
			if kind := strings.Fields(after); len(kind) > 0 {
				return kind[0]
			}
		}
	}
	return number
}
