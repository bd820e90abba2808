//go:build !(linux && amd64)

package early

import "syscall"

// Inherited returns that what this process was started to ignore is not known of all signals.
func Inherited() (ignored []syscall.Signal, known bool) { return nil, false }

// PassOn leaves to Go's runtime what a program that this process becomes ignores.
func PassOn() {}

// heedHangUp changes nothing: nothing has SIGHUP ignored.
func heedHangUp() {}
