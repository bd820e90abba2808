package agent

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
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/enforcer"
)

// The types of events in the event log; docs/privacy.md says what each holds.
const (
	noteStarted       = "agent.started"
	noteStopped       = "agent.stopped"
	noteVerdict       = "license.changed"
	notePresent       = "document.present" // at the agent's start
	noteAdded         = "document.added"
	noteChanged       = "document.changed"
	noteJudged        = "document.judged" // the same document, judged differently
	noteRemoved       = "document.removed"
	noteUpstream      = "upstream.changed"
	noteForced        = "lease.forced"
	noteAdjusted      = "meter.adjusted"
	noteReloaded      = "config.reloaded"
	noteReloadRefused = "config.refused"
	noteEmergency     = "emergency.started"
	noteReturned      = "license.returned"
	noteHistory       = "history.begun"
	noteClock         = "clock.reset"
	noteReleased      = "license.released"
	noteDrained       = "agent.drained"
	noteUndrained     = "agent.undrained"
	noteTampered      = "state.tampered"
	noteAccepted      = "state.accepted"
)

// eventsDir is the folder of the event log in a state folder; publicKey the file in it that says whose it is.
const (
	eventsDir = "events"
	publicKey = "agent.pub"
)

// audit is the event log, and what of the last verdict was written to it.
type audit struct {
	log   *eventlog.Log
	users *eventlog.Users

	// These are under the court's lock.
	documents map[string]noted // nil before the first verdict
	upstream  map[enforcer.Ref]string
}

// noted is one document as it was noted.
type noted struct {
	digest string
	code   enforcer.Code
}

// openEvents opens the event log. One that another key has signed is put aside whole.
func (a *Agent) openEvents() error {
	dir := filepath.Join(a.state.path, eventsDir)
	der, err := x509.MarshalPKIXPublicKey(a.key.Public())
	if err != nil {
		return fmt.Errorf("event log: %w", err)
	}
	pub := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	was, err := files.Read(filepath.Join(dir, publicKey), maxNamed)
	if err == nil && !bytes.Equal(was, pub) {
		aside := dir + "-" + time.Now().UTC().Format("20060102T150405")
		if err = os.Rename(dir, aside); err == nil {
			a.log.Warn("the agent's key is another than that of the event log, which is put aside", "folder", aside)
			err = fs.ErrNotExist
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("event log: %w", err)
	}
	log, err := eventlog.Open(eventlog.Config{Dir: dir, Key: a.key, Log: a.log})
	if err != nil {
		return err
	}
	if !bytes.Equal(was, pub) {
		if err := files.Replace(filepath.Join(dir, publicKey), pub, 0o600); err != nil {
			return fmt.Errorf("event log: %w", err)
		}
	}
	a.seals.head = log.Head
	a.seals.checkEvents()
	a.audit = &audit{log: log, users: eventlog.NewUsers(a.config.Privacy.Users, filepath.Join(a.state.path, "pseudonyms")), upstream: map[enforcer.Ref]string{}}
	return nil
}

// Events returns where the event log of a configuration lies, and the key that signs it.
func Events(c *config.Config) (dir string, key ed25519.PublicKey, err error) {
	private, err := keyFile(c).Existing()
	if err != nil {
		return "", nil, err
	}
	return filepath.Join(c.State.Dir, eventsDir), private.Public().(ed25519.PublicKey), nil
}

// runEvents writes events until what it returns is called, which has what is left written.
func (a *Agent) runEvents(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.audit.log.Run(ctx) //nolint:errcheck // it returns none
	}()
	a.note(eventlog.Event{Type: noteStarted, Subject: a.product(), Fields: map[string]string{"version": a.options.Version, "agent_key": a.agentKey(), "anchors": a.anchorsFrom()}})
	return func() {
		a.note(eventlog.Event{Type: noteStopped})
		cancel()
		<-done
	}
}

// note has an event written.
func (a *Agent) note(e eventlog.Event) {
	if e.At.IsZero() {
		e.At = a.desk.time()
	}
	a.audit.log.Note(e)
}

