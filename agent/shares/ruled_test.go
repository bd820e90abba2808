package shares

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// ruled is a lender with a rule that leaves this agent a slot at most. It says so where it gives fewer slots than
// asked.
type ruled struct {
	*lender
	away atomic.Bool // it cannot be asked for more
}

var byRule = &plugin.Elsewhere{Out: 3, Rule: "berlin"}

func (r *ruled) CheckOut(ctx context.Context, c *plugin.CheckOut) (*plugin.Block, error) {
	if r.total() == 1 {
		return nil, r.refusal()
	}
	one := *c
	one.Slots = 1
	got, err := r.lender.CheckOut(ctx, &one)
	if err == nil && c.Slots > 1 {
		got.Elsewhere = byRule
	}
	return got, err
}

func (r *ruled) Extend(ctx context.Context, x *plugin.Extend) (*plugin.Block, error) {
	one := *x
	one.Slots = 1
	got, err := r.lender.Extend(ctx, &one)
	if err == nil && x.Slots > 1 {
		got.Elsewhere = byRule
	}
	return got, err
}

func (r *ruled) refusal() error {
	if r.away.Load() {
		return plugin.Transiently("it is away")
	}
	return &plugin.Error{Class: plugin.Transient, SystemCode: plugin.SystemFull, Reason: "full", Elsewhere: byRule}
}

// A denial can name the rule that leaves an agent no more for as long as the agent asks in vain: neither a renewal of
// what it has, nor an upstream that is away says anything else.
func TestRuleIsKnownBetweenRenewals(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := &ruled{lender: newLender(9, 6*time.Second)}
		h := openTenant(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), r)
		h.want(2)
		time.Sleep(5 * time.Second)
		for at := range 600 {
			if at == 300 {
				r.away.Store(true)
			}
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if out, _, rule, known := h.cfg.Wants.Elsewhere("seats"); !known || rule != "berlin" || out != 3 {
				t.Fatalf("after %s: %d elsewhere, rule %q, %v", time.Duration(at)*100*time.Millisecond, out, rule,
					known)
			}
		}
		h.has(1, 1)
	})
}
