package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Whatever the agent believes or writes lies where nobody but its own user and root can change it:
//
//   - Its own folders (state, runtime) belong to it. Others cannot write to them, and no folder or link on the way to
//     them is another user's to exchange: see [Folder].
//   - Its own files are no links. They are regular, its own or root's, and not for others to write: see [Open], [Read].
//   - Links may lead to files that the configuration names, as to a container's Secrets, if every link and folder on
//     the way is the agent's or root's too, or lies on a file system that is mounted read-only here: see [ReadNamed].

// maxLinks bounds the links on the way to a file, as the kernel does (path_resolution(7)).
const maxLinks = 40

// Folder makes a folder of the agent's own with a mode, where there is none, and checks it. It corrects an own folder
// that others may write to or that is open beyond mode, and says what was wrong in corrected. It refuses every other
// fault, with its mend.
func Folder(path string, mode fs.FileMode) (corrected string, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return "", err
	}
	if err := os.MkdirAll(path, mode); err != nil {
		return "", err
	}
	real, fi, wrong, err := lookAt(path, mode)
	if err != nil {
		return "", err
	}
	if wrong == 0 || !hasModes {
		return "", nil
	}
	if err := os.Chmod(real, fi.Mode().Perm()&^wrong); err == nil {
		return fmt.Sprintf("%04o", fi.Mode().Perm()), nil
	}
	if mode&0o077 != 0 && writableByOthers(fi) == 0 {
		return "", nil // root's group
	}
	if wrong&0o022 == 0 { // others may look, and the agent cannot forbid it
		return "", fmt.Errorf(
			"others may enter it (mode %04o), and it is not the agent's to change; chown %d %s and chmod %04o it",
			fi.Mode().Perm(), os.Geteuid(), path, mode)
	}
	return "",
		fmt.Errorf(
			"others can write to it (mode %04o) and replace the agent's files there, and it is "+
				"not the agent's to change; "+
				"chown %d %s and chmod %04o it, or set a folder that only the agent's user and root can write to (in "+
				"Kubernetes an emptyDir is everybody's: see docs/containers.md)",
			fi.Mode().Perm(), os.Geteuid(), path, mode)
}

// lookAt returns the end of the path of a folder of the agent's own, and the bits of its mode that are too many.
func lookAt(path string, mode fs.FileMode) (real string, fi fs.FileInfo, wrong fs.FileMode, err error) {
	if real, err = follow(path); err != nil {
		return "", nil, 0, err
	}
	switch fi, err = os.Lstat(real); {
	case err != nil:
		return "", nil, 0, err
	case !fi.IsDir():
		return "", nil, 0, fmt.Errorf("%s is not a folder; move it away", path)
	}
	if uid, others := ownerOf(fi); others {
		return "", nil, 0, fmt.Errorf("it %w %d, who could change its contents; chown %d %s", errForeign, uid,
			os.Geteuid(), path)
	}
	// The group's rights stay, but for writing, unless the folder is to be the agent's alone.
	wrong = fi.Mode().Perm() & 0o022
	if mode&0o077 == 0 {
		wrong = fi.Mode().Perm() & 0o077
	}
	return real, fi, wrong, nil
}

// errForeign begins the words for another user's folder.
var errForeign = errors.New("belongs to uid")

// Foreign reports whether an error of this package says that a folder of the agent's own is another user's.
func Foreign(err error) bool { return errors.Is(err, errForeign) }

// Look says why a folder cannot be the agent's own, and changes nothing. Where there is none, the error is an
// [fs.ErrNotExist].
func (p Place) Look() error {
	path, err := filepath.Abs(p.Path)
	if err != nil {
		return err
	}
	_, _, _, err = lookAt(path, p.mode)
	return err
}

// LockFile returns the path of the file that is locked while an agent uses the folder.
func (p Place) LockFile() string { return filepath.Join(p.Path, p.lock) }

// Make makes a folder with a mode, or gives an own folder that mode. It does not check the way to it.
func Make(path string, mode fs.FileMode) error {
	if err := os.MkdirAll(path, mode); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return whyNot(path, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if uid, others := ownerOf(fi); others || !fi.IsDir() {
		return fmt.Errorf(
			"there is something of that name that is not a folder of the agent's (%v of uid %d); move it away",
			fi.Mode(),
			uid)
	}
	if !hasModes {
		return nil
	}
	return f.Chmod(mode)
}

// follow returns the end of a path. It checks that nobody but root and the agent's user can change a folder or link on
// the way. A sticky folder such as /tmp passes, if the entry is root's or the agent's.
func follow(path string) (string, error) {
	root := filepath.VolumeName(path) + string(filepath.Separator)
	dir, rest := root, parts(path)
	if err := trustFolder(dir); err != nil {
		return "", err
	}
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			dir = filepath.Dir(dir)
			continue
		}
		here := filepath.Join(dir, name)
		fi, err := os.Lstat(here)
		if err != nil {
			return "", err
		}
		last := len(rest) == 0
		link := fi.Mode().Type() == fs.ModeSymlink
		if uid, others := ownerOf(fi); others && (link || !last) && !readOnly(dir) {
			return "", fmt.Errorf(
				"%s, which leads there, belongs to uid %d, who could make it lead elsewhere; chown it to root, or to "+
					"the agent's user", here, uid)
		} else if others && last && isSticky(dir) {
			return "", fmt.Errorf(
				"%s belongs to uid %d, who could put anything in its place; chown it to the agent's user, or to root",
				here, uid)
		}
		switch {
		case link:
			to, err := os.Readlink(here)
			if links++; err == nil && links > maxLinks {
				err = fmt.Errorf("%s: there are more than %d links on the way", path, maxLinks)
			}
			if err != nil {
				return "", err
			}
			if filepath.IsAbs(to) {
				dir = filepath.VolumeName(to) + string(filepath.Separator)
			}
			rest = append(parts(to), rest...)
		case last:
			dir = here
		default:
			dir = here
			if fi.IsDir() {
				if err := trustFolder(dir); err != nil {
					return "", err
				}
			}
		}
	}
	return dir, nil
}

