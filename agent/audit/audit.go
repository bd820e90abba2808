// Package audit writes the agent's event log: each change of the licence, its documents and its upstreams, and each act
// of an operator, with users named as privacy.users says. Run writes what is noted, so that nothing that decides waits
// for it, or fails by it. Start reading at [Open].
package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/enforcer"
)

// The types of events; docs/privacy.md says what each holds.
const (
	AgentStarted     = "agent.started"
	AgentStopped     = "agent.stopped"
	LicenseChanged   = "license.changed"
	DocumentPresent  = "document.present" // at the agent's start
	DocumentAdded    = "document.added"
	DocumentChanged  = "document.changed"
	DocumentJudged   = "document.judged" // the same document, judged differently
	DocumentRemoved  = "document.removed"
	UpstreamChanged  = "upstream.changed"
	LeaseForced      = "lease.forced"
	HolderHeldOff    = "holder.held_off"
	HoldOffLifted    = "hold_off.lifted"
	LeaseDenied      = "lease.denied" // gathered: count is how many
	MeterAdjusted    = "meter.adjusted"
	ConfigReloaded   = "config.reloaded"
	ConfigRefused    = "config.refused"
	EmergencyStarted = "emergency.started"
	LicenseReturned  = "license.returned"
	HistoryBegun     = "history.begun"
	ClockReset       = "clock.reset"
	LicenseReleased  = "license.released"
	AgentDrained     = "agent.drained"
	AgentUndrained   = "agent.undrained"
	FleetDrained     = "fleet.drained"
	FleetUndrained   = "fleet.undrained"
	FleetEvicted     = "fleet.evicted"
	FleetReadmitted  = "fleet.readmitted"
	UsageRemoved     = "usage.users_removed" // privacy.users does not allow what was kept by user any more
	LeaseLogRemoved  = "lease_log.removed"   // privacy.users does not allow what was kept of leases any more
	StateTampered    = "state.tampered"
	StateAccepted    = "state.accepted"
)

// Folder is the folder of the event log in a state folder. publicKey is the file in it with the public key of its
// agent.
const (
	Folder    = "events"
	publicKey = "agent.pub"
)

// maxKey is the size in bytes of the largest public key that is read.
const maxKey = 1 << 20

// Config is what Open needs.
type Config struct {
	Dir   string // the state folder
	Key   ed25519.PrivateKey
	Users string           // how users are named, as privacy.users says
	Now   func() time.Time // licence time
	Log   *slog.Logger
	Seal  func(last eventlog.Head) // has the state's seal know the log's last line; waits for the disk
}

// Log is the event log, and the part of the last verdict that was written to it. All methods but Verdict are safe for
// concurrent use.
type Log struct {
	now   func() time.Time
	log   *slog.Logger
	lines *eventlog.Log
	users *eventlog.Users

	last      *enforcer.Verdict
	documents map[string]noted // nil before the first verdict
	upstream  map[enforcer.Ref]string
}

// noted is one document as it was noted.
type noted struct {
	digest string
	code   enforcer.Code
}

