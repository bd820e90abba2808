//go:build !linux

package main

import (
	"context"
	"errors"
	"os"
	"time"
)

// bareKill has nothing to measure on this system: the kernel does not report a death.
func bareKill(context.Context, bool) (time.Duration, error) { return 0, errors.ErrUnsupported }

func mountMemory(string, int) error { return errors.ErrUnsupported }

func unmount(string) {}

// Nothing has a process stand still here: the part that would is not measured.
var stopSignal, goOnSignal = os.Kill, os.Kill
