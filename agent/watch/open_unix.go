//go:build unix

package watch

import "syscall"

// openNow is the flag that keeps open from waiting for a pipe's other end. os.Root adds O_NOFOLLOW to each step.
const openNow = syscall.O_NONBLOCK
