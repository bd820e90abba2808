package desk

import (
	"slices"

	"github.com/usher-agent/usher/enforcer"
)

// Leave takes a process that has ended, or a session that was closed, off the holders of leases. It does so for some at
// a time, and others are served in between, waiters first.
func (d *Desk) Leave(ids []enforcer.LeaseID, holder enforcer.Caller) {
	for some := range slices.Chunk(ids, enforcer.Batch) {
		d.Do(&enforcer.Gone{IDs: some, Holder: holder})
	}
}
