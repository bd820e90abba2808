// Package systemd is the agent's side of the service manager. A [Manager] reports when the agent is ready, alive and
// stopping (sd_notify(3)). A [Store] keeps descriptors while the agent is away. Outside systemd, and on other systems,
// both do nothing, and the agent runs without them. No caller of the agent's API waits for anything here. Start reading
// at [OpenStore].
package systemd

// Kept is an open file for the service manager to keep. Lend lends its descriptor for the time of a call, Close ends it
// here.
type Kept struct {
	Lend  func(use func(fd int)) error
	Close func()
}

// Process tells a process from a later one with its number: by the number and the time of its start in clock ticks
// after boot, or by the inode of its pidfd on pidfs; 0: not known.
type Process struct {
	PID   int32
	Start uint64
	Inode uint64
}
