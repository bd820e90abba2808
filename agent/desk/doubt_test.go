package desk

import (
	"fmt"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// Whoever holds an unconfirmed lease has 15 seconds of an agent's presence to show itself, however often the agent dies
// meanwhile; the time without an agent does not count.
func TestUnconfirmedOverRestarts(t *testing.T) {
	for _, compacted := range []bool{false, true} {
		t.Run(fmt.Sprint("compacted ", compacted), func(t *testing.T) {
			k := openKept(t)
			if _, _, d := k.get(enforcer.Acquire{Pool: "streams", Lifetime: enforcer.LifetimeConnection}); d != nil {
				t.Fatal(d)
			}
			pass := func(seconds int) {
				t.Helper()
				for range seconds {
					k.wall = k.wall.Add(time.Second)
					if err := k.store.present(k.Desk, time.Second); err != nil {
						t.Fatal(err)
					}
				}
			}
			expect := func(left time.Duration) {
				t.Helper()
				k.wall = k.wall.Add(time.Hour) // without an agent
				k.restart(compacted, false)
				k.Pool("streams") // what is due ends
				all := k.core.Leases(nil)
				if left == 0 {
					if len(all) > 0 {
						t.Fatalf("%+v stands yet", all[0])
					}
					return
				}
				if len(all) != 1 || !all[0].Unconfirmed || all[0].ExpiresAt.Sub(k.wall).Round(time.Second) != left {
					t.Fatalf("%d leases, the first %v from its end, want %v", len(all), all[0].ExpiresAt.Sub(k.wall),
						left)
				}
			}
			expect(15 * time.Second)
			pass(7)
			expect(7 * time.Second) // and a second for the start
			expect(6 * time.Second) // an agent that dies at once takes its second too
			pass(4)
			expect(time.Second)
			expect(0)
		})
	}
}

// A lease of a time to live has that time again after a crash, and 15 seconds at least, however long there was no
// agent.
func TestTTLResumesAfterACrash(t *testing.T) {
	k := openKept(t)
	for _, ttl := range []time.Duration{2 * time.Second, time.Minute} {
		l, _, d := k.get(enforcer.Acquire{Pool: "streams", Lifetime: enforcer.LifetimeTTL, TTL: ttl})
		if d != nil {
			t.Fatal(d)
		}
		k.wall = k.wall.Add(time.Hour)
		k.restart(ttl > 2*time.Second, false)
		got, held := k.Lease(l.ID)
		if !held || got.ExpiresAt.Sub(k.wall).Round(time.Second) != max(ttl, 15*time.Second) {
			t.Fatalf("a lease of %v after a crash: %+v", ttl, got)
		}
	}
}

// A lease that outlives the host and is asked for again by its client token is acknowledged no sooner than its record
// is on the disk: the first answer may not be out yet.
func TestReplayWaitsForTheDisk(t *testing.T) {
	k := openKept(t)
	for _, r := range []enforcer.Acquire{{Pool: "streams", N: 1, Token: "t", Lifetime: enforcer.LifetimeHeld},
		{Pool: "renders", N: 1, Token: "t"}} {
		first, again := r, r
		first.ID, again.ID = enforcer.LeaseID{1, byte(len(r.Lifetime))}, enforcer.LeaseID{2}
		was := k.decide(&first) // decided, and not waited for
		got := k.decide(&again)
		if was.Denial != nil || !got.Replayed || got.Lease.ID != was.Lease.ID {
			t.Fatalf("got %+v, %+v", was, got)
		}
		if got.written == nil {
			t.Errorf("%s: the lease asked for again would be answered before it is written", r.Pool)
		} else if err := got.written(); err != nil {
			t.Error(err)
		}
	}
}
