package holders

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/liveness"
	"github.com/usher-agent/usher/enforcer"
)

// slots are a desk that grants what is asked for, and writes down what it is told.
type slots struct {
	Slots
	leases []*enforcer.Lease // that the journals told of
	done   []enforcer.Request
	doubts []*enforcer.Lease
	byPod  bool
	early  func(*enforcer.Lease) // called with a lease before its acquire is answered; it is over then
	asked  int                   // for a lease
}

func (d *slots) Acquire(_ context.Context, r *enforcer.Acquire) (api.Grant, *enforcer.Denial) {
	l := &enforcer.Lease{ID: enforcer.LeaseID{byte(len(d.done) + 1)}, Lifetime: r.Lifetime}
	if d.early != nil {
		d.early(l)
	}
	return api.Grant{Lease: l}, nil
}

func (d *slots) Do(r enforcer.Request) enforcer.Decision {
	d.done = append(d.done, r)
	return enforcer.Decision{}
}

func (d *slots) Leave(ids []enforcer.LeaseID, holder enforcer.Caller) {
	d.Do(&enforcer.Gone{IDs: ids, Holder: holder})
}

func (d *slots) Lease(enforcer.LeaseID) (*enforcer.Lease, bool) {
	d.asked++
	return nil, d.early == nil
}

func (d *slots) IsMeter(r *enforcer.Acquire) bool { return r.Pool == "renders" }
func (d *slots) CountsByPod() bool                { return d.byPod }
func (d *slots) Doubt(l *enforcer.Lease)          { d.doubts = append(d.doubts, l) }

func (d *slots) Place(c *enforcer.Caller) {
	if d.byPod {
		c.Pod = "pod"
	}
}

func (d *slots) Recovered(doubtful func(enforcer.Lifetime) bool, found func(*enforcer.Lease)) int {
	for _, l := range d.leases {
		if doubtful(l.Lifetime) {
			found(l)
		}
	}
	return len(d.leases)
}

// pair returns both ends of a connection over a Unix socket.
func pair(t *testing.T) (here, there *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if there, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { there.Close() })
	if here, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close() })
	return here, there
}

// The leases that live by a connection end when it closes, unless it is the agent that stops: their holder lives, and
// shows itself to the next agent.
func TestSessionClose(t *testing.T) {
	r, _ := newRegistry(t)
	for _, stopping := range []bool{false, true} {
		d, stop := &slots{}, make(chan struct{})
		all := &Sessions{Slots: d, Registry: r, Stopping: stop}
		here, _ := pair(t)
		s := all.Open(here, nil, enforcer.Caller{UID: 7, PID: 8})
		g, denial := s.Acquire(t.Context(), &enforcer.Acquire{Pool: "streams", Lifetime: enforcer.LifetimeConnection})
		if denial != nil {
			t.Fatal(denial)
		}
		if stopping {
			close(stop)
		}
		s.Close()
		want := []enforcer.Request{&enforcer.Gone{IDs: []enforcer.LeaseID{g.ID},
			Holder: enforcer.Caller{UID: 7, PID: 8}}}
		if stopping {
			want = nil
		}
		if !reflect.DeepEqual(d.done, want) {
			t.Errorf("stopping %t: %+v, want %+v", stopping, d.done, want)
		}
	}
}

// A request that says nothing of its lifetime is for a lease by the process, by its time to live where it gives one, or
// for a draw where it is for a meter. The pod is filled in where it counts.
func TestSessionFillsInTheLifetime(t *testing.T) {
	r, _ := newRegistry(t)
	here, _ := pair(t)
	d := &slots{byPod: true}
	s := (&Sessions{Slots: d, Registry: r, Stopping: make(chan struct{})}).Open(here, nil,
		enforcer.Caller{UID: 7, PID: 8})
	defer s.Close()
	for want, q := range map[enforcer.Lifetime]enforcer.Acquire{
		enforcer.LifetimeProcess: {Pool: "streams"},
		enforcer.LifetimeTTL:     {Pool: "streams", TTL: 1},
		enforcer.LifetimeDraw:    {Pool: "renders"},
		enforcer.LifetimeHeld:    {Pool: "streams", Lifetime: enforcer.LifetimeHeld},
	} {
		implied := q.Lifetime == ""
		if _, denial := s.Acquire(t.Context(), &q); denial != nil || q.Lifetime != want || q.Implied != implied ||
			q.Caller.Pod != "pod" {
			t.Errorf("%s: %+v, %v", want, q, denial)
		}
	}
}

