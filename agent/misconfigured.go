package agent

import (
	"errors"
	"io/fs"
	"net"
	"syscall"

	"github.com/usher-agent/usher/agent/files"
)

// misconfigured is an error that the configuration itself is the cause of.
type misconfigured struct{ error }

func (m misconfigured) Unwrap() error { return m.error }

// configured marks an error as one of the configuration.
func configured(err error) error {
	if err == nil {
		return nil
	}
	return misconfigured{err}
}

// Misconfigured reports whether an error of [New] is about what the configuration says, so that another start with the
// same configuration cannot mend it. Trouble of the host may pass: a disk that is full, a file that comes late, an
// address or a folder that is still in use.
func Misconfigured(err error) bool {
	var m misconfigured
	return errors.As(err, &m) && !OfTheHost(err)
}

// OfTheHost reports whether the operating system is the cause of an error.
func OfTheHost(err error) bool {
	var number syscall.Errno
	var network net.Error
	return errors.As(err, &number) || errors.As(err, &network) || errors.Is(err, fs.ErrNotExist) ||
		errors.Is(err, fs.ErrPermission) || errors.Is(err, files.ErrTaken)
}
