package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/agent/identity"
)

// maxNamed is the size in bytes of the largest key, token or CA file that is read.
const maxNamed = 1 << 20

// stateDir is the agent's own folder, locked so that no second agent uses it.
type stateDir struct {
	path string
	lock *os.File
}

// keyFile returns where the agent's key is.
func keyFile(c *config.Config) identity.File {
	return identity.FileAt(c.Agent.KeyFile, c.State.Dir, c.ReadFile)
}

// ownFolders makes the state folder (0700) and the runtime folder (0755) where there are none, and sees that they are
// the agent's own. Where others can do with them what they should not, and the agent can change that, it does.
func ownFolders(c config.State, log *slog.Logger) error {
	type folder struct {
		path, what, key string
		mode            fs.FileMode
	}
	all := []folder{{c.Dir, "state folder", "state.dir", 0o700},
		{c.RuntimeDir, "runtime folder", "state.runtime_dir", 0o755}}
	if filepath.Clean(c.Dir) == filepath.Clean(c.RuntimeDir) {
		all = all[:1]
	} else if rel, err := filepath.Rel(c.RuntimeDir, c.Dir); err == nil && filepath.IsLocal(rel) {
		slices.Reverse(all) // the outer one first
	}
	for _, f := range all {
		was, err := files.Folder(f.path, f.mode)
		if err != nil {
			return fmt.Errorf("%s %s: %w; the agent's user needs a folder of its own there, or %s names another",
				f.what, f.path, err, f.key)
		}
		if was != "" {
			log.Warn(
				"others could do more with a folder of the agent's than they may, which was corrected; share no "+
					"folder with a product but that of the socket alone",
				"folder", f.path, "mode_was", was)
		}
	}
	return nil
}

// MakeFolders makes the folders of a configuration that are the agent's own, in a place that may be everybody's.
// Whoever else can write to that place can take them away again, so the agent is to be given the folders without it.
func MakeFolders(c *config.Config) error {
	for _, f := range []struct {
		path string
		mode fs.FileMode
	}{{c.State.Dir, 0o700}, {c.State.RuntimeDir, 0o755}} {
		if err := files.Make(f.path, f.mode); err != nil {
			return fmt.Errorf("folder %s: %w", f.path, err)
		}
	}
	return nil
}

// lockState locks the folder until Close.
func lockState(path string) (*stateDir, error) {
	name := filepath.Join(path, "agent.lock")
	f, err := files.Open(name, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, fmt.Errorf("state folder %s: %w; make it writable for uid %d, or set state.dir", path, err,
			os.Getuid())
	}
	if err := files.Lock(f); err != nil {
		owner, _ := files.Read(name, 64)
		f.Close()
		who := "another agent"
		if pid := strings.TrimSpace(string(owner)); pid != "" {
			who = "another agent (pid " + pid + ")"
		}
		return nil, fmt.Errorf(
			"state folder %s: %s is using it; stop that one, or give this one a state.dir of its own", path, who)
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

// lockRuntime locks the runtime folder until what it returns is closed.
func lockRuntime(dir string) (*os.File, error) {
	f, err := files.Open(filepath.Join(dir, "runtime.lock"), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, fmt.Errorf("runtime folder %s: %w; make it writable for uid %d, or set state.runtime_dir", dir, err,
			os.Getuid())
	}
	if err := files.Lock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf(
			"runtime folder %s: another agent is using it; stop that one, or give this one a state.runtime_dir of "+
				"its own", dir)
	}
	if err := files.Sweep(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("runtime folder %s: what a crash left cannot be removed: %w", dir, err),
			f.Close())
	}
	return f, nil
}

// tellTampered logs what stands, and notes in the event log what is new.
func (a *Agent) tellTampered() {
	for _, f := range a.seals.Findings() {
		a.log.Error("the state is not as the agent left it", "file", f.File, "fault", string(f.Fault), "found",
			f.At.Format(time.RFC3339),
			"effect", a.seals.Effect(f.File), "hint",
			"stop the agent and run `usher doctor --repair`, which accepts the state as it is")
		if a.seals.IsNew(f) {
			a.audit.Note(eventlog.Event{Type: audit.StateTampered, Subject: f.File, Code: string(f.Fault),
				Detail: a.seals.Effect(f.File)})
		}
	}
}
