package liveness

import (
	"io"
	"os"
	"strconv"
)

// PodOf returns the UID of the Kubernetes pod of a process, by its cgroups; empty: it is in none, or it is not known.
// start is when the process started, in clock ticks after boot. PodOf says nothing of another process with the same
// number.
func PodOf(pid int32, start uint64) string { return podOfIn("/proc", pid, start) }

func podOfIn(proc string, pid int32, start uint64) string {
	if pid <= 0 || start == 0 {
		return ""
	}
	f, err := os.Open(proc + "/" + strconv.Itoa(int(pid)) + "/cgroup")
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCgroups+1))
	if err != nil || len(b) > maxCgroups || startTimeIn(proc, pid) != start {
		return ""
	}
	return parsePod(b)
}
