package desk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/journal"
	"github.com/usher-agent/usher/enforcer"
)

// again has the next look try to make journals well at once.
func (k *keptStore) again() {
	h := &k.store.health
	h.mu.Lock()
	h.next = [2]time.Time{}
	h.mu.Unlock()
	k.store.look(k.Desk)
}

// drop takes a folder away, and make gives it back, empty.
func (k *keptStore) drop(name string) {
	k.t.Helper()
	if err := os.RemoveAll(filepath.Join(k.dir, name)); err != nil {
		k.t.Fatal(err)
	}
}

func (k *keptStore) make(name string) {
	k.t.Helper()
	if err := os.Mkdir(filepath.Join(k.dir, name), 0o700); err != nil {
		k.t.Fatal(err)
	}
}

func (k *keptStore) mustGet(pool string, life enforcer.Lifetime) enforcer.LeaseID {
	k.t.Helper()
	l, _, d := k.get(enforcer.Acquire{Pool: pool, Lifetime: life})
	if d != nil {
		k.t.Fatal(d)
	}
	return l.ID
}

func (k *keptStore) inUse(pool string) int64 {
	p, _ := k.Pool(pool)
	return p.InUse
}

// A folder is deleted beneath a running desk. Nothing that must last is acknowledged until its journal is found under
// its name again, and then it has all that is held and drawn, and nothing that ended meanwhile.
func TestFoldersAreDeleted(t *testing.T) {
	for _, test := range []struct {
		folder, pool string
		life         enforcer.Lifetime
	}{{"state", "renders", ""}, {"state", "streams", enforcer.LifetimeHeld}, {"run", "streams", enforcer.LifetimeTTL}} {
		t.Run(test.folder+" "+test.pool, func(t *testing.T) {
			k := openKept(t)
			kept, ends := k.mustGet(test.pool, test.life), k.mustGet("streams", cmpLife(test.life))
			before := k.inUse(test.pool)
			k.drop(test.folder)
			if test.folder == "run" { // it needs no fsync, which would have noticed
				k.again()
			}
			if _, _, d := k.get(enforcer.Acquire{Pool: test.pool, Lifetime: test.life}); d == nil ||
				d.Code != enforcer.Storage {
				t.Fatalf("with its folder gone: %v", d)
			}
			k.again()
			if err := k.Unwell(); !errors.Is(err, journal.ErrLost) {
				t.Errorf("with its folder gone the desk says %v", err)
			}
			if d := k.Release(&enforcer.Release{ID: ends}); d != nil {
				t.Fatal(d)
			}
			k.make(test.folder)
			k.again()
			if err := k.Unwell(); err != nil {
				t.Fatalf("with its folder back: %v", err)
			}
			k.mustGet(test.pool, test.life)
			want := k.inUse(test.pool)
			k.restart(false, false)
			if got := k.inUse(test.pool); got != want || got < before && test.pool == "renders" {
				t.Errorf("after a restart %d of %s are in use, want %d", got, test.pool, want)
			}
			if _, ok := k.Lease(ends); ok {
				t.Error("what ended meanwhile is held again")
			}
			if _, ok := k.Lease(kept); !ok && test.life != "" {
				t.Error("what was held is lost")
			}
		})
	}
}

func cmpLife(l enforcer.Lifetime) enforcer.Lifetime {
	if l == "" {
		return enforcer.LifetimeHeld
	}
	return l
}

// A journal is only renamed, or another file is put in its place.
func TestJournalsAreReplaced(t *testing.T) {
	for _, name := range []string{"durable.journal", "leases.journal"} {
		for _, how := range []func(path string) error{
			os.Remove,
			func(path string) error { return os.Rename(path, path+".old") },
			func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) },
		} {
			k := openKept(t)
			held, ttl := k.mustGet("streams", enforcer.LifetimeHeld), k.mustGet("streams", enforcer.LifetimeTTL)
			k.mustGet("renders", "")
			dir := "state"
			if name == "leases.journal" {
				dir = "run"
			}
			if err := how(filepath.Join(k.dir, dir, name)); err != nil {
				t.Fatal(err)
			}
			k.again()
			if err := k.Unwell(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			k.mustGet("renders", "")
			k.restart(false, false)
			for _, id := range []enforcer.LeaseID{held, ttl} {
				if _, ok := k.Lease(id); !ok {
					t.Errorf("%s: a lease is lost", name)
				}
			}
			if n := k.inUse("renders"); n != 2 {
				t.Errorf("%s: %d draws are known, want 2", name, n)
			}
			k.close()
		}
	}
}

