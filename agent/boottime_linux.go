package agent

import (
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot returns for how long the host has been up, suspension included (clock_gettime(2), CLOCK_BOOTTIME).
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
