package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ErrTaken says that another has a lock.
var ErrTaken = errors.New("another has the lock")

// Place is a folder of the agent's own, as a configuration names it.
type Place struct {
	Path string
	name string // in messages
	key  string // of the configuration
	lock string // the file that is locked
	mode fs.FileMode
}

// StateFolder is what outlives the host: state.dir of a configuration, for the agent's eyes alone (0700).
func StateFolder(path string) Place {
	return Place{path, "state folder", "state.dir", "agent.lock", 0o700}
}

// RuntimeFolder is what dies with the host: state.runtime_dir of a configuration, which others may look into (0755).
func RuntimeFolder(path string) Place {
	return Place{path, "runtime folder", "state.runtime_dir", "runtime.lock", 0o755}
}

// SocketFolder is the folder of the socket, which everybody may enter (0755).
func SocketFolder(socket string) Place {
	return Place{filepath.Dir(socket), "folder of the socket", "socket.path", "", 0o755}
}

// Own makes the two folders where there are none, and sees that they are the agent's own. Where others can do with one
// what they should not, and the agent can change that, it does, and corrected is told how the folder was.
func Own(state, runtime Place, corrected func(folder, was string)) error {
	all := []Place{state, runtime}
	if filepath.Clean(state.Path) == filepath.Clean(runtime.Path) {
		all = all[:1]
	} else if rel, err := filepath.Rel(runtime.Path, state.Path); err == nil && filepath.IsLocal(rel) {
		slices.Reverse(all) // the outer one first
	}
	for _, p := range all {
		was, err := Folder(p.Path, p.mode)
		if err != nil {
			return fmt.Errorf("%s %s: %w; the agent's user needs a folder of its own there, or %s names another",
				p.name, p.Path, err, p.key)
		}
		if was != "" {
			corrected(p.Path, was)
		}
	}
	return nil
}

// MakeOwn makes folders in a place that may be everybody's, up to the first that cannot be made. Another user who can
// write to that place can take them away again, so the agent is to be given the folders without the place.
func MakeOwn(folders ...Place) error {
	for _, p := range folders {
		if err := Make(p.Path, p.mode); err != nil {
			return fmt.Errorf("folder %s: %w", p.Path, err)
		}
	}
	return nil
}

// GiveTo makes folders, up to the first that cannot be made, and gives them to another user and group: root does so
// before an agent starts that may not. Of capabilities it needs CAP_CHOWN alone. A folder that is already as it should
// be stays as it is, and it takes none away from a third user. One within another it leaves to that user.
func GiveTo(uid, gid int, folders ...Place) error {
	for _, p := range folders {
		if slices.ContainsFunc(folders, p.within) {
			continue
		}
		if err := giveTo(uid, gid, p); err != nil {
			return fmt.Errorf("%s %s: %w", p.name, p.Path, err)
		}
	}
	return nil
}

// within reports whether a folder lies in another.
func (p Place) within(o Place) bool {
	rel, err := filepath.Rel(o.Path, p.Path)
	return err == nil && rel != "." && filepath.IsLocal(rel)
}

func giveTo(uid, gid int, p Place) error {
	if fi, err := os.Lstat(p.Path); err == nil && fi.IsDir() && fi.Mode().Perm() == p.mode && belongs(fi, uid, gid) {
		return nil // without more rights its contents are closed to us
	}
	if err := os.MkdirAll(filepath.Dir(p.Path), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(p.Path, p.mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.OpenFile(p.Path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return whyNot(p.Path, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if of, others := ownerOf(fi); !fi.IsDir() || others && of != uid {
		return fmt.Errorf("there is something of that name that is neither root's nor uid %d's folder (%v of uid %d); "+
			"move it away", uid, fi.Mode(), of)
	}
	// The mode first: another user's folder would be closed to us.
	if err := f.Chmod(p.mode); err != nil {
		return fmt.Errorf("%w; chmod %04o it as root", err, p.mode)
	}
	return f.Chown(uid, gid)
}

// takenError is ErrTaken in words of its own.
type takenError struct{ text string }

func (e *takenError) Error() string        { return e.text }
func (e *takenError) Is(target error) bool { return target == ErrTaken }

// Lock locks the folder, so that no second agent uses it, until what it returns is closed. What a crash left of files
// that were being replaced is removed.
func (p Place) Lock() (*os.File, error) {
	name := filepath.Join(p.Path, p.lock)
	f, err := Open(name, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w; make it writable for uid %d, or set %s", p.name, p.Path, err, os.Getuid(),
			p.key)
	}
	if err := Lock(f); err != nil && !errors.Is(err, ErrTaken) {
		f.Close()
		return nil, fmt.Errorf("%s %s: %w, or set another %s", p.name, p.Path, err, p.key)
	} else if err != nil {
		owner, _ := Read(name, 64)
		f.Close()
		who := "another agent"
		if pid := strings.TrimSpace(string(owner)); pid != "" {
			who = "another agent (pid " + pid + ")"
		}
		return nil, &takenError{fmt.Sprintf("%s %s: %s is using it; stop that one, or give this one a %s of its own",
			p.name, p.Path, who, p.key)}
	}
	if err := f.Truncate(0); err == nil {
		fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	if err := Sweep(p.Path); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s %s: what a crash left cannot be removed: %w", p.name, p.Path, err)
	}
	return f, nil
}