// A lease that ends before the registry knows of it is not remembered. Otherwise the desk is not asked again.
func TestLeaseThatEndsAtOnce(t *testing.T) {
	r, _ := newRegistry(t)
	here, _ := pair(t)
	d := &slots{}
	s := (&Sessions{Slots: d, Registry: r, Stopping: make(chan struct{})}).Open(here, nil, enforcer.Caller{UID: 7})
	defer s.Close()
	if _, denial := s.Acquire(t.Context(), &enforcer.Acquire{Pool: "streams"}); denial != nil {
		t.Fatal(denial)
	}
	if r.ties.leases.Len() == 0 {
		t.Skip("this kernel does not tell when a process dies")
	}
	r.Ended(ofProcess(enforcer.LeaseID{1}), enforcer.CauseReleased)
	if d.asked != 0 || r.ties.leases.Len() != 0 {
		t.Errorf("the desk was asked %d times, and %d leases are remembered", d.asked, r.ties.leases.Len())
	}
	d.early = func(l *enforcer.Lease) { r.Ended(l, enforcer.CauseRevoked) }
	if _, denial := s.Acquire(t.Context(), &enforcer.Acquire{Pool: "streams"}); denial != nil {
		t.Fatal(denial)
	}
	if r.ties.leases.Len() != 0 || d.asked != 1 {
		t.Errorf("%d leases that are over are remembered; the desk was asked %d times", r.ties.leases.Len(), d.asked)
	}
	d.early = func(*enforcer.Lease) {
		r.Ended(&enforcer.Lease{Lifetime: enforcer.LifetimeTTL}, enforcer.CauseReleased)
	}
	if _, denial := s.Acquire(t.Context(), &enforcer.Acquire{Pool: "streams"}); denial != nil || d.asked != 1 {
		t.Errorf("%v; after the end of a lease by time the desk was asked %d times", denial, d.asked)
	}
}

// After a restart the leases of the dead end, those of the living go on, and the others are unconfirmed. What outlives
// the host stands. After a reboot all that lived by processes, connections and times is over.
func TestRecover(t *testing.T) {
	r, left := newRegistry(t)
	handle, _ := living(t)
	lease := func(id byte, l enforcer.Lifetime, pid int32) *enforcer.Lease {
		return &enforcer.Lease{ID: enforcer.LeaseID{id}, Lifetime: l,
			Holder: &enforcer.Holder{Caller: enforcer.Caller{PID: pid}}}
	}
	alive := lease(2, enforcer.LifetimeProcess, 2)
	alive.Unconfirmed = true // since the restart before
	d := &slots{leases: []*enforcer.Lease{lease(1, enforcer.LifetimeProcess, 1), alive,
		lease(3, enforcer.LifetimeConnection, 3), lease(4, enforcer.LifetimeTTL, 4), lease(5, enforcer.LifetimeHeld, 5),
		lease(6, enforcer.LifetimeBorrow, 6)}}
	c := Recovery{Slots: d, Was: Place{Boot: "this"}, Is: Place{Boot: "this"}, Log: slog.New(slog.DiscardHandler),
		Kept: func(pid int32, _, _ uint64) (*liveness.Handle, bool) {
			return map[int32]*liveness.Handle{2: handle}[pid], true
		}}
	r.Recover(c)
	if got := left.gone(1); !slices.Equal(got, []enforcer.LeaseID{{1}}) {
		t.Errorf("left: %v", got)
	}
	if !reflect.DeepEqual(d.done, []enforcer.Request{&enforcer.Attach{ID: alive.ID, Caller: alive.Holder.Caller}}) ||
		len(d.doubts) != 1 || d.doubts[0].ID != (enforcer.LeaseID{3}) {
		t.Errorf("%v, doubted %v", d.done, d.doubts)
	}
	d.done, d.doubts, c.Is.Boot = nil, nil, "the next"
	r.Recover(c)
	ended := []byte{}
	for _, q := range d.done {
		if e, ok := q.(*enforcer.End); ok && e.Cause == enforcer.CauseHolderGone {
			ended = append(ended, e.ID[0])
		}
	}
	if string(ended) != "\x01\x02\x03\x04" || len(d.done) != 4 || len(d.doubts) > 0 {
		t.Errorf("after a reboot %v are over, of %v; doubted %v", ended, d.done, d.doubts)
	}
}

