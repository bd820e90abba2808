package clock

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
)

// Who looks every second and who looks every ten meet, whenever they began and however long a look takes.
func TestABeat(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		time.Sleep(123 * time.Millisecond)
		start, beat := time.Now(), Beat()
		for _, late := range []time.Duration{0, 1, 300 * time.Millisecond, 999 * time.Millisecond, time.Second} {
			time.Sleep(late)
			for _, every := range []time.Duration{time.Second, 2 * time.Second, 10 * time.Second} {
				wait := beat(every)
				if at := time.Since(start) + wait; wait <= 0 || wait > every || at%every != 0 {
					t.Errorf("%s after the start the next beat of %s is in %s", time.Since(start), every, wait)
				}
			}
		}
	})
}
