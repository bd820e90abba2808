package shares

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Outcome is what came of a call about a pool that an operator asked for.
type Outcome struct {
	LicenseID, Pool string
	Call            Kind  // CheckOut or Extend; empty: none was made in time
	Have            int64 // slots that may be handed out here after it
	Failure         *plugin.Error
}

// Answered reports whether the upstream gave its signed answer: slots, or that it has none to give.
func (o Outcome) Answered() bool { return o.Call != "" && (o.Failure == nil || answered(o.Failure)) }

// Ask has each pool of a licence in force called about at once, whatever its plan says: for more time where the agent
// has slots of it, else for a slot. It waits for the answers until ctx ends. Draws are not asked for: they never come
// back. Nor is a pool of which the agent has none while it drains.
func (k *Keeper) Ask(ctx context.Context) (out []Outcome) {
	var answers []chan Outcome
	k.mu.Lock()
	for _, ref := range k.blocks.refs() {
		e := k.blocks.entries[ref]
		if !e.inForce() {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(e.plans)) {
			p := e.plans[name]
			if p.total > 0 && (len(p.Blocks) > 0 || !k.cfg.Pool(name).Draining) {
				answer := make(chan Outcome, 1)
				p.asked = append(p.asked, answer)
				answers = append(answers, answer)
				out = append(out, Outcome{LicenseID: e.licence.ID, Pool: name})
			}
		}
	}
	k.mu.Unlock()
	k.Nudge()
	for i, answer := range answers {
		select {
		case out[i] = <-answer:
		case <-ctx.Done():
		}
	}
	return out
}

// onDemand returns the step that an operator has asked for; nil: none is, or it comes after one that the plan has
// begun. A pool that drains takes no new slots.
func (p *Pool) onDemand(now time.Duration, have, need int64, draining bool) *Step {
	if len(p.asked) == 0 {
		return nil
	}
	if i := slices.IndexFunc(p.Blocks, func(b *Block) bool { return b.Use > 0 && b.Use == b.Slots }); i >= 0 {
		return &Step{Kind: Extend, Block: p.Blocks[i].ID, Slots: p.Blocks[i].Slots}
	}
	if draining || len(p.Blocks) > 0 {
		return nil
	}
	if s := p.grow(now, have, need); s != nil {
		return s
	}
	return &Step{Kind: CheckOut, Slots: 1, Ahead: 1}
}

// takeAsked returns what tells the operators that wait what comes of a step; a step that gives slots back is none that
// they asked for. mu is held.
func (p *Pool) takeAsked(licence *enforcer.License, name string, step *Step) (tell func(now time.Duration,
	failed *plugin.Error)) {
	if step.Kind != CheckOut && step.Kind != Extend {
		return func(time.Duration, *plugin.Error) {}
	}
	asked := p.asked
	p.asked = nil
	return func(now time.Duration, failed *plugin.Error) {
		have, _ := p.have(now)
		for _, answer := range asked {
			answer <- Outcome{LicenseID: licence.ID, Pool: name, Call: step.Kind, Have: have, Failure: failed}
		}
	}
}
