package clock

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Boot returns for how long the host has been up, suspension included (clock_gettime(2), CLOCK_BOOTTIME), whatever time
// namespace this process is in. Where that namespace's offset is not known, it counts from the process's first call.
func Boot() time.Duration { return read(unix.CLOCK_BOOTTIME) - offsets().boot }

// Awake is Boot without the time that the host was suspended (CLOCK_MONOTONIC).
func Awake() time.Duration { return read(unix.CLOCK_MONOTONIC) - offsets().awake }

// Epoch names the zero of Boot, for readings that outlive the process: the start of the host. It is empty where that is
// not known, and then no reading of another process compares with one of this.
func Epoch() string {
	if !offsets().known {
		return ""
	}
	return BootID()
}

// Offset returns how far CLOCK_BOOTTIME of this process's time namespace is ahead of the host's; known is false where
// nothing tells that.
func Offset() (ahead time.Duration, known bool) {
	o := offsets()
	return o.boot, o.known
}

func read(id int32) time.Duration {
	var ts unix.Timespec
	// It waits for nothing, so that Go's scheduler need not know of the call, as it does of unix.ClockGettime. It fails
	// on no kernel that Go supports (CLOCK_BOOTTIME: Linux 2.6.39).
	unix.RawSyscall(unix.SYS_CLOCK_GETTIME, uintptr(id), uintptr(unsafe.Pointer(&ts)), 0)
	return time.Duration(ts.Nano())
}

// BootID tells one start of the host from another; empty where that is not known (random(4)).
var BootID = sync.OnceValue(func() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
})

// timerfd is an alarm of the kernel's (timerfd_create(2)).
type timerfd struct {
	*os.File
	buf [8]byte
}

func newAlarm() (alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("timerfd_create: %w", err)
	}
	return &timerfd{File: os.NewFile(uintptr(fd), "timerfd")}, nil
}

func (t *timerfd) arm(at time.Time) error {
	raw, err := t.SyscallConn()
	if err != nil {
		return err
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(at.UnixNano())}
	failed := raw.Control(func(fd uintptr) {
		err = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &spec, nil)
	})
	return stepped("timerfd_settime", errors.Join(failed, err))
}

func (t *timerfd) wait() error {
	_, err := t.Read(t.buf[:])
	return stepped("timerfd", err)
}

func (t *timerfd) close() error { return t.Close() }

func stepped(call string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ECANCELED):
		return errStepped
	default:
		return fmt.Errorf("%s: %w", call, err)
	}
}
