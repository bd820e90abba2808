package liveness

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Owner returns whose the handle's process is, which must be visible. It is [ErrDead] when the process has died, and
// [ErrUnsupported] when /proc does not show it.
func (h *Handle) Owner() (Owner, error) { return h.ownerIn("/proc") }

func (h *Handle) ownerIn(proc string) (Owner, error) {
	pid := h.process.PID
	if pid <= 0 {
		return Owner{}, fmt.Errorf("%w: it is in a PID namespace that is not visible from here", ErrUnsupported)
	}
	o, ok := readOwner(proc, pid)
	if exe, err := os.Readlink(proc + "/" + strconv.Itoa(int(pid)) + "/exe"); err == nil {
		o.Exe = exe
	}
	gone := true
	if err := h.Lend(func(fd int) { gone = dead(fd) }); err != nil {
		return Owner{}, err
	}
	switch {
	case gone: // the number may be another's by now, and so what was read
		return Owner{}, ErrDead
	case !ok:
		return Owner{}, fmt.Errorf("%w: /proc does not show process %d (hidepid, or too few descriptors)",
			ErrUnsupported,
			pid)
	}
	return o, nil
}

// Numbers returns the numbers that a process has in its PID namespaces, from the agent's own down to that which it is
// in (proc_pid_status(5), NSpid). nil: they are not known, or the number is another process's by now. start is its
// start time ([Process].Start).
func Numbers(pid int32, start uint64) []int32 {
	if pid <= 0 || start == 0 {
		return nil
	}
	o, ok := readOwner("/proc", pid)
	if !ok || startTime(pid) != start {
		return nil
	}
	return o.Numbers
}

// readOwner reads the state of a process; ok is false unless all of it is there.
func readOwner(proc string, pid int32) (o Owner, ok bool) {
	b, err := os.ReadFile(proc + "/" + strconv.Itoa(int(pid)) + "/status")
	if err != nil {
		return o, false
	}
	var uids, gids bool
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		f := strings.Fields(rest)
		switch name {
		case "Uid", "Gid":
			if len(f) != len(o.UIDs) {
				return o, false
			}
			var ids [4]uint32
			for i := range ids {
				n, err := strconv.ParseUint(f[i], 10, 32)
				if err != nil {
					return o, false
				}
				ids[i] = uint32(n)
			}
			if name == "Uid" {
				o.UIDs, uids = ids, true
			} else {
				o.GID, gids = ids[1], true
			}
		case "NSpid":
			for _, v := range f {
				n, err := strconv.ParseInt(v, 10, 32)
				if err != nil {
					return o, false
				}
				o.Numbers = append(o.Numbers, int32(n))
			}
		}
	}
	if o.Numbers == nil { // a kernel without PID namespaces
		o.Numbers = []int32{pid}
	}
	return o, uids && gids
}
