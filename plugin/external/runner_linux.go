package external

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// runnable names the file that was opened and checked, so that nobody can put another in its place before it runs.
func runnable(_ string, file *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", file.Fd()) }

// contain makes the process die with the thread that starts it, and lead a group that dies with it.
func contain(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// reap waits until a process has ended and ends what is left of its group, while its number is still its own.
func reap(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	_ = unix.Kill(-pid, unix.SIGKILL) // there may be nobody left
}

func killGroup(p *os.Process) {
	_ = unix.Kill(-p.Pid, unix.SIGKILL)
	_ = p.Kill()
}
