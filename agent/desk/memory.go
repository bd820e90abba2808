package desk

import "runtime/debug"

// keepMemory has the collector's target follow the number of leases, and gives memory back to the system when many
// leases have come or gone. Nothing waits for it.
func (d *Desk) keepMemory() {
	d.mu.Lock()
	leases, most := d.core.Len(), d.most
	d.most = leases
	d.mu.Unlock()
	d.memory.Set(leases)
	d.memory.Peak(most)
	if d.memory.Due() {
		go debug.FreeOSMemory()
	}
}
