package fleet

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Rules for hosts are one key of the store, which an operator writes and all agents read: so all agree, and a host
// without rules of its own takes nothing of a reserve. Each block says its host's name and labels. An agent that takes
// more of a pool that has rules counts all blocks of it by them, and its transaction compares the rules and that nobody
// has written a block since: what hosts have of a rule is counted from the blocks themselves, and no count can go
// wrong, whatever dies, moves or is written by an agent of an earlier version. A block that has gone meanwhile only
// leaves more free.

// rulesKey is the rules' key among the orders of operators: agents may read those, and not write them, also by roles of
// etcd that were made before there were rules. No agent's thumbprint is such a text.
const rulesKey = "!rules"

// ruling is the value of the key e/!rules.
type ruling struct {
	Rules  enforcer.SiteRules `json:"rules"`
	Digest string             `json:"digest"` // SHA-256 of the rules, base64url: by it people tell whether hosts agree
	By     string             `json:"by,omitempty"`
	At     time.Time          `json:"at"` // by the operator's clock, for people
}

// readRules reads the rules of a fleet. Rules that cannot be read, or that are wrong, are an error: nobody takes more
// slots then.
func readRules(kv KV) (enforcer.SiteRules, error) {
	r, err := read[ruling](kv, kv.Mod > 0)
	if err == nil {
		err = r.Rules.Check()
	}
	if err != nil {
		return nil, fmt.Errorf("the fleet's rules for hosts cannot be used: %w; `usher fleet rules set` mends them",
			err)
	}
	return r.Rules, nil
}

// siteUse is what hosts have of a pool by its rules, for one host.
type siteUse struct {
	rules enforcer.SiteRules
	limit enforcer.Limit
	use   enforcer.SiteUse
	own   enforcer.SiteClass
}

// room is what rules leave an agent.
type room struct {
	free int64
	rule string // that leaves it the least; empty: none does
	is   []Is   // what that rests on
}

// most returns how many of the free slots the agent may take; asked is what its ticket asks for, as [view.free] has it.
func (r *room) most(free, asked int64) int64 {
	switch free = min(free, r.free); {
	case asked < 0:
		return 0
	case asked > 0: // what it wants beyond that is behind all others
		return min(free, asked)
	}
	return free
}

// ruled counts all blocks of a pool by its rules.
func (f *Fleet) ruled(ctx context.Context, name string, a *attempt, rules enforcer.SiteRules, limit int64) (
	room, error) {
	res, err := f.cfg.Store.Txn(ctx, &Txn{Kind: KindRead, Then: []Op{{List: f.keys.blocks(name)}}})
	if err != nil {
		return room{}, f.transient(err)
	}
	u := siteUse{rules: rules, limit: enforcer.Limit(limit), own: rules.Class(f.host())}
	mine := held{Blocks: a.blocks, Former: a.v.former, Host: f.cfg.Member.Name, Labels: f.cfg.Member.Labels}
	u.count(&mine)
	for _, kv := range res.Got[0] {
		h, err := read[held](kv, true)
		if err != nil {
			return room{}, plugin.Transiently("%v", err)
		}
		if kv.Key != f.keys.block(name, f.cfg.Agent) {
			u.count(&h)
		}
	}
	f.mu.Lock()
	a.p.site = u
	f.mu.Unlock()
	var before []enforcer.SiteWant
	for _, kv := range a.v.first {
		if kv.Key == f.keys.ticket(name, f.cfg.Agent) {
			break
		}
		if t, err := read[ticket](kv, true); err == nil {
			before = append(before, enforcer.SiteWant{Class: rules.Class(&enforcer.SiteHost{Name: t.Host,
				Labels: t.Labels}), Slots: t.Slots})
		}
	}
	then := rules.After(u.limit, &u.use, before)
	out := room{is: []Is{{Prefix: f.keys.blocks(name), Unchanged: res.Rev}}}
	out.free, out.rule = rules.Room(u.limit, &then, u.own)
	return out, nil
}

// count counts an agent's blocks in.
func (u *siteUse) count(h *held) {
	u.use.Add(u.rules.Class(&enforcer.SiteHost{Name: h.Host, Labels: h.Labels}), h.own())
	for _, x := range h.Former {
		u.use.Add(u.rules.Class(&enforcer.SiteHost{Name: h.Host, Labels: x.Labels}), x.Slots)
	}
}

