package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// maxReason is the longest reason of an emergency, in bytes.
const maxReason = 500

// BeginEmergency spends an emergency of the licence that needs one: recorded, logged, counted, and told to the
// upstream.
func (f front) BeginEmergency(by enforcer.Caller, reason string) (wire.Emergency, *enforcer.Denial) {
	reason = strings.TrimSpace(reason)
	switch {
	case reason == "":
		return wire.Emergency{}, &enforcer.Denial{Code: enforcer.BadRequest, Field: "reason",
			Detail: "reason is missing", Hint: "say in a sentence why: the vendor is told"}
	case len(reason) > maxReason || strings.ContainsFunc(reason, unicode.IsControl):
		return wire.Emergency{}, &enforcer.Denial{Code: enforcer.BadRequest, Field: "reason",
			Detail: fmt.Sprintf("reason has %d bytes, or characters that cannot be printed", len(reason)),
			Hint:   fmt.Sprintf("give one line of at most %d bytes", maxReason)}
	}
	c := f.court
	c.mu.Lock()
	timing := f.desk.Timing()
	now := timing.Time
	l, d := (*enforcer.License)(nil),
		&enforcer.Denial{Detail: "the licence folder has not been read yet", Hint: "try again in a moment"}
	if c.ready {
		c.facts.Documents, c.facts.Clock = c.documents(nil), timing.Clock
		c.fill(&c.facts, now)
		l, d = enforcer.MayBeginEmergency(c.facts, enforcer.Judge(c.facts, now), now)
	}
	if d != nil {
		c.mu.Unlock()
		d.Code = api.EmergencyRefused
		return wire.Emergency{}, d
	}
	e := emergency{now, now.Add(l.Emergency.Length), reason}
	if err := f.history.begin(l.Ref(), e); err != nil {
		c.mu.Unlock()
		return wire.Emergency{}, &enforcer.Denial{Code: enforcer.Storage,
			Detail: "the emergency could not be recorded, and has not begun: " + err.Error(),
			Hint:   "see to the disk that state.dir is on"}
	}
	c.judge()
	c.mu.Unlock()
	f.metrics.EmergencyBegan()
	f.audit.NoteBy(by, eventlog.Event{Type: audit.EmergencyStarted, Subject: l.ID, Detail: reason,
		Fields: map[string]string{"ends": e.Ends.Format(time.RFC3339)}})
	f.log.Warn("an operator has begun an emergency", "licence", l.ID, "ends", e.Ends, "uid", by.UID, "pid", by.PID,
		"exe", by.Exe)
	f.feeds.Tell(nil, wire.Event{Type: "emergency.started", At: now, Code: string(enforcer.ValidInGrace),
		Reason: "an operator has begun an emergency on licence " + l.ID + ", until " +
			e.Ends.UTC().Format(time.RFC3339)}) // why is for admins to know
	f.pulse.Now()
	return emergencyShape(l.ID, e, now), nil
}

func emergencyShape(id string, e emergency, now time.Time) wire.Emergency {
	return wire.Emergency{License: id, BeganAt: e.Began, EndsAt: e.Ends, Reason: e.Reason,
		Running: !now.Before(e.Began) && now.Before(e.Ends)}
}

// Emergencies returns what operators have begun, and what the licences at hand still grant.
func (f front) Emergencies() wire.Emergencies {
	out := wire.Emergencies{Emergencies: []wire.Emergency{}, Grants: []wire.EmergencyGrant{}}
	timing := f.desk.Timing()
	now := timing.Time
	for ref, list := range f.history.emergencies() {
		for _, e := range list {
			out.Emergencies = append(out.Emergencies, emergencyShape(ref.ID(), e, now))
		}
	}
	slices.SortFunc(out.Emergencies, func(a, b wire.Emergency) int { return a.BeganAt.Compare(b.BeganAt) })
	v := f.desk.Verdict()
	if v == nil {
		return out
	}
	seen := map[enforcer.Ref]bool{}
	for _, j := range v.Licenses {
		l := j.License
		if l == nil || l.Emergency.Length == 0 || seen[l.Ref()] {
			continue
		}
		seen[l.Ref()] = true
		var began []time.Time
		for _, e := range f.history.emergenciesOf(l.Ref()) {
			began = append(began, e.Began)
		}
		g := wire.EmergencyGrant{License: l.ID, LengthSeconds: l.Emergency.Length.Seconds(),
			PerYear: l.Emergency.PerYear}
		if next, ever := l.Emergency.Free(began, timing.Counted()); ever {
			g.Next = api.Instant(next)
		}
		out.Grants = append(out.Grants, g)
	}
	return out
}