// Whatever is taken, given back and lost in whatever order, the next start knows what the desk knew.
func TestLostInAnyOrder(t *testing.T) {
	for seed := range 40 {
		k := openKept(t)
		state := uint32(seed)*2654435761 + 1
		next := func(n uint32) uint32 { state = state*1664525 + 1013904223; return state >> 16 % n }
		var held []enforcer.LeaseID
		gone := map[string]bool{}
		for range 60 {
			switch next(8) {
			case 0, 1, 2:
				life := []enforcer.Lifetime{enforcer.LifetimeHeld, enforcer.LifetimeTTL}[next(2)]
				if l, _, d := k.get(enforcer.Acquire{Pool: "streams", Lifetime: life}); d == nil {
					held = append(held, l.ID)
				}
			case 3:
				k.get(enforcer.Acquire{Pool: "renders"})
			case 4, 5:
				if len(held) > 0 {
					k.Release(&enforcer.Release{ID: held[0]})
					held = held[1:]
				}
			case 6:
				dir := []string{"state", "run"}[next(2)]
				if gone[dir] = !gone[dir]; gone[dir] {
					k.drop(dir)
				} else {
					k.make(dir)
				}
			case 7:
				k.again()
			}
		}
		for dir := range gone {
			if gone[dir] {
				k.make(dir)
			}
		}
		k.again()
		k.again() // what ended meanwhile
		if err := k.Unwell(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		want := fmt.Sprint(k.inUse("streams"), k.inUse("renders"))
		k.restart(false, false)
		if got := fmt.Sprint(k.inUse("streams"), k.inUse("renders")); got != want {
			t.Fatalf("seed %d: after a restart %s are in use, want %s", seed, got, want)
		}
	}
}

// A journal whose folder cannot be used is tried again after longer and longer pauses. When the folder is mended, the
// next look does not wait for the pause to pass.
func TestFolderIsMendedInAPause(t *testing.T) {
	k := openKept(t)
	gone := errors.New("the folder is gone")
	k.store.locked = func(bool) error { return gone }
	for range 5 {
		k.again()
	}
	if _, _, d := k.get(enforcer.Acquire{Pool: "streams", Lifetime: enforcer.LifetimeHeld}); d == nil ||
		d.Code != enforcer.Storage || k.Unwell() == nil {
		t.Fatalf("without a folder: %v, %v", d, k.Unwell())
	}
	k.store.locked = func(bool) error { return nil }
	k.drop("state")
	k.make("state")
	k.store.look(k.Desk)
	if k.Unwell() == nil {
		t.Fatal("there is no pause")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	k.LookAtJournals()
	go func() { done <- k.RunJournals(ctx) }()
	deadline := time.Now().Add(time.Minute)
	for k.Unwell() != nil && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	cancel()
	if err := <-done; err != nil || k.Unwell() != nil {
		t.Fatalf("the folder is mended: %v, %v", err, k.Unwell())
	}
	id := k.mustGet("streams", enforcer.LifetimeHeld)
	k.restart(false, false)
	if _, held := k.Lease(id); !held {
		t.Error("what was granted then is lost")
	}
}

// The journals are looked at when the beat says.
func TestJournalsKeepTheBeat(t *testing.T) {
	k := openKept(t)
	ctx, cancel := context.WithCancel(t.Context())
	asked, done := make(chan time.Duration), make(chan error)
	k.store.beat = func(every time.Duration) time.Duration {
		select {
		case asked <- every:
		case <-ctx.Done():
		}
		return time.Nanosecond
	}
	go func() { done <- k.RunJournals(ctx) }()
	for range 3 {
		if every := <-asked; every != presentEvery {
			t.Errorf("asked for a beat of %s", every)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
