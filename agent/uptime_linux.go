package agent

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/agent/pulse"
)

// uptime reads what the kernel says of this start of the host: CLOCK_BOOTTIME counts suspension, CLOCK_MONOTONIC does not.
func uptime() pulse.Uptime {
	var boot, awake unix.Timespec
	// Neither fails on a kernel that Go runs on (clock_gettime(2), Linux 2.6.39).
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot)
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &awake)
	up := time.Duration(boot.Nano())
	return pulse.Uptime{BootID: presentMeta().Boot, Up: up, Suspended: max(0, up-time.Duration(awake.Nano())).Truncate(time.Millisecond)}
}
