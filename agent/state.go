package agent

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/usher-agent/usher/agent/files"
)

// maxNamed is the size in bytes of the largest key, token or CA file that is read.
const maxNamed = 1 << 20

// stateDir is the agent's own folder, locked so that no second agent uses it.
type stateDir struct {
	path string
	lock *os.File
}

// openState makes the folder (0700) where there is none, sees that it is the agent's alone, and locks it until Close.
func openState(path string, log *slog.Logger) (*stateDir, error) {
	was, err := files.Folder(path, 0o700)
	if err != nil {
		return nil, fmt.Errorf("state folder %s: %w; the agent's user needs a folder of its own there, or state.dir names another", path, err)
	}
	if was != "" {
		log.Warn("others could enter the state folder, which was corrected", "folder", path, "mode_was", was)
	}
	return lockState(path)
}

// lockState locks the folder until Close.
func lockState(path string) (*stateDir, error) {
	name := filepath.Join(path, "agent.lock")
	f, err := files.Open(name, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, fmt.Errorf("state folder %s: %w; make it writable for uid %d, or set state.dir", path, err, os.Getuid())
	}
	if err := files.Lock(f); err != nil {
		owner, _ := files.Read(name, 64)
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
