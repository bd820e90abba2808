//go:build !unix

package journal

import (
	"io/fs"
	"os"
	"syscall"
)

// errQuota is what a write to a full disk fails with on Windows (ERROR_DISK_FULL, winerror.h).
const errQuota = syscall.Errno(112)

// syncDir does nothing: this system cannot sync a folder.
func syncDir(string) error { return nil }

// openPlain opens a file, private to its owner if it makes it.
func openPlain(name string, flag int) (*os.File, error) { return os.OpenFile(name, flag, 0o600) }

// own does nothing: a new file belongs to the folder's owner.
func own(*os.File, fs.FileInfo) error { return nil }
