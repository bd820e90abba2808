package upstreams

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/usher-agent/usher/agent/pulse"
	"github.com/usher-agent/usher/agent/shares"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Duties are the calls that licences owe their upstreams: check-ins, heartbeats, activations. The judge, the API and
// the metrics see them through here; the pulse meets them.
type Duties struct {
	Pulse     *pulse.Pulse
	Upstreams map[string]plugin.Upstream // by system
}

// Fill puts the upstreams' answers into the facts. They hold until the next answer.
func (d *Duties) Fill(f *enforcer.Facts, _ time.Time) (fence time.Duration) {
	f.Upstream = d.Pulse.Facts()
	for _, doc := range f.Documents { // until the pulse has taken over the records of a former version
		if doc.License != nil && !doc.License.IsTest() {
			_, _ = enforcer.Kept(f.Upstream, doc.License)
		}
	}
	return 0
}

// See tells the pulse which licences a verdict on f has that would be good if their upstreams were content: those have
// duties. document returns the bytes of a document by its name. changed is always false: the pulse knows nothing new
// before it has called.
func (d *Duties) See(f *enforcer.Facts, v *enforcer.Verdict, document func(name string) []byte) (changed bool) {
	var out []pulse.Licence
	for _, j := range v.Licenses {
		if j.License == nil || !j.UpstreamMayHeal(f.Upstream[j.License.Ref()]) {
			continue
		}
		u := d.Upstreams[j.License.System]
		if u == nil {
			continue
		}
		l := j.License
		if k, ok := u.(plugin.VoluntaryChecker); ok && !l.CheckIn.Stated() {
			c := *l
			c.CheckIn = k.Every(l)
			l = &c
		}
		out = append(out, pulse.Licence{License: l, Document: document(j.Document), Upstream: u})
	}
	d.Pulse.Set(out)
	return false
}

// Confirm asks a licence's upstream whether the licence is good, where it demands an activation or check-ins, whether
// its document is at hand already or not. nil: it is good, or demands nothing. Any error is a [*plugin.Error].
func (d *Duties) Confirm(ctx context.Context, l *enforcer.License, document []byte) error {
	u := d.Upstreams[l.System]
	switch {
	case !l.CheckIn.Stated() && !l.Heartbeat.Stated() && !l.Activation.Required:
		return nil
	case u == nil:
		return &plugin.Error{Class: plugin.Misconfigured, Reason: "the licence demands an upstream, and none is " +
			"configured for its system", Hint: "configure it under upstream"}
	}
	return d.Pulse.Try(ctx, pulse.Licence{License: l, Document: document, Upstream: u})
}

// Shape puts the duties of the licence in force, or of the one nearest to it, into the licence's wire form. Nothing is
// put there where it has no duty.
func (d *Duties) Shape(v *enforcer.Verdict, out *wire.License) {
	if v == nil || len(v.Licenses) == 0 || v.Licenses[0].License == nil {
		return
	}
	l := v.Licenses[0].License
	s, known := d.Pulse.Status()[l.Ref()]
	if !known && !l.CheckIn.Stated() && !l.Heartbeat.Stated() && !l.Activation.Required {
		return
	}
	u := d.Pulse.Facts()[l.Ref()]
	if p := l.CheckIn; p.Stated() {
		last := slices.MaxFunc([]time.Time{l.LastCheckIn(), u.Activated, u.LastCheckIn}, time.Time.Compare)
		out.CheckIn = &wire.CheckIn{Last: instant(u.LastCheckIn), Next: instant(s.State.NextCheckIn),
			Due: instant(p.After(last))}
	}
	if p := l.Heartbeat; p.Stated() {
		out.Heartbeat = &wire.Heartbeat{Last: instant(u.LastHeartbeat)}
		if !u.LastHeartbeat.IsZero() {
			out.Heartbeat.Deadline = instant(p.After(u.LastHeartbeat).Add(u.Asleep + p.Grace))
		}
	}
	out.Upstream = &wire.Upstream{State: u.State, Detail: u.Detail, Hint: u.Failing.Hint,
		Since: instant(u.Failing.Since)}
	if !known && d.Upstreams[l.System] == nil {
		out.Upstream = &wire.Upstream{State: "none",
			Detail: "the licence demands an upstream, and none is configured for its system"}
	}
}

