package desk

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/journal"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/enforcer"
)

// evict releases a lease by force, with a hold-off.
func evict(d *Desk, id enforcer.LeaseID, span time.Duration) *enforcer.Denial {
	return d.Release(&enforcer.Release{ID: id, Caller: enforcer.Caller{Admin: true}, Force: true, HoldOff: &span})
}

// A hold-off outlives a restart, a compaction and a reboot of the host, whatever lease it is of, and ends in time. One
// that was lifted stays lifted.
func TestHoldOffOutlivesRestarts(t *testing.T) {
	t.Parallel()
	for _, reboot := range []bool{false, true} {
		for _, lifetime := range []enforcer.Lifetime{enforcer.LifetimeTTL, enforcer.LifetimeHeld} {
			k := openKept(t)
			hog := enforcer.Acquire{Pool: "streams", Caller: enforcer.Caller{UID: 1000}, Lifetime: lifetime}
			first, _, d := k.get(hog)
			second, _, _ := k.get(hog)
			if d != nil {
				t.Fatal(d)
			}
			if d := evict(k.Desk, first.ID, 10*time.Minute); d != nil {
				t.Fatal(d)
			}
			if d := evict(k.Desk, second.ID, time.Hour); d != nil {
				t.Fatal(d)
			}
			until := k.wall.Add(10 * time.Minute)
			for i, compacted := range []bool{false, true, false} {
				k.restart(compacted, reboot)
				if i == 0 {
					if d := evict(k.Desk, second.ID, 0); d != nil {
						t.Fatal(d)
					}
				}
				if _, _, d := k.get(hog); d == nil || d.Code != enforcer.HeldOff || !d.Next.Equal(until) {
					t.Errorf("reboot %t, %s, restart %d: %v", reboot, lifetime, i, d)
				}
				if l, ok := k.Lease(first.ID); ok {
					t.Errorf("reboot %t, %s: its lease is held again: %+v", reboot, lifetime, l)
				}
			}
			other := hog
			other.Caller.UID = 1001
			if _, _, d := k.get(other); d != nil {
				t.Errorf("another user: %v", d)
			}
			k.close()
			k.wall = until // it passes while the agent is away
			k.open()
			if _, _, d := k.get(hog); d != nil {
				t.Errorf("in time: %v", d)
			}
			k.restart(false, reboot)
			if n := len(k.HoldOffs()); n != 0 {
				t.Errorf("%d are in force again", n)
			}
		}
	}
}

// A clock that was wrong when the lease was released does not make the hold-off longer after a restart.
func TestHoldOffAfterAWrongClock(t *testing.T) {
	t.Parallel()
	k := openKept(t)
	right := k.wall
	k.wall = right.Add(20 * time.Hour) // believed at once, and proved by nothing
	hog := enforcer.Acquire{Pool: "streams", Caller: enforcer.Caller{UID: 1000}, Lifetime: enforcer.LifetimeHeld}
	l, _, d := k.get(hog)
	if d != nil {
		t.Fatal(d)
	}
	if d := evict(k.Desk, l.ID, time.Minute); d != nil {
		t.Fatal(d)
	}
	k.close()
	k.wall = right
	k.open()
	list := k.HoldOffs()
	if len(list) != 1 || list[0].Until.Sub(k.Now()) > time.Minute {
		t.Fatalf("it is %v, and in force are %+v", k.Now(), list)
	}
}

