// Package liveness reports at once when a process dies, by the kernel's word, however it dies. It knows nothing of
// leases.
//
// A [Handle] is a process and the path by which it was found. A [Watcher] waits for any number of them in one epoll
// loop. [Find] looks for a process again after a restart of the agent. docs/liveness.md says which path there is on
// which system, and where its limits are.
package liveness

import (
	"errors"
	"time"
)

// Path is how the agent learns that a process has died.
type Path string

// The paths, the best first.
const (
	PathPeerPIDFD Path = "peerpidfd" // SO_PEERPIDFD of the connection (Linux 6.5)
	// a pidfd that the client sent, of itself or of a process that it names (Linux 5.3)
	PathSentPIDFD Path = "sentpidfd"
	// pidfd_open of the process id, its start time checked before and after (Linux 5.3)
	PathPIDFD      Path = "pidfd"
	PathConnection Path = "connection" // the connection closes
)

var (
	// ErrDead reports that the process is dead already.
	ErrDead = errors.New("the process is dead")
	// ErrUnsupported reports that this system, or the given descriptor, has no such path.
	ErrUnsupported = errors.New("this system does not tell when another process dies")
	// ErrClosed reports a handle or a watcher that was closed before.
	ErrClosed = errors.New("closed already")
)

// State is what Find knows of a process after a restart of the agent.
type State int

// The states. The zero value is Unknown: a caller that forgets to ask frees nothing.
const (
	Unknown State = iota // it may live; nothing here can tell
	Alive
	Dead
)

// String returns the state in lower case.
func (s State) String() string {
	switch s {
	case Alive:
		return "alive"
	case Dead:
		return "dead"
	default:
		return "unknown"
	}
}

// Process names a process so that it differs from another with its number later, and so that [Find] finds it after a
// restart of the agent. It can be stored.
type Process struct {
	PID    int32  `json:"pid,omitempty"`     // as the agent sees it; 0: not visible
	Start  uint64 `json:"start,omitempty"`   // clock ticks after boot (proc(5), stat, field 22); 0: not known
	BootID string `json:"boot_id,omitempty"` // of the kernel, random(4)
	PIDNS  uint64 `json:"pid_ns,omitempty"`  // inode of the agent's PID namespace, in which PID is meant
	// inode of the agent's time namespace, in which Start is meant; 0 before Linux 5.6
	TimeNS uint64 `json:"time_ns,omitempty"`
	// TimeOffset is how far that time namespace's clock is ahead of the host's. The inode alone may be another's later.
	TimeOffset time.Duration `json:"time_offset_ns,omitempty"`

	Inode uint64 `json:"inode,omitempty"` // of its pidfd on pidfs (Linux 6.9); 0: not on pidfs
	// file handle of its pidfd (Linux 6.14), type first, little-endian; nil: none
	Handle []byte `json:"handle,omitempty"`
}

// Owner says whose a process is, in the agent's namespaces.
type Owner struct {
	UIDs [4]uint32 // real, effective, saved, and that of its accesses to files
	GID  uint32    // effective
	Exe  string    // path of the executable; empty: not readable
	// Numbers are the process's in its PID namespaces, from the agent's own down to that which it is in.
	Numbers []int32
}

// Only reports whether all of the process's uids are one.
func (o Owner) Only(uid uint32) bool { return o.UIDs == [4]uint32{uid, uid, uid, uid} }

// Support says which paths this kernel offers to this process.
type Support struct {
	PeerPIDFD bool   // SO_PEERPIDFD: Linux 6.5
	PIDFDOpen bool   // pidfd_open, and with it pidfds that clients send: Linux 5.3
	PIDFS     bool   // pidfds have an inode of their own: Linux 6.9
	Handles   bool   // a file handle finds a process again: Linux 6.14
	Kernel    string // uname -r; empty where there is none
}
