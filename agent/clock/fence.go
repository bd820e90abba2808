package clock

import (
	"runtime"
	"time"
)

var loaded = time.Now()

// Fence returns the clock of slots that others may have later: that of the boot or, where it stands still in
// suspension, the wall clock, should that be ahead.
func Fence() time.Duration {
	if runtime.GOOS == "linux" {
		return Boot()
	}
	return max(Boot(), time.Since(loaded.Round(0)))
}
