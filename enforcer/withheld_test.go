package enforcer

import (
	"testing"
	"time"
)

// Slots that may be another's already are never granted, in any way of asking; leases that are held go on.
func TestWithheld(t *testing.T) {
	f := factsWith(doc("a", func(l *License) { l.Meters = map[string]MeterTerm{"renders": {Max: 9}} }))
	e := New(Options{Durable: true})
	do := func(r Request) Decision {
		d := e.Decide(r, noon)
		for _, ev := range d.Events {
			e.Apply(ev)
		}
		return d
	}
	do(&SetVerdict{Judge(f, noon)})
	caller := Caller{UID: 7, PID: 8}
	held := do(&Acquire{ID: LeaseID{1}, Pool: "streams", N: 1, Caller: caller})
	if held.Lease == nil {
		t.Fatal(held.Denial)
	}
	f.Withheld = Withheld{Slots: "leases.journal is missing", Draws: "state.seal is missing"}
	do(&SetVerdict{Judge(f, noon)})
	for name, r := range map[string]Request{
		"a slot":          &Acquire{ID: LeaseID{2}, Pool: "streams", N: 1, Caller: caller},
		"a slot, waiting": &Acquire{ID: LeaseID{3}, Pool: "streams", N: 1, Caller: caller, Wait: time.Minute},
		"a draw":          &Acquire{ID: LeaseID{4}, Pool: "renders", N: 1, Caller: caller},
		"a draw by hand":  &Shift{Pool: "renders", By: 1, Caller: Caller{UID: 0, Admin: true}},
	} {
		if d := do(r); d.Denial == nil || d.Denial.Code != Storage || len(d.Events) > 0 {
			t.Errorf("%s: %+v, want a denial with code %s", name, d, Storage)
		}
	}
	if d := do(&Renew{ID: LeaseID{1}, Caller: caller}); d.Denial != nil {
		t.Errorf("a held lease is not renewed: %v", d.Denial)
	}
	if d := do(&Release{ID: LeaseID{1}, Caller: caller}); d.Denial != nil {
		t.Errorf("a held lease is not released: %v", d.Denial)
	}
}

// Where what an upstream said was lost, no duty is met before it has answered, whatever the grace; a licence that
// demands none, or was issued since, is not concerned.
func TestUpstreamLost(t *testing.T) {
	activation := func(l *License) { l.Activation = Activation{Required: true, Grace: aDay} }
	checkIn := func(l *License) { l.CheckIn = Period{Every: 30 * aDay, Grace: aDay} }
	for _, test := range []struct {
		name   string
		doc    Document
		proved bool
		want   Code
	}{
		{"an activation", doc("a", activation, issued(-aDay)), false, HeartbeatNotStarted},
		{"a check-in", doc("a", checkIn, issued(-aDay)), false, Overdue},
		{"answered since", doc("a", checkIn, issued(-aDay)), true, Valid},
		{"no duty", doc("a", issued(-aDay)), false, Valid},
		{"issued since", doc("a", checkIn, issued(-time.Minute)), false, Valid},
	} {
		f := factsWith(test.doc)
		f.UpstreamLost = noon.Add(-time.Hour)
		f.Upstream = map[Ref]Upstream{test.doc.License.Ref(): {Activated: noon.Add(-aDay), LastCheckIn: noon.Add(-aDay),
			Proved: test.proved}}
		if v := Judge(f, noon); v.Code != test.want {
			t.Errorf("%s: %s (%s), want %s", test.name, v.Code, v.Reason, test.want)
		}
	}
}