// Open opens the event log of a state folder. It puts a log that another key has signed aside whole.
func Open(c Config) (*Log, error) {
	dir := filepath.Join(c.Dir, Folder)
	der, err := x509.MarshalPKIXPublicKey(c.Key.Public())
	if err != nil {
		return nil, fmt.Errorf("event log: %w", err)
	}
	pub := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	was, err := files.Read(filepath.Join(dir, publicKey), maxKey)
	if err == nil && !bytes.Equal(was, pub) {
		aside := dir + "-" + c.Now().UTC().Format("20060102T150405")
		if err = os.Rename(dir, aside); err == nil {
			c.Log.Warn("another key than the agent's has signed the event log, which is put aside", "folder", aside)
			err = fs.ErrNotExist
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("event log: %w", err)
	}
	lines, err := eventlog.Open(eventlog.Config{Dir: dir, Key: c.Key, Log: c.Log, Seal: c.Seal})
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(was, pub) {
		if err := files.Replace(filepath.Join(dir, publicKey), pub, 0o600); err != nil {
			return nil, fmt.Errorf("event log: %w", err)
		}
	}
	return &Log{
		now:      c.Now,
		log:      c.Log,
		lines:    lines,
		users:    eventlog.NewUsers(c.Users, filepath.Join(c.Dir, "pseudonyms")),
		upstream: map[enforcer.Ref]string{},
	}, nil
}

// Append writes events to the log of a state folder whose agent does not run. The events have their times.
func Append(dir string, key ed25519.PrivateKey, events []eventlog.Event) error {
	dir = filepath.Join(dir, Folder)
	lines, err := eventlog.Open(eventlog.Config{Dir: dir, Key: key})
	if err != nil {
		return err
	}
	for _, e := range events {
		lines.Note(e)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // the noted events are written all the same
	return errors.Join(lines.Run(ctx), files.LikeFolder(dir))
}

// Head is the log's last line.
func (l *Log) Head() eventlog.Head { return l.lines.Head() }

// Run writes events until ctx ends, and then what is left.
func (l *Log) Run(ctx context.Context) error { return l.lines.Run(ctx) }

// Note passes an event on to be written; one without a time happens now. It does not wait for the disk.
func (l *Log) Note(e eventlog.Event) {
	if e.At.IsZero() {
		e.At = l.now()
	}
	l.lines.Note(e)
}

// NoteBy passes on an event that somebody caused, who is named as privacy.users says.
func (l *Log) NoteBy(by enforcer.Caller, e eventlog.Event) {
	e.At = l.now()
	e.Actor = l.nameOf(by, e.At)
	l.lines.Note(e)
}

func (l *Log) nameOf(c enforcer.Caller, at time.Time) string { return l.Name(c.Who(), at) }

// Name returns the name of a user at an instant as privacy.users has it; empty: it has none.
func (l *Log) Name(c enforcer.User, at time.Time) string {
	id := strconv.FormatUint(uint64(c.UID), 10)
	name := id
	if c.Credential != "" {
		name = c.Credential
	} else if l.users.Plain() {
		if u, err := user.LookupId(id); err == nil {
			name = u.Username
		}
	}
	out, err := l.users.Name(name, at)
	if err != nil {
		l.log.Error("a pseudonym could not be made, and the event is without one", "error", err)
	}
	return out
}

// Verdict notes what a verdict changes: the licence, its documents, and the state of their upstreams. document returns
// the bytes of a document; nil: they are not known. The caller calls it once at a time, with the earlier verdict first.
func (l *Log) Verdict(
	v *enforcer.Verdict,
	upstream map[enforcer.Ref]enforcer.Upstream,
	document func(name string) []byte,
) {
	last := l.last
	l.last = v
	if last == nil || last.State != v.State || last.Code != v.Code || last.Reason != v.Reason {
		e := eventlog.Event{
			At:     v.JudgedAt,
			Type:   LicenseChanged,
			Code:   string(v.Code),
			Detail: v.Reason,
			Fields: map[string]string{"state": string(v.State)},
		}
		if !v.Until.IsZero() {
			e.Fields["until"] = v.Until.UTC().Format(time.RFC3339)
		}
		l.Note(e)
	}
	l.verdictDocuments(v, document)
	for ref, u := range upstream {
		if is := u.State + " " + string(u.Refused); l.upstream[ref] != is {
			l.upstream[ref] = is
			l.Note(eventlog.Event{
				At:      v.JudgedAt,
				Type:    UpstreamChanged,
				Code:    string(u.Refused),
				Subject: ref.ID(),
				Detail:  u.Detail,
				Fields:  map[string]string{"state": u.State},
			})
		}
	}
}

func (l *Log) verdictDocuments(v *enforcer.Verdict, document func(name string) []byte) {
	is := map[string]noted{}
	for _, j := range v.Licenses {
		n := noted{code: j.Code}
		if b := document(j.Document); b != nil {
			sum := sha256.Sum256(b)
			n.digest = hex.EncodeToString(sum[:])
		}
		is[j.Document] = n
		was, had := l.documents[j.Document]
		typ := DocumentJudged
		switch {
		case had && was == n:
			continue
		case l.documents == nil:
			typ = DocumentPresent
		case !had:
			typ = DocumentAdded
		case was.digest != n.digest:
			typ = DocumentChanged
		}
		e := eventlog.Event{
			At:      v.JudgedAt,
			Type:    typ,
			Subject: j.Document,
			Code:    string(j.Code),
			Detail:  j.Reason,
			Fields:  map[string]string{"sha256": n.digest},
		}
		if j.License != nil {
			e.Fields["licence"] = j.License.ID
		}
		l.Note(e)
	}
	for name, was := range l.documents {
		if _, there := is[name]; !there {
			l.Note(eventlog.Event{
				At:      v.JudgedAt,
				Type:    DocumentRemoved,
				Subject: name,
				Fields:  map[string]string{"sha256": was.digest},
			})
		}
	}
	l.documents = is
}

// Forced notes that an admin has ended a lease, with the beginning of the lease's id alone.
func (l *Log) Forced(by enforcer.Caller, lease *enforcer.Lease) {
	var items []string
	for _, it := range lease.Items {
		items = append(items, it.Pool+"="+it.Amount())
	}
	f := map[string]string{"items": strings.Join(items, ", ")}
	if h := lease.Holder; h != nil {
		if name := l.nameOf(h.Caller, l.now()); name != "" {
			f["holder"] = name
		}
	}
	l.NoteBy(by, eventlog.Event{Type: LeaseForced, Subject: lease.ID.String()[:8], Fields: f})
}

// HeldOff notes until when an admin holds a holder off, or that a hold-off was lifted, for the zero time. It has the
// beginning alone of the id of the lease that was released.
func (l *Log) HeldOff(by enforcer.Caller, h *enforcer.HoldOff, until time.Time) {
	e := eventlog.Event{Type: HoldOffLifted, Subject: h.Lease.String()[:8],
		Fields: map[string]string{"pools": strings.Join(h.Pools, ", ")}}
	if !until.IsZero() {
		e.Type, e.Fields["until"] = HolderHeldOff, until.UTC().Format(time.RFC3339)
	}
	if name := l.nameOf(h.Of[0], l.now()); name != "" {
		e.Fields["holder"] = name
	}
	l.NoteBy(by, e)
}

// ClockReset notes that a document of the vendor's has put licence time back.
func (l *Log) ClockReset(from, to time.Time) {
	l.Note(eventlog.Event{
		At:     to,
		Type:   ClockReset,
		Fields: map[string]string{"from": from.Format(time.RFC3339), "to": to.Format(time.RFC3339)},
	})
}
