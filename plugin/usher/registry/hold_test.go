package registry_test

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin/usher/online"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// What is promised to agents of another licence is given to nobody else as it comes back; what agents have stays
// theirs, and the broker hears at once of what they give back.
func TestHeldSlots(t *testing.T) {
	o := openOffice(t, nil)
	doc := o.seats("L1", 10, nil)
	o.serve(t)
	freed := 0
	b, err := o.ServeBroker(registry.Broker{Name: "one", Lacking: func() { freed++ }})
	if err != nil {
		t.Fatal(err)
	}
	b.Stock("L1", "seats", 10, 10, time.Hour)
	one, two := o.host(doc), o.host(doc)
	got, err := one.checkOut(8)
	if err != nil {
		t.Fatal(err)
	}
	b.Hold("L1", "seats", 5)
	if _, err := two.checkOut(1); err == nil {
		t.Error("an agent has a slot that is promised to others")
	}
	if got, err = one.extend(got.ID, 8); err != nil || got.Slots != 8 {
		t.Errorf("of its eight slots an agent has %+v, %v", got, err)
	}
	freed = 0
	if got, err = one.extend(got.ID, 3); err != nil || got.Slots != 3 || freed == 0 {
		t.Errorf("an agent gives five back: %+v, %v; the broker was told %d times", got, err, freed)
	}
	other, err := two.checkOut(4)
	if err != nil || other.Slots != 2 {
		t.Errorf("below what is promised, two slots are free: %+v, %v", other, err)
	}
	b.Hold("L1", "seats", -1)
	if other, err = two.extend(other.ID, 7); err != nil || other.Slots != 7 {
		t.Errorf("of ten slots seven are free again: %+v, %v", other, err)
	}
}

// Slots that come free are for who waits for longest, and was told of them: another that asks a moment sooner does not
// get them. Who has got some goes to the end.
func TestWhoWaitsForLongest(t *testing.T) {
	o := openOffice(t, nil)
	doc := o.seats("L1", 4, nil)
	o.serve(t)
	b, err := o.ServeBroker(registry.Broker{Name: "one", Lacking: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	b.Stock("L1", "seats", 4, 4, time.Hour)
	one, two, three := o.host(doc), o.host(doc), o.host(doc)
	got, err := one.checkOut(4)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []*host{two, three} {
		if _, err := h.checkOut(2); err == nil {
			t.Fatal("more than there is")
		}
		o.pass(time.Second)
	}
	told := func(h *host) int64 {
		news, _ := b.Watch(t.Context(), thumbprint(h), "L1", &online.WatchRequest{})
		return news["seats"].Free
	}
	if got, err = one.extend(got.ID, 3); err != nil {
		t.Fatal(err)
	}
	if n := told(two); n != 1 {
		t.Fatalf("who waits for longest was told of %d slots", n)
	}
	if _, err := three.checkOut(2); err == nil {
		t.Error("another gets what it was told of")
	}
	other, err := two.checkOut(2)
	if err != nil || other.Slots != 1 {
		t.Errorf("who was told of a slot has %+v, %v", other, err)
	}
	o.pass(time.Second)
	if _, err = one.extend(got.ID, 2); err != nil {
		t.Fatal(err)
	}
	if n := told(three); n != 1 {
		t.Errorf("who has got nothing yet was told of %d slots", n)
	}
}
