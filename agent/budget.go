package agent

import (
	"time"

	"github.com/usher-agent/usher/agent/clock"
)

// SinceBoot returns for how long the host has been up, suspension included, where the host says so.
func SinceBoot() time.Duration { return clock.Boot() }
