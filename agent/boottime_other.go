//go:build !linux

package agent

import "time"

var started = time.Now()

// sinceBoot returns for how long this process has run, where the host's own time is not asked for.
func sinceBoot() time.Duration { return time.Since(started) }