// parts returns the names that a path is made of.
func parts(path string) []string {
	return strings.FieldsFunc(path[len(filepath.VolumeName(path)):], func(r rune) bool {
		return r < 0x80 && os.IsPathSeparator(uint8(r))
	})
}

// trustFolder says why others than root and the agent's user may exchange the entries of a folder.
func trustFolder(dir string) error {
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !hasModes || writableByOthers(fi) == 0 || fi.Mode()&fs.ModeSticky != 0 || readOnly(dir) {
		return nil
	}
	return fmt.Errorf(
		"others can write to the folder %s on the way (mode %04o), and so exchange its entries; chmod go-w it, or "+
			"choose a place elsewhere "+
			"(in Kubernetes an emptyDir is everybody's: see docs/containers.md)", dir, fi.Mode().Perm())
}

func isSticky(dir string) bool {
	fi, err := os.Stat(dir)
	return err == nil && fi.Mode()&fs.ModeSticky != 0 && writableByOthers(fi) != 0
}

// Open opens a file of the agent's own. Where flag has [os.O_CREATE] and there is none, it makes the file with mode
// 0600. It follows no link at the path's end, waits for nothing, and cuts nothing before it knows that the file is a
// regular one, the agent's own or root's, and that others cannot write to it.
func Open(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag&^os.O_TRUNC|openFlags, 0o600)
	if err != nil {
		return nil, whyNot(path, err)
	}
	if flag&os.O_CREATE != 0 {
		err = giveToFoldersOwner(path, f)
	}
	if err == nil {
		err = own(path, f)
	}
	if err == nil && flag&os.O_TRUNC != 0 {
		err = f.Truncate(0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// whyNot explains a link at the end of a path, which the kernel calls a loop.
func whyNot(path string, err error) error {
	if fi, statErr := os.Lstat(path); statErr == nil && fi.Mode().Type() == fs.ModeSymlink && openFlags != 0 {
		return fmt.Errorf("%s is a link, and the agent follows none among its own files; move it away", path)
	}
	return err
}

// own says why an open file cannot be one of the agent's own.
func own(path string, f *os.File) error {
	fi, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !fi.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file (%v); move it away", path, fi.Mode().Type())
	}
	if uid, others := ownerOf(fi); others && !isFoldersOwn(path, uid) {
		return fmt.Errorf("%s belongs to uid %d, and the agent runs as uid %d; chown it, or move it away", path, uid,
			os.Geteuid())
	}
	if hasModes && writableByOthers(fi) != 0 {
		return fmt.Errorf("%s can be written by others (mode %04o); look at what it holds, then chmod go-w it", path,
			fi.Mode().Perm())
	}
	return nil
}

// giveToFoldersOwner gives a new file, which root makes in a folder of the agent's as a repair does, to the agent's
// user.
func giveToFoldersOwner(path string, f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	folder, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	uid, others := ownerOf(folder)
	if is, _ := ownerOf(fi); !others || is != 0 || fi.Size() > 0 || writableByOthers(folder) != 0 {
		return nil
	}
	return f.Chown(uid, -1)
}

// isFoldersOwn reports whether root works on the files of another user's folder, as a repair does.
func isFoldersOwn(path string, uid int) bool {
	if os.Geteuid() != 0 {
		return false
	}
	fi, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return false
	}
	owner, _ := ownerOf(fi)
	return owner == uid && writableByOthers(fi) == 0
}

// ReadNamed returns the content of a file that the configuration names, of at most max bytes. It follows links, through
// which a container's Secrets are reached, if nobody but root and the agent's user can change one of them, a folder on
// the way, or the file. On a file system that is mounted read-only here, the owner does not matter. Where there is no
// file, the error is [fs.ErrNotExist].
func ReadNamed(path string, max int64) ([]byte, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	real, err := follow(abs)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(real, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !fi.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file (%v)", path, fi.Mode().Type())
	}
	if !readOnly(real) {
		if uid, others := ownerOf(fi); others {
			return nil, fmt.Errorf(
				"%s belongs to uid %d, who could change it; chown it to root, or to the agent's user (uid %d)", path,
				uid, os.Geteuid())
		}
		if hasModes && writableByOthers(fi) != 0 {
			return nil, fmt.Errorf("%s can be written by others (mode %04o); chmod go-w it", path, fi.Mode().Perm())
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(b)) > max {
		err = fmt.Errorf("%s: it has more than %d bytes", path, max)
	}
	return b, err
}
