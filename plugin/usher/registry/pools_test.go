package registry_test

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/plugintest"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
	"github.com/usher-agent/usher/plugin/usher/online"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// seats is a licence with so many seats for a whole site.
func (o *office) seats(id string, n int64, change func(*usher.Claims)) []byte {
	return o.sign(id, func(c *usher.Claims) {
		c.Pools = map[string]usher.Pool{"seats": {Max: &n}}
		if change != nil {
			change(c)
		}
	})
}

// block makes the request of a call for blocks.
func (h *host) block() plugin.Request {
	r := plugin.Request{LicenseID: usher.Describe(h.doc).ID, Product: "acme", Document: h.doc, State: h.chain,
		Nonce: make([]byte, 32)}
	rand.Read(r.Nonce)
	return r
}

func (h *host) checkOut(n int64) (*plugin.Block, error) {
	b, err := h.CheckOut(context.Background(),
		&plugin.CheckOut{Request: h.block(), Pool: "seats", Slots: n, AtLeast: 1, For: time.Minute, Token: rand.Text()})
	if err == nil {
		h.chain = b.State
	}
	return b, err
}

func (h *host) extend(id string, n int64) (*plugin.Block, error) {
	b, err := h.Extend(context.Background(), &plugin.Extend{Request: h.block(), Block: id, Slots: n, For: time.Minute})
	if err == nil {
		h.chain = b.State
	}
	return b, err
}

// up is the time since boot of an office: as much as its wall clock has passed.
func (o *office) serve(t *testing.T) {
	t.Helper()
	began := o.clock()
	if err := o.ServePools(10*time.Second, func() time.Duration { return o.clock().Sub(began) }); err != nil {
		t.Fatal(err)
	}
}

func TestServePools(t *testing.T) {
	run := t.TempDir()
	o := openOffice(t, func(c *registry.Config) { c.RunDir, c.BootID = run, "boot" })
	o.serve(t)
	doc := o.seats("L1", 8, nil)
	a, b := o.host(doc), o.host(doc)
	first, err := a.checkOut(6)
	if err != nil || first.Slots != 6 || first.For != 10*time.Second {
		t.Fatalf("%+v, %v", first, err)
	}
	second, err := b.checkOut(6)
	if err != nil || second.Slots != 2 {
		t.Fatalf("of what is left: %+v, %v", second, err)
	}
	_, err = b.checkOut(1)
	o.refused(err, plugin.Misconfigured, "", plugin.SystemFull)
	if x, err := a.extend(first.ID, 0); err != nil || x.Slots != 6 || x.Wanted == 0 {
		t.Errorf("extended: %+v, %v", x, err)
	}
	if all := o.OutBlocks(); len(all) != 2 || all[0].Slots+all[1].Slots != 8 || all[0].Left != 10*time.Second {
		t.Errorf("out: %+v", all)
	}
	// A restart of the server gives everything its whole time again, and gives nothing twice.
	o.pass(9 * time.Second)
	if err := o.Registry.Close(); err != nil {
		t.Fatal(err)
	}
	if o.Registry, err = registry.Open(registry.Config{Dir: o.dir, Signer: o.signer, Now: o.clock, RunDir: run,
		BootID: "boot"}); err != nil {
		t.Fatal(err)
	}
	o.serve(t)
	o.pass(9 * time.Second)
	_, err = b.checkOut(1)
	o.refused(err, plugin.Misconfigured, "", plugin.SystemFull)
	// Slots of a block that is over are another's.
	o.pass(time.Second)
	if x, err := b.checkOut(8); err != nil || x.Slots != 8 {
		t.Fatalf("after all is over: %+v, %v", x, err)
	}
	_, err = a.extend(first.ID, 0)
	o.refused(err, plugin.Misconfigured, "", plugin.SystemLapsed)
	if err := b.Return(context.Background(), &plugin.Return{Request: b.block(), Block: second.ID}); err != nil {
		t.Errorf("what is over cannot be given back: %v", err)
	}
	if _, err := o.SetState("L1", registry.StateSuspended, "invoice 7"); err != nil {
		t.Fatal(err)
	}
	_, err = a.checkOut(1)
	o.refused(err, plugin.Refused, enforcer.Suspended, "invoice 7")
}

