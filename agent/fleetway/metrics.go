package fleetway

import (
	"time"

	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/metrics"
)

// Counted is an observer of a fleet that counts.
type Counted struct{ *metrics.FleetCounts }

var _ fleet.Observer = Counted{}

// Count makes the counts of a fleet's member.
func Count() *metrics.FleetCounts {
	return metrics.NewFleetCounts(texts(fleet.Kinds), texts(fleet.Outcomes), texts(fleet.Faults))
}

// Called counts a call to the store.
func (c Counted) Called(kind fleet.Kind, outcome fleet.Outcome, took time.Duration) {
	c.FleetCounts.Called(string(kind), string(outcome), took)
}

// Failed counts why one failed.
func (c Counted) Failed(f fleet.Fault) { c.FleetCounts.Failed(string(f)) }

// Snapshot is what the metrics have of a member; nil: of none.
func Snapshot(f *fleet.Fleet) *metrics.Fleet {
	if f == nil {
		return nil
	}
	s := f.Standing()
	out := &metrics.Fleet{State: string(s.State), States: texts(fleet.States), Fence: s.Fence, Members: s.Members,
		Quarantine: s.State == fleet.StateQuarantine, CutOff: s.Cut}
	for _, p := range s.Pools {
		out.Pools = append(out.Pools, metrics.FleetPool{Pool: p.Pool, Slots: p.Slots, Out: p.Out, Limit: p.Limit})
	}
	return out
}

// texts returns the values of a closed set as text.
func texts[T ~string](set []T) (out []string) {
	for _, v := range set {
		out = append(out, string(v))
	}
	return out
}
