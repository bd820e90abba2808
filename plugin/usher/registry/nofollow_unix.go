//go:build unix

package registry

import "syscall"

// noFollow has a file that is a link not opened.
const noFollow = syscall.O_NOFOLLOW
