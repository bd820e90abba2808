package fleet

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// State says how an agent stands in its fleet.
type State string

// The states.
const (
	StateJoining    State = "joining"    // it has not been a member yet
	StateMember     State = "member"     // it is one
	StateQuarantine State = "quarantine" // it is one, and nobody gets more slots for a moment
	StateDraining   State = "draining"   // it is one, gives its idle slots back and takes none
	StateCutOff     State = "cut_off"    // the store does not answer, and its blocks may be used still
	StateFenced     State = "fenced"     // the store does not answer, or the place is lost, and its blocks are over
	StateWaiting    State = "waiting"    // another host is a member with the same key
	StateEvicted    State = "evicted"    // an operator has put it out
)

// States are all of them.
var States = []State{StateJoining, StateMember, StateQuarantine, StateDraining, StateCutOff, StateFenced, StateWaiting,
	StateEvicted}

// Words of operators for one agent, in the place of a pool's name: see keys.
const (
	wordLook = "!"
	wordAsk  = "?"
)

// standing is what an agent says of itself. The fleet's mu guards it.
type standing struct {
	why         State         // why it is no member, where another reason is known than the store's silence
	fenced      time.Duration // the last fence
	members     int64         // agents that live, as last seen
	censusAt    time.Duration
	passed      bool // that the fence is over has been logged
	drained     bool
	quarantined string
	names       map[string]ownPool // pools of this agent's licences, by the names that keys have
	faults      []MemberFault
	pace        pace

	explains atomic.Pointer[MemberFault] // see [explaining]; mu does not guard it
}

// Standing is how an agent stands in its fleet.
type Standing struct {
	State  State
	Reason string // why it is no member, or why nobody gets more slots; empty: it is, and they do
	Hint   string
	// Fence is how long the agent may still use its blocks without a further answer of the store; 0: no longer.
	Fence   time.Duration
	Cut     bool // the store does not answer
	Drained bool
	Members int64         // agents that live, as last counted; 0: they were not
	Write   time.Duration // how long writes take, of late; 0: there was none
	// Faults are those of the store's members, as they were last looked at; they are only where the store fails.
	Faults []MemberFault
	Pools  []PoolStanding
}

// PoolStanding is what an agent knows of one pool.
type PoolStanding struct {
	Pool  string // as the licence names it
	Key   string // as keys name it
	Slots int64  // in the agent's own blocks
	Out   int64  // with all agents, as last seen
	Limit int64  // in force, as last seen; 0: not known
	Own   int64  // the limit that the agent's licence has
}

// Standing returns how the agent stands. It asks nobody.
func (f *Fleet) Standing() Standing {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := Standing{State: StateMember, Fence: max(0, f.fenced-f.cfg.Now()), Drained: f.drained, Faults: f.faults,
		Members: f.members,
		Write:   time.Duration(f.pace.Load())}
	s.Cut = f.fault != nil && f.why == ""
	switch {
	case f.fault == nil && s.Fence > 0:
		if s.Reason = f.quarantined; s.Reason != "" {
			s.State = StateQuarantine
		} else if f.drained {
			s.State = StateDraining
		}
	case f.why != "":
		s.State = f.why
	case !f.joined:
		s.State = StateJoining
	case s.Fence > 0:
		s.State = StateCutOff
	default:
		s.State = StateFenced
	}
	if err, ok := f.fault.(*plugin.Error); ok {
		s.Reason, s.Hint = err.Reason, err.Hint
	} else if f.fault != nil {
		s.Reason = f.fault.Error()
	}
	for key, t := range f.names {
		p := PoolStanding{Pool: t.Pool, Key: key, Own: t.limit}
		if is := f.pools[key]; is != nil {
			p.Slots, p.Out, p.Limit = is.held.sum(), is.out, is.terms.Limit
		}
		s.Pools = append(s.Pools, p)
	}
	return s
}

// Until returns the fence of the membership; zero: there is none.
func (f *Fleet) Until() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.me.until
}

// Drained reports whether an operator has the agent give its idle slots back and take none.
func (f *Fleet) Drained() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.drained
}

// calls takes note of a pool's name.
func (f *Fleet) calls(key string, t ownPool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.names[key] = t
}

// ownPool is a pool of one of the agent's licences.
type ownPool struct {
	title
	limit int64 // of the licence
}

func (f *Fleet) title(key string) title {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.names[key].title
}

func (f *Fleet) stands(why State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.why = why
}

// awaits reports whether the agent cannot join before another has gone that has its key.
func (f *Fleet) awaits() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.why == StateWaiting
}

