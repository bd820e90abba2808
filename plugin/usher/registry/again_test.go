package registry_test

import (
	"context"
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/online"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// anew activates a host that has lost what the upstream said, as after its state folder was emptied.
func (h *host) anew() error {
	h.chain, h.n = nil, h.n+1
	fresh := h.o.hostWith(h.key, h.doc) // another process: another attempt
	fresh.n = h.n
	_, err := fresh.ask(fresh.Activate)
	h.chain, h.n = fresh.chain, fresh.n
	return err
}

// Copies of a host that forget what the upstream said before each call look like a host that was set up again: that is
// counted, and refused beyond what the licence allows.
func TestCopiesThatForget(t *testing.T) {
	for _, test := range []struct {
		term   *usher.Reactivations
		max    int
		window time.Duration
	}{{nil, 3, 30 * 24 * time.Hour}, {&usher.Reactivations{Max: 1, Within: 3600}, 1, time.Hour},
		{&usher.Reactivations{Max: 0, Within: 60}, 0, time.Minute}} {
		o := openOffice(t, nil)
		a := o.host(o.sign("L1", func(c *usher.Claims) { c.Reactivations = test.term }))
		reply, err := a.ask(a.Activate)
		must(t, reply, err)
		b := o.hostWith(a.key, a.doc)
		b.n = 100
		for i := range test.max {
			o.pass(test.window / 20)
			if err := []*host{b, a}[i%2].anew(); err != nil {
				t.Fatalf("%v: start %d of %d: %v", test.term, i+1, test.max, err)
			}
		}
		for range 3 {
			for _, h := range []*host{a, b} {
				o.pass(time.Second)
				o.refused(h.anew(), plugin.Refused, enforcer.AgentKeyMismatch, online.SystemAnew)
			}
		}
		got := o.hosts("L1")[0]
		if len(got.Anew) != test.max || got.Barred.IsZero() {
			t.Errorf("%v: the operator is told of %d, barred at %v", test.term, len(got.Anew), got.Barred)
		}
		// In time it is forgotten, and an operator can forgive at once.
		if test.max > 0 {
			o.pass(test.window + time.Second)
			if err := a.anew(); err != nil {
				t.Errorf("%v: after its time: %v", test.term, err)
			}
		}
		o.pass(time.Second)
		if n, err := o.Forgive("L1", got.AgentKey[:10]); err != nil || n != 1 {
			t.Fatalf("%d, %v", n, err)
		}
		if err := a.anew(); err != nil {
			t.Errorf("%v: after it was forgiven: %v", test.term, err)
		}
	}
}

// Giving the place up and taking it again gains a copy nothing.
func TestReleaseForgetsNothing(t *testing.T) {
	o := openOffice(t, nil)
	a := o.host(o.sign("L1", nil))
	for i := range 6 {
		o.pass(time.Minute)
		err := a.anew()
		if (err == nil) != (i < 4) {
			t.Errorf("start %d: %v", i, err)
		}
		if err == nil {
			_, err = a.ask(a.Deactivate)
		}
		if err != nil && i < 4 {
			t.Fatal(err)
		}
	}
	// A host that shows the chain of its last answer has not lost it.
	b := o.host(a.doc)
	for range 6 {
		o.pass(time.Minute)
		reply, err := b.ask(b.Activate)
		must(t, reply, err)
		before := b.chain
		reply, err = b.ask(b.Deactivate)
		must(t, reply, err)
		b.chain = before
	}
}

// An activation whose answers are lost is one, however often it is tried.
func TestLostActivations(t *testing.T) {
	o := openOffice(t, nil)
	h := o.host(o.sign("L1", nil))
	for range 20 {
		o.pass(time.Minute)
		reply, err := h.lose()
		if err == nil {
			t.Fatalf("%+v", reply)
		}
	}
	o.pass(time.Minute)
	reply, err := h.ask(h.Activate)
	must(t, reply, err)
	if n := len(o.hosts("L1")[0].Anew); n > 1 {
		t.Errorf("it counts as %d starts", n)
	}
}

// Two hosts with fingerprints of their own under one key are told apart, whether or not they share what the upstream
// said.
func TestFingerprintsInTurn(t *testing.T) {
	prints := []map[string][]string{{"machine_id": {"a"}, "dmi": {"a"}, "mac": {"a", "b"}},
		{"machine_id": {"b"}, "dmi": {"b"}, "mac": {"c"}}}
	for _, shared := range []bool{true, false} {
		o := openOffice(t, nil)
		doc := string(o.sign("L1", nil))
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		chain, refused := "", 0
		for i := range 12 {
			o.pass(time.Minute)
			call := online.CallHeartbeat
			if i == 0 || !shared {
				call, chain = online.CallActivate, ""
			}
			got := o.say(key, call, func(r *online.Request) {
				r.Chain, r.Document, r.Components = chain, doc, prints[i%2]
			})
			if got.Refused != nil {
				if refused++; got.Refused.System != online.SystemCloned ||
					got.Refused.Code != string(enforcer.AgentKeyMismatch) {
					t.Errorf("shared %v: %+v", shared, got.Refused)
				}
				continue
			}
			chain = got.Chain
		}
		if refused < 4 {
			t.Errorf("shared %v: %d of 12 calls of two hosts in turn were refused", shared, refused)
		}
		if o.hosts("L1")[0].ClonedAt.IsZero() {
			t.Errorf("shared %v: the operator is told nothing", shared)
		}
	}
	// A host whose parts change one by one stays one.
	o := openOffice(t, nil)
	doc := string(o.sign("L1", nil))
	_, key, _ := ed25519.GenerateKey(nil)
	chain, parts := "", map[string][]string{"machine_id": {"1"}, "dmi": {"1"}, "mac": {"1"}, "disk": {"1"}}
	for i, part := range []string{"mac", "disk", "mac", "dmi", "mac", "disk", "machine_id", "mac", "mac", "mac"} {
		o.pass(time.Minute)
		parts[part] = []string{string(rune('2' + i%2))}
		call := online.CallHeartbeat
		if i == 0 {
			call = online.CallActivate
		}
		got := o.say(key, call, func(r *online.Request) { r.Chain, r.Document, r.Components = chain, doc, parts })
		if got.Refused != nil {
			t.Fatalf("change %d: %+v", i, got.Refused)
		}
		chain = got.Chain
	}
}

// Once a copy was seen, a host that has lost its state cannot be told from it.
func TestCopyThatForgetsLater(t *testing.T) {
	o := openOffice(t, nil)
	h := o.host(o.sign("L1", nil))
	reply, err := h.ask(h.Activate)
	must(t, reply, err)
	copied := o.hostWith(h.key, h.doc)
	copied.chain, copied.n = h.chain, 100
	for range 2 {
		o.pass(time.Second)
		reply, err = h.ask(h.Heartbeat)
		must(t, reply, err)
	}
	o.pass(time.Second)
	_, err = copied.ask(copied.Heartbeat)
	o.refused(err, plugin.Refused, enforcer.AgentKeyMismatch, online.SystemCloned)
	o.refused(copied.anew(), plugin.Refused, enforcer.AgentKeyMismatch, online.SystemCloned)
	o.pass(time.Second)
	reply, err = h.ask(h.Heartbeat) // the one that has the chain goes on
	must(t, reply, err)
}

// A known key that shows no chain has no other way than to be activated again, which is counted.
func TestNoChainNoAnswer(t *testing.T) {
	o := openOffice(t, nil)
	o.serve(t)
	h := o.host(o.seats("L1", 5, nil))
	reply, err := h.ask(h.Activate)
	must(t, reply, err)
	for _, call := range []string{online.CallHeartbeat, online.CallCheckIn, online.CallDeactivate} {
		o.pass(time.Second)
		if got := o.say(h.key, call, nil); got.Refused == nil || got.Refused.System != online.SystemNotActivated ||
			got.Chain != "" {
			t.Errorf("%s: %+v", call, got)
		}
	}
	o.pass(time.Second)
	reply, err = h.ask(h.Heartbeat)
	must(t, reply, err)
	h.chain = nil
	o.pass(time.Second)
	reply, err = h.ask(h.Heartbeat) // the client activates itself again
	must(t, reply, err)
	if n := len(o.hosts("L1")[0].Anew); n != 1 {
		t.Errorf("it counts as %d starts", n)
	}
}

// A clock that was far ahead costs a host nothing once it is set right, and is not believed meanwhile.
func TestClockAhead(t *testing.T) {
	o := openOffice(t, nil)
	h := o.host(o.sign("L1", nil))
	h.slow = -1000 * 24 * time.Hour
	for _, call := range []func(context.Context, *plugin.Request) (*plugin.Reply, error){h.Activate, h.Heartbeat} {
		o.pass(time.Second)
		reply, err := h.ask(call)
		must(t, reply, err)
	}
	h.slow = 0
	o.pass(time.Second)
	reply, err := h.ask(h.Heartbeat)
	must(t, reply, err)
}

// A server on an older copy of its folder takes hosts for copies, and an operator can forgive them all.
func TestRestoredStore(t *testing.T) {
	o := openOffice(t, nil)
	h := o.host(o.sign("L1", nil))
	reply, err := h.ask(h.Activate)
	must(t, reply, err)
	old := h.chain
	for range 3 {
		o.pass(time.Second)
		reply, err = h.ask(h.Heartbeat)
		must(t, reply, err)
	}
	h.chain = old
	o.pass(time.Second)
	_, err = h.ask(h.Heartbeat)
	o.refused(err, plugin.Refused, enforcer.AgentKeyMismatch, online.SystemCloned)
	if n, err := o.Forgive("L1", ""); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	o.pass(time.Second)
	reply, err = h.ask(h.Heartbeat)
	must(t, reply, err)
}

// A request that was captured takes no place after the host has given it up, nor after an operator has.
func TestReplayAfterRelease(t *testing.T) {
	for _, name := range []string{"deactivated", "forgotten"} {
		for _, early := range []bool{false, true} {
			o := openOffice(t, func(c *registry.Config) { c.Machines = 1 })
			o.serve(t)
			h := o.host(o.seats("L1", 5, nil))
			at := o.clock().Unix() - 10
			if early { // an edge box that has not been told the time
				at = 1000
			}
			var captured []*online.Request
			say := func(call string, chain string) *online.Reply {
				at++
				return o.say(h.key, call, func(r *online.Request) {
					r.Document, r.Chain, r.Issued = string(h.doc), chain, at
					if call == online.CallCheckOut {
						r.Block = &online.BlockRequest{Pool: "seats", Slots: 5, AtLeast: 1, Token: "t"}
					}
					captured = append(captured, r)
				})
			}
			first := say(online.CallActivate, "")
			out := say(online.CallCheckOut, "")
			second := say(online.CallHeartbeat, first.Chain)
			if first.Refused != nil || out.Refused != nil || second.Refused != nil {
				t.Fatalf("%+v %+v %+v", first.Refused, out.Refused, second.Refused)
			}
			last := say(online.CallActivate, second.Chain)
			if last.Refused != nil {
				t.Fatal(last.Refused)
			}
			if name == "deactivated" {
				say(online.CallDeactivate, last.Chain)
			} else if _, err := o.Forget("L1", ""); err != nil {
				t.Fatal(err)
			}
			thumb, _ := plugin.Thumbprint(h.key.Public())
			for _, after := range []time.Duration{0, time.Minute, 20 * time.Minute, 20 * 24 * time.Hour,
				40 * 24 * time.Hour} {
				o.pass(after)
				for _, r := range captured {
					if _, err := o.Handle(r, thumb); err != nil {
						t.Fatal(err)
					}
				}
				if n := len(o.hosts("L1")); n != 0 {
					t.Fatalf("%s, early %v: %d places are taken by replays %v later", name, early, n, after)
				}
			}
			other := o.host(h.doc)
			reply, err := other.ask(other.Activate)
			must(t, reply, err)
		}
	}
}

// A request that comes twice is answered twice, within a minute: a captured one keeps no block alive.
func TestDoubledForAMinute(t *testing.T) {
	o := openOffice(t, nil)
	h := o.host(o.sign("L1", nil))
	reply, err := h.ask(h.Activate)
	must(t, reply, err)
	reply, err = h.ask(h.Heartbeat)
	must(t, reply, err)
	seen := o.hosts("L1")[0].Seen
	o.pass(2 * time.Minute)
	h.n--
	if _, err := h.ask(h.Heartbeat); err == nil || !o.hosts("L1")[0].Seen.Equal(seen) {
		t.Errorf("a request that was captured is a sign of life: %v", err)
	}
}

// A host whose clock is behind is told the time, and believed only with it.
func TestSlowClock(t *testing.T) {
	o := openOffice(t, nil)
	h := o.host(o.sign("L1", nil))
	h.slow = 3 * time.Hour
	reply, err := h.ask(h.Activate)
	must(t, reply, err)
	old := o.stranger(online.CallActivate, func(r *online.Request) {
		r.Document, r.Issued, r.Chain = string(h.doc), o.clock().Unix()-3600, "x"
	})
	if old.Refused == nil || old.Refused.System != online.SystemStale {
		t.Errorf("an old request is believed: %+v", old)
	}
}
