package desk

import (
	"runtime/debug"

	"github.com/usher-agent/usher/agent/memory"
)

// manyPools is of how many pools that came or went memory is given back: reading a licence with so many leaves more
// garbage than they take, and nothing else may make enough for the collector to look.
const manyPools = 1024

// keepMemory has the collector's target follow the number of leases and the collector's own work, and gives memory back
// to the system when many leases or pools have come or gone. Nothing waits for it.
func (d *Desk) keepMemory() {
	d.mu.Lock()
	leases, most, pools := d.core.Len(), d.most, d.pools
	d.most = leases
	d.mu.Unlock()
	over := memory.Look()
	d.memory.Set(leases)
	d.memory.Peak(most)
	due := d.memory.Due() || over
	if max(pools-d.pooled, d.pooled-pools) >= manyPools {
		d.pooled, due = pools, true
		d.memory.Gave()
	}
	if due {
		go debug.FreeOSMemory()
	}
}
