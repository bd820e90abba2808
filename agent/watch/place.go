package watch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/usher-agent/usher/enforcer"
)

// place is what the configured path turns out to be at one instant.
type place struct {
	path   string
	dir    string // the folder whose files are documents; empty: none can be had, see problem
	id     fileID // of dir
	only   string // the one file of dir that counts, where path is a file
	exists string // dir, or the nearest directory above path that is there
	below  string // the name below exists that is missing

	problem    *enforcer.Problem
	unreadable bool // problem does not say that nothing is there
}

// locate finds out what is at the path now: a folder, a file, or nothing yet.
func locate(path string) place {
	at := place{path: path}
	fi, err := os.Stat(path)
	switch {
	case err == nil && fi.IsDir():
		at.dir, at.exists, at.id = path, path, stampOf(fi).id
		return at
	case err == nil:
		at.dir, at.only = filepath.Dir(path), filepath.Base(path)
		if fi, err = os.Stat(at.dir); err == nil {
			at.exists, at.id = at.dir, stampOf(fi).id
			return at
		}
		at.dir, at.only = "", ""
	}
	if isMissing(err) {
		at.problem = missingPath(path)
	} else {
		at.problem, at.unreadable = unreachable(path, err), true
	}
	for child := path; ; {
		parent := filepath.Dir(child)
		at.exists, at.below = parent, filepath.Base(child)
		if fi, err := os.Stat(parent); parent == child || err == nil && fi.IsDir() {
			return at
		}
		child = parent
	}
}

// isMissing reports whether an error says that nothing is there, and not that it cannot be seen.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// target is a directory to watch, and the only name in it that matters; empty: all.
type target struct {
	path string
	name string
}

// targets returns the directories to watch: the folder, what it is named in, and, where links lead to it, what the folder
// at their end is named in. A change further up is left to the poll.
func (at place) targets() []target {
	if at.dir == "" {
		return []target{{at.exists, at.below}}
	}
	targets := []target{{at.dir, ""}, {filepath.Dir(at.dir), filepath.Base(at.dir)}}
	if real, err := filepath.EvalSymlinks(at.dir); err == nil && real != at.dir {
		targets = append(targets, target{filepath.Dir(real), filepath.Base(real)})
	}
	return targets
}
