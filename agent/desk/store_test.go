package desk

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/journal"
	"github.com/usher-agent/usher/enforcer"
)

// kept is a desk with its journals, which can be closed and opened again.
type keptStore struct {
	*Desk
	t    *testing.T
	dir  string
	wall time.Time
}

func openKept(t *testing.T) *keptStore {
	k := &keptStore{t: t, dir: t.TempDir(), wall: time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)}
	for _, d := range []string{"run", "state"} {
		if err := os.Mkdir(filepath.Join(k.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	k.open()
	t.Cleanup(k.close)
	return k
}

func (k *keptStore) open() {
	k.t.Helper()
	if err := k.begin(); err != nil {
		k.t.Fatal(err)
	}
}

// begin opens the journals, or says why they are refused.
func (k *keptStore) begin() error {
	o := testOptions(func() time.Time { return k.wall })
	o.RuntimeDir, o.StateDir = filepath.Join(k.dir, "run"), filepath.Join(k.dir, "state")
	d := newDesk(o)
	if err := d.open(o); err != nil {
		return err
	}
	k.Desk = d
	recovered(d)
	d.SetVerdict(&enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid, MaxBorrow: 30 * 24 * time.Hour,
		Pools: map[string]enforcer.PoolGrant{"streams": {Name: "streams", Limit: 9, Budget: 9}},
		Meters: map[string]enforcer.MeterGrant{"renders": {Name: "renders", Key: "a/renders", Limit: 100,
			Budget: 100}}}, 0)
	return nil
}

func (k *keptStore) close() {
	if err := k.store.Close(); err != nil {
		k.t.Error(err)
	}
}

// testOptions are those of a desk that keeps nothing, with a wall clock.
func testOptions(now func() time.Time) Options {
	return Options{Now: now, Observer: unseen{}, Core: enforcer.Options{Durable: true},
		Log: slog.New(slog.DiscardHandler)}
}

// recovered doubts what was found again of a holder, for there is none.
func recovered(d *Desk) {
	var found []*enforcer.Lease
	d.Recovered(func(l enforcer.Lifetime) bool { return l != enforcer.LifetimeTTL && !l.OutlivesHost() },
		func(l *enforcer.Lease) { found = append(found, l) })
	for _, l := range found {
		d.Doubt(l)
	}
}

// restart closes and opens the journals; with compacted they have been compacted before, with reboot the host has gone
// down.
func (k *keptStore) restart(compacted, reboot bool) {
	k.t.Helper()
	if compacted {
		for _, j := range []*journal.Journal{k.store.runtime, k.store.durable} {
			if err := k.store.rewrite(j, k.Desk); err != nil {
				k.t.Fatal(err)
			}
		}
	}
	k.close()
	if reboot {
		if err := errors.Join(os.RemoveAll(filepath.Join(k.dir, "run")),
			os.Mkdir(filepath.Join(k.dir, "run"), 0o700)); err != nil {
			k.t.Fatal(err)
		}
	}
	k.open()
}

func (k *keptStore) get(r enforcer.Acquire) (*enforcer.Lease, bool, *enforcer.Denial) {
	r.N = 1
	g, d := k.Acquire(context.Background(), &r)
	return g.Lease, g.Replayed, d
}

// A client token is remembered for a day, whatever becomes of its lease, over compactions, restarts and, for what
// outlives the host, its reboot: nothing is drawn twice.
func TestTokensOutliveCompaction(t *testing.T) {
	for _, reboot := range []bool{false, true} {
		k := openKept(t)
		draw := enforcer.Acquire{Pool: "renders", Token: "draw"}
		ttl := enforcer.Acquire{Pool: "streams", Token: "ttl", Lifetime: enforcer.LifetimeTTL}
		held := enforcer.Acquire{Pool: "streams", Token: "held", Lifetime: enforcer.LifetimeHeld}
		over := enforcer.Acquire{Pool: "streams", Token: "over", Lifetime: enforcer.LifetimeHeld}
		ids := map[string]enforcer.LeaseID{}
		for _, r := range []enforcer.Acquire{draw, ttl, held, over} {
			l, _, d := k.get(r)
			if d != nil {
				t.Fatal(d)
			}
			ids[r.Token] = l.ID
		}
		for _, token := range []string{"ttl", "over"} {
			if d := k.Release(&enforcer.Release{ID: ids[token]}); d != nil {
				t.Fatal(d)
			}
		}
		for range 3 {
			k.restart(true, reboot)
			for _, r := range []enforcer.Acquire{draw, held} {
				if l, replayed, d := k.get(r); d != nil || !replayed || l.ID != ids[r.Token] {
					t.Fatalf("reboot %t: %s is asked for again, and got %+v, %v", reboot, r.Token, l, d)
				}
			}
			ended := []enforcer.Acquire{over}
			if !reboot {
				ended = append(ended, ttl)
			}
			for _, r := range ended {
				if l, _, d := k.get(r); d == nil || d.Code != enforcer.TokenReused {
					t.Fatalf("reboot %t: %s, which is over, is asked for again, and got %+v, %v", reboot, r.Token, l, d)
				}
			}
			if p, _ := k.Pool("renders"); p.InUse != 1 {
				t.Fatalf("%d draws of one token", p.InUse)
			}
		}
		// After a day it is forgotten, but for that of a lease still held.
		k.wall = k.wall.Add(enforcer.TokenKept + time.Second)
		k.restart(true, reboot)
		if _, replayed, d := k.get(held); d != nil || !replayed {
			t.Fatalf("the token of a held lease is forgotten: %v", d)
		}
		for _, r := range []enforcer.Acquire{draw, over} {
			if _, replayed, d := k.get(r); d != nil || replayed {
				t.Fatalf("%s is remembered for longer than a day: %v", r.Token, d)
			}
		}
	}
}

// When the time is set, until when tokens are remembered moves with it, after a crash too: a retry draws once.
func TestTokensOutliveASetClock(t *testing.T) {
	for _, by := range []time.Duration{25 * time.Hour, -25 * time.Hour} {
		k := openKept(t)
		if by < 0 { // the licence time goes back only as far as the wall clock was ahead of its evidence
			k.wall = k.wall.Add(30 * 24 * time.Hour)
			k.Now()
		}
		draw := enforcer.Acquire{Pool: "renders", Token: "draw"}
		first, _, d := k.get(draw)
		if d != nil {
			t.Fatal(d)
		}
		k.wall = k.wall.Add(by)
		k.Now()
		select {
		case <-k.store.due:
			k.store.compact(k.Desk)
		default:
			t.Fatalf("set by %s: no compaction is due", by)
		}
		k.restart(false, false)
		if l, replayed, d := k.get(draw); d != nil || !replayed || l.ID != first.ID {
			t.Errorf("set by %s: a retry got %+v, replayed %t, %v", by, l, replayed, d)
		}
	}
}

// A borrow is found again after a reboot as it was, ends at its date, and not because the agent was away then.
func TestBorrowOutlivesTheHost(t *testing.T) {
	for _, compacted := range []bool{false, true} {
		k := openKept(t)
		until := k.wall.Add(10 * 24 * time.Hour)
		l, _, d := k.get(enforcer.Acquire{Pool: "streams", Lifetime: enforcer.LifetimeBorrow, Until: until})
		if d != nil {
			t.Fatal(d)
		}
		for range 3 {
			k.wall = k.wall.Add(3 * 24 * time.Hour)
			k.restart(compacted, true)
			got, ok := k.Lease(l.ID)
			if !ok || got.Unconfirmed || !got.ExpiresAt.Equal(until) {
				t.Fatalf("a borrow after a reboot: %+v, %t", got, ok)
			}
			if p, _ := k.Pool("streams"); p.InUse != 1 || p.Borrowed != 1 {
				t.Fatalf("%+v", p)
			}
			if d := k.Release(&enforcer.Release{ID: l.ID}); d == nil || d.Code != enforcer.Forbidden {
				t.Fatalf("a borrow is given back early: %v", d)
			}
		}
		k.wall = until
		k.restart(compacted, true)
		if p, _ := k.Pool("streams"); p.InUse != 0 || p.Borrowed != 0 {
			t.Fatalf("a borrow goes on after its date: %+v", p)
		}
	}
}
