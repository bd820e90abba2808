package desk

import (
	"encoding/binary"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// collects reports whether garbage is collected as ever: when the heap has doubled, or before; a small one that is
// often collected may grow fivefold. In a pause it may grow far more.
func collects() bool {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return s[0].Value.Uint64() <= 400
}

// becomes waits until garbage is collected, or no more.
func becomes(collected bool) bool { return polled(func() bool { return collects() == collected }) }

// polled waits until something is so, at the most half a minute.
func polled(is func() bool) bool {
	tick, end := time.NewTicker(time.Millisecond), time.After(30*time.Second)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-end:
			return false
		}
	}
	return true
}

// While a holder leaves very many leases no collection of garbage begins, and afterwards they begin again. A few leases
// are left without.
func TestLeaveOfManyPutsOffCollections(t *testing.T) {
	t.Setenv("GOGC", "") // who sets it has it
	o := testOptions(time.Now)
	paused, many := false, false
	o.Signals.Ended = func(*enforcer.Lease, enforcer.Cause) {
		if many && !paused {
			paused = becomes(false)
			many = paused // once is enough
		}
	}
	d := newDesk(o)
	by := enforcer.Caller{UID: 1, PID: 2, Start: 3}
	leave := func(n int) {
		t.Helper()
		ids := make([]enforcer.LeaseID, n)
		for i := range ids {
			binary.BigEndian.PutUint64(ids[i][:], uint64(i+1))
			d.core.Apply(enforcer.Event{Kind: enforcer.EventGranted, At: time.Now(), Lease: &enforcer.Lease{ID: ids[i],
				Items: []enforcer.Item{{Pool: "p", N: 1}}, Lifetime: enforcer.LifetimeProcess, AcquiredAt: time.Now(),
				Holder: &enforcer.Holder{Caller: by}}})
		}
		d.Leave(ids, by)
		if d.core.Len() != 0 {
			t.Fatalf("%d leases are still held", d.core.Len())
		}
	}
	leave(leavingMany)
	if !collects() {
		t.Error("a few leases put collections off")
	}
	many = true
	leave(leavingMany + 1)
	if !paused {
		t.Error("garbage is collected while very many leases are left")
	}
	if !becomes(true) {
		t.Error("garbage is not collected when all leases are left")
	}
}
