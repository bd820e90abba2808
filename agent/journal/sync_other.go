//go:build !unix

package journal

import "syscall"

// errQuota is what a write to a full disk fails with on Windows (ERROR_DISK_FULL, winerror.h).
const errQuota = syscall.Errno(112)

// syncDir does nothing: a folder cannot be synced here.
func syncDir(string) error { return nil }
