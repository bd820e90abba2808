package clock

import (
	"runtime"
	"time"
)

var loaded = time.Now()

// Fence returns the clock of what others may have later: that of the boot, and where it stands still in suspension the
// wall clock, should that be ahead.
func Fence() time.Duration {
	if runtime.GOOS == "linux" {
		return Boot()
	}
	return max(Boot(), time.Since(loaded.Round(0)))
}
