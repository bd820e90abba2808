package journal

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Magic numbers of file systems that golang.org/x/sys lacks, from statfs(2) and the file systems' own sources.
const (
	magicBeeGFS = 0x19830326
	magicGFS2   = 0x01161970
	magicGPFS   = 0x47504653
	magicLustre = 0x0BD00BD0
	magicNCP    = 0x564C
	magicOrange = 0x20030528
	magicVBox   = 0x786F4256
	magicVMHGFS = 0xBACBACBC
)

// remoteKind returns the kind of network file system that dir is on; empty: on none that is known.
func remoteKind(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return ""
	}
	kind := remoteName(uint32(st.Type)) // the magic numbers have 32 bits; the type of the field differs by architecture
	if kind == "FUSE" && onBlockDevice(dir) {
		return ""
	}
	return kind
}

func remoteName(magic uint32) string {
	switch magic {
	case unix.NFS_SUPER_MAGIC:
		return "NFS"
	case unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return "SMB/CIFS"
	case unix.V9FS_MAGIC:
		return "9p"
	case unix.FUSE_SUPER_MAGIC:
		return "FUSE" // virtiofs too
	case unix.CEPH_SUPER_MAGIC:
		return "Ceph"
	case unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC:
		return "AFS"
	case unix.CODA_SUPER_MAGIC:
		return "Coda"
	case unix.OCFS2_SUPER_MAGIC:
		return "OCFS2"
	case magicBeeGFS:
		return "BeeGFS"
	case magicGFS2:
		return "GFS2"
	case magicGPFS:
		return "GPFS"
	case magicLustre:
		return "Lustre"
	case magicNCP:
		return "NCP"
	case magicOrange:
		return "OrangeFS"
	case magicVBox:
		return "a VirtualBox shared folder"
	case magicVMHGFS:
		return "a VMware shared folder"
	}
	return ""
}

// onBlockDevice reports whether the FUSE file system that dir is on has a disk of its own (proc(5), mountinfo: type
// fuseblk).
func onBlockDevice(dir string) bool {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return false
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	defer f.Close()
	return isFuseBlk(f, fmt.Sprintf("%d:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev))))
}

func isFuseBlk(mountinfo io.Reader, device string) bool {
	in := bufio.NewScanner(io.LimitReader(mountinfo, 4<<20))
	for in.Scan() {
		head, tail, ok := strings.Cut(in.Text(), " - ")
		if fields := strings.Fields(head); ok && len(fields) > 2 && fields[2] == device {
			return strings.HasPrefix(tail, "fuseblk ")
		}
	}
	return false
}
