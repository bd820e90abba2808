package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// orphanAfter is for how long a child must be dead before it counts as an orphan: whoever started it waits for it long
// before.
const orphanAfter = 2 * time.Second

// reap waits for the orphans that the kernel gives to the first process of a container, until ctx ends. A child that
// somebody here has started is theirs to wait for, and has gone when it is looked for again.
func reap(ctx context.Context) {
	if os.Getpid() != 1 {
		return
	}
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	defer signal.Stop(died)
	var dead map[string]bool
	for {
		wait := died
		var again <-chan time.Time
		if dead == nil || len(dead) > 0 {
			again = time.After(orphanAfter)
		}
		select {
		case <-ctx.Done():
			return
		case <-wait:
			if len(dead) > 0 {
				continue // they are looked for soon
			}
		case <-again:
		}
		dead = reapOnce(dead)
	}
}

// reapOnce waits for the dead children that were dead before, and returns those that are dead now.
func reapOnce(before map[string]bool) map[string]bool {
	dead := map[string]bool{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return dead
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		start, ok := deadChild(pid)
		switch key := fmt.Sprint(pid, start); {
		case !ok:
		case before[key]:
			var status unix.WaitStatus
			unix.Wait4(pid, &status, unix.WNOHANG, nil)
		default:
			dead[key] = true
		}
	}
	return dead
}

// deadChild reports whether a process is a child of this one that nobody has waited for, and when it was started
// (proc(5), stat).
func deadChild(pid int) (start string, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", false
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 || string(fields[0]) != "Z" || string(fields[1]) != strconv.Itoa(os.Getpid()) {
		return "", false
	}
	return string(fields[19]), true
}
