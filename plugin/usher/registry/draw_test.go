package registry_test

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"testing"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/online"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// pages is a fleet that has one meter's draws: it gives each token what was asked.
type pages struct {
	last  map[string]string // by agent
	total int64
	fails *online.Refusal
}

func (p *pages) draw(agent string, _ *enforcer.License, r *online.DrawRequest) (int64, *online.Refusal) {
	switch {
	case p.fails != nil:
		return 0, p.fails
	case p.last[agent] == r.Token:
		return r.N, nil
	case p.last[agent] != r.After:
		return 0, &online.Refusal{System: online.SystemOrder, Last: p.last[agent]}
	}
	p.last[agent] = r.Token
	p.total += r.N
	return r.N, nil
}

// drawingHost is a host that draws, with the state of that.
type drawingHost struct {
	*host
	state []byte
}

func (h *drawingHost) draw(token string, n int64) error {
	r := h.block()
	r.State = h.state
	got, err := online.NewSite(h.Client).Draw(context.Background(),
		&plugin.Draw{Request: r, Meter: "pages", N: n, Token: token})
	if err == nil {
		err = got.Check("pages", n)
		h.state = got.State
	}
	return err
}

// openPages is an office that serves a licence with a meter of a whole site, from a fleet.
func openPages(t *testing.T) (*office, *pages, []byte) {
	t.Helper()
	o, p := openOffice(t, nil), &pages{last: map[string]string{}}
	most := int64(100)
	doc := o.seats("L1", 10, func(c *usher.Claims) { c.Meters = map[string]usher.Meter{"pages": {Max: &most}} })
	o.serve(t)
	if _, err := o.ServeBroker(registry.Broker{Name: "one", Lacking: func() {}, Draw: p.draw}); err != nil {
		t.Fatal(err)
	}
	return o, p, doc
}

// A host that is not known shows its licence with its first draw; a lost answer, lost state and a restarted host draw
// nothing twice; a suspended licence draws nothing.
func TestDrawCall(t *testing.T) {
	o, p, doc := openPages(t)
	h := &drawingHost{host: o.host(doc)}
	if err := errors.Join(h.draw("1", 5), h.draw("2", 3)); err != nil || p.total != 8 {
		t.Fatalf("%v; drawn %d", err, p.total)
	}
	was := slices.Clone(h.state)
	if err := h.draw("3", 1); err != nil {
		t.Fatal(err)
	}
	h.state = was // the answer did not arrive
	if err := h.draw("3", 1); err != nil || p.total != 9 {
		t.Errorf("asked again: %v; drawn %d", err, p.total)
	}
	if h.state = nil; h.draw("4", 1) != nil || p.total != 10 {
		t.Errorf("a host that has lost its state draws on; drawn %d", p.total)
	}
	if _, err := o.Forget("L1", ""); err != nil {
		t.Fatal(err)
	}
	if err := h.draw("5", 1); err != nil || p.total != 11 {
		t.Errorf("a host that was forgotten shows its licence: %v; drawn %d", err, p.total)
	}
	for _, code := range []string{plugin.SystemAway, plugin.SystemSettling, "OTHER_PERIOD"} {
		p.fails = &online.Refusal{System: code, Reason: "x"}
		o.refused(h.draw("6", 1), plugin.Transient, "", code)
	}
	p.fails = nil
	if _, err := o.SetState("L1", registry.StateSuspended, "invoice 7"); err != nil {
		t.Fatal(err)
	}
	o.refused(h.draw("7", 1), plugin.Refused, enforcer.Suspended, "")
	if p.total != 11 {
		t.Errorf("a suspended licence has drawn %d", p.total)
	}
}

// The state of one host is no other's: two that go on from one state are told apart.
func TestDrawsOfACopy(t *testing.T) {
	o, _, doc := openPages(t)
	h := &drawingHost{host: o.host(doc)}
	if err := h.draw("1", 1); err != nil {
		t.Fatal(err)
	}
	copied := &drawingHost{host: o.hostWith(h.key, doc), state: slices.Clone(h.state)}
	if err := errors.Join(h.draw("2", 1), h.draw("3", 1)); err != nil {
		t.Fatal(err)
	}
	o.refused(copied.draw("4", 1), plugin.Refused, enforcer.AgentKeyMismatch, plugin.SystemCloned)
}

// A server without a fleet, and a licence without the meter, give no draws and say so. A stranger without the licence
// gets none, and no malformed request is taken for one.
func TestNoDraws(t *testing.T) {
	o := openOffice(t, nil)
	o.serve(t)
	h := &drawingHost{host: o.host(o.seats("L1", 10, nil))}
	o.refused(h.draw("1", 1), plugin.Misconfigured, "", plugin.SystemNoDraws)
	with, p, doc := openPages(t)
	known := &drawingHost{host: with.host(doc)}
	if err := known.draw("1", 1); err != nil {
		t.Fatal(err)
	}
	r := known.block()
	r.State = known.state
	_, err := online.NewSite(known.Client).Draw(t.Context(),
		&plugin.Draw{Request: r, Meter: "seats", N: 1, Token: rand.Text()})
	with.refused(err, plugin.Misconfigured, "", plugin.SystemNoDraws)
	for name, change := range map[string]func(*online.Request){
		"a stranger": func(q *online.Request) { q.Draw = &online.DrawRequest{Meter: "pages", N: 1, Token: "t"} },
		"no draws":   func(q *online.Request) { q.Document = string(doc) },
		"fewer than none": func(q *online.Request) {
			q.Document, q.Draw = string(doc), &online.DrawRequest{Meter: "pages", N: -1, Token: "t"}
		},
	} {
		if got := with.stranger(online.CallDraw, change); got.Refused == nil || p.total != 1 {
			t.Errorf("%s: %+v; drawn %d", name, got, p.total)
		}
	}
}
