package journal

import "fmt"

// RemoteError says that a journal's folder is on a file system that other hosts may change, or whose fsync promises
// nothing.
type RemoteError struct {
	Dir  string
	Kind string // as people call it
}

func (e *RemoteError) Error() string {
	return fmt.Sprintf(
		"%s is on a network file system (%s), where a journal is not safe: set state.dir and state.runtime_dir to "+
			"folders on a disk of this host", e.Dir, e.Kind)
}
