// Package leaselog keeps a line for each lease that was granted and each that has ended, for holders that join and
// leave, and for slots that linger, for those who are used to the OUT and IN lines of other licence managers. It is
// kept only where the site asks for it, apart from the event log, so that leases push nothing else out of that.
// [Log.Observe] puts an event into a buffer and waits for nothing: where the buffer is full, as when the disk hangs, or
// where the disk takes no line, events are dropped and counted. Start reading at [Log.Run].
package leaselog

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/enforcer"
)

// Folder is the folder of the log in a state folder.
const Folder = "lease-log"

// Type is the type of the log's lines ([eventlog.Event]); the body of each is a list of entries.
const Type = "leases"

// The types of entries.
const (
	Granted    = "lease.granted"
	Drawn      = "lease.drawn"
	Ended      = "lease.ended"
	Renewed    = "lease.renewed" // for the first time in an hour, or with another holder
	Joined     = "lease.joined"
	Left       = "lease.left" // and others hold it still
	Lingers    = "lease.lingers"
	LingerOver = "lease.linger_over"
)

// Bounds of the log.
const (
	fileBytes = 4 << 20
	leastMiB  = 16

	gather   = 250 * time.Millisecond // events are written together
	buffered = 16 << 10               // events that wait for that
	// rest is how long writing rests for each event that was written, which is some ten times as long as it takes: so
	// the log of a busy pool takes a tenth of a core from those who decide.
	rest       = 100 * time.Microsecond
	lineBytes  = 256 << 10 // of the entries of one line, and one entry more, which is less than the log reads
	namesKnown = 16 << 10  // users whose names are remembered between two hours
	spared     = 1000      // events for which the room is kept
	renewedBy  = 1024      // leases of one hour whose renewals have lines
)

// settingFile is a file in the folder. It has the setting of privacy.users that shows the most among those under which
// lines were written.
const settingFile = "users"

// Config is what New needs. All fields are required.
type Config struct {
	Dir   string // of the log
	Key   ed25519.PrivateKey
	Users string // privacy.users
	// Name returns the name of a user at an instant as Users has it; empty: it has none.
	Name func(of enforcer.User, at time.Time) string
	Now  func() time.Time // licence time
	Log  *slog.Logger
	// Removed is called when the log is removed, since Users does not allow what it says any more.
	Removed func()
	// Seal has the state's seal know the log's last line, and Check looks whether the log has the line that the seal
	// knows: it returns how many lines are gone at least. Both may wait for the disk.
	Seal  func(last eventlog.Head)
	Check func(last eventlog.Head) (gone uint64)
}

// Settings are what an operator can change while the agent runs.
type Settings struct {
	On  bool
	MiB int // that the log takes on the disk, 16 at least
}

// Log is the log of leases. Its methods are safe for concurrent use, but Run, which is called once.
type Log struct {
	cfg      Config
	settings atomic.Pointer[Settings]
	wake     chan struct{} // capacity 1: there is something to write
	buffered int           // events that may wait
	written  atomic.Uint64
	dropped  atomic.Uint64

	mu      sync.Mutex // guards all below; a leaf, held for a moment
	waiting []seen
	missing uint64 // events that the log does not know of, and has not said so
	passed  uint64 // renewals that found little room, and get no line

	givenUp atomic.Bool // nobody waits for Run any more, and the folder may be another's

	// Run's alone.
	fileBytes int64 // of a file of the log
	rest      time.Duration
	lines     *eventlog.Log
	mib       int // with which lines was opened
	spare     []seen
	names     map[namedUser]string
	hour      time.Time // of names
	bad       error     // why the last write failed
	ending    bool      // this is the last flush
	sealer    *eventlog.Sealer
	renewed   map[enforcer.LeaseID]struct{} // in the hour renewedIn
	renewedIn time.Time
	others    uint64 // renewals of other leases in that hour
}

type namedUser struct {
	user  enforcer.User
	month string
}

