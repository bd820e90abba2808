package plugintest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// UpstreamSamples is what an upstream is tried with.
type UpstreamSamples struct {
	// Request is about a licence that the remote side knows and finds good. It is made anew for each call.
	Request func() *plugin.Request
	Pool    string // of which Budgeters have slots: at least 2
	// Refused is about a licence that the remote side refuses; nil: none is tried.
	Refused func() *plugin.Request
}

type upstreamCheck struct {
	*faults
	upstream plugin.Upstream
	samples  UpstreamSamples
}

// CheckUpstream returns each promise that an upstream does not keep: see [plugin.Upstream].
func CheckUpstream(u plugin.Upstream, s UpstreamSamples) []error {
	out := &faults{}
	c := &upstreamCheck{out, u, s}
	if err := plugin.CheckName(u.System()); err != nil {
		out.add("its name: %w", err)
	}
	can := u.Capabilities()
	if can != u.Capabilities() {
		out.add("its capabilities change")
	}
	b, budget := u.(plugin.Budgeter)
	if can.Budget && !budget {
		out.add("it says that it has budget, and is no Budgeter")
	}
	type call func(context.Context, *plugin.Request) (*plugin.Reply, error)
	for _, k := range []struct {
		name string
		can  bool
		call call
	}{{"activate", can.Activate, u.Activate}, {"heartbeat", can.Heartbeat, u.Heartbeat}, {"check in", can.CheckIn, u.CheckIn}, {"deactivate", can.Deactivate, u.Deactivate}} {
		if k.can {
			out.intime(k.name, func() { c.call(k.name, k.call) })
		}
	}
	if can.Budget && budget {
		if can.Activate {
			_, _ = u.Activate(context.Background(), s.Request()) // tried above
		}
		out.intime("budget", func() { c.budget(b) })
	}
	return *out
}

func (c *upstreamCheck) call(name string, call func(context.Context, *plugin.Request) (*plugin.Reply, error)) {
	for _, again := range []string{"", ", again"} { // a lost answer is asked for once more
		r := c.samples.Request()
		before := c.samples.Request()
		reply, err := call(context.Background(), r)
		if err != nil {
			c.add("%s%s: %w", name, again, err)
			continue
		}
		if err := reply.Check(time.Now()); err != nil {
			c.add("%s%s: %w", name, again, err)
		}
		if r.Nonce, before.Nonce = nil, nil; !reflect.DeepEqual(r, before) {
			c.add("%s%s: the request was changed", name, again)
		}
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := call(gone, c.samples.Request()); err == nil {
		c.add("%s: it succeeds though its context has ended", name)
	}
	if c.samples.Refused != nil {
		_, err := call(context.Background(), c.samples.Refused())
		c.refusal(name, err)
	}
}

func (c *upstreamCheck) refusal(name string, err error) {
	e := (*plugin.Error)(nil)
	switch {
	case err == nil:
		c.add("%s: what is to be refused succeeds", name)
	case !errors.As(err, &e):
		c.add("%s: the refusal is a %T and not an error of the contract", name, err)
	case e.Class != plugin.Refused:
		c.add("%s: the refusal is %s", name, e.Class)
	case *e.Checked() != *e:
		c.add("%s: the refusal's code or text cannot be: %v", name, e)
	}
}

func (c *upstreamCheck) budget(b plugin.Budgeter) {
	ctx := context.Background()
	token := fmt.Sprint(time.Now().UnixNano())
	ask := func(n int64, token string) (*plugin.Block, error) {
		return b.CheckOut(ctx, &plugin.CheckOut{Request: *c.samples.Request(), Pool: c.samples.Pool, Slots: n, For: time.Minute, Token: token})
	}
	first, err := ask(1, token)
	if err != nil {
		c.add("check out: %w", err)
		return
	}
	if err := first.Check(c.samples.Pool, 1, 1, time.Minute); err != nil {
		c.add("check out: %w", err)
	}
	if again, err := ask(1, token); err != nil || again.ID != first.ID {
		c.add("check out, again with the same token: another block, or %v", err)
	}
	second, err := ask(1, token+"b")
	if err != nil || second.ID == first.ID {
		c.add("check out, with another token: the same block, or %v", err)
	}
	longer, err := b.Extend(ctx, &plugin.Extend{Request: *c.samples.Request(), Block: first.ID, For: time.Minute})
	if err == nil {
		err = longer.Check(c.samples.Pool, 0, 1, time.Minute)
	}
	if err != nil || longer.ID != first.ID {
		c.add("extend: another block, or %v", err)
	}
	blocks := []string{first.ID, first.ID} // a lost answer is asked for once more
	if second != nil {
		blocks = append(blocks, second.ID)
	}
	for _, id := range slices.Sorted(slices.Values(blocks)) {
		if err := b.Return(ctx, &plugin.Return{Request: *c.samples.Request(), Block: id}); err != nil {
			c.add("return: %w", err)
		}
	}
	if _, err := ask(1<<40, token+"c"); err == nil {
		c.add("check out: more slots than there can be are given")
	}
}
