package desk

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
)

// Idle waits for the last lease that is no borrow, and for no longer than its context or the agent lasts.
func TestIdle(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := busyDesk()
		first, second := d.take(t, 1), d.take(t, 1)
		var done atomic.Int64
		wait := func(ctx context.Context, stop chan struct{}) {
			go func() {
				d.Idle(ctx, stop)
				done.Add(1)
			}()
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		stop := make(chan struct{})
		wait(ctx, nil)
		wait(t.Context(), stop)
		wait(t.Context(), nil)
		wait(t.Context(), nil)
		if done.Load() != 0 {
			t.Fatalf("%d do not wait while two leases are held", done.Load())
		}
		cancel()
		close(stop)
		if synctest.Wait(); done.Load() != 2 {
			t.Fatalf("%d have ended with their context and with the agent, want 2", done.Load())
		}
		for i, l := range []*enforcer.Lease{first, second} {
			if denial := d.Release(&enforcer.Release{ID: l.ID, Caller: enforcer.Caller{UID: 1}}); denial != nil {
				t.Fatal(denial)
			}
			if synctest.Wait(); done.Load() != int64(2+2*i) {
				t.Fatalf("after %d releases %d have ended", i+1, done.Load())
			}
		}
		if held, borrowed := d.Holding(); held != 0 || borrowed != 0 {
			t.Errorf("held are %d, borrowed %d", held, borrowed)
		}
	})
}
