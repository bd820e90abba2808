//go:build !linux

package main

import (
	"context"
	"errors"
	"time"
)

// bareKill has nothing to measure here: the kernel does not tell.
func bareKill(context.Context) (time.Duration, error) { return 0, errors.ErrUnsupported }
