package holders

import (
	"slices"
	"time"

	"github.com/usher-agent/usher/agent/liveness"
	"github.com/usher-agent/usher/enforcer"
)

// Place is where processes were seen, or are: their numbers and times mean something there alone.
type Place struct {
	Boot          string        // the kernel's id of it
	PIDNS, TimeNS uint64        // inodes of the namespaces (namespaces(7)); 0: not known
	TimeOffset    time.Duration // how far the time namespace's clock is ahead of the host's
}

func (p Place) process(h *enforcer.Holder) liveness.Process {
	return liveness.Process{
		PID:        h.PID,
		Start:      h.Start,
		Inode:      h.Inode,
		BootID:     p.Boot,
		PIDNS:      p.PIDNS,
		TimeNS:     p.TimeNS,
		TimeOffset: p.TimeOffset,
	}
}

// Kept returns a handle of a process whose pidfd the last agent kept for this one; ok without a handle: that process is
// dead.
type Kept func(pid int32, start, inode uint64) (handle *liveness.Handle, ok bool)

// lookup finds processes of earlier leases. It looks for each process once, however many leases the process holds. What
// it has found stays right: a dead process stays dead, and the handle of a living one tells of its death.
type lookup struct {
	kept  Kept
	found map[sought]sighting
}

// sought is a process as a record names it, and the PID namespace that its number is of; 0: that is not known.
type sought struct {
	pid                 int32
	start, inode, pidns uint64
}

type sighting struct {
	handle *liveness.Handle
	state  liveness.State
}

func newLookup(kept Kept) *lookup { return &lookup{kept, map[sought]sighting{}} }

// find looks for one process, first among those whose pidfds were kept. The caller closes the handle.
func (k *lookup) find(h *enforcer.Holder, was Place) (*liveness.Handle, liveness.State) {
	key := sought{h.PID, h.Start, h.Inode, was.PIDNS}
	at, ok := k.found[key]
	if !ok {
		at.handle, at.state = k.look(h, was)
		k.found[key] = at
	}
	if at.state != liveness.Alive {
		return nil, at.state
	}
	handle, err := at.handle.Share()
	if err != nil {
		return nil, liveness.Unknown
	}
	return handle, liveness.Alive
}

// here is find for a process that the next restart will find by the same number as well.
func (k *lookup) here(h *enforcer.Holder, was, is Place) (*liveness.Handle, liveness.State) {
	handle, state := k.find(h, was)
	if state == liveness.Alive && was.PIDNS != is.PIDNS && h.PID != handle.Process().PID {
		handle.Close()
		// Its number in the record is another's here: the next restart would take it for that one.
		return nil, liveness.Unknown
	}
	return handle, state
}

func (k *lookup) look(h *enforcer.Holder, was Place) (*liveness.Handle, liveness.State) {
	handle, ok := k.kept(h.PID, h.Start, h.Inode)
	if !ok {
		return liveness.Find(was.process(h))
	}
	if handle == nil {
		return nil, liveness.Dead
	}
	handle, err := handle.Share()
	if err != nil {
		return nil, liveness.Unknown
	}
	return handle, liveness.Alive
}

// close gives back what the lookup keeps open. The watched processes stay watched.
func (k *lookup) close() {
	for _, at := range k.found {
		if at.handle != nil {
			at.handle.Close()
		}
	}
}

// find looks, for a lease that was granted at another place, for the processes that hold it: those that are dead leave
// it, those that live are watched. It returns Dead when all are dead, Unknown when it is not known of one, and else
// Alive.
func (r *Registry) find(l *enforcer.Lease, was, is Place, look *lookup) liveness.State {
	if l.Unconfirmed {
		was.PIDNS = 0 // it may be from before the last restart, when the numbers were another namespace's
	}
	result := liveness.Dead
	for _, h := range append([]*enforcer.Holder{l.Holder}, l.Others...) {
		handle, state := look.here(h, was, is)
		if state == liveness.Dead {
			r.leave([]enforcer.LeaseID{l.ID}, h.Caller)
			continue
		}
		if state == liveness.Alive {
			if r.Hold(l.ID, h.Caller, handle) != nil {
				state = liveness.Unknown
			}
			handle.Close()
		}
		if state == liveness.Unknown {
			result = liveness.Unknown
		} else if result == liveness.Dead {
			result = liveness.Alive
		}
	}
	return result
}

// findAll is find for leases that live by one process alone: it is looked for once, however many they are.
func (r *Registry) findAll(g *group, was, is Place, look *lookup) liveness.State {
	handle, state := look.here(g.by, was, is)
	if state == liveness.Alive {
		defer handle.Close()
		if r.holdAll(g, handle) != nil {
			return liveness.Unknown
		}
	}
	if state == liveness.Dead {
		r.leave(slices.AppendSeq(make([]enforcer.LeaseID, 0, g.n), g.ids), g.by.Caller)
	}
	return state
}