// noteBy has an event written that somebody caused, named as privacy.users says.
func (a *Agent) noteBy(by enforcer.Caller, e eventlog.Event) {
	e.At = a.desk.time()
	e.Actor = a.nameOf(by, e.At)
	a.audit.log.Note(e)
}

func (a *Agent) nameOf(c enforcer.Caller, at time.Time) string {
	id := strconv.FormatUint(uint64(c.UID), 10)
	name := id
	if c.Credential != "" {
		name = c.Credential
	} else if a.audit.users.Plain() {
		if u, err := user.LookupId(id); err == nil {
			name = u.Username
		}
	}
	out, err := a.audit.users.Name(name, at)
	if err != nil {
		a.log.Error("a pseudonym could not be made, and the event is without one", "error", err)
	}
	return out
}

// auditVerdict notes what a verdict changes. The court's lock is held.
func (a *Agent) auditVerdict(last, v *enforcer.Verdict) {
	if last == nil || last.State != v.State || last.Code != v.Code || last.Reason != v.Reason {
		e := eventlog.Event{At: v.JudgedAt, Type: noteVerdict, Code: string(v.Code), Detail: v.Reason, Fields: map[string]string{"state": string(v.State)}}
		if !v.Until.IsZero() {
			e.Fields["until"] = v.Until.UTC().Format(time.RFC3339)
		}
		a.note(e)
	}
	a.auditDocuments(v)
	for ref, u := range a.court.facts.Upstream {
		if is := u.State + " " + string(u.Refused); a.audit.upstream[ref] != is {
			a.audit.upstream[ref] = is
			a.note(eventlog.Event{At: v.JudgedAt, Type: noteUpstream, Code: string(u.Refused), Subject: ref.ID(), Detail: u.Detail, Fields: map[string]string{"state": u.State}})
		}
	}
}

func (a *Agent) auditDocuments(v *enforcer.Verdict) {
	is := map[string]noted{}
	for _, j := range v.Licenses {
		n := noted{code: j.Code}
		if b := a.court.document(j.Document); b != nil {
			sum := sha256.Sum256(b)
			n.digest = hex.EncodeToString(sum[:])
		}
		is[j.Document] = n
		was, had := a.audit.documents[j.Document]
		typ := noteJudged
		switch {
		case had && was == n:
			continue
		case a.audit.documents == nil:
			typ = notePresent
		case !had:
			typ = noteAdded
		case was.digest != n.digest:
			typ = noteChanged
		}
		e := eventlog.Event{At: v.JudgedAt, Type: typ, Subject: j.Document, Code: string(j.Code), Detail: j.Reason, Fields: map[string]string{"sha256": n.digest}}
		if j.License != nil {
			e.Fields["licence"] = j.License.ID
		}
		a.note(e)
	}
	for name, was := range a.audit.documents {
		if _, there := is[name]; !there {
			a.note(eventlog.Event{At: v.JudgedAt, Type: noteRemoved, Subject: name, Fields: map[string]string{"sha256": was.digest}})
		}
	}
	a.audit.documents = is
}

// noteForcedRelease notes that an admin has ended a lease. Of its id the log has the beginning alone.
func (a *Agent) noteForcedRelease(by enforcer.Caller, l *enforcer.Lease) {
	var items []string
	for _, it := range l.Items {
		items = append(items, fmt.Sprintf("%s=%d", it.Pool, it.N))
	}
	f := map[string]string{"items": strings.Join(items, ", ")}
	if h := l.Holder; h != nil {
		if name := a.nameOf(h.Caller, a.desk.time()); name != "" {
			f["holder"] = name
		}
	}
	a.noteBy(by, eventlog.Event{Type: noteForced, Subject: l.ID.String()[:8], Fields: f})
}

// clockReset notes that a document has put the licence time back. What was planned by the false time is asked anew.
func (a *Agent) clockReset(from, to time.Time) {
	a.note(eventlog.Event{At: to, Type: noteClock, Fields: map[string]string{"from": from.Format(time.RFC3339), "to": to.Format(time.RFC3339)}})
	a.log.Warn("a document of the vendor's says that the time believed was false; it has been put back", "from", from, "to", to)
	a.pulse.Now()
}
