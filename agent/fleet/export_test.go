package fleet

import (
	"testing"
	"time"
)

// NewSim returns a simulated store.
func NewSim() Store { return &way{sim: newSim()} }

// OneEtcd runs one member of Debian's etcd, and connects to it.
func OneEtcd(t *testing.T) Store {
	c := openCluster(t, 1)
	c.ready()
	return c.dial()
}

// LoadAgents is the flag -fleet.load, and LoadHold is -fleet.hold.
var LoadAgents, LoadHold = loadAgents, loadHold

// Seeds is the flag -fleet.seeds.
var Seeds = seeds

// Sim is a simulated store that many share, and that counts its calls.
type Sim struct{ *sim }

// OpenSim returns an empty one.
func OpenSim() Sim { return Sim{newSim()} }

// Way returns a member's way to it, whose calls take a moment.
func (s Sim) Way(member string) Store {
	return &way{sim: s.sim, chance: &chance{host: member, begin: time.Now()}}
}

// Counts returns how many calls there were, how many of them wrote, and how many bytes its keys and values have.
func (s Sim) Counts() (calls, writes, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, kv := range s.kvs {
		bytes += len(kv.Key) + len(kv.Value)
	}
	return s.calls, s.writes, bytes
}
