package main

import (
	"strings"
	"testing"

	"github.com/usher-agent/usher/client/wire"
)

// What an operator reads of a fleet: no line twice, pools of one name told apart, and no count that is not known.
func TestFleetText(t *testing.T) {
	t.Parallel()
	one := int64(1)
	pools := []wire.FleetPool{{Pool: "a", Product: "x", Key: "1", Limit: 6, Out: 2}, {Pool: "a", Product: "y", Key: "2",
		Limit: 1, Out: 1}, {Pool: "a", Product: "y", AddOn: "L2", Key: "3", Out: 1}, {Pool: "b", Product: "x", Key: "4",
		Limit: 2, Agents: []wire.FleetShare{{Agent: "k", Name: "h", InUse: &one}}}}
	for _, x := range []struct {
		is        wire.Fleet
		want, not []string
	}{
		{wire.Fleet{Current: true, Pools: pools, Agents: []wire.FleetAgent{{Agent: "k", Name: "h"}}},
			[]string{"HOST", "Pool a of x: 2 of 6 slots are with hosts", "Pool a of y: 1 of 1 slot is with hosts",
				"Pool a of y, add-on L2: hosts have 1 slot, and the limit in force is not known",
				"Pool b: 0 of 2 slots are with hosts"}, []string{"\n\nHOST  KEY  STATE"}},
		{wire.Fleet{Current: true, State: "joining", Reason: "http://e:1: no", Hint: "do", Store: []wire.FleetFault{
			{Endpoint: "http://e:1", Fault: "refused", Reason: "no", Hint: "do"}}},
			[]string{"http://e:1 (refused): no; do"}, []string{"http://e:1: no"}},
		{wire.Fleet{Current: true, State: "joining", Reason: "other", Hint: "do", Store: []wire.FleetFault{
			{Endpoint: "http://e:1", Fault: "refused", Reason: "no", Hint: "do"}}},
			[]string{"other; do", "http://e:1 (refused): no; do"}, nil},
	} {
		var out strings.Builder
		c := &cli{out: &out}
		if err := c.printFleet(&x.is); err != nil {
			t.Fatal(err)
		}
		for _, want := range x.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("it does not say %q:\n%s", want, &out)
			}
		}
		for _, not := range x.not {
			if strings.Contains("\n"+out.String(), not) {
				t.Errorf("it says %q:\n%s", not, &out)
			}
		}
	}
}

// What an eviction says of the next run is so: an agent waits on, a command that goes to etcd itself begins again.
func TestEvictedText(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		done   wire.FleetDone
		direct bool
		want   string
	}{
		{wire.FleetDone{Done: true}, false, "its fence is over, and it has no slots"},
		{wire.FleetDone{Done: true, Slots: 1}, false, "its fence is over, and its slot is free"},
		{wire.FleetDone{Done: true, Slots: 2}, false, "its fence is over, and its 2 slots are free"},
		{wire.FleetDone{LeftSeconds: 3}, false, "3 seconds are left, and the same command waits on"},
		{wire.FleetDone{LeftSeconds: 3}, true, "3 seconds are left, and the next run counts it from the beginning"},
	} {
		var out strings.Builder
		x.done.Agent, x.done.Name = "k", "h"
		(&cli{out: &out}).sayEvicted(&x.done, false, x.direct)
		if !strings.Contains(out.String(), x.want) {
			t.Errorf("it does not say %q: %s", x.want, &out)
		}
	}
}

// What came of a drain or of an undoing says what still keeps the host from slots, and that an agent is gone.
func TestDrainedText(t *testing.T) {
	t.Parallel()
	const key = "-bcdefghijklmnop" // as a flag would begin
	for _, x := range []struct {
		done  wire.FleetDone
		undo  bool
		want  string
		evict bool
	}{
		{wire.FleetDone{}, false, "gives its idle slots back", false},
		{wire.FleetDone{Gone: true}, false, "until `usher fleet drain --undo -- -bcdefghijkl`", false},
		{wire.FleetDone{}, true, "takes slots of the fleet again", false},
		{wire.FleetDone{Gone: true}, true, "drains no more; it is not in the fleet now", false},
		{wire.FleetDone{Gone: true, Evicted: true}, true, "`usher fleet evict --undo -- -bcdefghijkl`", false},
		{wire.FleetDone{Gone: true}, true, "may join the fleet again\n", true},
		{wire.FleetDone{Gone: true, Draining: true}, true, "`usher fleet drain --undo -- -bcdefghijkl`", true},
	} {
		x.done.Agent, x.done.Name = key, "h"
		got := drainedText(&x.done, x.undo)
		if x.evict {
			var out strings.Builder
			(&cli{out: &out}).sayEvicted(&x.done, x.undo, false)
			got = out.String()
		}
		if !strings.Contains(got, x.want) {
			t.Errorf("%+v: it does not say %q: %s", x.done, x.want, got)
		}
	}
}

// A host that is drained or put out, and one that is gone for good with such an order, are told apart.
func TestStatesOfAgents(t *testing.T) {
	t.Parallel()
	by := &wire.FleetOrder{}
	for want, a := range map[string]wire.FleetAgent{"member": {Alive: true}, "gone": {},
		"draining": {Alive: true, Draining: by}, "gone, draining": {Draining: by}, "evicted": {Evicted: by},
		"evicted, draining": {Evicted: by, Draining: by}} {
		if got := agentRows(&wire.Fleet{Agents: []wire.FleetAgent{a}})[1][2]; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// How full a member of etcd is, for people.
func TestSizeOfEtcd(t *testing.T) {
	for want, m := range map[string]wire.FleetSize{
		"its database has 20 KiB":                                {Bytes: 20 << 10},
		"its database has 21.5 MiB of 64 MiB, 33 % of its quota": {Bytes: 43 << 19, QuotaBytes: 64 << 20},
		"its database has 4.0 MiB; it is out of quota (NOSPACE), and takes no writes": {
			Bytes: 4 << 20, NoSpace: true},
	} {
		if got := sizeText(m); got != want {
			t.Errorf("%+v: %q, want %q", m, got, want)
		}
	}
}
