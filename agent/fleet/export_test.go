package fleet

import "testing"

// NewSim returns a simulated store.
func NewSim() Store { return &way{sim: newSim()} }

// OneEtcd runs one member of Debian's etcd, and connects to it.
func OneEtcd(t *testing.T) Store {
	c := openCluster(t, 1)
	c.ready()
	return c.dial()
}
