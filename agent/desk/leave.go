package desk

import (
	"slices"

	"github.com/usher-agent/usher/agent/memory"
	"github.com/usher-agent/usher/enforcer"
)

// leaving is how many leases a holder leaves while the lock is held: a small part of a millisecond's work.
const leaving = 64

// leavingMany is for how many leases a collection of garbage waits until a holder has left them. With hundreds of
// thousands held, a collection takes a processor for some hundred milliseconds. Beside a release of many there would be
// none left for others.
const leavingMany = 4096

// Leave takes a process that has ended, or a session that was closed, off the holders of leases. It does so for some at
// a time, and others are served in between, waiters first.
//
// A process may leave a hundred thousand leases, and the collector would work for longer on what was thrown away than
// this does: so the events of all have one room.
func (d *Desk) Leave(ids []enforcer.LeaseID, holder enforcer.Caller) {
	if len(ids) > leavingMany {
		defer postpone()()
	}
	room := make([]enforcer.Event, 0, min(leaving, len(ids)))
	var p pace
	for some := range slices.Chunk(ids, leaving) {
		d.Do(&enforcer.Gone{IDs: some, Holder: holder, Room: room})
		clear(room[:cap(room)])
		p.giveWay()
	}
}

// postpone has no collection of garbage begin until what it returns is called. Neither waits: a pause begins, and ends,
// when the collection that is under way is over.
func postpone() (over func()) {
	paused := make(chan func(), 1)
	go func() { paused <- memory.Pause() }()
	return func() { go func() { (<-paused)() }() }
}
