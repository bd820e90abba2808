//go:build unix

package files

import "syscall"

// openFlags keep open from following a link at the path's end, and from waiting for a pipe's other end.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK
