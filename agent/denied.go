package agent

import (
	"slices"
	"strconv"
	"time"

	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/denials"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/redact"
)

// For how long denials of a kind are gathered, and how many kinds are told apart meanwhile. The log is bounded, and
// what it says of the licence must not have to leave for denials: with these they fill at most some hundred KiB a day.
const (
	toldEvery, toldMost = 10 * time.Second, 128
	keptEvery, keptMost = time.Hour, 32
)

// openDenials has denials told to subscribers, and kept in the event log.
func (o *opening) openDenials() {
	now := func() time.Time { return o.desk.Now() }
	o.denials = []*denials.Tally{
		denials.New(denials.Config{Every: toldEvery, Most: toldMost, Now: now, Tell: o.tellDenied}),
		denials.New(denials.Config{Every: keptEvery, Most: keptMost, Now: now, Tell: o.keepDenied}),
	}
}

// denied takes note of an acquire that was denied, and waits for nothing.
func (a *Agent) denied(r *enforcer.Acquire, d *enforcer.Denial) {
	for _, t := range a.denials {
		t.Denied(r, d)
	}
	a.usage.Denied(r, d, a.desk.Now())
}

// tellDenied tells subscribers of denials: admins, and the user that was denied.
func (a *Agent) tellDenied(r denials.Report) {
	ev := wire.Event{Type: audit.LeaseDenied, At: a.desk.Now().UTC(), Pool: r.Pool, Code: string(r.Code),
		Reason: r.Detail, Count: r.Count}
	if !r.Since.IsZero() {
		ev.Since = new(r.Since.UTC())
	}
	by := r.By
	if r.Others {
		by = enforcer.Caller{UID: enforcer.Nobody} // whom no subscriber is: admins alone are told
		ev.Reason = othersDenied
	} else {
		ev.Holder = &wire.Holder{UID: by.UID, GID: by.GID, PID: by.PID, Exe: by.Exe, Credential: by.Credential}
	}
	a.feeds.Tell(&enforcer.Holder{Caller: by}, ev)
}

const othersDenied = "acquires of more pools, codes and users were denied than are told apart"

// keepDenied writes of denials to the event log. The user is named as in the rest of the log alone, and a reason that
// may name it is left out.
func (a *Agent) keepDenied(r denials.Report) {
	e := eventlog.Event{Type: audit.LeaseDenied, Code: string(r.Code), Subject: r.Pool,
		Fields: map[string]string{"count": strconv.FormatInt(r.Count, 10)}}
	if !r.Since.IsZero() {
		e.Fields["since"] = r.Since.UTC().Format(time.RFC3339)
	}
	switch {
	case r.Others:
		e.Detail = othersDenied
		a.audit.Note(e)
		return
	case !slices.Contains([]enforcer.DenialCode{enforcer.RateLimited, enforcer.Forbidden, enforcer.HeldOff}, r.Code):
		e.Detail = redact.Text(r.Detail)
	}
	a.audit.NoteBy(r.By, e)
}
