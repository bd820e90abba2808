package journal

import "golang.org/x/sys/unix"

// remoteKind returns the kind of network file system that dir is on; empty: on none that is known.
func remoteKind(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Flags&unix.MNT_LOCAL != 0 {
		return ""
	}
	return unix.ByteSliceToString(st.Fstypename[:])
}
