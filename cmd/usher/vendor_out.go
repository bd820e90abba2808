package main

import (
	"errors"
	"io/fs"
	"os"

	"github.com/usher-agent/usher/agent/files"
)

// existing refuses to overwrite a file.
func existing(path string) error {
	return fail(exitFailed, "choose another name for --out, or overwrite it with --force",
		"%s exists, and may be another licence", path)
}

// writeOut writes a file whole or not at all. Without force it replaces none.
func writeOut(path string, data []byte, force bool) error {
	if force {
		return files.Replace(path, data, 0o644)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return existing(path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}
