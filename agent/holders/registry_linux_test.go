package holders

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/liveness"
	"github.com/usher-agent/usher/enforcer"
)

// recorder is a desk and a handover that write down what is asked of them.
type recorder struct {
	t *testing.T

	mu     sync.Mutex
	left   []enforcer.LeaseID
	leaves chan struct{}
	kept   map[string]bool
}

func (d *recorder) leave(ids []enforcer.LeaseID, _ enforcer.Caller) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = append(d.left, ids...)
	for range ids {
		d.leaves <- struct{}{}
	}
}

func (d *recorder) Idle() bool { return false }

func (d *recorder) KeepHolder(*liveness.Handle, int32, uint64, uint64) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.kept["it"] {
		d.t.Error("a pidfd is kept twice")
	}
	d.kept["it"] = true
	return "it"
}

func (d *recorder) Drop(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.kept, name)
}

// gone waits for n leases to be left, and returns all that have been.
func (d *recorder) gone(n int) []enforcer.LeaseID {
	d.t.Helper()
	for range n {
		select {
		case <-d.leaves:
		case <-time.After(time.Minute):
			d.t.Fatal("no lease was left within a minute")
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.left)
}

func newRegistry(t *testing.T) (*Registry, *recorder) {
	t.Helper()
	d := &recorder{t: t, leaves: make(chan struct{}, 16), kept: map[string]bool{}}
	r, err := New(Config{Handover: d, Leave: d.leave})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		r.Close()
	})
	return r, d
}

// living is a process that lives until kill is called.
func living(t *testing.T) (handle *liveness.Handle, kill func()) {
	t.Helper()
	cmd := exec.Command("cat")
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	t.Cleanup(kill)
	handle, err := liveness.FromPID(int32(cmd.Process.Pid), 0)
	if errors.Is(err, liveness.ErrUnsupported) {
		t.Skip("this kernel does not tell when a process dies")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { handle.Close() })
	return handle, kill
}

func ofProcess(id enforcer.LeaseID) *enforcer.Lease {
	return &enforcer.Lease{ID: id, Lifetime: enforcer.LifetimeProcess}
}

// A process's death ends each of its leases once, and those that were over before not again. Its pidfd is kept once,
// while it holds.
func TestDeathEndsEachLeaseOnce(t *testing.T) {
	t.Parallel()
	r, d := newRegistry(t)
	handle, kill := living(t)
	caller := enforcer.Caller{PID: handle.Process().PID}
	ids := []enforcer.LeaseID{{1}, {2}, {3}}
	for _, id := range ids {
		if err := r.Hold(id, caller, handle); err != nil {
			t.Fatal(err)
		}
	}
	l := &enforcer.Lease{ID: ids[0], Lifetime: enforcer.LifetimeProcess}
	if path := r.Path(l); path != "pidfd" || r.ByPath()[path] != 3 || !d.kept["it"] {
		t.Errorf("the path is %s, by path there are %v, kept is %v", path, r.ByPath(), d.kept)
	}
	r.Ended(ofProcess(ids[2]), enforcer.CauseReleased)
	kill()
	left := d.gone(2)
	slices.SortFunc(left, func(a, b enforcer.LeaseID) int { return slices.Compare(a[:], b[:]) })
	if !slices.Equal(left, ids[:2]) || len(d.kept) != 0 {
		t.Errorf("left are %v, kept is %v", left, d.kept)
	}
	r.Ended(ofProcess(ids[0]), enforcer.CauseReleased)
	r.Ended(ofProcess(ids[1]), enforcer.CauseReleased)
	if n := r.ByPath()["pidfd"]; n != 0 || r.ties.leases.Len() != 0 || len(r.alive) != 0 {
		t.Errorf("%d leases and %d processes are remembered", r.ties.leases.Len(), len(r.alive))
	}
}

// A process with an open session is watched between its leases, and is forgotten with the last of both.
func TestPinnedProcessIsRemembered(t *testing.T) {
	t.Parallel()
	r, _ := newRegistry(t)
	handle, _ := living(t)
	if err := r.Pin(enforcer.Caller{}, handle); err != nil {
		t.Fatal(err)
	}
	if err := r.Hold(enforcer.LeaseID{1}, enforcer.Caller{}, handle); err != nil {
		t.Fatal(err)
	}
	r.Ended(ofProcess(enforcer.LeaseID{1}), enforcer.CauseReleased)
	if len(r.alive) != 1 || r.watcher.Len() != 1 {
		t.Errorf("%d processes are known, %d watched, while a session is open", len(r.alive), r.watcher.Len())
	}
	r.Unpin(handle)
	if len(r.alive) != 0 {
		t.Errorf("%d processes are known after the session", len(r.alive))
	}
}

