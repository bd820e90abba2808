//go:build !linux

package main

import (
	"context"
	"errors"
	"time"
)

// bareKill has nothing to measure on this system: the kernel does not report a death.
func bareKill(context.Context, bool) (time.Duration, error) { return 0, errors.ErrUnsupported }

func mountMemory(string, int) error { return errors.ErrUnsupported }

func unmount(string) {}
