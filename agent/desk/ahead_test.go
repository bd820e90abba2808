package desk

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/journal/record"
	"github.com/usher-agent/usher/enforcer"
)

// aheadRecords are grants of leases, and the end of every third.
func aheadRecords(n int) (records [][]byte, held int) {
	at := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	for i := range n {
		l := &enforcer.Lease{Items: []enforcer.Item{{Pool: "streams", N: 1}}, Lifetime: enforcer.LifetimeTTL,
			TTL: time.Hour, AcquiredAt: at, ExpiresAt: at.Add(time.Hour),
			Holder: &enforcer.Holder{Caller: enforcer.Caller{UID: 1000, GID: 1000, PID: 4711}}}
		binary.BigEndian.PutUint32(l.ID[:], uint32(i+1))
		records = append(records, encodeEvent(nil, enforcer.Event{Kind: enforcer.EventGranted, At: at, Lease: l}))
		if held++; i%3 == 0 {
			held--
			records = append(records, encodeEvent(nil, enforcer.Event{Kind: enforcer.EventEnded, At: at, Lease: l,
				Cause: enforcer.CauseReleased}))
		}
	}
	return records, held
}

// What is read ahead of its applying comes to the same as what is read and applied one by one, and a record that
// follows from nothing, or is none, ends the reading wherever it is.
func TestReadAhead(t *testing.T) {
	t.Parallel()
	good, held := aheadRecords(3000)
	lost := encodeEvent(nil, enforcer.Event{Kind: enforcer.EventEnded, At: time.Unix(1, 0),
		Lease: &enforcer.Lease{ID: enforcer.LeaseID{255}}, Cause: enforcer.CauseReleased})
	for _, test := range []struct {
		at   int // where the bad record is; -1: nowhere
		bad  []byte
		want error
	}{{at: -1}, {0, lost, errNotHeld}, {100, lost, errNotHeld}, {2000, lost, errNotHeld}, {len(good), lost, errNotHeld},
		{0, []byte{1}, record.ErrUnreadable}, {2000, []byte{200, 1}, record.ErrNewer},
		{1500, []byte{metaVersion, '{'}, nil}} {
		into := newReplay(enforcer.New(enforcer.Options{Durable: true}))
		a := readAhead(into)
		var err error
		for i := 0; i <= len(good) && err == nil; i++ {
			if i == test.at {
				err = a.apply(test.bad)
			}
			if i < len(good) && err == nil {
				err = a.apply(good[i])
			}
		}
		if failed := a.end(); err == nil {
			err = failed
		}
		switch {
		case test.want != nil && !errors.Is(err, test.want), test.want == nil && (err != nil) != (test.at >= 0):
			t.Errorf("a bad record at %d: %v, want %v", test.at, err, test.want)
		case test.at < 0 && (into.core.Len() != held || into.mixed):
			t.Errorf("%d leases, want %d; mixed: %v", into.core.Len(), held, into.mixed)
		}
	}
}

// A start counts the leases that it finds by their lifetimes, whether it must look at each or not.
func TestFoundLeasesAreCounted(t *testing.T) {
	t.Parallel()
	for name, lifetimes := range map[string][]enforcer.Lifetime{
		"of a time to live": {enforcer.LifetimeTTL, enforcer.LifetimeTTL},
		"mixed":             {enforcer.LifetimeTTL, enforcer.LifetimeProcess, enforcer.LifetimeHeld},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			now := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
			o := testOptions(func() time.Time { return now })
			o.RuntimeDir, o.StateDir = filepath.Join(dir, "run"), filepath.Join(dir, "state")
			for _, d := range []string{o.RuntimeDir, o.StateDir} {
				if err := os.Mkdir(d, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			d, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			d.SetVerdict(&enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
				Pools: map[string]enforcer.PoolGrant{"streams": {Name: "streams", Limit: enforcer.Unlimited,
					Budget: enforcer.Unlimited}}}, 0)
			want := map[enforcer.Lifetime]int{}
			for _, l := range lifetimes {
				r := &enforcer.Acquire{Pool: "streams", N: 1, Lifetime: l,
					Caller: enforcer.Caller{UID: 1, PID: 7, Start: 1}}
				if _, denial := d.Acquire(t.Context(), r); denial != nil {
					t.Fatal(denial)
				}
				want[l]++
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if d, err = New(o); err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			all := d.Recovered(func(enforcer.Lifetime) bool { return false }, nil)
			is := d.Lifetimes()
			for l, n := range want {
				if is[l] != n || all != len(lifetimes) {
					t.Errorf("%d of %s are counted, want %d; %d of all", is[l], l, n, all)
				}
			}
		})
	}
}
