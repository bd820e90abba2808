package holders

import (
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

// find looks for one process, first among those whose pidfds were kept.
func find(h *enforcer.Holder, was Place, kept Kept) (*liveness.Handle, liveness.State) {
	handle, ok := kept(h.PID, h.Start, h.Inode)
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

// Find looks, for a lease that was granted at another place, for the processes that hold it: those that are dead leave
// it, those that live are watched. It returns Dead when all are dead, Unknown when it is not known of one, and else
// Alive.
func (r *Registry) Find(l *enforcer.Lease, was, is Place, kept Kept) liveness.State {
	if l.Unconfirmed {
		was.PIDNS = 0 // it may be from before the last restart, when the numbers were another namespace's
	}
	result := liveness.Dead
	for _, h := range append([]*enforcer.Holder{l.Holder}, l.Others...) {
		handle, state := find(h, was, kept)
		if state == liveness.Alive && was.PIDNS != is.PIDNS && h.PID != handle.Process().PID {
			handle.Close()
			// Its number in the record is another's here: the next restart would take it for that one.
			state = liveness.Unknown
		}
		if state == liveness.Dead {
			r.leave(l.ID, h.Caller)
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