// Where a hold-off cannot be stored, the lease is not released either, and the denial says so. Lifting one is carried
// out in any case.
func TestHoldOffOnAFullDisk(t *testing.T) {
	t.Parallel()
	k := openKept(t)
	hog := enforcer.Acquire{Pool: "streams", Caller: enforcer.Caller{UID: 1000}, Lifetime: enforcer.LifetimeTTL}
	first, _, _ := k.get(hog)
	second, _, d := k.get(hog)
	if d != nil {
		t.Fatal(d)
	}
	if d := evict(k.Desk, first.ID, time.Hour); d != nil {
		t.Fatal(d)
	}
	full := false
	j, _, err := journal.Open(journal.Config{Dir: t.TempDir(), Name: seals.DurableJournal, Sync: true,
		File: func(name string, flag int) (journal.File, error) {
			f, err := os.OpenFile(name, flag, 0o600)
			return fullDisk{f, &full}, err
		}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	was := k.store.durable
	defer func() { j.Close(); k.store.durable = was }()
	k.store.durable = j
	full = true
	if d := evict(k.Desk, second.ID, time.Hour); d == nil || d.Code != enforcer.Storage {
		t.Errorf("on a full disk: %v", d)
	}
	if _, held := k.Lease(second.ID); !held {
		t.Error("the lease was released without its hold-off")
	}
	if d := evict(k.Desk, first.ID, 0); d != nil {
		t.Errorf("lifted on a full disk: %v", d)
	}
	if _, _, d := k.get(hog); d != nil {
		t.Errorf("after that: %v", d)
	}
	if d := k.Release(&enforcer.Release{ID: second.ID, Caller: enforcer.Caller{Admin: true}, Force: true}); d != nil {
		t.Errorf("released without a hold-off: %v", d)
	}
}

// A waiter of the ousted holder hears at once that it is held off.
func TestWaiterIsHeldOff(t *testing.T) {
	t.Parallel()
	k := openKept(t)
	hog := enforcer.Acquire{Pool: "streams", Caller: enforcer.Caller{UID: 1000}, Lifetime: enforcer.LifetimeTTL, N: 9}
	g, d := k.Acquire(context.Background(), &hog)
	if d != nil {
		t.Fatal(d)
	}
	waiter := enforcer.Acquire{Pool: "streams", Caller: hog.Caller, N: 1, Wait: time.Hour}
	finish, waits := k.Begin(&waiter, nil)
	if !waits {
		t.Fatal("it does not wait")
	}
	if d := evict(k.Desk, g.ID, time.Minute); d != nil {
		t.Fatal(d)
	}
	if _, d := finish(context.Background()); d == nil || d.Code != enforcer.HeldOff {
		t.Errorf("the waiter hears %v", d)
	}
}

// tellsOfHoldOffs reports whether the durable journal has a record that an earlier version cannot read.
func (k *keptStore) tellsOfHoldOffs() (tells bool) {
	k.t.Helper()
	k.close()
	err := journal.Verify(filepath.Join(k.dir, "state", seals.DurableJournal), func(b []byte) error {
		tells = tells || b[0] == recordVersionHoldOff
		return nil
	})
	if err != nil {
		k.t.Fatal(err)
	}
	k.open()
	return tells
}

// Once no hold-off is in force, the journal is compacted and tells of none, so that an earlier version reads it.
func TestJournalForgetsHoldOffs(t *testing.T) {
	t.Parallel()
	for _, restarted := range []bool{false, true} {
		k := openKept(t)
		l, _, d := k.get(enforcer.Acquire{Pool: "streams", Caller: enforcer.Caller{UID: 1000}})
		if d != nil {
			t.Fatal(d)
		}
		if d := evict(k.Desk, l.ID, time.Hour); d != nil {
			t.Fatal(d)
		}
		k.store.compact(k.Desk)
		if !k.tellsOfHoldOffs() {
			t.Error("a hold-off in force is not in the journal")
		}
		if d := evict(k.Desk, l.ID, 0); d != nil {
			t.Fatal(d)
		}
		if restarted {
			k.restart(false, false)
		}
		select {
		case <-k.store.due:
		default:
			t.Errorf("restarted %t: no compaction is due", restarted)
		}
		k.store.compact(k.Desk)
		if k.tellsOfHoldOffs() {
			t.Errorf("restarted %t: the journal tells of hold-offs", restarted)
		}
	}
}

// Records of hold-offs have a version of their own, which an agent that knows none refuses to read.
func TestRecordOfHoldOffs(t *testing.T) {
	h := &enforcer.HoldOff{Lease: enforcer.LeaseID{1}, Pools: []string{"a"}, Of: []enforcer.Caller{{UID: 1}}}
	for _, ev := range []enforcer.Event{heldOff(h), {Kind: enforcer.EventLifted, HoldOff: h,
		Cause: enforcer.CauseReleased}} {
		if b := encodeEvent(nil, ev); b[0] != recordVersionHoldOff {
			t.Errorf("%s: version %d", ev.Kind, b[0])
		}
	}
}
