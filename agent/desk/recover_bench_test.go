package desk

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// BenchmarkRecovery reads a journal of leases of a time to live again, and gives each its time anew.
func BenchmarkRecovery(b *testing.B) {
	const leases = 1_000_000
	dir, err := os.MkdirTemp(shm(), "u")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, d := range []string{"run", "state"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			b.Fatal(err)
		}
	}
	now := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	open := func() *Desk {
		o := testOptions(func() time.Time { return now })
		o.RuntimeDir, o.StateDir = filepath.Join(dir, "run"), filepath.Join(dir, "state")
		d := newDesk(o)
		if err := d.open(o); err != nil {
			b.Fatal(err)
		}
		return d
	}
	d := open()
	for i := range leases {
		at := now.Add(time.Duration(i) * time.Microsecond)
		l := &enforcer.Lease{Items: []enforcer.Item{{Pool: "streams", N: 1}}, Lifetime: enforcer.LifetimeTTL,
			TTL: time.Hour, AcquiredAt: at, ExpiresAt: at.Add(time.Hour),
			Holder: &enforcer.Holder{Caller: enforcer.Caller{UID: 1000, GID: 1000, PID: 4711}}}
		rand.Read(l.ID[:])
		if _, _, err := d.store.write([]enforcer.Event{{Kind: enforcer.EventGranted, At: at, Lease: l}}); err !=
			nil {
			b.Fatal(err)
		}
	}
	d.store.Close()
	b.ReportAllocs()
	for b.Loop() {
		d := open()
		recovered(d)
		b.StopTimer()
		d.store.Close()
		b.StartTimer()
	}
}

func shm() string {
	if _, err := os.Stat("/dev/shm"); err == nil {
		return "/dev/shm"
	}
	return ""
}
