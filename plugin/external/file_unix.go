//go:build unix

package external

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// safe reports why users other than root and the agent's own may change a file or a folder. A sticky folder such as
// /tmp passes: only the owner of a file in it can replace it.
func safe(what string, fi fs.FileInfo) error {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if ok && st.Uid != 0 && st.Uid != uint32(os.Geteuid()) {
		return fmt.Errorf("%s belongs to uid %d, who could change it; chown it to root, or to the agent's user", what,
			st.Uid)
	}
	if fi.Mode().Perm()&0o022 != 0 && (!fi.IsDir() || fi.Mode()&fs.ModeSticky == 0) {
		return fmt.Errorf("%s can be changed by others (mode %04o); chmod go-w it", what, fi.Mode().Perm())
	}
	return nil
}
