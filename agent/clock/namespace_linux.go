package clock

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// initialTime is the link of the host's own time namespace, whose clocks are not offset (PROC_TIME_INIT_INO,
// linux/proc_ns.h).
const initialTime = "time:[4026531834]"

// offset is how far the clocks of a time namespace are ahead of the host's (time_namespaces(7)).
type offset struct {
	boot, awake time.Duration
	known       bool
}

// offsets are those of this process. A running process cannot enter another time namespace: setns(2) refuses that to
// one with several threads.
var offsets = sync.OnceValue(func() offset {
	o, err := offsetOf("/proc/self")
	if err != nil {
		return offset{boot: read(unix.CLOCK_BOOTTIME), awake: read(unix.CLOCK_MONOTONIC)}
	}
	return o
})

// offsetOf returns the offsets of the process whose folder under /proc is proc.
func offsetOf(proc string) (offset, error) {
	own, err := os.Readlink(filepath.Join(proc, "ns/time"))
	if own == initialTime {
		return offset{known: true}, nil
	}
	if err != nil {
		// Before Linux 5.6 there are other namespaces, but none of time. Where those are hidden too, nothing is known.
		if _, others := os.Readlink(filepath.Join(proc, "ns/pid")); errors.Is(err, fs.ErrNotExist) && others == nil {
			return offset{known: true}, nil
		}
		return offset{}, err
	}
	// The file has the offsets of the process's children. They are its own only where the namespace is.
	children, err := os.Readlink(filepath.Join(proc, "ns/time_for_children"))
	if err != nil {
		return offset{}, err
	}
	if own != children {
		return offset{}, fmt.Errorf("the time namespace is %s, and that of children %s", own, children)
	}
	b, err := os.ReadFile(filepath.Join(proc, "timens_offsets"))
	if err != nil {
		return offset{}, err
	}
	return parseOffsets(string(b))
}

// parseOffsets reads /proc/PID/timens_offsets: a line each for two clocks, with seconds, which may be negative, and
// nanoseconds.
func parseOffsets(text string) (o offset, err error) {
	found := map[string]time.Duration{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return offset{}, fmt.Errorf("timens_offsets: %q is not a clock with its offset", line)
		}
		s, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil || s > math.MaxInt64/int64(time.Second)-1 || s < math.MinInt64/int64(time.Second)+1 {
			return offset{}, fmt.Errorf("timens_offsets: %q is not a number of seconds", f[1])
		}
		ns, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil || ns < 0 || ns >= int64(time.Second) {
			return offset{}, fmt.Errorf("timens_offsets: %q is not a number of nanoseconds", f[2])
		}
		found[f[0]] = time.Duration(s)*time.Second + time.Duration(ns)
	}
	of := func(name string, number int) (d time.Duration) {
		d, ok := found[name]
		if !ok { // Linux 5.6 writes numbers
			d, ok = found[strconv.Itoa(number)]
		}
		if !ok {
			err = fmt.Errorf("timens_offsets: clock %s is missing", name)
		}
		return d
	}
	o = offset{boot: of("boottime", unix.CLOCK_BOOTTIME), awake: of("monotonic", unix.CLOCK_MONOTONIC), known: true}
	if err != nil {
		return offset{}, err
	}
	return o, nil
}
