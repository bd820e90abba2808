package watch

import "golang.org/x/sys/unix"

// Magic numbers of file systems that golang.org/x/sys lacks, from statfs(2) and the file systems' own sources.
const (
	magicGFS2   = 0x01161970
	magicGPFS   = 0x47504653
	magicLustre = 0x0BD00BD0
	magicNCP    = 0x564C
	magicVBox   = 0x786F4256
	magicVMHGFS = 0xBACBACBC
)

// fsKind returns the kind of a path's file system, and whether it may change in ways that this kernel never sees.
func fsKind(path string) (kind string, remote bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return "", false
	}
	return fsName(uint32(st.Type)) // the magic numbers have 32 bits; the type of the field differs by architecture
}

func fsName(magic uint32) (kind string, remote bool) {
	switch magic {
	case unix.NFS_SUPER_MAGIC:
		kind = "NFS"
	case unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		kind = "SMB/CIFS"
	case unix.V9FS_MAGIC:
		kind = "9p"
	case unix.FUSE_SUPER_MAGIC:
		kind = "FUSE" // virtiofs too
	case unix.CEPH_SUPER_MAGIC:
		kind = "Ceph"
	case unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC:
		kind = "AFS"
	case unix.CODA_SUPER_MAGIC:
		kind = "Coda"
	case unix.OCFS2_SUPER_MAGIC:
		kind = "OCFS2"
	case magicGFS2:
		kind = "GFS2"
	case magicGPFS:
		kind = "GPFS"
	case magicLustre:
		kind = "Lustre"
	case magicNCP:
		kind = "NCP"
	case magicVBox:
		kind = "a VirtualBox shared folder"
	case magicVMHGFS:
		kind = "a VMware shared folder"
	default:
		return "", false
	}
	return kind, true
}
