//go:build !linux

// Package oldkernel runs a program as if the kernel were an older one; there is only one kind of Linux here: none.
package oldkernel

// Main does nothing.
func Main() {}
