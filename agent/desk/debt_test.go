package desk

import (
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// Callers ask all the while that a journal, which lacks what has ended, is begun anew: nothing that has ended is
// written behind a beginning that does not know it, and the journal can be read.
func TestEndedBesideASuccessor(t *testing.T) {
	k := openKept(t)
	for range 20 {
		ends := k.mustGet("streams", enforcer.LifetimeTTL)
		k.drop("run")
		k.again()
		if d := k.Release(&enforcer.Release{ID: ends}); d != nil {
			t.Fatal(d)
		}
		k.make("run")
		var callers sync.WaitGroup
		for range 2 {
			callers.Go(func() {
				for until := time.Now().Add(time.Minute); time.Now().Before(until); {
					l, _, d := k.get(enforcer.Acquire{Pool: "streams", Lifetime: enforcer.LifetimeTTL})
					if d == nil {
						if d := k.Release(&enforcer.Release{ID: l.ID}); d != nil {
							t.Error(d)
						}
						return
					}
				}
				t.Error("after a minute the journal is not well")
			})
		}
		k.again()
		callers.Wait()
		if err := k.Unwell(); err != nil {
			t.Fatal(err)
		}
		k.restart(false, false)
		if n := k.inUse("streams"); n != 0 {
			t.Fatalf("after a restart %d are in use, and all have ended", n)
		}
	}
}
