//go:build unix

package journal

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// errQuota is the error of a write beyond a quota.
const errQuota = syscall.EDQUOT

// syncDir makes names in a folder safe.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// openPlain opens a file, private to its owner if it makes it, and never through a link.
func openPlain(name string, flag int) (*os.File, error) {
	return os.OpenFile(name, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
}

// own gives a file the owner and group of another. Only root can; for other users they are the same already.
func own(f *os.File, like fs.FileInfo) error {
	st, ok := like.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}
