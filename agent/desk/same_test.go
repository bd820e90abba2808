package desk

import (
	"testing"
	"time"
	"unsafe"

	"github.com/usher-agent/usher/enforcer"
)

// What a record tells takes no more than two cache lines: see readRecord.
func TestReadRecordIsSmall(t *testing.T) {
	t.Parallel()
	if n := unsafe.Sizeof(readRecord{}); n > 128 {
		t.Errorf("it takes %d bytes", n)
	}
}

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
	var is readRecord
	read := func(b []byte) readRecord {
		t.Helper()
		if err := decodeRecord(b, same, &is); err != nil {
			t.Fatal(err)
		}
		return is
	}
	b := record(1, "streams", at)
	first := read(b)
	if n := testing.AllocsPerRun(100, func() { read(b) }); n > 1 {
		t.Errorf("a record like the one before makes %v things, want the lease alone", n)
	}
	again := read(b)
	if again.lease.Holder != first.lease.Holder || again.terms != first.terms ||
		&again.lease.Items[0] != &first.lease.Items[0] {
		t.Error("the parts are not shared")
	}
	for name, other := range map[string][]byte{
		"holder": record(2, "streams", at), "items": record(1, "stream", at), "terms": record(1, "streams", at.Add(1)),
	} {
		ev, plain := read(other), readRecord{}
		err := decodeRecord(other, nil, &plain)
		if err != nil || ev.lease.Holder.PID != plain.lease.Holder.PID || ev.lease.Items[0] != plain.lease.Items[0] ||
			*ev.terms != *plain.terms {
			t.Errorf("another %s: %+v, want %+v; %v", name, ev, plain, err)
		}
		read(b)
	}
	if got := read(b); got.lease.Holder != first.lease.Holder {
		t.Error("a holder of earlier records is made again")
	}
}
