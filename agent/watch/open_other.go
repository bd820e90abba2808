//go:build !unix

package watch

// openNow is the flag that keeps open from waiting for a pipe's other end. Folders on this system have no pipes.
const openNow = 0
