// Package pulse keeps the duties that licences have towards their upstreams: the activation, the heartbeats and the
// upstream check-ins. It calls at the times that a licence's period asks for, backs off where a call fails, and reports
// the facts to the agent. The judge decides what these do to the verdict. No acquire waits for any of it.
//
// Start reading at [State.Next], the schedule, which is a pure function; [Pulse.Run] carries it out.
package pulse

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// DefaultCallWithin bounds one call where the configuration says nothing.
const DefaultCallWithin = 30 * time.Second

// longestTimer bounds a wait on the monotonic clock, which stops while the host is suspended.
const longestTimer = 30 * time.Second

// Config is what a Pulse needs. All fields but those marked are required.
type Config struct {
	File string // where the state is kept; in the state folder
	// Read and Write read and replace the state's file, whole or not at all; nil: plainly. Read's error is
	// fs.ErrNotExist where there is no file.
	Read  func(file string) ([]byte, error)
	Write func(file string, data []byte) error
	// Epoch names the last loss of this record; empty: it was never lost. A state from another epoch is only
	// last-known: the next call is due at once, and proves it.
	Epoch      string
	CallWithin time.Duration // of one call; zero: DefaultCallWithin
	Now        func() time.Time
	Uptime     func() Uptime
	// Request makes what leaves the host with a call, but for nonce and state.
	Request func(*enforcer.License, []byte) plugin.Request
	// OnChange is called on Run's goroutine when Facts has changed.
	OnChange func()
	// Renewed takes a document that a call brought, and says why it is not good.
	Renewed func(ctx context.Context, l *enforcer.License, document []byte) error
	// Learnt takes the time that an upstream signed in an answer about a licence.
	Learnt func(l *enforcer.License, at time.Time)
	// Called is called for each call; optional.
	Called func(call Call, result string, at time.Time)
	Log    *slog.Logger // optional
	Jitter Jitter       // optional
}

// Licence is one licence, as it was installed, and its upstream.
type Licence struct {
	*enforcer.License
	Document []byte
	Upstream plugin.Upstream // nil: there is none
}

// Pulse keeps the duties of the licences that Set names.
type Pulse struct {
	cfg  Config
	wake chan struct{} // capacity 1
	busy sync.WaitGroup

	mu       sync.Mutex // guards all below
	state    map[enforcer.Ref]State
	licences map[enforcer.Ref]Licence
	calling  map[enforcer.Ref]bool
	// a call was asked for while one was under way, which may have been answered before
	again  map[enforcer.Ref]bool
	hold   map[enforcer.Ref]time.Time // until when it waits for a try after a boot or resume
	seen   time.Time                  // Config.Now at the last look; zero: there was none
	host   Uptime                     // of that moment
	told   map[enforcer.Ref]enforcer.Upstream
	asked  []*asked // who waits for what comes of calls
	unkept error    // why the state could not be kept last time
}

