//go:build !linux

package agent

import (
	"time"

	"github.com/usher-agent/usher/agent/pulse"
)

var begun = time.Now()

// uptime knows only of this process: a suspension is not told from time that was awake.
func uptime() pulse.Uptime { return pulse.Uptime{Up: time.Since(begun)} }
