//go:build !linux

package clock

import (
	"errors"
	"time"
)

var started = time.Now()

// Boot returns for how long this process has run, because the host's own time is not read on this system. It stands
// still in suspension.
func Boot() time.Duration { return time.Since(started) }

// Awake is Boot: this system does not tell a suspension from time awake.
func Awake() time.Duration { return Boot() }

// Epoch is empty: no reading of another process compares with one of this.
func Epoch() string { return "" }

// Offset is none: there are no time namespaces.
func Offset() (ahead time.Duration, known bool) { return 0, true }

// BootID is empty: this system does not tell one start of the host from another.
func BootID() string { return "" }

func newAlarm() (alarm, error) { return nil, errors.ErrUnsupported }
