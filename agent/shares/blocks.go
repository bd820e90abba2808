package shares

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Bounds of blocks.
const (
	askFor    = time.Hour        // for how long blocks are asked; upstreams shorten it
	goneAfter = 10 * time.Second // for how long a licence that is not in force keeps its blocks
)

// blocks keeps blocks of slots, by the clock of the boot.
type blocks struct {
	ledger[*Pool]
}

// open reads the record.
func (b *blocks) open(cfg *Config, mu *sync.Mutex) (err error) {
	b.cfg, b.mu, b.file, b.encode = cfg, mu, cfg.Blocks, b.encodeRecord
	b.unkept = "the blocks of slots could not be recorded, and are lost to this agent if it restarts"
	b.make = func() *Pool { return &Pool{} }
	b.site = func(l Licence) map[string]enforcer.Limit {
		if l.Budgeter == nil {
			return nil
		}
		return l.SitePools()
	}
	b.entries, err = loadBlocks(*cfg)
	return err
}

// budgets is Keeper.Budgets. mu is held.
func (b *blocks) budgets(now time.Duration) (out, kept map[enforcer.Share]enforcer.Limit, fence time.Duration) {
	out = map[enforcer.Share]enforcer.Limit{}
	for ref, e := range b.entries {
		for name, p := range e.plans {
			n, until := p.have(now)
			if n == 0 && (p.refused || !e.named) {
				continue
			}
			out[enforcer.Share{License: ref, Pool: name}] = enforcer.Limit(n)
			stay, end, bounded := p.keeps(now)
			if bounded {
				if kept == nil {
					kept = map[enforcer.Share]enforcer.Limit{}
				}
				kept[enforcer.Share{License: ref, Pool: name}] = enforcer.Limit(stay)
			}
			for _, at := range []time.Duration{until, end} {
				if at != 0 && (fence == 0 || at < fence) {
					fence = at
				}
			}
		}
	}
	return out, kept, fence
}

// lapse forgets the blocks that are over, and what there is nothing left to keep of. It reports whether any was over.
// mu is held.
func (b *blocks) lapse(now time.Duration) (lapsed bool) {
	for ref, e := range b.entries {
		left := 0
		for name, p := range e.plans {
			lapsed = p.lapse(now) || lapsed
			left += len(p.Blocks)
			if len(p.Blocks) == 0 && p.total == 0 {
				delete(e.plans, name)
			}
		}
		if left == 0 && e.calling == "" && (!e.named || e.goneAt != 0 && now-e.goneAt > goneAfter) {
			delete(b.entries, ref)
		}
	}
	return lapsed
}

// due is ledger.due of blocks. mu is held.
func (b *blocks) due(now time.Duration) (calls []func(context.Context), wait time.Duration) {
	return b.ledger.due(now, func(s subject[*Pool]) (func(context.Context), time.Duration) {
		gone := s.goneAt != 0
		if at := s.goneAt + goneAfter; gone && now < at {
			return nil, at
		}
		var d PoolDemand // nothing is handed out on the word of a licence that is not in force
		if !gone {
			d = b.cfg.Pool(s.name)
		}
		step, again := s.plan.Next(now, d, gone)
		if step == nil {
			return nil, again
		}
		return func(ctx context.Context) { b.do(ctx, s, step) }, 0
	})
}

// do carries one step out, and reports whether it went well. mu is not held.
func (b *blocks) do(ctx context.Context, s subject[*Pool], step *Step) bool {
	if step.Kind == Reduce {
		return b.reduce(s, step)
	}
	b.mu.Lock()
	late := behind(s.entry)
	tell := s.plan.takeAsked(s.licence.License, s.name, step)
	b.mu.Unlock()
	if late && !b.save(nil) {
		b.mu.Lock()
		s.plan.unrecorded(step, b.cfg.Now())
		tell(b.cfg.Now(), plugin.Transiently("%s cannot be written", b.file.Path))
		b.mu.Unlock()
		return false
	}
	b.mu.Lock()
	token := ""
	if step.Kind == CheckOut {
		token = s.plan.openToken(step)
	}
	s.plan.freed = false
	licence, state, within := s.licence, s.state, s.plan.callWithin(b.cfg.CallWithin)
	more := step.Kind == CheckOut || step.Kind == Extend && step.Slots > s.plan.size(step.Block)
	b.mu.Unlock()
	sent := b.cfg.Now()
	var got *plugin.Block
	failed := b.call(ctx, string(step.Kind), licence, state, within, func(ctx context.Context, r plugin.Request) error {
		var err error
		got, err = send(ctx, licence.Budgeter, r, s.name, step, token)
		return err
	})
	switch {
	case !more: // the answer says nothing of slots that the agent has not asked for
	case failed != nil && failed.SystemCode == plugin.SystemFull:
		b.cfg.Wants.elsewhere(s.name, failed.Elsewhere, knownFor)
	case failed == nil:
		b.cfg.Wants.elsewhere(s.name, got.Elsewhere, knownFor)
	}
	b.mu.Lock()
	if more {
		delete(s.watch.stated, s.name) // what the upstream was told to be idle is needed
	}
	otherwise := false
	if more {
		s.plan.failing = failed != nil && !answered(failed)
	}
	giver := b.cfg.Giver(s.name)
	if failed != nil || !b.fails(s.entry, giver) {
		s.heard(giver, failed, b.cfg.Time())
	}
	if failed != nil {
		otherwise = b.failed(s, step, failed)
	} else {
		if !b.fails(s.entry, giver) {
			s.fault = ""
		}
		if step.Kind != Return {
			s.state = got.State
		}
		s.plan.answered(step, got, sent, b.cfg.Now(), b.cfg.Jitter())
	}
	if s.plan.freed { // the answer may not have known of it yet
		s.plan.notBefore = b.cfg.Now()
	}
	tell(b.cfg.Now(), failed)
	b.mu.Unlock()
	if otherwise {
		b.cfg.Log.Warn("the upstream gave no slots; retrying", "call", step.Kind, "licence", licence.ID, "class",
			failed.Class, "reason", failed.Reason, "hint", failed.Hint)
	}
	b.save(nil)
	b.cfg.OnChange()
	return failed == nil
}

