//go:build unix

package main

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/cmd/usher/internal/early"
)

// canBecome: this process can become another program by exec.
const canBecome = true

// become replaces this process by a program, which then holds the lease. The program inherits the connection if the
// lease lives by it.
func become(s *client.Session, l *client.Lease, path string, args, env []string) error {
	if l.Info().Liveness == "connection" {
		f, err := s.File()
		if err != nil {
			return err
		}
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0); err != nil {
			return err
		}
	}
	early.PassOn()
	return syscall.Exec(path, args, env)
}

// forwarded are the signals that `usher run` passes on.
func forwarded() []os.Signal {
	return early.Heeded(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1,
		syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT)
}

// signalOf returns the signal that ended a child; 0 when it ended by itself.
func signalOf(e *exec.ExitError) int {
	if s, ok := e.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return int(s.Signal())
	}
	return 0
}
