//go:build !unix

package files

// openFlags are those that keep open from waiting or following; there are none here.
const openFlags = 0