// New reads the state. It starts nothing.
func New(cfg Config) (*Pulse, error) {
	if cfg.CallWithin == 0 {
		cfg.CallWithin = DefaultCallWithin
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Jitter == nil {
		cfg.Jitter = rand.Float64
	}
	if cfg.Read == nil {
		cfg.Read = os.ReadFile
	}
	if cfg.Write == nil {
		cfg.Write = func(file string, data []byte) error { return os.WriteFile(file, data, 0o600) }
	}
	if cfg.Called == nil {
		cfg.Called = func(Call, string, time.Time) {}
	}
	p := &Pulse{cfg: cfg, wake: make(chan struct{}, 1), licences: map[enforcer.Ref]Licence{},
		calling: map[enforcer.Ref]bool{}, again: map[enforcer.Ref]bool{}, hold: map[enforcer.Ref]time.Time{}}
	var err error
	p.state, err = load(cfg)
	h := cfg.Uptime()
	for id, s := range p.state {
		if s.Host.BootID != h.BootID {
			p.hold[id] = cfg.Now().Add(cfg.CallWithin) // the host has booted since: one try first
		}
	}
	return p, err
}

// Set says which licences there are.
func (p *Pulse) Set(licences []Licence) {
	p.mu.Lock()
	p.licences = map[enforcer.Ref]Licence{}
	// A former version's state of an id is the production licence's first.
	licences = slices.SortedStableFunc(slices.Values(licences), func(a, b Licence) int {
		return cmp.Compare(a.Ref(), b.Ref())
	})
	for _, l := range licences {
		if l.Upstream != nil && DutiesOf(l.License, l.Upstream.Capabilities()).Any() {
			p.licences[l.Ref()] = l
			p.adopt(l.License)
		}
	}
	p.mu.Unlock()
	p.nudge()
}

// adopt takes a former version's state, which named a licence by its id alone, for a licence. p.mu is held.
func (p *Pulse) adopt(l *enforcer.License) {
	ref, former := l.Ref(), enforcer.FormerRef(l.ID)
	if _, ok := p.state[ref]; ok {
		return
	}
	if at, held := p.hold[former]; held {
		p.hold[ref] = at
		delete(p.hold, former)
	}
	_, _ = enforcer.Kept(p.state, l)
}

// Now makes every licence's next call due at once, whatever its schedule and back-off say. It takes a place again that
// was given back.
func (p *Pulse) Now() {
	p.mu.Lock()
	for id := range p.licences {
		s := p.state[id].atOnce()
		s.Released = time.Time{}
		p.state[id] = s
		if p.calling[id] {
			p.again[id] = true
		}
	}
	p.mu.Unlock()
	p.nudge()
}

// atOnce returns the state with all its calls due at once.
func (s State) atOnce() State {
	s.NotBefore, s.NextCheckIn, s.NextHeartbeat = time.Time{}, time.Time{}, time.Time{}
	return s
}

// Look makes Run read the clocks now rather than when the next call is due.
func (p *Pulse) Look() { p.nudge() }

func (p *Pulse) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run makes the calls that are due, until ctx ends.
func (p *Pulse) Run(ctx context.Context) error {
	defer p.busy.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-timer.C:
		}
		wait, changed := p.step(ctx)
		if changed {
			p.cfg.OnChange()
		}
		timer.Reset(wait)
	}
}

// step begins the calls that are due. It returns how long none will be, and whether Facts has changed.
func (p *Pulse) step(ctx context.Context) (wait time.Duration, changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, h := p.cfg.Now(), p.cfg.Uptime()
	p.notice(now, h)
	wait = longestTimer
	for id, l := range p.licences {
		if p.calling[id] {
			continue
		}
		s := p.state[id]
		call, at := s.Next(DutiesOf(l.License, l.Upstream.Capabilities()))
		if call == None {
			continue
		}
		if _, held := p.hold[id]; held {
			at = now // its one try
		}
		if d := at.Sub(now); d > 0 {
			wait = min(wait, d)
			continue
		}
		p.calling[id] = true
		p.busy.Go(func() { p.call(ctx, l, call) })
	}
	facts := p.facts(now, h)
	changed = !maps.Equal(p.told, facts)
	p.told = facts
	return wait, changed
}

// The least suspension and step of the time that count. Less lies between two looks at two clocks, or each answer with
// the time puts it right.
const (
	noticeable = time.Second
	farAhead   = time.Minute
)

// notice sees to it that after a suspension, or a forward jump of the time as after a pause of the machine, one try
// comes before any duty is missed, and that nothing waits for a time that turned out to be false. p.mu is held.
func (p *Pulse) notice(now time.Time, h Uptime) {
	suspended, jumped := h.Suspended-p.host.Suspended, now.Sub(p.seen)-(h.Up-p.host.Up)
	if p.seen.IsZero() {
		suspended, jumped = 0, 0
	}
	p.seen, p.host = now, h
	for id, l := range p.licences {
		d := DutiesOf(l.License, l.Upstream.Capabilities())
		if s, ok := p.state[id]; ok && s.Called.Sub(now) > noticeable {
			p.state[id] = s.Rewound(now, h)
		}
		if call, _ := p.state[id].Next(d); call != None && (suspended > noticeable || jumped > farAhead) {
			p.hold[id] = now.Add(p.cfg.CallWithin)
			p.nudge()
		}
	}
}

