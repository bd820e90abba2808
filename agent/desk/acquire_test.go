package desk

import (
	"testing"

	"github.com/usher-agent/usher/enforcer"
)

// Each lease has an id of its own, of whose bits any may be set, however many are drawn at a time.
func TestIDs(t *testing.T) {
	t.Parallel()
	var x ids
	var seen [len(enforcer.LeaseID{})]byte
	drawn := map[enforcer.LeaseID]bool{}
	for range 40 * idsAhead {
		id := x.draw()
		drawn[id] = true
		for i, b := range id {
			seen[i] |= b
		}
	}
	if len(drawn) != 40*idsAhead {
		t.Errorf("%d ids were drawn, and %d are different", 40*idsAhead, len(drawn))
	}
	for i, b := range seen {
		if b != 0xff {
			t.Errorf("byte %d of an id never has other bits than %08b", i, b)
		}
	}
}