// Heartbeats and blocks go on beside each other; of two that go on with one state of blocks the second is told so.
func TestBlocksAndCopies(t *testing.T) {
	o := openOffice(t, nil)
	o.serve(t)
	doc := o.seats("L1", 8, func(c *usher.Claims) { c.Heartbeat = &usher.Period{Every: 600} })
	a, pulse := o.host(doc), (*host)(nil)
	pulse = o.hostWith(a.key, doc)
	reply, err := pulse.ask(pulse.Activate)
	must(t, reply, err)
	x, err := a.checkOut(1)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		reply, err := pulse.ask(pulse.Heartbeat)
		must(t, reply, err)
		if _, err := a.extend(x.ID, 0); err != nil {
			t.Fatal(err)
		}
	}
	clone := o.hostWith(a.key, doc)
	clone.chain = a.chain
	for range 2 {
		if _, err := a.extend(x.ID, 0); err != nil {
			t.Fatal(err)
		}
	}
	_, err = clone.extend(x.ID, 0)
	o.refused(err, plugin.Refused, enforcer.AgentKeyMismatch, online.SystemCloned)
	// An agent that has lost its state has blocks of its own, beside those that it had.
	anew := o.hostWith(a.key, doc)
	if y, err := anew.checkOut(9); err != nil || y.ID == x.ID || y.Slots != 7 {
		t.Errorf("with no state: %+v, %v", y, err)
	}
}

// A site server signs with a key of its own. Its word counts for blocks, of the licences that name it, and for nothing
// else.
func TestSiteServer(t *testing.T) {
	private, public, err := issue.MakeKey(t.TempDir(), "site", "")
	if err != nil {
		t.Fatal(err)
	}
	own, err := issue.LoadSigner(private, "")
	if err != nil {
		t.Fatal(err)
	}
	jkt, err := issue.ThumbprintOf(public)
	if err != nil {
		t.Fatal(err)
	}
	o := openOffice(t, func(cfg *registry.Config) {
		cfg.Anchors, cfg.Signer, cfg.Site = []plugin.Anchor{cfg.Signer.Anchor}, own, true
	})
	o.serve(t)
	named := func(c *usher.Claims) { c.SiteServer = &usher.Confirmation{Thumbprint: jkt} }
	doc := o.seats("L1", 8, named)
	a := o.host(doc)
	x, err := a.checkOut(2)
	if err != nil || x.Slots != 2 {
		t.Fatalf("%+v, %v", x, err)
	}
	if _, err := a.extend(x.ID, 3); err != nil {
		t.Error(err)
	}
	_, err = a.ask(a.Activate)
	o.refused(err, plugin.Misconfigured, "", "404")
	// Its no says nothing of the licence.
	if _, err := o.SetState("L1", registry.StateRevoked, "because"); err != nil {
		t.Fatal(err)
	}
	_, err = a.checkOut(1)
	o.refused(err, plugin.Misconfigured, "", "because")
	// A licence that names another server, or none: it does not serve it, and were it to, no agent would believe it.
	for id, change := range map[string]func(*usher.Claims){"L2": nil, "L3": func(c *usher.Claims) {
		c.SiteServer = &usher.Confirmation{Thumbprint: strings.Repeat("A", 43)}
	}} {
		other := o.seats(id, 8, change)
		if _, err := o.Admit(other); !errors.Is(err, registry.ErrRefused) ||
			!strings.Contains(err.Error(), "--site-server") {
			t.Errorf("%s: %v", id, err)
		}
		_, err := o.host(other).checkOut(1)
		o.refused(err, plugin.Misconfigured, "", "403")
	}
	// It hears of a renewal from an agent, and no agent can take it back.
	renewed := o.seats("L4", 4, named)
	if _, err := o.host(renewed).checkOut(4); err != nil {
		t.Fatal(err)
	}
	larger := o.seats("L4", 6, func(c *usher.Claims) { named(c); c.Issued++ })
	if y, err := o.host(larger).checkOut(4); err != nil || y.Slots != 2 {
		t.Errorf("of the renewed licence: %+v, %v", y, err)
	}
	if y, err := o.host(renewed).checkOut(1); err == nil {
		t.Errorf("of the old one: %+v", y)
	}
}

// The native upstream is a Budgeter as the contract has it.
func TestBudgeterConforms(t *testing.T) {
	o := openOffice(t, nil)
	o.serve(t)
	doc := o.seats("L1", 8, nil)
	suspended := o.seats("L2", 8, nil)
	h := o.host(doc)
	h.doc = suspended // a stranger is told nothing of a licence
	reply, err := h.ask(h.Activate)
	must(t, reply, err)
	if _, err := o.SetState("L2", registry.StateSuspended, "x"); err != nil {
		t.Fatal(err)
	}
	h.chain = nil
	request := func(doc []byte) func() *plugin.Request {
		return func() *plugin.Request {
			h.doc = doc
			r := h.block()
			return &r
		}
	}
	for _, err := range plugintest.CheckUpstream(h.Client,
		plugintest.UpstreamSamples{Request: request(doc), Refused: request(suspended), Pool: "seats"}) {
		t.Error(err)
	}
}
