package acceptance

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// builtEnv names the folder with the programs, for the run of these tests that has namespaces of its own.
const builtEnv = "KUBERNETES_TEST_BUILT"

// built is the folder with usher and product, built for these tests.
var built string

// isolated says that these tests have a network, mounts and processes of their own.
var isolated bool

func TestMain(m *testing.M) {
	if os.Getenv(containerEnv) != "" {
		fmt.Fprintln(os.Stderr, becomeContainer())
		os.Exit(125)
	}
	built = os.Getenv(builtEnv)
	if built != "" {
		isolated = true
		if err := isolate(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	os.Exit(outside(m))
}

// outside builds the programs and runs the tests again with a network, mounts and processes of their own, so that ports
// are free and nothing stays. Where that cannot be, it runs those that need none of them.
func outside(m *testing.M) int {
	dir, err := os.MkdirTemp("", "u")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	for out, source := range map[string][2]string{"usher": {"../../..", "./cmd/usher"}, "product": {".", "./product"}} {
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, out),
			source[1])
		build.Dir, build.Env = source[0], append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s\n%v\n", out, err)
			return 1
		}
	}
	built = dir
	if os.Geteuid() != 0 {
		return m.Run()
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.Env = append(os.Environ(), builtEnv+"="+dir)
	again.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	if err := again.Start(); err != nil {
		return m.Run()
	}
	err = again.Wait()
	var e *exec.ExitError
	if errors.As(err, &e) {
		return e.ExitCode()
	} else if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// isolate keeps mounts from everybody else, and brings the loopback up.
func isolate() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
}
