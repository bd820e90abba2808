package pulse

import (
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Call names a call to an upstream.
type Call string

// The calls, a closed set: metrics label with them.
const (
	None       Call = ""
	Activate   Call = "activate"
	Heartbeat  Call = "heartbeat"
	CheckIn    Call = "check_in"
	Deactivate Call = "deactivate"
)

// Calls returns every call.
func Calls() []Call { return []Call{Activate, Heartbeat, CheckIn, Deactivate} }

// The measure of back-off. Between tries lies a random time up to a bound that doubles with each failure (full jitter):
// callers that fail together do not come back together.
const (
	backOffLeast = time.Second // of the longest
	backOffMost  = 10 * time.Minute
	backOffSteps = 4 // the first is so much shorter than the longest
	// refusedMost is the longest wait after a refusal, which the upstream has signed.
	refusedMost = time.Hour
	// retryAfterMost bounds what a Retry-After header may demand, with its jitter. No signature covers a header:
	// anybody on the way can write one.
	retryAfterMost = plugin.MaxRetryAfter
	// lastTry bounds how near to a duty's end the last try before it is made: many agents do not call to the second.
	lastTry = 45 * time.Second
	// callLeast is the shortest time that one call gets.
	callLeast = 2 * time.Second
)

// Duties is what a licence demands of its upstream, and what the upstream can do.
type Duties struct {
	Activation enforcer.Activation
	Heartbeat  enforcer.Period
	CheckIn    enforcer.Period
	Can        plugin.Capabilities
}

// DutiesOf returns the duties of a licence towards an upstream.
func DutiesOf(l *enforcer.License, can plugin.Capabilities) Duties {
	return Duties{l.Activation, l.Heartbeat, l.CheckIn, can}
}

// Any reports whether there is any call to make.
func (d Duties) Any() bool {
	return d.Can.Activate && (d.Activation.Required || d.Heartbeat.Stated() || d.CheckIn.Stated()) ||
		d.Can.Heartbeat && d.Heartbeat.Stated() || d.Can.CheckIn && d.CheckIn.Stated()
}

// State is the agent's knowledge of one licence's upstream, kept over restarts.
type State struct {
	// the state is kept under a Ref; former versions kept it under an id
	Named         bool      `json:"named,omitempty"`
	Activated     time.Time `json:"activated,omitzero"`
	LastHeartbeat time.Time `json:"last_heartbeat,omitzero"`
	LastCheckIn   time.Time `json:"last_check_in,omitzero"`
	// NextHeartbeat and NextCheckIn are when to call; zero: at once. They are drawn once, so that a restart neither
	// calls early nor draws again.
	NextHeartbeat time.Time `json:"next_heartbeat,omitzero"`
	NextCheckIn   time.Time `json:"next_check_in,omitzero"`

	Failures  int       `json:"failures,omitzero"` // in a row
	NotBefore time.Time `json:"not_before"`

	Class  plugin.Class  `json:"class,omitempty"` // of the last failure; empty: the last call succeeded
	Reason string        `json:"reason,omitempty"`
	Hint   string        `json:"hint,omitempty"`
	Since  time.Time     `json:"failing_since,omitzero"` // when the first call failed of those in a row
	Code   enforcer.Code `json:"code,omitempty"`         // of the upstream's refusal; empty: it has not refused
	// Words are what the upstream said with its refusal. They stay when a later call fails for another reason.
	Words string `json:"words,omitempty"`
	// Paused says that Code is Unavailable, and that the upstream's word before was good.
	Paused bool   `json:"paused,omitzero"`
	Chain  []byte `json:"chain,omitempty"`
	// Epoch is Config.Epoch as it was at the last successful call.
	Epoch string `json:"epoch,omitempty"`
	// Released is when this host gave its place back. The agent calls nothing from then on, until a person wants a
	// place again.
	Released time.Time `json:"released,omitzero"`

	// For how long the host has slept or been off since LastHeartbeat, as of the last call, and the host's clocks then.
	Asleep time.Duration `json:"asleep,omitzero"`
	Called time.Time     `json:"called,omitzero"`
	Host   Uptime        `json:"host,omitzero"`
}

// Uptime is what a host says of its present start.
type Uptime struct {
	BootID    string        `json:"boot_id,omitempty"`
	Up        time.Duration `json:"-"`                  // since then, suspension included
	Suspended time.Duration `json:"suspended,omitzero"` // of it
}

// asleep returns for how long the host has not been awake since the last heartbeat.
func (s State) asleep(now time.Time, h Uptime) time.Duration {
	switch {
	case s.Called.IsZero():
		return 0
	case s.Host.BootID == h.BootID:
		return s.Asleep + max(0, h.Suspended-s.Host.Suspended)
	default: // between the last call and this start it was off
		return s.Asleep + max(0, now.Sub(s.Called)-(h.Up-h.Suspended))
	}
}

// Jitter returns a random number from 0 to below 1.
type Jitter func() float64

// Next returns the next call, and when it is due. The same state, duties and instant always give the same answer.
// Chance has its place in Succeeded and Failed, where the next call is drawn once.
func (s State) Next(d Duties) (Call, time.Time) {
	call, at := None, time.Time{}
	if !s.Released.IsZero() {
		return call, at
	}
	sooner := func(c Call, t time.Time) {
		if call == None || t.Before(at) {
			call, at = c, t
		}
	}
	if d.Can.Activate && d.Any() && s.Activated.IsZero() {
		sooner(Activate, time.Time{})
	} else {
		if d.Can.CheckIn && d.CheckIn.Stated() {
			sooner(CheckIn, s.NextCheckIn)
		}
		if d.Can.Heartbeat && d.Heartbeat.Stated() {
			sooner(Heartbeat, s.NextHeartbeat)
		}
	}
	if call != None && at.Before(s.NotBefore) {
		at = s.NotBefore
	}
	return call, at
}

// Succeeded returns the state after a call that the upstream answered well at the instant now.
func (s State) Succeeded(d Duties, call Call, r *plugin.Reply, now time.Time, h Uptime, jitter Jitter) State {
	s.Asleep, s.Called, s.Host = 0, now, h
	s.Failures, s.NotBefore, s.Class, s.Reason, s.Hint, s.Since = 0, time.Time{}, "", "", "", time.Time{}
	s.Code, s.Words, s.Paused = "", "", false
	if r.State != nil {
		s.Chain = r.State
	}
	// Whatever the answer, the upstream has spoken with this host: each call is a sign of life, and the first one
	// begins the duties.
	if s.Activated.IsZero() {
		s.Activated = now
	}
	switch call {
	case Deactivate:
		return State{Chain: s.Chain, Released: now, Called: now, Host: h}
	case Activate, CheckIn:
		s.LastCheckIn = now
		s.NextCheckIn = checkInAt(d.CheckIn, now, jitter)
	default:
	}
	s.LastHeartbeat = now
	s.NextHeartbeat = heartbeatAt(d.Heartbeat, now, jitter)
	if !r.NextHeartbeat.IsZero() && r.NextHeartbeat.Before(s.NextHeartbeat) {
		s.NextHeartbeat = atLeast(r.NextHeartbeat, now.Add(time.Second))
	}
	if call != Heartbeat && !r.NextCheckIn.IsZero() && r.NextCheckIn.Before(s.NextCheckIn) {
		s.NextCheckIn = atLeast(r.NextCheckIn, now.Add(time.Minute))
	}
	return s
}

// Failed returns the state after a call that failed.
func (s State) Failed(d Duties, e *plugin.Error, now time.Time, h Uptime, jitter Jitter) State {
	s.Asleep, s.Called, s.Host = s.asleep(now, h), now, h
	s.Words = s.words()
	s.Failures++
	s.Class, s.Reason, s.Hint = e.Class, e.Reason, e.Hint
	if s.Since.IsZero() {
		s.Since = now
	}
	if e.Class == plugin.Refused {
		// The upstream has spoken. The agent asks now and then whether it has changed its mind, for one good answer
		// heals the refusal.
		s.Paused = e.Code == enforcer.Unavailable && !s.Activated.IsZero() && (s.Code == "" || s.Paused)
		s.Code, s.Words = e.Code, e.Reason
		most := d.third(refusedMost, s)
		if e.Code == enforcer.Unavailable || e.Code == enforcer.Preparing { // it will be over soon
			most = min(most, backOffMost)
		}
		s.NotBefore = now.Add(most/2 + time.Duration(jitter()*float64(most/2)))
		return s
	}
	// Nobody has signed any other failure, so it never costs the licence a try that it has time for.
	most := d.third(backOffMost, s)
	top := min(most, most/backOffSteps<<min(s.Failures-1, backOffSteps))
	wait := top/20 + time.Duration(jitter()*float64(top))
	if after := min(e.RetryAfter, retryAfterMost*4/5); after > 0 {
		// Callers that got the same answer do not come back together.
		wait = max(wait, after+time.Duration(jitter()*float64(after)/4))
	}
	if end := s.deadline(d, now, h); end.After(now) {
		if left := end.Sub(now); wait > left*9/10 {
			wait = max(backOffLeast, min(most/15, lastTry), time.Duration((0.6+0.3*jitter())*float64(left)))
		}
	}
	s.NotBefore = now.Add(wait)
	return s
}

// since returns since when calls fail. Former versions did not keep that.
func (s State) since() time.Time {
	if s.Since.IsZero() {
		return s.Called
	}
	return s.Since
}

// words returns what the upstream said with its refusal. Former versions kept it as the reason of the last failure.
func (s State) words() string {
	if s.Words == "" && s.Code != "" && s.Class == plugin.Refused {
		return s.Reason
	}
	return s.Words
}

// third returns a third of the shortest time that a licence gives for a call, and at most most.
func (d Duties) third(most time.Duration, s State) time.Duration {
	for _, p := range []enforcer.Period{d.Heartbeat, d.CheckIn} {
		if p.Every > 0 {
			most = min(most, p.Every/3)
		}
	}
	if d.Activation.Required && s.Activated.IsZero() && d.Activation.Grace > 0 {
		most = min(most, d.Activation.Grace/3)
	}
	return max(most, backOffLeast)
}

// within returns how long the next call may take, at most as long as the configuration says: an answer that hangs must
// leave time for another try.
func (s State) within(d Duties, most time.Duration, now time.Time, h Uptime) time.Duration {
	most = min(most, d.third(most, s))
	if end := s.deadline(d, now, h); end.After(now) {
		most = min(most, end.Sub(now)/2)
	}
	return max(most, callLeast)
}

// deadline returns the next instant at which a duty that has been met before is missed, its grace included; zero: there
// is none.
func (s State) deadline(d Duties, now time.Time, h Uptime) (end time.Time) {
	sooner := func(p enforcer.Period, last time.Time, asleep time.Duration) {
		if !p.Stated() || last.IsZero() {
			return
		}
		if at := p.After(last).Add(asleep + p.Grace); at.After(now) && (end.IsZero() || at.Before(end)) {
			end = at
		}
	}
	sooner(d.Heartbeat, s.LastHeartbeat, s.asleep(now, h))
	checked := s.LastCheckIn
	if s.Activated.After(checked) {
		checked = s.Activated
	}
	sooner(d.CheckIn, checked, 0)
	return end
}

// Rewound returns the state after the time was put back to now, so that it was wrong at the last call: past calls count
// as made by now, and the next call is due at once.
func (s State) Rewound(now time.Time, h Uptime) State {
	for _, t := range []*time.Time{&s.Activated, &s.LastHeartbeat, &s.LastCheckIn, &s.Called, &s.Released, &s.Since} {
		if t.After(now) {
			*t = now
		}
	}
	s.NextHeartbeat, s.NextCheckIn, s.NotBefore = time.Time{}, time.Time{}, time.Time{}
	s.Host = h
	return s
}

// heartbeatAt draws when the next heartbeat is due: at a third of the period, ± 10 %.
func heartbeatAt(p enforcer.Period, now time.Time, jitter Jitter) time.Time {
	if !p.Stated() {
		return time.Time{}
	}
	third := float64(p.After(now).Sub(now)) / 3
	return now.Add(max(time.Millisecond, time.Duration(third*(0.9+0.2*jitter()))))
}

// Window returns the earliest and the latest instant for the upstream check-in after one at last: from the last quarter
// of the period until its grace is over.
func Window(p enforcer.Period, last time.Time) (earliest, latest time.Time) {
	due := p.After(last)
	return due.Add(-due.Sub(last) / 4), due.Add(p.Grace)
}

// checkInAt draws when the next upstream check-in is due: in the first half of its window before the period ends.
func checkInAt(p enforcer.Period, now time.Time, jitter Jitter) time.Time {
	if !p.Stated() {
		return time.Time{}
	}
	earliest, _ := Window(p, now)
	due := p.After(now)
	return earliest.Add(time.Duration(jitter() * float64(due.Sub(earliest)/2)))
}

func atLeast(t, least time.Time) time.Time {
	if t.Before(least) {
		return least
	}
	return t
}

// Facts returns the facts for the judge. holdUntil is when a try after a boot or a resume is over.
func (s State) Facts(now, holdUntil time.Time, h Uptime) enforcer.Upstream {
	u := enforcer.Upstream{Activated: s.Activated, Released: s.Released, LastHeartbeat: s.LastHeartbeat,
		LastCheckIn: s.LastCheckIn,
		Refused:     s.Code, Paused: s.Paused, HoldUntil: holdUntil, State: "ok", Detail: s.Reason}
	if s.Code != "" {
		u.RefusedReason = s.words()
	}
	if s.Class != "" {
		u.Failing = enforcer.Failing{Class: string(s.Class), Reason: s.Reason, Hint: s.Hint, Since: s.since()}
	}
	switch {
	case !s.Released.IsZero():
		u.State = "released"
	case s.Class == plugin.Transient:
		u.State = "retrying"
	case s.Class != "":
		u.State = string(s.Class)
	case s.Activated.IsZero():
		u.State = "waiting"
	}
	if !s.LastHeartbeat.IsZero() {
		u.Asleep = s.asleep(now, h)
	}
	return u
}
