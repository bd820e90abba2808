package client

import (
	"os"
	"time"
)

// Fork makes open sessions treat this process as a forked child, until it is called again.
func Fork(child bool) {
	getpid = os.Getpid
	if child {
		getpid = func() int { return os.Getpid() + 1 }
	}
}

// Seen is this process as an agent sees it.
type Seen = seen

// Self is this process as it knows itself.
type Self struct {
	UIDs, PIDs   []int64
	Start, Inode uint64
	Hidden       bool
}

// Is compares this process with one that an agent sees.
func (s Self) Is(a Seen) (same, known bool) {
	return self{s.UIDs, s.PIDs, s.Start, s.Inode, s.Hidden}.is(a)
}

// Whoami returns this process as it knows itself.
func Whoami() Self {
	me := whoami()
	return Self{me.uids, me.pids, me.start, me.inode, me.hidden}
}

// Open verifies a compact JWS.
var OpenJWS = open

// AskUntil asks for the licence on the session's connection, and no longer than until soon after a time.
func AskUntil(s *Session, by time.Time) error {
	l, err := s.live()
	if err == nil {
		_, err = l.doBy(s.ctx, by, "license.get", params{before: nothing}, nil)
	}
	return err
}
