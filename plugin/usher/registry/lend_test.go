package registry_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/online"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// A broker that stops decides on nothing from then on, whatever stock it has; its agents hear that others take over
// what they have once it has said so. Where nobody does, it hears that an agent's time runs out.
func TestBrokerThatStops(t *testing.T) {
	o := openOffice(t, nil)
	doc := o.seats("L1", 10, nil)
	o.serve(t)
	began := o.clock()
	b, err := o.ServeBroker(registry.Broker{Name: "one", Lacking: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	b.Stock("L1", "seats", 10, 10, o.clock().Sub(began)+time.Hour)
	one := o.host(doc)
	got, err := one.checkOut(4)
	if err != nil {
		t.Fatal(err)
	}
	leaves := func(refused *online.Refusal) bool { return refused != nil && refused.Leaves }
	watch := func() *online.Refusal {
		_, refused := b.Watch(t.Context(), "somebody", "L1", &online.WatchRequest{})
		return refused
	}
	b.Leave()
	if refused := watch(); refused != nil {
		t.Errorf("others cannot take anything over yet, and agents are told so: %+v", refused)
	}
	var e *plugin.Error
	if _, err := one.extend(got.ID, 4); !errors.As(err, &e) || e.SystemCode != plugin.SystemAway {
		t.Errorf("more time of a broker that stops: %v", err)
	}
	if _, err := o.host(doc).checkOut(1); !errors.As(err, &e) || e.SystemCode != plugin.SystemAway {
		t.Errorf("a block of a broker that stops: %v", err)
	}
	b.Stock("L1", "seats", 10, 10, o.clock().Sub(began)+time.Hour) // of an answer that came late
	if _, err := one.extend(got.ID, 4); err == nil {
		t.Error("a late answer has a broker lend that has stopped")
	}
	if lent := b.LentOf("L1", "seats"); len(lent) != 1 || lent[got.ID] != 4 || b.Pressed() {
		t.Errorf("agents have %v", lent)
	}
	b.Left()
	if refused := watch(); !leaves(refused) {
		t.Errorf("agents are told nothing: %+v", refused)
	}
	o.pass(got.For * 3 / 4)
	if _, err := one.extend(got.ID, 4); err == nil || !b.Pressed() {
		t.Errorf("an agent's time runs out: %v", err)
	}
	b.Stay()
	if got, err := one.extend(got.ID, 4); err != nil || got.Slots != 4 || watch() != nil {
		t.Errorf("a broker that lends again: %+v, %v", got, err)
	}
}

// A broker that is drained refuses new blocks, so that agents ask another one, and goes on with those that they have;
// it counts what they have. While its place is not proved, agents hear why.
func TestDrainedBroker(t *testing.T) {
	o := openOffice(t, nil)
	doc := o.seats("L1", 10, nil)
	o.serve(t)
	began := o.clock()
	b, err := o.ServeBroker(registry.Broker{Name: "one", Lacking: func() {},
		Report: func() ([]byte, error) { return []byte(`{"state":"member"}`), nil }})
	if err != nil {
		t.Fatal(err)
	}
	b.Stock("L1", "seats", 10, 10, o.clock().Sub(began)+time.Hour)
	one, two := o.host(doc), o.host(doc)
	got, err := one.checkOut(4)
	if err != nil || got.Slots != 4 || b.Lent("seats") != 4 || b.Lent("others") != 0 {
		t.Fatalf("%+v, %v; agents have %d", got, err, b.Lent("seats"))
	}
	why := func(err error) string {
		var e *plugin.Error
		if !errors.As(err, &e) || e.SystemCode != plugin.SystemAway {
			t.Errorf("not %s: %v", plugin.SystemAway, err)
			return ""
		}
		return e.Reason
	}
	b.Stands(true, "")
	if _, err := two.checkOut(1); !strings.Contains(why(err), "drains") {
		t.Errorf("a new block of a drained broker: %v", err)
	}
	if got, err := one.extend(got.ID, 3); err != nil || got.Slots != 3 || b.Lent("seats") != 3 {
		t.Errorf("a block that an agent has: %+v, %v", got, err)
	}
	b.Stands(false, "etcd a:2379: nobody listens there")
	if _, err := two.checkOut(1); err != nil {
		t.Errorf("after the drain: %v", err)
	}
	b.Stock("L1", "seats", 10, 10, 0)
	if _, err := one.extend(got.ID, 3); !strings.Contains(why(err), "nobody listens there") {
		t.Errorf("without a place in the fleet: %v", err)
	}
	done, err := o.Carry(registry.Order{Do: "fleet"})
	if err != nil || !json.Valid(done.Fleet) {
		t.Errorf("%s, %v", done.Fleet, err)
	}
}

// A server that is no broker says so.
func TestServerInNoFleet(t *testing.T) {
	o := openOffice(t, nil)
	_, err := o.Carry(registry.Order{Do: "fleet"})
	if err == nil || !strings.Contains(err.Error(), "--fleet-endpoint") {
		t.Error(err)
	}
}
