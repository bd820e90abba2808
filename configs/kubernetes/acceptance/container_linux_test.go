package acceptance

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// containerEnv makes a run of these tests a container: its value is a [container] in JSON.
const containerEnv = "KUBERNETES_TEST_CONTAINER"

// container is what a runtime is told of one.
type container struct {
	Root     string
	ReadOnly bool // its root file system
	Mounts   []mount
	Args     []string
	Env      []string
	UID, GID int
	Groups   []int
	Keep     []uintptr // the capabilities that root keeps
}

// mount binds a file or folder of the node into a container.
type mount struct {
	From, To string
	ReadOnly bool
}

// becomeContainer enters the container, in namespaces that were made for it, and returns only where that fails.
func becomeContainer() error {
	runtime.LockOSThread()
	var c container
	if err := json.Unmarshal([]byte(os.Getenv(containerEnv)), &c); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	bind := func(m mount) error {
		if err := unix.Mount(m.From, m.To, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.From, m.To, err)
		}
		if !m.ReadOnly {
			return nil
		}
		return unix.Mount("", m.To, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	if err := bind(mount{From: c.Root, To: c.Root}); err != nil {
		return err
	}
	for _, m := range c.Mounts {
		m.To = filepath.Join(c.Root, m.To)
		if err := bind(m); err != nil {
			return err
		}
	}
	if err := unix.Mount("proc", filepath.Join(c.Root, "proc"), "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if c.ReadOnly {
		if err := unix.Mount("", c.Root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("make the root read-only: %w", err)
		}
	}
	if err := unix.Chroot(c.Root); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := drop(&c); err != nil {
		return err
	}
	return unix.Exec(c.Args[0], c.Args, c.Env)
}

// drop leaves a container its user and the capabilities that it keeps.
func drop(c *container) error {
	for b := range uintptr(unix.CAP_LAST_CAP + 1) {
		if !slices.Contains(c.Keep, b) {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, b, 0, 0, 0); err != nil {
				return fmt.Errorf("drop capability %d: %w", b, err)
			}
		}
	}
	if err := unix.Setgroups(c.Groups); err != nil {
		return err
	}
	if err := unix.Setresgid(c.GID, c.GID, c.GID); err != nil {
		return err
	}
	if err := unix.Setresuid(c.UID, c.UID, c.UID); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}
