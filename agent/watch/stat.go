package watch

import (
	"io/fs"
	"time"
)

// racy is how recently a file may have changed for another change to leave its times as they are: file systems keep
// them as coarsely as two seconds.
const racy = 2 * time.Second

// fileID names a file or directory on this host; zero: not known.
type fileID struct{ dev, ino uint64 }

// owner is a file's owner.
type owner struct {
	uid, gid uint32
	known    bool
}

// stamp tells one version of a file from another without reading it.
type stamp struct {
	id       fileID
	size     int64
	mode     fs.FileMode
	modified int64 // Unix nanoseconds
	changed  int64 // when content or inode last changed, Unix nanoseconds; where not known, modified
	owner    owner
}

func plainStamp(fi fs.FileInfo) stamp {
	t := fi.ModTime().UnixNano()
	return stamp{size: fi.Size(), mode: fi.Mode(), modified: t, changed: t}
}

// recent reports whether the file changed so recently that its next change may not show in the stamp.
func (s stamp) recent(now time.Time) bool {
	age := now.Sub(time.Unix(0, max(s.modified, s.changed)))
	return -racy < age && age < racy
}
