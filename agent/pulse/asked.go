package pulse

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Outcome is what came of one call that somebody has asked for.
type Outcome struct {
	LicenseID string
	Call      Call          // None: no call was made in time
	Failure   *plugin.Error // nil: it has succeeded
}

// asked is a wait for what comes of the next calls.
type asked struct {
	left     map[enforcer.Ref][]Call // the calls that were made, of each licence that is not done
	outcomes []Outcome
	done     chan struct{} // closed when nothing is left
}

// Ask makes every licence's next calls at once, as Now does, and returns what came of them: once none is due any more,
// or one of each licence has failed, or ctx ends. No licence has duties where it returns none.
func (p *Pulse) Ask(ctx context.Context) []Outcome {
	a := &asked{left: map[enforcer.Ref][]Call{}, done: make(chan struct{})}
	p.mu.Lock()
	for id := range p.licences {
		a.left[id] = nil
	}
	if len(a.left) == 0 {
		p.mu.Unlock()
		return nil
	}
	p.asked = append(p.asked, a)
	p.mu.Unlock()
	p.Now()
	select {
	case <-a.done:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = slices.DeleteFunc(p.asked, func(other *asked) bool { return other == a })
	out := slices.Clone(a.outcomes)
	for id, made := range a.left {
		if len(made) == 0 {
			out = append(out, Outcome{LicenseID: id.ID()})
		}
	}
	slices.SortStableFunc(out, func(x, y Outcome) int { return cmp.Compare(x.LicenseID, y.LicenseID) })
	return out
}

// AskAgain makes the next calls due at once for the licences of a system that its upstream has refused: it may have
// changed its mind.
func (p *Pulse) AskAgain(system string) {
	p.mu.Lock()
	for id, l := range p.licences {
		if s := p.state[id]; l.System == system && s.Code != "" && s.Released.IsZero() {
			p.state[id] = s.atOnce()
			p.again[id] = p.calling[id]
		}
	}
	p.mu.Unlock()
	p.nudge()
}

// tell notes a call's outcome for those who have asked. One that was under way when they asked does not count: it is
// made again. p.mu is held.
func (p *Pulse) tell(l Licence, call Call, e *plugin.Error, now time.Time) {
	ref := l.Ref()
	if call == Deactivate || p.again[ref] {
		return
	}
	next, at := p.state[ref].Next(DutiesOf(l.License, l.Upstream.Capabilities()))
	for _, a := range p.asked {
		made, waits := a.left[ref]
		if !waits {
			continue
		}
		a.outcomes = append(a.outcomes, Outcome{l.ID, call, e})
		a.left[ref] = append(made, call)
		if e != nil || next == None || at.After(now) || slices.Contains(a.left[ref], next) {
			delete(a.left, ref)
		}
		if len(a.left) == 0 {
			close(a.done)
		}
	}
}
