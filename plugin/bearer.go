package plugin

import (
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// Bearer is a lease that bears a label. It names neither the holder nor the lease. What a label says is a claim of the
// caller that took the lease.
type Bearer struct {
	Labels     map[string]string // all of the lease's; not to be changed
	Items      []enforcer.Item   // the pools and slots; not to be changed
	AcquiredAt time.Time
}

// Holds reports whether the lease holds slots of a pool.
func (b *Bearer) Holds(pool string) bool {
	for _, it := range b.Items {
		if it.Pool == pool {
			return true
		}
	}
	return false
}

// Labeller is a Dialect that shows the leases of all callers that bear a label, also those that the local API granted:
// see Slots.Bearers.
type Labeller interface {
	Dialect
	// Label names the label. It never changes.
	Label() string
}