// After a restart the living are watched again, the dead leave, and one that cannot be told from another stays in
// doubt.
func TestFindAfterARestart(t *testing.T) {
	t.Parallel()
	r, d := newRegistry(t)
	handle, kill := living(t)
	p := handle.Process()
	was := Place{Boot: p.BootID, PIDNS: p.PIDNS, TimeNS: p.TimeNS, TimeOffset: p.TimeOffset}
	holder := func(pid int32) *enforcer.Holder {
		return &enforcer.Holder{Caller: enforcer.Caller{PID: pid, Start: p.Start}}
	}
	alive, dead := holder(p.PID), holder(p.PID+1)
	kept := func(pid int32, _, _ uint64) (*liveness.Handle, bool) {
		if pid == p.PID {
			return handle, true
		}
		return nil, true
	}
	none := func(int32, uint64, uint64) (*liveness.Handle, bool) { return nil, false }
	lease := func(id byte, holders ...*enforcer.Holder) *enforcer.Lease {
		return &enforcer.Lease{
			ID:       enforcer.LeaseID{id},
			Lifetime: enforcer.LifetimeProcess,
			Holder:   holders[0],
			Others:   holders[1:],
		}
	}
	if s := r.find(lease(1, alive), was, was, newLookup(kept)); s != liveness.Alive {
		t.Errorf("a living holder is %v", s)
	}
	if s := r.find(lease(2, dead, alive), was, was, newLookup(kept)); s != liveness.Alive {
		t.Errorf("a dead holder and a living one are %v", s)
	}
	if left := d.gone(1); !slices.Equal(left, []enforcer.LeaseID{{2}}) {
		t.Errorf("left are %v", left)
	}
	if s := r.find(lease(3, dead), was, was, newLookup(kept)); s != liveness.Dead {
		t.Errorf("a dead holder is %v", s)
	}
	d.gone(1)
	if s := r.find(lease(4, alive), Place{}, was, newLookup(none)); s != liveness.Unknown {
		t.Errorf("a holder of whom nothing is known is %v", s)
	}
	// The number in the record is another process's here.
	other := holder(p.PID)
	other.PID++
	same := func(int32, uint64, uint64) (*liveness.Handle, bool) { return handle, true }
	if s := r.find(lease(5, other), Place{PIDNS: 1}, was, newLookup(same)); s != liveness.Unknown {
		t.Errorf("a holder whose number was another's is %v", s)
	}
	kill()
	if left := d.gone(2); slices.Contains(left, enforcer.LeaseID{4}) || slices.Contains(left, enforcer.LeaseID{5}) ||
		len(left) != 4 {
		t.Errorf("left are %v", left)
	}
}

// A lease whose holder cannot be watched does not live by it: its connection is what tells, and so it is counted.
func TestHolderThatCannotBeWatched(t *testing.T) {
	t.Parallel()
	d := &recorder{t: t, leaves: make(chan struct{}, 1), kept: map[string]bool{}}
	r, err := New(Config{Handover: d, Leave: d.leave})
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	handle, _ := living(t)
	l := &enforcer.Lease{ID: enforcer.LeaseID{1}, Lifetime: enforcer.LifetimeProcess}
	if err := r.Hold(l.ID, enforcer.Caller{}, handle); err == nil {
		t.Fatal("a closed watcher watches")
	}
	if r.Path(l) != "connection" || r.ByPath()["pidfd"] != 0 || r.ties.leases.Len() != 0 || len(r.alive) != 0 ||
		len(d.kept) != 0 {
		t.Errorf("the path is %s, by path there are %v, %d leases and %d processes are known, kept is %v",
			r.Path(l), r.ByPath(), r.ties.leases.Len(), len(r.alive), d.kept)
	}
}

// A process whose lease was revoked counts for as long as it runs and gets no other lease.
func TestRevokedAlive(t *testing.T) {
	t.Parallel()
	r, d := newRegistry(t)
	handle, kill := living(t)
	caller := enforcer.Caller{PID: handle.Process().PID}
	hold := func(id byte, why enforcer.Cause, want int) {
		t.Helper()
		if err := r.Hold(enforcer.LeaseID{id}, caller, handle); err != nil {
			t.Fatal(err)
		}
		if n := r.RevokedAlive(); n != 0 {
			t.Errorf("%d are counted that hold a lease", n)
		}
		r.Ended(ofProcess(enforcer.LeaseID{id}), why)
		if n := r.RevokedAlive(); n != want {
			t.Errorf("after the end by %s %d are counted, want %d", why, n, want)
		}
	}
	hold(1, enforcer.CauseReleased, 0)
	hold(2, enforcer.CauseRevoked, 1)
	hold(3, enforcer.CauseExpired, 0)
	hold(4, enforcer.CauseRevoked, 1)
	kill()
	d.gone(0)
	for deadline := time.Now().Add(30 * time.Second); r.RevokedAlive() != 0; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a dead process counts as alive")
		}
	}
}
