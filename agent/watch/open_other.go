//go:build !unix

package watch

// openNow is the flag that keeps open from waiting for a pipe's other end; there are none in folders here.
const openNow = 0
