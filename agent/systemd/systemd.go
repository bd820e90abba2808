// Package systemd is the agent's side of the service manager. A [Manager] says when the agent is ready, alive and
// stopping (sd_notify(3)); a [Store] keeps descriptors while the agent is away. Outside systemd, and on other systems,
// both do nothing, and the agent runs without them. Nothing here is waited for by a caller of the agent's API. Start
// reading at [OpenStore].
package systemd

// Kept is an open file that the service manager is to keep: Lend lends its descriptor for the time of a call, Close
// ends it here.
type Kept struct {
	Lend  func(use func(fd int)) error
	Close func()
}

// Process tells a process from another that bears its number later: its number and the time of its start in clock ticks
// after boot, or the inode of its pidfd on pidfs; 0: not known.
type Process struct {
	PID   int32
	Start uint64
	Inode uint64
}
