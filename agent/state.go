package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/usher-agent/usher/agent/files"
)

// stateDir is the agent's own folder, locked so that no second agent uses it.
type stateDir struct {
	path string
	lock *os.File
}

// openState makes the folder (0700) where there is none and locks it until Close.
func openState(path string) (*stateDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("state folder %s: %w; create it for the agent's user, or set state.dir", path, err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("state folder %s: %w", path, err)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(path, 0o700); err != nil {
			return nil, fmt.Errorf("state folder %s: others may enter it (mode %v), and it cannot be changed: %w; chmod 0700 it", path, fi.Mode().Perm(), err)
		}
	}
	name := filepath.Join(path, "agent.lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state folder %s: %w; make it writable for uid %d, or set state.dir", path, err, os.Getuid())
	}
	if err := files.Lock(f); err != nil {
		owner, _ := os.ReadFile(name)
		f.Close()
		who := "another agent"
		if pid := strings.TrimSpace(string(owner)); pid != "" {
			who = "another agent (pid " + pid + ")"
		}
		return nil, fmt.Errorf("state folder %s: %s is using it; stop that one, or give this one a state.dir of its own", path, who)
	}
	if err := f.Truncate(0); err == nil {
		fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	if err := files.Sweep(path); err != nil {
		f.Close()
		return nil, fmt.Errorf("state folder %s: what a crash left cannot be removed: %w", path, err)
	}
	return &stateDir{path, f}, nil
}

// Close gives the folder back.
func (s *stateDir) Close() error { return s.lock.Close() }
