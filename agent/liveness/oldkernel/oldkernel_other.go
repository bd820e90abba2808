//go:build !linux

package oldkernel

// Main does nothing.
func Main() {}
