// Package liveness tells when a process dies: at once, by the kernel's word, however it dies. It knows nothing of leases.
// docs/liveness.md says which way there is on which system.
package liveness

import "errors"

// Path is how the agent learns that a process has died.
type Path string

// The paths, the best first.
const (
	PathPeerPIDFD  Path = "peerpidfd"  // SO_PEERPIDFD of the connection (Linux 6.5)
	PathSentPIDFD  Path = "sentpidfd"  // a pidfd of itself that the client sent (Linux 5.3)
	PathPIDFD      Path = "pidfd"      // pidfd_open of the peer's pid, its start time checked before and after (Linux 5.3)
	PathConnection Path = "connection" // the connection closes
)

var (
	// ErrDead reports that the process is dead already.
	ErrDead = errors.New("the process is dead")
	// ErrUnsupported reports that this kernel has no such way.
	ErrUnsupported = errors.New("this system does not tell when another process dies")
)

// Process names a process so that it is told from another that bears its number later.
type Process struct {
	PID   int32  // as the agent sees it; 0: not visible
	Start uint64 // in clock ticks after boot; 0: not known
	Inode uint64 // of its pidfd on pidfs (Linux 6.9); 0: not on pidfs
}
