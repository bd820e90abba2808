package plugintest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// UpstreamSamples is the material for trying an upstream.
type UpstreamSamples struct {
	// Request is about a licence that the remote side knows and finds good. Each call makes a new one. The suite sets
	// nonce and, once a reply has brought one, state.
	Request func() *plugin.Request
	Pool    string // a pool of which Budgeters have slots: at least 2; empty: budget is not tried
	Meter   string // a meter of which Drawers have draws: at least 3; empty: draws are not tried
	// Refused is about a licence that the remote side refuses; nil: none is tried.
	Refused func() *plugin.Request
	// Away is the same upstream with a remote side that takes calls and never answers; nil: not tried.
	Away plugin.Upstream
	// Now is the remote side's clock; nil: time.Now.
	Now func() time.Time
}

type upstreamCheck struct {
	*faults
	upstream plugin.Upstream
	samples  UpstreamSamples
	state    []byte // of the last reply
}

type upstreamCall struct {
	name string
	can  bool
	call func(context.Context, *plugin.Request) (*plugin.Reply, error)
}

func callsOf(u plugin.Upstream) []upstreamCall {
	can := u.Capabilities()
	return []upstreamCall{{"activate", can.Activate, u.Activate}, {"heartbeat", can.Heartbeat, u.Heartbeat},
		{"check in", can.CheckIn, u.CheckIn}, {"deactivate", can.Deactivate, u.Deactivate}}
}

// CheckUpstream returns each promise that an upstream does not keep: see [plugin.Upstream].
func CheckUpstream(u plugin.Upstream, s UpstreamSamples) []error {
	if s.Now == nil {
		s.Now = time.Now
	}
	out := &faults{}
	c := &upstreamCheck{faults: out, upstream: u, samples: s}
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
	for _, k := range callsOf(u) {
		if k.can {
			out.intime(k.name, func() { c.call(k) })
		}
	}
	if can.Activate && can.Deactivate {
		out.intime("activate", func() { c.good("activate, after deactivate", u.Activate, c.request()) })
	}
	if can.Budget && budget && s.Pool != "" {
		out.intime("budget", func() { c.budget(b) })
	}
	if d, ok := u.(plugin.Drawer); ok && s.Meter != "" {
		out.intime("draw", func() { c.draw(d) })
	}
	if s.Away != nil {
		for _, k := range callsOf(s.Away) {
			if k.can {
				out.intime(k.name+", unanswered", func() { c.unanswered(k) })
			}
		}
	}
	return *out
}

func (c *upstreamCheck) draw(d plugin.Drawer) {
	token := fmt.Sprint("d", time.Now().UnixNano())
	was := c.state
	c.state = nil // draws have a chain of states of their own
	defer func() { c.state = was }()
	ask := func(n int64, token string, again bool) (*plugin.Drawn, error) {
		return d.Draw(context.Background(),
			&plugin.Draw{Request: *c.request(), Meter: c.samples.Meter, N: n, Token: token, Again: again})
	}
	var said []byte
	// the first answer is lost, so that the second request knows as much as the first
	for _, again := range []bool{false, true} {
		got, err := ask(2, token, again)
		if err != nil || got.Meter != c.samples.Meter || got.N != 2 {
			c.add("draw, again with the same token %t: %+v, %v", again, got, err)
			continue
		}
		said = got.State
	}
	c.state = said
	if got, err := ask(1, token+"b", false); err != nil || got.N != 1 {
		c.add("draw, with another token: %+v, %v", got, err)
	}
	if _, err := ask(1<<40, token+"c", false); err == nil {
		c.add("draw: more than there can be is given")
	}
}

// request is the next request, as the agent makes it.
func (c *upstreamCheck) request() *plugin.Request {
	r := c.samples.Request()
	r.Nonce = make([]byte, 32)
	rand.Read(r.Nonce) // never fails: see crypto/rand
	if c.state != nil {
		r.State = c.state
	}
	return r
}

// good makes a call that must succeed, and keeps the state that it brings.
func (c *upstreamCheck) good(name string, call func(context.Context, *plugin.Request) (*plugin.Reply, error),
	r *plugin.Request) {
	before := c.samples.Request()
	before.State, before.Nonce = slices.Clone(r.State), slices.Clone(r.Nonce)
	reply, err := call(context.Background(), r)
	if !reflect.DeepEqual(r, before) {
		c.add("%s: the request was changed", name)
	}
	if err != nil {
		c.add("%s: %w", name, err)
		return
	}
	if err := reply.Check(c.samples.Now()); err != nil {
		c.add("%s: %w", name, err)
		return
	}
	if d := reply.Time.Sub(c.samples.Now()).Abs(); !reply.Time.IsZero() && d > time.Hour {
		c.add("%s: its time is off by %v: only a time that was signed for this request may be told", name,
			enforcer.Span(d))
	}
	if reply.State != nil {
		c.state = reply.State
	}
}

func (c *upstreamCheck) call(k upstreamCall) {
	first := c.request()
	c.good(k.name, k.call, first)
	// The answer was lost on the way; the suite asks again with what it knew before.
	again := c.request()
	again.State = first.State
	c.good(k.name+", again", k.call, again)
	c.good(k.name+", once more", k.call, c.request())

	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := k.call(gone, c.request()); err == nil {
		c.add("%s: it succeeds though its context has ended", k.name)
	}
	// An answer that may be an old one proves no time.
	bare := c.request()
	bare.Nonce = nil
	if reply, err := k.call(context.Background(), bare); err == nil && reply != nil {
		if !reply.Time.IsZero() {
			c.add("%s: it tells a time for a request without a nonce: anybody on the way could have kept it",
				k.name)
		}
		if reply.State != nil {
			c.state = reply.State
		}
	}
	// a host without a place has none to give back, and hears no more
	if c.samples.Refused != nil && k.name != "deactivate" {
		_, err := k.call(context.Background(), c.samples.Refused())
		c.refusal(k.name, err)
	}
}

// unanswered makes a call whose time is up before the answer.
func (c *upstreamCheck) unanswered(k upstreamCall) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := k.call(ctx, c.request())
	e := (*plugin.Error)(nil)
	switch {
	case err == nil:
		c.add("%s, unanswered: it succeeds", k.name)
	case errors.As(err, &e) && e.Class != plugin.Transient:
		c.add("%s, unanswered: the error is %s, though nobody has spoken and nothing is wrong here", k.name, e.Class)
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
		c.add("%s: the refusal's code or text is impossible: %v", name, e)
	}
}

func (c *upstreamCheck) budget(b plugin.Budgeter) {
	ctx := context.Background()
	was := c.state
	c.state = nil // blocks have a chain of states of their own
	defer func() { c.state = was }()
	told := func(b *plugin.Block, err error) (*plugin.Block, error) {
		if err == nil && b.State != nil {
			c.state = b.State
		}
		return b, err
	}
	token := fmt.Sprint(time.Now().UnixNano())
	ask := func(n int64, token string) (*plugin.Block, error) {
		return told(b.CheckOut(ctx,
			&plugin.CheckOut{Request: *c.request(), Pool: c.samples.Pool, Slots: n, For: time.Minute, Token: token}))
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
	longer, err := told(b.Extend(ctx, &plugin.Extend{Request: *c.request(), Block: first.ID, For: time.Minute}))
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
		if err := b.Return(ctx, &plugin.Return{Request: *c.request(), Block: id}); err != nil {
			c.add("return: %w", err)
		}
	}
	if _, err := ask(1<<40, token+"c"); err == nil {
		c.add("check out: more slots than there can be are given")
	}
}
