package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// bareKill kills a process and returns how soon its pidfd is readable: nobody can know sooner. The process is of the
// kind that holds slots: sleep, as usher run has become it, or this program.
func bareKill(ctx context.Context, sleep bool) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, "sleep", "1000")
	err := error(nil)
	if sleep {
		err = cmd.Start()
	} else {
		cmd, err = begin(ctx)
	}
	if err != nil {
		return 0, err
	}
	defer cmd.Wait()
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
	start := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		return 0, err
	}
	err = <-told
	return time.Since(start), err
}

// mountMemory mounts a file system of some MiB in memory on a folder. Only root may.
func mountMemory(dir string, size int) error {
	return unix.Mount("bench", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", size))
}

// Signals that have a process stand still, and go on.
const (
	stopSignal = unix.SIGSTOP
	goOnSignal = unix.SIGCONT
)

func unmount(dir string) { unix.Unmount(dir, unix.MNT_DETACH) }
