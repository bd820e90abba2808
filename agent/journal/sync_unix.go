//go:build unix

package journal

import (
	"errors"
	"os"
	"syscall"
)

// errQuota is what a write beyond a quota fails with.
const errQuota = syscall.EDQUOT

// syncDir makes names in a folder safe.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