// seen is an event as it was seen: a formatted one would cost those who decide.
type seen struct {
	at     time.Time
	lease  *enforcer.Lease // nil: of Lingers and LingerOver, and of renewals that have no line
	kind   enforcer.EventKind
	cause  enforcer.Cause
	rule   string
	other  *enforcer.Holder
	linger *enforcer.Linger
	n      uint64 // renewals
}

// New returns a log. It opens nothing: a log that cannot be opened keeps no agent from its start.
func New(c Config, s Settings) *Log {
	l := &Log{cfg: c, fileBytes: fileBytes, buffered: buffered, rest: rest,
		wake: make(chan struct{}, 1)}
	l.sealer = eventlog.NewSealer(l.seal)
	l.settings.Store(&s)
	return l
}

// seal has the log's last line known elsewhere.
func (l *Log) seal(last eventlog.Head) {
	if !l.givenUp.Load() {
		l.cfg.Seal(last)
	}
}

// GiveUp says that nobody waits for Run any more: what it seals from now on might be another agent's.
func (l *Log) GiveUp() { l.givenUp.Store(true) }

// Set changes the settings.
func (l *Log) Set(s Settings) { l.settings.Store(&s) }

// Counts returns how many entries were written, and how many were dropped, since the start.
func (l *Log) Counts() (written, dropped uint64) { return l.written.Load(), l.dropped.Load() }

// Observe takes note of an event, and waits for nothing. It keeps the event's lease until that is written.
func (l *Log) Observe(ev *enforcer.Event) {
	if !l.settings.Load().On {
		return
	}
	room := l.buffered
	switch ev.Kind {
	case enforcer.EventGranted, enforcer.EventDrawn, enforcer.EventEnded, enforcer.EventLingers,
		enforcer.EventLingerOver:
	case enforcer.EventRenewed:
		room /= 2 // they are many, say little, and take the place of nothing else
	case enforcer.EventChanged:
		if ev.Other == nil {
			return
		}
	default:
		return
	}
	l.mu.Lock()
	n := len(l.waiting)
	switch {
	case n < room:
		l.waiting = append(l.waiting, seen{at: ev.At, lease: ev.Lease, kind: ev.Kind, cause: ev.Cause, rule: ev.Rule,
			other: ev.Other, linger: ev.Linger})
	case n < l.buffered:
		l.passed++
	default:
		l.missing++
	}
	l.mu.Unlock()
	switch n {
	case 0:
		select {
		case l.wake <- struct{}{}:
		default:
		}
	case l.buffered:
		l.dropped.Add(1)
	}
}

// Run writes what was observed, until ctx ends, and then what is left. It removes first what privacy.users does not
// allow.
func (l *Log) Run(ctx context.Context) {
	if err := l.begin(); err != nil {
		l.failed(err)
	}
	timer := time.NewTimer(gather)
	defer timer.Stop()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			l.ending = true
			l.flush()
			l.sealer.Now()
			if l.lines != nil {
				l.lines.Close() // every line is on the disk
			}
			return
		case <-l.sealer.Due():
			l.sealer.Now()
			continue
		case <-l.wake:
		}
		timer.Reset(max(gather, time.Duration(n)*l.rest))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		n = l.flush()
	}
}

// begin removes what privacy.users does not allow, and looks whether the log is as it was. Where it is switched off no
// file is opened for that.
func (l *Log) begin() error {
	if l.settings.Load().On {
		return l.open()
	}
	if err := l.forget(); err != nil {
		return err
	}
	last, err := eventlog.Last(l.cfg.Dir)
	if err == nil {
		l.cfg.Check(last)
	}
	return err
}

// flush writes what waits, and returns how many events that were.
func (l *Log) flush() int {
	l.mu.Lock()
	all := l.waiting
	l.waiting, l.spare = l.spare[:0], nil
	l.others += l.passed
	l.passed = 0
	l.mu.Unlock()
	lot := l.thin(all)
	for rest := lot; len(rest) > 0; {
		n, err := l.write(rest)
		if err != nil {
			l.miss(n)
		} else {
			l.written.Add(uint64(n))
		}
		l.failed(err)
		rest = rest[n:]
	}
	clear(all) // the leases are nobody's
	if cap(all) <= spared {
		l.spare = all
	}
	if l.lines != nil {
		l.sealer.Soon(l.lines.Head())
	}
	return len(lot)
}

