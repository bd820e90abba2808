//go:build linux

package external

import (
	"strings"
	"testing"
	"time"
)

// Plugins that never come to serve: each is tried again, says why, and ends with the agent.
func TestNeverServes(t *testing.T) {
	t.Parallel()
	for how, want := range map[string]string{"mute": "has not described itself within", "deaf": "", "rubbish": "",
		"dies": "I cannot go on", "old": "ncompatible API version"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			start := time.Minute // what says so at once has the time that it needs
			if how == "mute" || how == "deaf" {
				start = 3 * time.Second
			}
			r := run(t, how, func(c *Config) { c.Limits.Start, c.Limits.Stop = start, 100*time.Millisecond })
			r.until("it fails twice", func() bool { return strings.Count(r.log.String(), "does not run") >= 2 })
			if r.Up() || r.Starts() != 0 || !strings.Contains(r.log.String(), want) {
				t.Errorf("up %t, %d starts: %s", r.Up(), r.Starts(), r.log)
			}
			if len(r.log.String()) > 20_000 {
				t.Errorf("it makes the log long: %d bytes", len(r.log.String()))
			}
		})
	}
}
