package agent

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// dropStartPages gives back the pages of the program's own file, most of which hold what begins libraries. What is
// needed again is mapped again from the page cache, a few microseconds a piece.
func dropStartPages() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		// address perms offset dev inode path, see proc_pid_maps(5)
		fields := strings.Fields(in.Text())
		if len(fields) < 6 || fields[5] != exe || !strings.HasPrefix(fields[1], "r-") {
			continue // what was written to would be lost
		}
		var from, to uintptr
		if _, err := fmt.Sscanf(fields[0], "%x-%x", &from, &to); err != nil || from >= to {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return errno
		}
	}
	return nil
}