// thin leaves out renewals, which are many and say little: the first of a lease in an hour has a line, for so many
// leases. The others of an hour are one number.
func (l *Log) thin(all []seen) []seen {
	if !l.ending && !slices.ContainsFunc(all, func(s seen) bool { return s.kind == enforcer.EventRenewed }) {
		return all
	}
	out := make([]seen, 0, len(all)+1)
	sum := func(at time.Time) {
		if l.others > 0 {
			out = append(out, seen{at: at, kind: enforcer.EventRenewed, n: l.others})
			l.others = 0
		}
	}
	for _, s := range all {
		if s.kind != enforcer.EventRenewed {
			out = append(out, s)
			continue
		}
		if hour := s.at.Truncate(time.Hour); !hour.Equal(l.renewedIn) {
			sum(s.at)
			l.renewedIn, l.renewed = hour, map[enforcer.LeaseID]struct{}{}
		}
		switch _, again := l.renewed[s.lease.ID]; {
		case again:
		case len(l.renewed) >= renewedBy:
			l.others++
		default:
			l.renewed[s.lease.ID] = struct{}{}
			out = append(out, s)
		}
	}
	if l.ending {
		sum(l.cfg.Now())
	}
	return out
}

// miss counts entries that are not written.
func (l *Log) miss(n int) {
	l.dropped.Add(uint64(n))
	l.mu.Lock()
	l.missing += uint64(n)
	l.mu.Unlock()
}

// failed logs the first of several failures.
func (l *Log) failed(err error) {
	if err != nil && l.bad == nil {
		l.cfg.Log.Error("the log of leases cannot be written; what is missing is counted", "folder", l.cfg.Dir,
			"error", err)
	}
	l.bad = err
}

// write writes a line of as many of the events as one can have, behind one that says how many are missing. It returns
// how many those are. Where the log cannot be written, those are all.
func (l *Log) write(some []seen) (n int, err error) {
	if err := l.open(); err != nil {
		return len(some), err
	}
	l.mu.Lock()
	missing := l.missing
	l.missing = 0
	l.mu.Unlock()
	if missing > 0 {
		if err := l.lines.Append(eventlog.Event{At: some[0].at, Type: eventlog.Gap,
			Detail: fmt.Sprintf("%d events could not be written", missing)}); err != nil {
			l.mu.Lock()
			l.missing += missing
			l.mu.Unlock()
			return len(some), err
		}
	}
	body := []byte{'['}
	for ; n < len(some) && len(body) < lineBytes; n++ {
		entry, err := json.Marshal(l.entry(&some[n]))
		if err != nil {
			return n + 1, err
		}
		if n > 0 {
			body = append(body, ',')
		}
		body = append(body, entry...)
	}
	return n, l.lines.Append(eventlog.Event{At: some[n-1].at, Type: Type, Body: append(body, ']')})
}

// open opens the log where it is not, or where it is to take another space.
func (l *Log) open() error {
	mib := max(leastMiB, l.settings.Load().MiB)
	if l.lines != nil && l.mib == mib {
		return l.mark()
	}
	if l.lines != nil {
		_ = l.lines.Close() // every line is on the disk
		l.lines = nil
	}
	if err := l.forget(); err != nil {
		return err
	}
	if err := l.putAside(); err != nil {
		return err
	}
	if err := l.mark(); err != nil {
		return err
	}
	lines, err := eventlog.Open(eventlog.Config{Dir: l.cfg.Dir, Key: l.cfg.Key, FileBytes: l.fileBytes,
		Files: mib / (fileBytes >> 20), Log: l.cfg.Log})
	if err != nil {
		return err
	}
	l.lines, l.mib = lines, mib
	if gone := l.cfg.Check(lines.Head()); gone > 0 {
		return lines.Append(eventlog.Event{At: l.cfg.Now(), Type: eventlog.Cut,
			Detail: fmt.Sprintf("%d lines that stood here are gone", gone)})
	}
	return nil
}
