package leaselog

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/files"
)

// rank orders the settings of privacy.users by how much they show; one that is not known shows all.
func rank(setting string) int {
	settings := []string{eventlog.UsersOmit, eventlog.UsersPseudonym, eventlog.UsersPlain}
	if i := slices.Index(settings, setting); i >= 0 {
		return i
	}
	return len(settings) - 1
}

// shows returns how much the log shows of users at most, as rank has it.
func (l *Log) shows() (int, error) {
	b, err := files.Read(filepath.Join(l.cfg.Dir, settingFile), files.MaxSize)
	if !errors.Is(err, fs.ErrNotExist) {
		return rank(strings.TrimSpace(string(b))), err
	}
	if _, err := os.Lstat(l.cfg.Dir); errors.Is(err, fs.ErrNotExist) {
		return rank(eventlog.UsersOmit), nil
	}
	return rank(""), nil
}

// mark says on the disk what the lines may show of users, before they do. A log that is removed takes the mark with it.
func (l *Log) mark() error {
	path := filepath.Join(l.cfg.Dir, settingFile)
	if b, err := files.Read(path, files.MaxSize); err == nil &&
		rank(strings.TrimSpace(string(b))) >= rank(l.cfg.Users) {
		return nil
	}
	if err := os.MkdirAll(l.cfg.Dir, 0o700); err != nil {
		return err
	}
	return files.Replace(path, []byte(l.cfg.Users+"\n"), 0o600)
}

// forget removes the log, and those that were put aside, where it shows more of users than privacy.users allows.
func (l *Log) forget() error {
	was, err := l.shows()
	if err != nil || was <= rank(l.cfg.Users) {
		return err
	}
	l.seal(eventlog.Head{}) // before: else a crash in between would look like lines that somebody has cut off
	if err := errors.Join(l.removeAside(), os.RemoveAll(l.cfg.Dir)); err != nil {
		return fmt.Errorf("privacy.users does not allow what is kept, and it cannot be removed yet: %w", err)
	}
	l.cfg.Log.Warn("the log of leases is removed: privacy.users does not allow what it says any more", "folder",
		l.cfg.Dir, "privacy.users", l.cfg.Users)
	l.cfg.Removed()
	return nil
}

// putAside puts a log aside whole that another key has signed, or whose last line is none. Of those that were put aside
// the last one alone is kept.
func (l *Log) putAside() error {
	why := ""
	err := eventlog.Each(l.cfg.Dir, func(line eventlog.Line) bool {
		if !line.Bad && !eventlog.Signed(line.Raw, l.cfg.Key.Public().(ed25519.PublicKey)) {
			why = "another key than the agent's has signed it"
		}
		return false
	})
	var last eventlog.Line
	if err == nil {
		err = eventlog.EachFrom(l.cfg.Dir, math.MaxUint64-1, func(line eventlog.Line) bool {
			last = line
			return true
		})
	}
	if last.Bad && !last.Cut {
		why = "its last line cannot be read"
	}
	if err != nil || why == "" {
		return err
	}
	if err := l.removeAside(); err != nil {
		return err
	}
	aside := l.cfg.Dir + "-" + l.cfg.Now().UTC().Format("20060102T150405")
	if err := os.Rename(l.cfg.Dir, aside); err != nil {
		return err
	}
	l.cfg.Log.Warn("the log of leases is put aside, and a new one begins", "folder", aside, "reason", why)
	return nil
}

// removeAside removes logs that were put aside.
func (l *Log) removeAside() error {
	parent, name := filepath.Split(l.cfg.Dir)
	entries, err := os.ReadDir(filepath.Clean(parent))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), name+"-") {
			err = errors.Join(err, os.RemoveAll(filepath.Join(parent, e.Name())))
		}
	}
	return err
}
