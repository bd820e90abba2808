package watch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/usher-agent/usher/enforcer"
)

// place says what the configured path is at one instant.
type place struct {
	path   string
	dir    string // the folder of the documents; empty: there is none, see problem
	id     fileID // of dir
	only   string // the one file of dir that counts, where path is a file
	exists string // dir, or the nearest directory above path that exists

	problem    *enforcer.Problem
	unreadable bool // problem does not say that nothing is there
}

// locate finds out what the path is now: a folder, a file, or nothing yet.
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
	for at.exists = filepath.Dir(path); ; at.exists = filepath.Dir(at.exists) {
		if fi, err := os.Stat(at.exists); at.exists == filepath.Dir(at.exists) || err == nil && fi.IsDir() {
			return at
		}
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

// targets returns the directories to watch: the folder, and those that have a name on the way to it. The poll looks
// after renames further up.
func (at place) targets() []target {
	if at.dir == "" {
		return way(at.path)
	}
	return append([]target{{at.dir, ""}}, way(at.dir)...)
}

// maxWay bounds the links on the way to the folder.
const maxWay = 8

// way returns the true directory and name of the path's last element, and of each link on the way. When something is
// missing, it returns where that will be.
func way(path string) []target {
	root := filepath.VolumeName(path) + string(filepath.Separator)
	split := func(p string) []string {
		return strings.FieldsFunc(p[len(filepath.VolumeName(p)):], func(r rune) bool {
			return r < 0x80 && os.IsPathSeparator(uint8(r))
		})
	}
	var targets []target
	dir, rest := root, split(path)
	for len(rest) > 0 && len(targets) <= maxWay {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			dir = filepath.Dir(dir)
			continue
		}
		here := filepath.Join(dir, name)
		fi, err := os.Lstat(here)
		link := err == nil && fi.Mode().Type() == fs.ModeSymlink
		if link || err != nil || len(rest) == 0 {
			targets = append(targets, target{dir, name})
		}
		switch to, linkErr := os.Readlink(here); {
		case err != nil:
			return targets
		case !link:
			dir = here
		case linkErr != nil:
			return targets
		default:
			if filepath.IsAbs(to) {
				dir = filepath.VolumeName(to) + string(filepath.Separator)
			}
			rest = append(split(to), rest...)
		}
	}
	return targets
}