// helps reports whether the agent may get more once another gives slots back.
func (u *siteUse) helps(h *held) bool {
	if len(u.rules) == 0 {
		return true
	}
	return u.rules.Helps(u.limit, &u.use, u.rules.Class(&enforcer.SiteHost{Name: h.Host, Labels: h.Labels}), u.own)
}

func (f *Fleet) host() *enforcer.SiteHost {
	return &enforcer.SiteHost{Name: f.cfg.Member.Name, Labels: f.cfg.Member.Labels}
}

func (f *Fleet) ticket(n int64) ticket {
	return ticket{Slots: n, Host: f.cfg.Member.Name, Labels: f.cfg.Member.Labels}
}

// maxRuling bounds the rules in the store, in bytes.
const maxRuling = 256 << 10

// Ruled is the rules of a fleet as operators see them.
type Ruled struct {
	Rules  enforcer.SiteRules `json:"rules"`
	Digest string             `json:"digest,omitempty"`
	By     string             `json:"by,omitempty"`
	At     time.Time          `json:"at,omitzero"`
	Uses   []RuleUse          `json:"uses,omitempty"`
}

// RuleUse is what the hosts that a rule concerns have of one pool. Pool is its name in the licence, or,
// where an agent of a former version has all of its blocks, the name that keys have.
type RuleUse struct {
	Rule  string `json:"rule"`
	Pool  string `json:"pool"`
	Slots int64  `json:"slots"`
}

// Rules returns the rules in force, and what each has out.
func (o *Operator) Rules(ctx context.Context) (Ruled, error) {
	k := o.keys()
	res, err := o.Store.Txn(ctx, &Txn{Kind: KindOperate, Then: []Op{{Get: k.rules()}, {List: k.prefix + "p/"}}})
	if err != nil {
		return Ruled{}, err
	}
	kv, ok := res.one(0)
	r, err := read[ruling](kv, ok)
	if err != nil {
		return Ruled{}, err
	}
	out := Ruled{Rules: r.Rules, Digest: r.Digest, By: r.By, At: r.At}
	uses := map[RuleUse]int64{}
	for _, kv := range res.Got[1] {
		pool, rest, _ := strings.Cut(strings.TrimPrefix(kv.Key, k.prefix+"p/"), "/")
		if h, err := read[held](kv, true); err == nil && strings.HasPrefix(rest, "g/") {
			plain := cmp.Or(h.Pool, plainOf(pool))
			for i := range r.Rules {
				x := &r.Rules[i]
				if x.Of(plain) && x.Concerns(&enforcer.SiteHost{Name: h.Host, Labels: h.Labels}) {
					uses[RuleUse{Rule: x.Name, Pool: plain}] += h.sum()
				}
			}
		}
	}
	for u, n := range uses {
		u.Slots = n
		out.Uses = append(out.Uses, u)
	}
	slices.SortFunc(out.Uses, func(a, b RuleUse) int { return strings.Compare(a.Rule+a.Pool, b.Rule+b.Pool) })
	return out, nil
}

// SetRules puts rules in force in the place of the former ones, for all that agents take from then on. Agents keep
// what they have.
func (o *Operator) SetRules(ctx context.Context, rules enforcer.SiteRules) (Ruled, error) {
	if err := rules.Check(); err != nil {
		return Ruled{}, err
	}
	sum := sha256.Sum256([]byte(text(rules)))
	r := ruling{Rules: rules, Digest: base64.RawURLEncoding.EncodeToString(sum[:9]), By: o.By,
		At: o.Time().UTC().Truncate(time.Second)}
	value := text(r)
	if len(value) > maxRuling {
		return Ruled{}, fmt.Errorf("the rules have %d bytes, and may have %d", len(value), maxRuling)
	}
	if _, err := o.Store.Txn(ctx, &Txn{Kind: KindOperate, Then: []Op{{Put: o.keys().rules(), Value: value}}}); err !=
		nil {
		return Ruled{}, err
	}
	return o.Rules(ctx)
}
