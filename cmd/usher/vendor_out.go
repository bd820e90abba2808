package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/usher-agent/usher/agent/files"
)

// existing refuses to overwrite a file.
func existing(path string) error {
	return fail(exitFailed, "choose another name for --out, or overwrite it with --force",
		"%s exists, and may be another licence", path)
}

// writeOut writes a file whole or not at all. Without force it replaces none. A device or a pipe, such as /dev/stdout,
// is written to as it is.
func writeOut(path string, data []byte, force bool) error {
	fi, err := os.Stat(path)
	isFile := err != nil || fi.Mode().IsRegular() || fi.IsDir()
	if force && isFile {
		return unwritten("--out", path, files.Replace(path, data, 0o644))
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if !isFile {
		flags = os.O_WRONLY
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if errors.Is(err, fs.ErrExist) && !fi.IsDir() {
		return existing(path)
	}
	if err != nil {
		return unwritten("--out", path, err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil && isFile {
		err = errors.Join(err, os.Remove(path))
	}
	return unwritten("--out", path, err)
}

// writable says why writeOut would not write a file, as far as that shows beforehand. Without a name, and with -, there
// is none.
func writable(path string, force bool) error {
	if path == "" || path == "-" {
		return nil
	}
	fi, err := os.Stat(path)
	if err != nil {
		if _, link := os.Lstat(path); link == nil && !force {
			return existing(path)
		}
		if in, err := os.Stat(filepath.Dir(path)); err != nil || !in.IsDir() {
			return unwritten("--out", path, errors.Join(err, fs.ErrNotExist))
		}
		return nil
	}
	switch {
	case fi.IsDir():
		return unwritten("--out", path, syscall.EISDIR)
	case fi.Mode().IsRegular() && !force:
		return existing(path)
	}
	return nil
}

// unwritten says why a file that a flag names could not be written, and what to do; nil stays nil.
func unwritten(flag, path string, err error) error {
	if err == nil {
		return nil
	}
	dir := filepath.Dir(path)
	hint := "name another file with " + flag
	in, failed := os.Stat(dir)
	fi, _ := os.Stat(path) // nil: there is none
	switch {
	case fi != nil && fi.IsDir():
		return fail(exitFailed, "name a file in it with "+flag, "%s is a folder", path)
	case errors.Is(failed, fs.ErrNotExist):
		return fail(exitFailed, fmt.Sprintf("make it with mkdir -p %s, or %s", dir, hint), "there is no folder %s", dir)
	case errors.Is(failed, syscall.ENOTDIR), failed == nil && !in.IsDir():
		return fail(exitFailed, hint, "%s is no folder, so that there can be no %s", dir, path)
	case errors.Is(err, fs.ErrPermission):
		hint += ", in a folder that you may write to, or run this as the owner of " + dir
	case errors.Is(err, syscall.EROFS):
		hint += "; that file system is mounted read-only"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		hint = "make room there, or " + hint
	}
	cause := err
	var at *fs.PathError
	if errors.As(err, &at) {
		cause = at.Err
	}
	return &exit{exitFailed, fmt.Errorf("%s cannot be written: %w", path, cause), hint}
}