// SiteServer is the wire form of what gives shares of a site: how it is, by why calls for pools and meters fail.
func SiteServer(failing map[enforcer.Share]enforcer.Failing) *wire.Upstream {
	if len(failing) == 0 {
		return &wire.Upstream{State: "ok"}
	}
	f := failing[slices.MinFunc(slices.Collect(maps.Keys(failing)), func(a, b enforcer.Share) int {
		return cmp.Or(cmp.Compare(a.License, b.License), cmp.Compare(a.Pool, b.Pool))
	})]
	out := &wire.Upstream{State: f.Class, Detail: f.Reason, Hint: f.Hint, Since: instant(f.Since)}
	if f.Class == string(plugin.Transient) {
		out.State = "retrying"
	}
	return out
}

// Contact is one of the licence in force's duties towards its upstream, by call: a heartbeat, a check-in.
type Contact struct {
	Last   time.Time     // when the upstream was last heard of; zero: never
	Period time.Duration // how often it must be, from then on
	Next   time.Time     // when the agent calls next, unless a call fails; zero: at once
	Due    time.Time     // when the contact is late, and its grace begins
	Ends   time.Time     // when the licence falls without it
}

// Contacts returns what the licence in force, or the one nearest to it, demands: none, or one for each call.
func (d *Duties) Contacts(v *enforcer.Verdict) map[pulse.Call]Contact {
	out := map[pulse.Call]Contact{}
	var shape wire.License
	d.Shape(v, &shape)
	if shape.CheckIn == nil && shape.Heartbeat == nil {
		return out
	}
	l := v.Licenses[0].License
	ref := l.Ref()
	u, s := d.Pulse.Facts()[ref], d.Pulse.Status()[ref].State
	if p := l.CheckIn; p.Stated() {
		last := slices.MaxFunc([]time.Time{l.LastCheckIn(), u.Activated, u.LastCheckIn}, time.Time.Compare)
		due := p.After(last)
		out[pulse.CheckIn] = Contact{Last: last, Period: due.Sub(last), Next: s.NextCheckIn, Due: due,
			Ends: due.Add(p.Grace)}
	}
	if p := l.Heartbeat; p.Stated() && !u.LastHeartbeat.IsZero() {
		due := p.After(u.LastHeartbeat)
		out[pulse.Heartbeat] = Contact{Last: u.LastHeartbeat, Period: due.Sub(u.LastHeartbeat), Next: s.NextHeartbeat,
			Due: due.Add(u.Asleep), Ends: due.Add(u.Asleep + p.Grace)}
	}
	return out
}

// noAnswer is the reason where no call ended in time.
const noAnswer = "no answer came in time"

// Outcomes puts what came of calls into its wire form: of those that licences demand, and of those about pools.
func Outcomes(all []pulse.Outcome, pools []shares.Outcome) wire.UpstreamCalls {
	out := wire.UpstreamCalls{Calls: []wire.UpstreamOutcome{}}
	for _, o := range all {
		w := wire.UpstreamOutcome{License: o.LicenseID, Call: string(o.Call),
			OK: o.Failure == nil && o.Call != pulse.None}
		switch {
		case o.Failure != nil:
			w.Class, w.Reason, w.Hint = string(o.Failure.Class), o.Failure.Reason, o.Failure.Hint
		case o.Call == pulse.None:
			w.Class, w.Reason = string(plugin.Transient), noAnswer
		}
		out.Calls = append(out.Calls, w)
	}
	for _, o := range pools {
		w := wire.UpstreamOutcome{License: o.LicenseID, Pool: o.Pool, Call: string(o.Call), OK: o.Answered()}
		switch {
		case o.Failure != nil:
			w.Class, w.Reason, w.Hint = string(o.Failure.Class), o.Failure.Reason, o.Failure.Hint
		case o.Call == "":
			w.Class, w.Reason = string(plugin.Transient), noAnswer
		}
		if w.OK {
			w.Class, w.Slots = "", &o.Have
		}
		out.Calls = append(out.Calls, w)
	}
	return out
}

// instant is a time in its wire form; nil for the zero time.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}
