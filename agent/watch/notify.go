package watch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

// notifier keeps a set of directories watched. A nil notifier watches nothing.
type notifier struct {
	fs *fsnotify.Watcher
	on map[string]watched // by path

	only string // the only file that counts, whatever its name is like; empty: all that are not ignored
}

type watched struct {
	id   fileID
	name string // the only name that matters; empty: all
}

func newNotifier() (*notifier, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return &notifier{fs: w, on: map[string]watched{}}, nil
}

func (n *notifier) close() {
	if n != nil {
		_ = n.fs.Close() // it ends the goroutine whatever it returns
	}
}

func (n *notifier) channels() (<-chan fsnotify.Event, <-chan error) {
	if n == nil {
		return nil, nil
	}
	return n.fs.Events, n.fs.Errors
}

// watch sets the directories that are watched. It leaves out a directory that is missing or not readable: the next scan
// says so, and the poll looks after it. Any other error means that watching does not work.
func (n *notifier) watch(targets []target) error {
	want := map[string]watched{}
	paths := map[fileID]string{} // two paths may lead to one directory, which takes one watch only
	for _, t := range targets {
		fi, err := os.Stat(t.path)
		if err != nil {
			continue
		}
		id := stampOf(fi).id
		if other, twice := paths[id]; twice && id != (fileID{}) {
			if want[other].name != t.name {
				want[other] = watched{id: id}
			}
			continue
		}
		paths[id] = t.path
		want[t.path] = watched{id: id, name: t.name}
	}
	// A watch ends when its directory is removed or moved, and the next directory there may have the same inode.
	alive := n.fs.WatchList()
	for path, on := range n.on {
		if w, wanted := want[path]; !wanted || w.id != on.id || !slices.Contains(alive, path) {
			_ = n.fs.Remove(path) // gone already, then
			delete(n.on, path)
		}
	}
	for path, w := range want {
		if _, on := n.on[path]; !on {
			err := n.fs.Add(path)
			if isMissing(err) || errors.Is(err, fs.ErrPermission) {
				continue
			}
			if err != nil {
				return err
			}
		}
		n.on[path] = w
	}
	return nil
}

// concerns reports whether an event may be about a document, and not about a neighbour of the folder or a file that an
// installer is still writing under another name.
func (n *notifier) concerns(ev fsnotify.Event) bool {
	if _, itself := n.on[ev.Name]; itself {
		return true
	}
	in, known := n.on[filepath.Dir(ev.Name)]
	name := filepath.Base(ev.Name)
	if known && in.name == "" {
		// Documents are reached through "..data" and its like.
		return name == n.only || !Ignored(name) || strings.HasPrefix(name, "..")
	}
	return !known || in.name == name
}

// notifyReason says why watching does not work, and the mend.
func notifyReason(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return "the user's inotify watches are used up; raise sysctl fs.inotify.max_user_watches"
	case errors.Is(err, syscall.EMFILE):
		return "the user's inotify instances or the process's file descriptors are used up; raise sysctl " +
			"fs.inotify.max_user_instances or the limit on open files"
	case errors.Is(err, syscall.ENFILE):
		return "the system's file descriptors are used up; raise sysctl fs.file-max"
	default:
		return "the kernel refuses to watch it: " + err.Error()
	}
}
