package registry_test

import (
	"testing"
	"time"

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