// call makes one call and notes its outcome.
func (p *Pulse) call(ctx context.Context, l Licence, call Call) {
	r := p.cfg.Request(l.License, l.Document)
	now, h := p.cfg.Now(), p.cfg.Uptime()
	p.mu.Lock()
	s := p.state[l.Ref()]
	p.mu.Unlock()
	r.State, r.Nonce = s.Chain, newNonce()
	reply, err := ask(ctx, l.Upstream, call, &r,
		s.within(DutiesOf(l.License, l.Upstream.Capabilities()), p.cfg.CallWithin, now, h))
	if ctx.Err() != nil && err != nil {
		return // the agent ends; the next one makes the call again
	}
	p.note(ctx, l, call, reply, err)
}

// Try makes the next call for a licence at once, also for one that is not among those of Set. A success counts as if
// the schedule had asked for it. A failure counts only where the licence is among them. Any error is a [*plugin.Error].
func (p *Pulse) Try(ctx context.Context, l Licence) error {
	can := l.Upstream.Capabilities()
	duties := DutiesOf(l.License, can)
	if !duties.Any() {
		return nil
	}
	ref := l.Ref()
	for !p.take(ref) { // a call is under way, which ends in a while
		select {
		case <-ctx.Done():
			return plugin.Transiently("another call for this licence is under way; ask again")
		case <-time.After(tryAgain):
		}
	}
	p.mu.Lock()
	s := p.state[ref].atOnce()
	_, known := p.licences[ref]
	p.mu.Unlock()
	call, _ := s.Next(duties)
	switch {
	case call == None:
		call = CheckIn // of a place that was given back, which the upstream is to refuse
	case call == Heartbeat && can.CheckIn && duties.CheckIn.Stated():
		call = CheckIn
	}
	r := p.cfg.Request(l.License, l.Document)
	r.State, r.Nonce = s.Chain, newNonce()
	reply, e := ask(ctx, l.Upstream, call, &r, p.cfg.CallWithin)
	if e != nil && (!known || ctx.Err() != nil) {
		p.mu.Lock()
		delete(p.calling, ref)
		delete(p.again, ref)
		p.mu.Unlock()
		return e
	}
	p.note(ctx, l, call, reply, e)
	p.cfg.OnChange()
	if e != nil {
		return e
	}
	return nil
}

// tryAgain is how often Try looks whether another call is over.
const tryAgain = 20 * time.Millisecond

// take marks a call as under way, unless one is.
func (p *Pulse) take(ref enforcer.Ref) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calling[ref] {
		return false
	}
	p.calling[ref] = true
	return true
}

// ask makes one call within a time, and gives each failure one form.
func ask(ctx context.Context, u plugin.Upstream, call Call, r *plugin.Request,
	within time.Duration) (*plugin.Reply, *plugin.Error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	method := map[Call]func(context.Context, *plugin.Request) (*plugin.Reply, error){
		Activate: u.Activate, Heartbeat: u.Heartbeat, CheckIn: u.CheckIn, Deactivate: u.Deactivate}[call]
	reply, err := method(ctx, r)
	var e *plugin.Error
	switch {
	case err == nil && reply != nil:
		return reply, nil
	case err == nil:
		return nil, plugin.Transiently("the upstream gave no answer")
	case errors.As(err, &e):
		return nil, e
	case errors.Is(err, context.DeadlineExceeded):
		return nil, plugin.Transiently("no answer within %s", enforcer.Span(within))
	default:
		return nil, plugin.Transiently("%v", err)
	}
}

