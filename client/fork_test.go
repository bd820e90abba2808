//go:build linux

package client_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"github.com/usher-agent/usher/client"
)

// forkedChild forks as a C library would. Its exit code tells what the child could do.
func forkedChild() int {
	s, err := client.Open(testContext, client.WithSocket(os.Getenv("CLIENT_TEST_SOCKET")))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	l, err := s.Acquire(testContext, client.Slots("streams", 1))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	debug.SetGCPercent(-1) // the child has one thread, and could not stop the others
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		fmt.Println(errno)
		return 1
	}
	if pid == 0 {
		code := uintptr(0)
		if !errors.Is(l.Close(), client.ErrForked) {
			code = 2
		}
		if _, err := s.Acquire(testContext, client.Slots("streams", 1)); !errors.Is(err, client.ErrForked) {
			code = 3
		}
		s.Close()
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, code, 0, 0)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(int(pid), &status, 0, nil); err != nil || status.ExitStatus() != 0 {
		fmt.Println("the child:", status.ExitStatus(), err)
		return 1
	}
	// The parent's lease is there, and its session goes on.
	if p, err := s.Pools(testContext); err != nil || p[0].InUse != 1 {
		fmt.Println("after the child:", p, err)
		return 1
	}
	// A program started by exec does not have the connection.
	out, err := exec.Command("sh", "-c", "ls -l /proc/self/fd").CombinedOutput()
	if err != nil || strings.Contains(string(out), "socket:") {
		fmt.Printf("a program has the connection: %v\n%s", err, out)
		return 1
	}
	s.Close()
	return 0
}

func TestForkedProcess(t *testing.T) {
	f := startFake(t)
	cmd := exec.Command(os.Args[0])
	// One thread alone runs Go, so that no other holds a lock of the runtime or of the client when the process is
	// copied, which nobody would open in the copy.
	cmd.Env = append(os.Environ(), "CLIENT_TEST_HELPER=fork", "CLIENT_TEST_SOCKET="+f.path, "GOMAXPROCS=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	f.holds(t, 0)
}

// The first bytes of a session carry a pidfd of this process, if the kernel has pidfds.
func TestSendsPIDFD(t *testing.T) {
	if client.Whoami().Inode == 0 {
		t.Skip("this kernel has no pidfds")
	}
	path := filepath.Join(t.TempDir(), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	for _, options := range [][]client.Option{{}, {client.WithVendor(client.Vendor{})}} {
		opened := make(chan error, 1)
		go func() {
			_, err := client.Open(t.Context(), append(options, client.WithSocket(path))...)
			opened <- err
		}()
		c, _, err := syscall.Accept(fd)
		if err != nil {
			t.Fatal(err)
		}
		b, oob := make([]byte, 1), make([]byte, 64)
		n, oobn, _, _, err := syscall.Recvmsg(c, b, oob, syscall.MSG_CMSG_CLOEXEC)
		if err != nil || n != 1 || b[0] != '{' && b[0] != 0x16 {
			t.Fatalf("the first byte is %q, %v", b, err)
		}
		messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(messages) != 1 {
			t.Fatalf("%d messages beside it, %v", len(messages), err)
		}
		fds, err := syscall.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			t.Fatalf("%d descriptors, %v", len(fds), err)
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fds[0]))
		if err != nil || !strings.Contains(string(info), fmt.Sprintf("\nPid:\t%d\n", os.Getpid())) {
			t.Errorf("it is no pidfd of this process: %s, %v", info, err)
		}
		syscall.Close(fds[0])
		syscall.Close(c)
		<-opened
	}
}

func init() { helpers["fork"] = forkedChild }