// orders takes note of what an operator has told the agent, and of a quarantine: two keys of an answer, from the i-th
// on.
func (f *Fleet) orders(res *Result, i int) {
	kvDrain, drained := res.one(i)
	kv, there := res.one(i + 1)
	reason := ""
	if q, err := read[quarantine](kv, there); there && err == nil {
		reason = q.Reason
	}
	f.mu.Lock()
	was, wasQuarantined := f.drained, f.quarantined
	f.drained, f.quarantined = drained, reason
	if drained && !was { // it may be the last that knows shares of totals
		for name, p := range f.pools {
			p.gather = !strings.Contains(name, "@")
		}
		ring(f.gathers)
	}
	f.mu.Unlock()
	if was != drained {
		by, _ := read[order](kvDrain, drained)
		f.cfg.Log.Warn("an operator has changed whether this agent drains", "drains", drained, "by", by.By)
		f.cfg.OnDrain()
	}
	switch {
	case reason != "" && wasQuarantined == "":
		f.cfg.Log.Warn("the fleet is in quarantine: nobody gets more slots for a moment", "reason", reason)
	case reason == "" && wasQuarantined != "":
		f.cfg.Log.Info("the fleet's quarantine is over")
		f.askAgain()
	}
}

// evicted is why an agent may not join that an operator has put out.
func (f *Fleet) evicted(kv KV) error {
	o, _ := read[order](kv, true)
	by := ""
	if o.By != "" {
		by = " (" + o.By + ", " + o.At.Format(time.RFC3339) + ")"
	}
	e := plugin.Transiently("an operator has put this agent out of the fleet%s", by)
	e.Hint = fmt.Sprintf("`usher fleet evict --undo %s` lets it join again", Argument(f.cfg.Agent))
	return e
}

// UndoDrain is the command with which an operator has the agent take slots again. It names the agent by its key, since
// two hosts may have one name.
func (f *Fleet) UndoDrain() string { return "`usher fleet drain --undo " + Argument(f.cfg.Agent) + "`" }

// Argument returns what of an agent's key names the agent in a command, after all flags: a key may begin with a hyphen.
func Argument(agent string) string {
	if agent = agent[:min(len(agent), shortKey)]; strings.HasPrefix(agent, "-") {
		return "-- " + agent
	}
	return agent
}

// drainedError says why a drained agent gets no slots.
func (f *Fleet) drainedError(pool string) error {
	return &plugin.Error{Class: plugin.Transient, SystemCode: plugin.SystemFull,
		Reason: "an operator has this host give its slots of " + pool + " back to the fleet, and take none",
		Hint:   f.UndoDrain() + " ends that"}
}

// notice logs what becomes of the agent's place while the store fails, err: once each.
func (f *Fleet) notice(ctx context.Context, err error) {
	var faults []MemberFault
	if d, ok := f.store.(Diagnoser); ok && err != nil && ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(ctx, diagnoseWithin)
		faults = d.Diagnose(ctx, f.keys.cluster())
		cancel()
		f.explains.Store(explaining(faults, d.Members()))
	} else if err == nil {
		f.explains.Store(nil)
	}
	f.mu.Lock()
	over := f.joined && f.fault != nil && f.cfg.Now() >= f.fenced
	tell := over && !f.passed
	f.passed = over
	was := f.faults
	f.faults = faults
	f.mu.Unlock()
	for _, m := range faults {
		if !contains(was, m) {
			f.cfg.Log.Warn("a member of etcd cannot be used", "endpoint", m.Endpoint, "fault", string(m.Fault),
				"reason", m.Reason, "hint", m.Fault.Mend())
		}
	}
	if tell {
		f.cfg.Log.Error("the fence has passed: the agent hands out no slots of the fleet until etcd answers again",
			"reason", err)
	}
}

func contains(all []MemberFault, m MemberFault) bool {
	for _, x := range all {
		if x.Endpoint == m.Endpoint && x.Fault == m.Fault {
			return true
		}
	}
	return false
}

// sayUse answers how many slots are held here. It is a help only.
func (f *Fleet) sayUse(ctx context.Context) {
	f.mu.Lock()
	me := f.me
	u := used{InUse: map[string]int64{}}
	names := make(map[string]string, len(f.names))
	for key, t := range f.names {
		names[key] = t.Pool
	}
	f.mu.Unlock()
	for key, name := range names {
		u.InUse[key] = f.cfg.InUse(name)
	}
	if me.lease == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, diagnoseWithin)
	defer cancel()
	_, _ = f.cfg.Store.Txn(ctx, &Txn{Kind: KindOperate, If: []Is{has(f.keys.agent(f.cfg.Agent), me.value)},
		Then: []Op{{Put: f.keys.used(f.cfg.Agent), Value: text(u), Lease: me.lease}}})
}

// census counts the agents that live, now and then: the more there are, the less often.
func (f *Fleet) census(ctx context.Context) {
	now := f.cfg.Now()
	f.mu.Lock()
	due := f.fault == nil && (f.censusAt == 0 || now >= f.censusAt)
	f.mu.Unlock()
	if !due {
		return
	}
	res, err := f.cfg.Store.Txn(ctx, &Txn{Kind: KindRead, Then: []Op{{Count: f.keys.agents()}}})
	if err != nil || len(res.Counted) == 0 {
		return
	}
	n := res.Counted[0]
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members, f.censusAt = n, now+max(2*f.cfg.TTL, time.Duration(n)*(time.Second/10))
}

// ring wakes who waits for c, and waits for nobody.
func ring(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
