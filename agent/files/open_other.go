//go:build !unix

package files

// openFlags are those that keep open from waiting or following. This system has none.
const openFlags = 0