// note takes note of a call's outcome, keeps it, and reports it to the agent.
func (p *Pulse) note(ctx context.Context, l Licence, call Call, reply *plugin.Reply, e *plugin.Error) {
	if e == nil && !reply.Time.IsZero() {
		p.cfg.Learnt(l.License, reply.Time) // first, for the success is of that time
	}
	now, h := p.cfg.Now(), p.cfg.Uptime()
	duties := DutiesOf(l.License, l.Upstream.Capabilities())
	result := "ok"
	if e != nil {
		result = string(e.Class)
	}
	p.cfg.Called(call, result, now)
	p.mu.Lock()
	was := p.state[l.Ref()]
	switch {
	case !was.Released.IsZero(): // a call that was under way when the place was given back
	case e == nil:
		s := was.Succeeded(duties, call, reply, now, h, p.cfg.Jitter)
		s.Epoch = p.cfg.Epoch
		p.state[l.Ref()] = s
	default:
		p.state[l.Ref()] = was.Failed(duties, e, now, h, p.cfg.Jitter)
	}
	p.tell(l, call, e, now)
	if p.again[l.Ref()] && was.Released.IsZero() {
		p.state[l.Ref()] = p.state[l.Ref()].atOnce()
	}
	delete(p.again, l.Ref())
	delete(p.calling, l.Ref())
	delete(p.hold, l.Ref())
	p.keep()
	next := p.state[l.Ref()].NotBefore
	p.mu.Unlock()
	switch {
	case e != nil:
		p.cfg.Log.Warn("a call to the upstream failed", "licence", l.ID, "call", string(call), "class",
			string(e.Class), "error", e.Reason, "hint", e.Hint, "again", next.UTC().Format(time.RFC3339))
	case was.Failures > 0:
		p.cfg.Log.Info("the upstream answers again", "licence", l.ID, "call", string(call), "failures", was.Failures)
	default:
		p.cfg.Log.Debug("the upstream was called", "licence", l.ID, "call", string(call))
	}
	if e == nil && len(reply.Document) > 0 {
		if err := p.cfg.Renewed(ctx, l.License, reply.Document); err != nil {
			p.cfg.Log.Warn("the upstream sent a document that is not good", "licence", l.ID, "error", err)
		}
	}
	p.nudge()
}

// Placed returns the licences on which this host has a place that it can give back: those whose ids are named, or all
// where none is.
func (p *Pulse) Placed(ids ...string) (out []Licence) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, l := range p.licences {
		if l.Upstream.Capabilities().Deactivate && !p.state[id].Activated.IsZero() &&
			(len(ids) == 0 || slices.Contains(ids, id.ID())) {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b Licence) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Deactivate gives this host's place on a licence back, for good: the agent calls nothing more for it before Now.
func (p *Pulse) Deactivate(ctx context.Context, l Licence) error {
	r := p.cfg.Request(l.License, l.Document)
	p.mu.Lock()
	r.State = p.state[l.Ref()].Chain
	p.calling[l.Ref()] = true
	p.mu.Unlock()
	r.Nonce = newNonce()
	reply, e := ask(ctx, l.Upstream, Deactivate, &r, p.cfg.CallWithin)
	p.note(ctx, l, Deactivate, reply, e)
	if e != nil {
		return e
	}
	p.cfg.OnChange()
	return nil
}

// Status is what people see of one licence.
type Status struct {
	LicenseID string
	State     State
	Call      Call // the next
	At        time.Time
}

// Status returns the status of each licence that has duties.
func (p *Pulse) Status() map[enforcer.Ref]Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[enforcer.Ref]Status{}
	for id, l := range p.licences {
		s := p.state[id]
		call, at := s.Next(DutiesOf(l.License, l.Upstream.Capabilities()))
		out[id] = Status{l.ID, s, call, at}
	}
	return out
}

// Preview returns what would leave the host with the next call for each licence, without the nonce.
func (p *Pulse) Preview() []plugin.Request {
	p.mu.Lock()
	licences := maps.Clone(p.licences)
	p.mu.Unlock()
	var out []plugin.Request
	for id, l := range licences {
		r := p.cfg.Request(l.License, l.Document)
		p.mu.Lock()
		r.State = p.state[id].Chain
		p.mu.Unlock()
		out = append(out, r)
	}
	return out
}

// Facts returns the judge's facts of each licence whose upstream has ever been called.
func (p *Pulse) Facts() map[enforcer.Ref]enforcer.Upstream {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, h := p.cfg.Now(), p.cfg.Uptime()
	p.notice(now, h) // before anybody judges by it
	return p.facts(now, h)
}

func (p *Pulse) facts(now time.Time, h Uptime) map[enforcer.Ref]enforcer.Upstream {
	out := map[enforcer.Ref]enforcer.Upstream{}
	for id, s := range p.state {
		u := s.Facts(now, p.hold[id], h)
		u.Proved = s.Epoch == p.cfg.Epoch
		if _, called := p.licences[id]; !called { // the last failure is of a duty that is no more
			u.Failing = enforcer.Failing{}
		}
		out[id] = u
	}
	return out
}
