package identity

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Make makes a new key in a file that the configuration of an agent is to name, with mode 0600. It never overwrites a
// file unless replace says so, and then the file is the old one or the new one. The error of a file that exists is an
// [fs.ErrExist].
func Make(path string, replace bool) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("agent key: %w", err)
	}
	f := File{Path: path}
	if !replace {
		// Reserves the name, so that of two that make it at once one is refused.
		empty, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return nil, f.exists()
		}
		if err != nil {
			return nil, fmt.Errorf("agent key: %w", err)
		}
		if err := empty.Close(); err != nil {
			return nil, errors.Join(fmt.Errorf("agent key: %w", err), os.Remove(path))
		}
	}
	if err := f.write(key, nil); err != nil {
		err = fmt.Errorf("agent key %s: %w", path, err)
		if !replace {
			err = errors.Join(err, os.Remove(path))
		}
		return nil, err
	}
	return key, nil
}

// exists says what is in the place of a key that is to be made.
func (f File) exists() error {
	if pub := f.Public(); pub != nil {
		return existsError(fmt.Sprintf("agent key %s: it exists, and its thumbprint is %s", f.Path, Thumbprint(pub)))
	}
	return existsError(fmt.Sprintf("agent key %s: there is a file of that name", f.Path))
}

// existsError is [fs.ErrExist] in words of its own.
type existsError string

func (e existsError) Error() string      { return string(e) }
func (existsError) Is(target error) bool { return target == fs.ErrExist }
