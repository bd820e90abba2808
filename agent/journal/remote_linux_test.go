package journal

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNetworkFileSystemsHaveNames(t *testing.T) {
	for magic, want := range map[uint32]string{
		unix.NFS_SUPER_MAGIC: "NFS", unix.CIFS_SUPER_MAGIC: "SMB/CIFS", unix.V9FS_MAGIC: "9p",
		unix.CEPH_SUPER_MAGIC: "Ceph", magicLustre: "Lustre",
		unix.FUSE_SUPER_MAGIC: "FUSE", unix.EXT4_SUPER_MAGIC: "", unix.TMPFS_MAGIC: "", unix.XFS_SUPER_MAGIC: "",
		unix.OVERLAYFS_SUPER_MAGIC: "",
	} {
		if got := remoteName(magic); got != want {
			t.Errorf("%#x: %q, want %q", magic, got, want)
		}
	}
	err := &RemoteError{Dir: "/mnt/team", Kind: "NFS"}
	for _, want := range []string{"/mnt/team", "NFS", "state.dir"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %q", err, want)
		}
	}
	mounts := "36 35 98:0 / /mnt rw - ext4 /dev/sda rw\n40 35 0:51 / /data rw,noatime shared:9 - fuseblk /dev/sdb1 " +
		"rw\n41 35 0:52 / /s rw - fuse.sshfs host: rw\n"
	for device, want := range map[string]bool{"0:51": true, "0:52": false, "98:0": false, "9:9": false} {
		if got := isFuseBlk(strings.NewReader(mounts), device); got != want {
			t.Errorf("device %s is said to be a disk's: %v", device, got)
		}
	}
}
