package main

import (
	"errors"
	"os"
	"os/exec"

	"github.com/usher-agent/usher/client"
)

// canBecome: this system has no exec.
const canBecome = false

func become(*client.Session, *client.Lease, string, []string, []string) error {
	return errors.ErrUnsupported
}

// forwarded are the signals that `usher run` passes on.
func forwarded() []os.Signal { return []os.Signal{os.Interrupt} }

func signalOf(*exec.ExitError) int { return 0 }
