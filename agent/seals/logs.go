package seals

import (
	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/agent/leaselog"
)

// CheckLog looks whether a log of the state folder, whose last line is given, still has the line that the manifest
// knows as its last. It returns how many lines are gone at least; 0: none. A log's folder is its name, and the fact's.
func (s *Seals) CheckLog(folder string, is eventlog.Head) (gone uint64) {
	gone = s.LastLine(folder).Lacking(is)
	if gone == 0 {
		return 0
	}
	if err := s.State.Note(folder, files.FaultMissing); err != nil {
		s.log.Warn("what was found of a log could not be written; it is found again", "folder", folder, "error", err)
	}
	s.SealLog(folder, is) // else the same lines are missed until as many are written
	return gone
}

// LastLine returns what the manifest knows as the last line of a log, or one not much older; zero: it knows none.
func (s *Seals) LastLine(folder string) (was eventlog.Head) {
	s.State.Fact(folder, &was)
	return was
}

// SealLog has the manifest know a log's last line. It waits for the disk.
func (s *Seals) SealLog(folder string, last eventlog.Head) {
	if err := s.State.SetFact(folder, last); err != nil {
		s.log.Warn("a log's last line was not sealed", "folder", folder, "error", err)
	}
}

// LastLines returns what the seal of a state folder knows as the last lines of its logs, by their folders. It changes
// nothing. An agent may be using the folder: who reads the logs behind this finds no less in them.
func LastLines(c Config) (map[string]eventlog.Head, error) {
	s, err := read(c)
	if err != nil {
		return nil, err
	}
	out := map[string]eventlog.Head{}
	for _, folder := range []string{audit.Folder, leaselog.Folder} {
		if last := s.LastLine(folder); last.Sequence > 0 {
			out[folder] = last
		}
	}
	return out, nil
}
