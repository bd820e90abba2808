package desk

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// Of a record that has the holder, the items and the terms of the one before, the lease alone is made.
func TestRecordsShareParts(t *testing.T) {
	at := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	record := func(pid int32, pool string, issued time.Time) []byte {
		return encodeEvent(nil, enforcer.Event{Kind: enforcer.EventGranted, At: at,
			Terms: &enforcer.Terms{ID: [16]byte{1}, Issued: issued, OnExpiry: enforcer.Drain},
			Lease: &enforcer.Lease{ID: enforcer.LeaseID{1}, Items: []enforcer.Item{{Pool: pool, N: 1}},
				Lifetime: enforcer.LifetimeProcess, AcquiredAt: at,
				Holder: &enforcer.Holder{Caller: enforcer.Caller{UID: 1000, PID: pid, Exe: "/bin/x"}}}})
	}
	same := newSameParts()
	read := func(b []byte) enforcer.Event {
		t.Helper()
		ev, _, err := decodeRecord(b, same)
		if err != nil {
			t.Fatal(err)
		}
		return ev
	}
	b := record(1, "streams", at)
	first := read(b)
	if n := testing.AllocsPerRun(100, func() { read(b) }); n > 1 {
		t.Errorf("a record like the one before makes %v things, want the lease alone", n)
	}
	again := read(b)
	if again.Lease.Holder != first.Lease.Holder || again.Terms != first.Terms ||
		&again.Lease.Items[0] != &first.Lease.Items[0] {
		t.Error("the parts are not shared")
	}
	for name, other := range map[string][]byte{
		"holder": record(2, "streams", at), "items": record(1, "stream", at), "terms": record(1, "streams", at.Add(1)),
	} {
		ev, plain := read(other), enforcer.Event{}
		plain, _, err := decodeRecord(other, nil)
		if err != nil || ev.Lease.Holder.PID != plain.Lease.Holder.PID || ev.Lease.Items[0] != plain.Lease.Items[0] ||
			*ev.Terms != *plain.Terms {
			t.Errorf("another %s: %+v, want %+v; %v", name, ev, plain, err)
		}
		read(b)
	}
	if got := read(b); got.Lease.Holder != first.Lease.Holder {
		t.Error("a holder of earlier records is made again")
	}
}
