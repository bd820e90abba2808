package main

import (
	"context"
	"errors"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// bareKill kills a process and returns how soon its pidfd is readable: nobody can know sooner.
func bareKill(ctx context.Context) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, "sleep", "1000")
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer cmd.Wait() //nolint:errcheck // killed, as it should be
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	told := make(chan error, 1)
	go func() {
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
			if !errors.Is(err, unix.EINTR) {
				told <- err
				return
			}
		}
	}()
	time.Sleep(5 * time.Millisecond) // until it polls
	begin := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		return 0, err
	}
	err = <-told
	return time.Since(begin), err
}
