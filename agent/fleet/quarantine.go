package fleet

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// identity is the value of the key c: which store this is. A copy of the store that was restored has another cluster
// id, or an earlier revision, than what it says and what agents have seen of it.
type identity struct {
	Epoch   string `json:"epoch"`
	Cluster uint64 `json:"cluster"`
}

// quarantine is the value of the key q.
type quarantine struct {
	Epoch  string `json:"epoch"`
	Reason string `json:"reason"`
}

// sane looks whether the store is the one that agents know. If it is a new one, or an old copy of itself, it may not
// know of blocks that agents have: then a quarantine begins, of one lease's time, in which agents state their blocks
// again and nobody gets more. An agent that does not has reached its fence by then. res has the key c first; was is
// what had been seen of the store before the call: the answer to another may have come first.
func (f *Fleet) sane(ctx context.Context, res *Result, was seen) error {
	kv, there := res.one(0)
	is, err := read[identity](kv, there)
	if err != nil {
		return plugin.Transiently("%v", err)
	}
	var reason string
	switch {
	case !there:
		reason = "the store has no fleet yet"
	case is.Cluster != res.Cluster:
		reason = "the store was restored from a backup: its cluster is another one"
	case is.Epoch == was.Epoch && res.Rev < was.Rev:
		reason = "the store was restored from a backup: its revision is earlier than one that was seen"
	}
	if reason == "" {
		f.note(is.Epoch, res.Rev)
		return nil
	}
	is.Cluster = res.Cluster
	return f.quarantine(ctx, kv, is, reason)
}

// quarantine begins one.
func (f *Fleet) quarantine(ctx context.Context, kv KV, is identity, reason string) error {
	is.Epoch = rand.Text()
	res, err := f.cfg.Store.Txn(ctx, &Txn{Kind: KindQuarantine, Then: []Op{{Get: f.keys.longest()}}})
	if err != nil {
		return f.transient(err)
	}
	most, err := read[longest](res.one(0))
	if err != nil {
		return plugin.Transiently("%v", err)
	}
	f.mu.Lock()
	lasts := time.Duration(max(most.TTL, f.seen.TTL, f.span().Seconds()) * float64(time.Second))
	f.mu.Unlock()
	lease, _, err := f.cfg.Store.Grant(ctx, lasts)
	if err != nil {
		return f.transient(err)
	}
	res, err = f.cfg.Store.Txn(ctx, &Txn{Kind: KindQuarantine, If: []Is{still(f.keys.cluster(), kv.Mod)}, Then: []Op{
		{Put: f.keys.cluster(), Value: text(is)},
		{Put: f.keys.quarantine(), Value: text(quarantine{is.Epoch, reason}), Lease: lease}}})
	if err != nil {
		return f.transient(err)
	}
	if !res.Done { // another agent has begun it
		return plugin.Transiently("%s; another agent has seen it too", reason)
	}
	f.cfg.Log.Warn("nobody gets more slots of the fleet until all agents have stated theirs", "reason", reason,
		"for", lasts)
	f.note(is.Epoch, res.Rev)
	return nil
}

// note takes note of what was seen of the store. After another epoch, every pool's blocks are stated again before the
// fence is over: later others may have had them, before the store became an old copy or since.
func (f *Fleet) note(epoch string, rev int64) {
	now := f.cfg.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen.Epoch != epoch {
		for _, p := range f.pools {
			p.mod = 0
			if p.known, p.view = false, nil; !p.restate {
				p.restate, p.vouched = true, f.until
			}
			clear(p.gone)
		}
		f.seen, f.marks = seen{Epoch: epoch, TTL: f.seen.TTL}, nil
	}
	f.seen.Rev = max(f.seen.Rev, rev)
	f.mark(rev, now)
}

// settling is the answer while a quarantine lasts.
func settling(q quarantine, ttl time.Duration) *plugin.Error {
	return &plugin.Error{Class: plugin.Transient, SystemCode: plugin.SystemSettling, RetryAfter: ttl / 4,
		Reason: "the fleet gives no more slots for a moment: " + q.Reason}
}