// send makes the call of a step. got is nil for Return.
func send(ctx context.Context, u plugin.Budgeter, r plugin.Request, pool string, s *Step, token string) (
	got *plugin.Block, err error) {
	switch s.Kind {
	case CheckOut:
		got, err = u.CheckOut(ctx, &plugin.CheckOut{Request: r, Pool: pool, Slots: s.Slots, AtLeast: 1, For: askFor,
			Token: token, Ahead: s.Ahead})
		if err == nil {
			err = got.Check(pool, s.Slots, 1, askFor)
		}
	case Extend:
		got, err = u.Extend(ctx, &plugin.Extend{Request: r, Block: s.Block, Slots: s.Slots, For: askFor,
			Ahead: s.Ahead})
		if err == nil {
			err = got.Check("", 0, 1, askFor)
		}
	default:
		err = u.Return(ctx, &plugin.Return{Request: r, Block: s.Block})
	}
	return got, err
}

// failed takes note of a call that failed, and reports whether that is to be logged. mu is held.
func (b *blocks) failed(s subject[*Pool], step *Step, err *plugin.Error) (otherwise bool) {
	if err.SystemCode != plugin.SystemFull {
		otherwise = s.failsOtherwise(err)
	}
	if err.SystemCode == plugin.SystemCloned {
		// Another goes on with this agent's state, and with its blocks: begin with neither.
		s.state = nil
		for _, p := range s.plans {
			p.Blocks = nil
		}
	}
	s.plan.failed(step, b.cfg.Now(), err, b.cfg.Jitter())
	return otherwise
}

// reduce takes slots out of use here, so that they can be given back; what has come into use meanwhile stays. mu is not
// held.
func (b *blocks) reduce(s subject[*Pool], step *Step) bool {
	b.mu.Lock()
	x := s.plan.block(step.Block)
	if x == nil {
		b.mu.Unlock()
		return false
	}
	was, gone := x.Use, s.goneAt != 0
	b.mu.Unlock()
	// A restarted agent must not hand out what this one has given back.
	if !b.save(func() (undo func()) {
		x.Use = step.Slots
		return func() { x.Use = was }
	}) {
		b.mu.Lock()
		s.plan.unrecorded(step, b.cfg.Now())
		b.mu.Unlock()
		return false
	}
	b.cfg.OnChange()
	if gone {
		return true
	}
	d := b.cfg.Pool(s.name)
	b.mu.Lock()
	undo := d.InUse > d.Capacity
	if undo {
		x.Use = was
		s.plan.peak, s.plan.peakAt = max(s.plan.peak, d.InUse), b.cfg.Now()
	} else if have, _ := s.plan.have(b.cfg.Now()); have == 0 {
		s.plan.resting = true
	}
	b.mu.Unlock()
	if undo {
		b.save(nil)
		b.cfg.OnChange()
	}
	return !undo
}

// fails reports whether more is needed of a licence's pools that a giver does not give: that it proves the blocks
// that there are is no end of that. mu is held.
func (b *blocks) fails(e *entry[*Pool], giver string) bool {
	for name, p := range e.plans {
		if p.failing && b.cfg.Giver(name) == giver {
			return true
		}
	}
	return false
}

// behind reports whether a restarted agent would hand out more of a licence's blocks than this one does. The upstream
// must not hear of the smaller size before that is mended: it gives the rest to others. mu is held.
func behind(e *entry[*Pool]) bool {
	for _, p := range e.plans {
		if slices.ContainsFunc(p.Blocks, func(x *Block) bool { return x.kept > x.Use }) {
			return true
		}
	}
	return false
}

// close gives back what is not in use, as far as the upstream answers. mu is not held.
func (b *blocks) close(ctx context.Context) {
	b.mu.Lock()
	var all []subject[*Pool]
	for _, ref := range b.refs() {
		for name, p := range b.entries[ref].plans {
			if e := b.entries[ref]; e.named {
				p.missedUntil = 0
				all = append(all, subject[*Pool]{e, name, p})
			}
		}
	}
	b.mu.Unlock()
	for _, s := range all {
		for ctx.Err() == nil {
			d := b.cfg.Pool(s.name)
			b.mu.Lock()
			s.plan.lapse(b.cfg.Now())
			step, _ := s.plan.Next(b.cfg.Now(), d, true)
			b.mu.Unlock()
			if step == nil || !b.do(ctx, s, step) {
				break
			}
		}
	}
}
