//go:build unix

package files

import (
	"os"
	"syscall"
)

// likeFolder gives a file that root made to the owner of its folder: an operator's command must leave nothing that the
// agent cannot read.
func likeFolder(f *os.File, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 {
		return nil
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}