// told returns the emergencies that the upstream is told of: all of the last year that are the licence's, with each
// call.
func (h *history) told(ref enforcer.Ref, now time.Time) (out []plugin.Emergency) {
	for _, e := range h.emergenciesOf(ref) {
		if now.Sub(e.Began) < 366*24*time.Hour {
			out = append(out, plugin.Emergency{Began: e.Began, Ends: e.Ends, Reason: e.Reason})
		}
	}
	return out
}

// Return stops a licence on this host for good and signs a receipt of that, which is the vendor's proof; this host's
// place is given back as well, if the upstream can be reached. Asked again it signs the same receipt again.
func (f front) Return(ctx context.Context, by enforcer.Caller, id string) (wire.Returned, *enforcer.Denial) {
	placed := f.pulse.Placed(id) // while the licence is served still
	ref, was, d := f.giveBack(by, id)
	if d != nil {
		return wire.Returned{}, d
	}
	receipt, err := online.SignReceipt(f.key,
		&online.Receipt{License: id, Product: was.Product, Issued: was.Returned.Unix(), Document: was.Document})
	if err != nil {
		return wire.Returned{},
			&enforcer.Denial{Code: api.Internal, Detail: "the receipt could not be signed: " + err.Error()}
	}
	out := wire.Returned{License: id, Product: was.Product, ReturnedAt: was.Returned, Receipt: receipt}
	for _, l := range placed {
		if l.Ref() != ref {
			continue
		}
		out.Place = &wire.Released{License: id, Released: true}
		if err := f.pulse.Deactivate(ctx, l); err != nil {
			out.Place.Released, out.Place.Reason = false, err.Error()
		}
	}
	return out, nil
}

// giveBack records that a licence was returned, which stops it. It returns which licence of the id that is, and what is
// recorded.
func (f front) giveBack(by enforcer.Caller, id string) (enforcer.Ref, past, *enforcer.Denial) {
	c := f.court
	c.mu.Lock()
	defer c.mu.Unlock()
	l, document := c.latest(id)
	now := f.desk.Now()
	ref, _ := f.history.returnedAs(id)
	if l != nil {
		ref = l.Ref()
	}
	was, before := f.history.returned(ref)
	if l == nil && !before {
		return ref, past{}, &enforcer.Denial{Code: api.DocumentUnknown, Field: "license",
			Detail: fmt.Sprintf("there is no licence %q here that verifies", id),
			Hint:   "`usher license list` shows what is there"}
	}
	if anew := l != nil && (!before || l.Issued.After(was.Returned)); !anew {
		return ref, was, nil
	}
	sum := sha256.Sum256(c.catalog.Signed(l.System, document))
	was, err := f.history.giveBack(ref, l.Product, hex.EncodeToString(sum[:]), now, true)
	if err != nil {
		return ref, past{}, &enforcer.Denial{Code: enforcer.Storage,
			Detail: "the return could not be recorded, and the licence stands: " + err.Error(),
			Hint:   "see to the disk that state.dir is on"}
	}
	c.judge()
	f.audit.NoteBy(by, eventlog.Event{Type: audit.LicenseReturned, Subject: id,
		Fields: map[string]string{"sha256": was.Document}})
	f.log.Warn("a licence was returned, and is of no use here any more", "licence", id, "uid", by.UID, "pid", by.PID,
		"exe", by.Exe)
	f.feeds.Tell(nil, wire.Event{Type: "license.returned", At: now,
		Reason: "licence " + id + " was returned to the vendor"})
	return ref, was, nil
}

// latest returns the licence that an id names, and its document: see [enforcer.Meant]. c.mu is held.
func (c *court) latest(id string) (*enforcer.License, []byte) {
	if d := enforcer.Meant(c.documents(nil), id, c.teller); d != nil {
		return d.License, c.document(d.Name)
	}
	return nil, nil
}
