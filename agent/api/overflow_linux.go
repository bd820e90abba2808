package api

import (
	"os"
	"strconv"
	"strings"
	"sync"
)

// overflow is the number that the kernel gives instead of an id which the agent's user namespace does not map (proc(5),
// overflowuid and overflowgid).
var overflow = struct{ uid, gid func() uint32 }{
	sync.OnceValue(func() uint32 { return readID("/proc/sys/kernel/overflowuid") }),
	sync.OnceValue(func() uint32 { return readID("/proc/sys/kernel/overflowgid") }),
}

func readID(file string) uint32 {
	b, err := os.ReadFile(file)
	if err != nil {
		return Nobody
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		return Nobody
	}
	return uint32(n)
}

// told returns an id as the kernel gives it, and Nobody where the kernel has none to give.
func told(id, overflow uint32) uint32 {
	if id == overflow {
		return Nobody
	}
	return id
}
