package main

import (
	"os"
	"os/exec"
)

// forwarded are the signals that `usher run` passes on.
func forwarded() []os.Signal { return []os.Signal{os.Interrupt} }

func signalOf(*exec.ExitError) int { return 0 }
