package watch

import (
	"testing"
	"time"
)

// The watcher looks again when the beat says, although it has heard of nothing.
func TestLooksKeepTheBeat(t *testing.T) {
	asked, ended := make(chan time.Duration), make(chan struct{})
	watch(t, t.TempDir(), func(w *Watcher) {
		w.cfg.Beat = func(every time.Duration) time.Duration {
			select {
			case asked <- every:
			case <-ended:
				return every
			}
			return time.Nanosecond
		}
		go func() {
			defer close(ended)
			for range 3 {
				if every := <-asked; every != DefaultPoll {
					t.Errorf("asked for a beat of %s", every)
				}
			}
		}()
	})
	<-ended
}
