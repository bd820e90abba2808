//go:build !linux

package clock

import (
	"errors"
	"time"
)

var started = time.Now()

// Boot returns for how long this process has run, where the host's own time is not asked for. It stands still in
// suspension.
func Boot() time.Duration { return time.Since(started) }

// Awake is Boot: a suspension is not told from time that was awake.
func Awake() time.Duration { return Boot() }

// Epoch is empty: no reading of another process compares with one of this.
func Epoch() string { return "" }

// Offset is none: there are no time namespaces.
func Offset() (ahead time.Duration, known bool) { return 0, true }

// BootID is empty: one start of the host is not told from another.
func BootID() string { return "" }

func newAlarm() (alarm, error) { return nil, errors.ErrUnsupported }
