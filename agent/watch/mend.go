package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"github.com/usher-agent/usher/enforcer"
)

// This file holds every sentence that people read about the folder: what is wrong with which file, and the mend.

func problem(code enforcer.Code, hint, format string, args ...any) *enforcer.Problem {
	return &enforcer.Problem{Code: code, Reason: fmt.Sprintf(format, args...), Hint: hint}
}

func missingPath(path string) *enforcer.Problem {
	if to, err := os.Readlink(path); err == nil {
		return problem(enforcer.NotFound, "create what the link names, or correct the link",
			"licence path %s is a link to %s, which does not exist", plain(path), plain(to))
	}
	return problem(enforcer.NotFound, "create the folder and put the licence into it: mkdir -p "+shell(path),
		"licence path %s does not exist", plain(path))
}

// unreachable says why the folder, or the way to it, cannot be used.
func unreachable(path string, err error) *enforcer.Problem {
	if !errors.Is(err, fs.ErrPermission) {
		return problem(enforcer.Unavailable, "see that the disk or share it is on works",
			"licence path %s cannot be read: %s", plain(path), cause(err))
	}
	// The culprit is the first directory on the way that lets nobody through, or the folder itself.
	culprit, need := path, "rx"
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(path); err == nil {
			break
		}
		if _, err := os.Stat(dir); err == nil {
			culprit, need = dir, "x"
			break
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	fi, statErr := os.Stat(culprit)
	if statErr != nil {
		return problem(enforcer.Unavailable, "let "+whoami()+" read it", "licence path %s cannot be read: %s",
			plain(path), cause(err))
	}
	return problem(enforcer.Unavailable,
		fmt.Sprintf("chmod o+%s %s, or give it to the agent: chown %d %s", need, shell(culprit), os.Geteuid(),
			shell(culprit)),
		"licence path %s cannot be read: %s %s, and the agent runs as %s", plain(path), plain(culprit), belongs(fi),
		whoami())
}

// unreadable says why a file cannot be read; fi may be nil.
func unreadable(dir, name string, fi fs.FileInfo, err error) *enforcer.Problem {
	path := shell(filepath.Join(dir, name))
	switch {
	case !errors.Is(err, fs.ErrPermission):
		return problem(enforcer.Unavailable, "see that the disk or share it is on works",
			"%s cannot be read: %s", plain(name), cause(err))
	case fi == nil:
		return problem(enforcer.Unavailable, "let "+whoami()+" enter "+shell(dir),
			"%s cannot be looked at: the agent runs as %s", plain(name), whoami())
	case mine(fi) && fi.Mode()&0o400 == 0:
		return problem(enforcer.Unavailable, "chmod u+r "+path,
			"%s cannot be read: it %s, and the agent runs as %s", plain(name), belongs(fi), whoami())
	case mine(fi) || os.Geteuid() == 0:
		return problem(enforcer.Unavailable,
			"look for a security module's rule (SELinux, AppArmor) or a share that refuses this user",
			"%s cannot be read: %s, but %s may not read it", plain(name), belongs(fi), whoami())
	}
	return problem(enforcer.Unavailable,
		fmt.Sprintf("chown %d %s, or let everybody read it: chmod o+r %s", os.Geteuid(), path, path),
		"%s cannot be read: it %s, and the agent runs as %s", plain(name), belongs(fi), whoami())
}

func badLink(root *os.Root, name string, err error) *enforcer.Problem {
	to, readErr := root.Readlink(name)
	if readErr != nil {
		to = "somewhere unknown"
	}
	switch {
	case isMissing(err):
		return problem(enforcer.NotFound, "remove the link, or put back what it names",
			"%s is a link to %s, which does not exist", plain(name), plain(to))
	case escapes(err):
		return problem(enforcer.Malformed, "put the document itself into the folder",
			"%s is a link to %s, which is outside the licence folder; such a link is not followed", plain(name),
			plain(to))
	case errors.Is(err, fs.ErrPermission):
		return problem(enforcer.Unavailable, "let "+whoami()+" enter the folder that the link names",
			"%s is a link to %s, which the agent may not reach as %s", plain(name), plain(to), whoami())
	}
	return problem(enforcer.Unavailable, "put the document itself into the folder",
		"%s is a link to %s, which cannot be followed: %s", plain(name), plain(to), cause(err))
}

func notRegular(name string, mode fs.FileMode) *enforcer.Problem {
	what, hint := "a special file", "remove it"
	switch mode.Type() {
	case fs.ModeDir:
		what, hint = "a folder",
			"move its documents one level up; the agent does not read folders within the licence folder"
	case fs.ModeNamedPipe:
		what = "a named pipe"
	case fs.ModeSocket:
		what = "a socket"
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		what = "a device"
	}
	return problem(enforcer.Malformed, hint, "%s is %s, not a file; it is not read", plain(name), what)
}

func tooLarge(name string, size int64) *enforcer.Problem {
	return problem(enforcer.Malformed, "check that this is the licence and not another file",
		"%s has %d bytes; a licence document has at most %d (1 MiB)", plain(name), size, MaxDocument)
}

func empty(name string) *enforcer.Problem {
	return problem(enforcer.Malformed, "copy the licence again; the disk may be full", "%s is empty", plain(name))
}

func vanished(name string) *enforcer.Problem {
	return problem(enforcer.Unavailable, "", "%s was exchanged while it was being read", plain(name))
}

func tooMany(dir string, omitted int) *enforcer.Problem {
	return problem(enforcer.Unavailable, "move files that are no longer needed out of the folder",
		"licence folder %s holds too many files: at most %d are read, %d are left out", plain(dir), MaxFiles, omitted)
}

// cause returns the system's words for an error, without the path, which the sentence has already.
func cause(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return err.Error()
}

// belongs names a file's owner and mode. Ids stay numbers: names may have to come from the network.
func belongs(fi fs.FileInfo) string {
	o := stampOf(fi).owner
	if !o.known {
		return fmt.Sprintf("has mode %s", fi.Mode())
	}
	return fmt.Sprintf("belongs to uid %d, gid %d with mode %04o", o.uid, o.gid, fi.Mode().Perm())
}

// mine reports whether a file belongs to the user that the agent runs as.
func mine(fi fs.FileInfo) bool {
	o := stampOf(fi).owner
	return o.known && int(o.uid) == os.Geteuid()
}

func whoami() string {
	if os.Geteuid() < 0 {
		return "this user"
	}
	return fmt.Sprintf("uid %d, gid %d", os.Geteuid(), os.Getegid())
}

// plain returns a name for people: quoted when it could garble a line, and never long.
func plain(name string) string {
	const most = 200
	if len(name) > most {
		name = strings.ToValidUTF8(name[:most], "") + "…"
	}
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return strconv.Quote(name)
	}
	return name
}

// shell returns a path as one word of a shell command.
func shell(path string) string {
	safe := func(r rune) bool {
		return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("/._-+:@%", r)
	}
	if strings.ContainsFunc(path, func(r rune) bool { return !safe(r) }) {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}
