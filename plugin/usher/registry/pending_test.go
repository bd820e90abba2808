package registry

import (
	"testing"
	"time"
)

// While a broker does not know yet whether it has taken a block over, its other agents keep what they have: the total
// grows only when it knows.
func TestPendingBlocksTakeNothing(t *testing.T) {
	s := share{"L1", "seats"}
	a := &Block{ID: "a", Agent: "one", Slots: 3, until: time.Minute}
	b := &Block{ID: "b", Agent: "two", Slots: 4, until: time.Minute, Pending: true}
	all := &blocks{of: map[share]map[string]*Block{s: {"a": a, "b": b}}}
	if n := all.shareOf(s, a, 3, 0); n != 3 {
		t.Errorf("an agent has %d of its three slots while another's block is taken over", n)
	}
	if b.Pending = false; all.shareOf(s, a, 7, 0) != 3 {
		t.Error("an agent does not have its three slots once it is")
	}
	if n := all.shareOf(s, a, 3, 0); n != 2 {
		t.Errorf("an agent has %d slots of a limit that was lowered from seven to three", n)
	}
}
