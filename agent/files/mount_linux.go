package files

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// overflowUID is the owner that the kernel shows of a file whose owner a user namespace does not map
// (user_namespaces(7)).
const overflowUID = 65534

// unmapped reports whether the kernel shows the overflow owner in place of one that this user namespace does not map.
func unmapped(uid int) bool {
	if uid != overflowUID {
		return false
	}
	b, err := os.ReadFile("/proc/self/uid_map") // inside, outside, how many
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return false
		}
		first, err1 := strconv.Atoi(f[0])
		n, err2 := strconv.Atoi(f[2])
		if err1 != nil || err2 != nil || uid >= first && uid < first+n {
			return false
		}
	}
	return true
}

// readOnly reports whether a path lies on a file system that is mounted read-only here, as a container's Secrets and
// read-only volumes are. Only the one that runs the container can change anything there.
func readOnly(path string) bool {
	var s unix.Statfs_t
	return unix.Statfs(path, &s) == nil && s.Flags&unix.ST_RDONLY != 0
}
