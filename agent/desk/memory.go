package desk

import "runtime/debug"

// keepMemory has the collector's target follow the number of leases, and gives memory back to the system when many
// leases have come or gone. Nothing waits for it.
func (d *Desk) keepMemory() {
	d.mu.Lock()
	leases := d.core.Len()
	d.mu.Unlock()
	d.memory.Set(leases)
	if d.memory.Due() {
		go debug.FreeOSMemory()
	}
}
