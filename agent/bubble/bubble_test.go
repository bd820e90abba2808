package bubble

import (
	"runtime"
	"sync"
	"testing"
	"time"
)

// Goroutines that look at timers as they are due do not break the race detector: where the bubble has two processors,
// the process dies.
func TestTimersThatAreDue(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	for range 4 {
		Test(t, func(t *testing.T) {
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					for range 5000 {
						<-time.NewTimer(0).C
					}
				})
			}
			all.Wait()
		})
	}
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("the process has %d processors after it, and had %d", got, before)
	}
}