// A process that holds many leases is looked for once, for all of them, and each of its leases ends with it.
func TestRecoverLooksForAProcessOnce(t *testing.T) {
	r, left := newRegistry(t)
	handle, kill := living(t)
	d := &slots{}
	shared := &enforcer.Holder{Caller: enforcer.Caller{PID: 2}} // as the records of a journal share one
	for id := range byte(5) {
		by := &enforcer.Holder{Caller: enforcer.Caller{PID: 1}} // dead
		if id > 1 {
			by = shared
		}
		d.leases = append(d.leases, &enforcer.Lease{ID: enforcer.LeaseID{id}, Lifetime: enforcer.LifetimeProcess,
			Holder: by})
	}
	looked := map[int32]int{}
	r.Recover(Recovery{Slots: d, Was: Place{Boot: "this"}, Is: Place{Boot: "this"},
		Log: slog.New(slog.DiscardHandler),
		Kept: func(pid int32, _, _ uint64) (*liveness.Handle, bool) {
			looked[pid]++
			return map[int32]*liveness.Handle{2: handle}[pid], true
		}})
	if looked[1] != 1 || looked[2] != 1 {
		t.Errorf("processes were looked for so often: %v", looked)
	}
	if got := left.gone(2); len(got) != 2 || !slices.Contains(got, enforcer.LeaseID{0}) ||
		!slices.Contains(got, enforcer.LeaseID{1}) { // in any order
		t.Errorf("left with the dead: %v", got)
	}
	kill()
	if got := left.gone(3); len(got) != 5 {
		t.Errorf("left after the death of the other: %v", got)
	}
}

// A process with thousands of leases has them all after a restart: each is known, one that ends is forgotten, and the
// others end with the process.
func TestRecoverManyLeasesOfAProcess(t *testing.T) {
	const n = 2*max(manyLeases, rowSize) + 3 // of several rows, and of a table
	r, left := newRegistry(t)
	handle, kill := living(t)
	d := &slots{}
	by := &enforcer.Holder{Caller: enforcer.Caller{PID: 2}}
	for i := range n {
		d.leases = append(d.leases, &enforcer.Lease{ID: enforcer.LeaseID{byte(i), byte(i >> 8), 9: 1},
			Lifetime: enforcer.LifetimeProcess, Holder: by})
	}
	r.Recover(Recovery{Slots: d, Was: Place{Boot: "this"}, Is: Place{Boot: "this"},
		Log:  slog.New(slog.DiscardHandler),
		Kept: func(int32, uint64, uint64) (*liveness.Handle, bool) { return handle, true }})
	for _, l := range d.leases {
		if !r.holds(l.ID, handle) {
			t.Fatalf("lease %s lives by no process", l.ID)
		}
	}
	r.Ended(d.leases[3], enforcer.CauseReleased)
	kill()
	if got := left.gone(n - 1); len(got) != n-1 || slices.Contains(got, d.leases[3].ID) || r.ties.leases.Len() != n-1 {
		t.Errorf("%d leases left with the process, want %d", len(got), n-1)
	}
}

// A place is made of what the kernel says of namespaces; what it does not say is not known.
func TestPlaceOf(t *testing.T) {
	t.Parallel()
	if got := PlaceOf("b", "pid:[4026531836]", "", 3); got != (Place{Boot: "b", PIDNS: 4026531836, TimeOffset: 3}) {
		t.Errorf("%+v", got)
	}
	if got := PlaceOf("", "pid", "time:[x]", 0); got != (Place{}) {
		t.Errorf("%+v", got)
	}
}
