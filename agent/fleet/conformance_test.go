package fleet_test

import (
	"testing"

	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/agent/fleet/fleettest"
)

// The simulated store and Debian's etcd do the same.
func TestStores(t *testing.T) {
	t.Run("simulated", func(t *testing.T) { fleettest.Store(t, fleet.NewSim()) })
	t.Run("etcd", func(t *testing.T) { fleettest.Store(t, fleet.OneEtcd(t)) })
}
