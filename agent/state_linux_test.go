package agent_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/repair"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// tampered returns what the agent says of its state, by file.
func (h *house) tampered() map[string]string {
	h.t.Helper()
	health, err := h.Health(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	out := map[string]string{}
	for _, f := range health.State {
		out[f.File] = f.Fault
	}
	return out
}

// meddle stops the agent, has its folders changed, and starts it again.
func (h *house) meddle(do func()) {
	h.t.Helper()
	h.stop()
	do()
	h.start()
}

func (h *house) remove(name ...string) {
	h.t.Helper()
	for _, n := range name {
		if err := os.Remove(h.path(n)); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *house) change(name string, do func([]byte) []byte) {
	h.t.Helper()
	b, err := os.ReadFile(h.path(name))
	if err == nil {
		err = os.WriteFile(h.path(name), do(b), 0o600)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// accept is what `usher doctor --repair` does besides the journals.
func (h *house) accept() []seals.Accepted {
	h.t.Helper()
	cfg, err := h.load()
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := repair.Accept(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// noted returns how many events of a type the event log has.
func (h *house) noted(kind string) (n int) {
	h.t.Helper()
	dir, key, err := h.eventLog()
	if err == nil {
		_, err = eventlog.Verify(dir, key, func(e eventlog.Event) {
			if e.Type == kind {
				n++
			}
		})
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

func empty([]byte) []byte { return nil }

// demands states an activation and check-ins.
func demands(c *usher.Claims) {
	c.Activation, c.CheckIn = &usher.Activation{Grace: 3600}, &usher.CheckIn{Every: 86400, Grace: 86400}
}

// What an upstream said counts no more when the record of it was meddled with, until it says so again; what it refused
// stays refused.
func TestUpstreamStateIsSealed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, file, fault string
		do                func(o *onlineHouse, old []byte)
	}{
		{"edited", "upstream.json", "edited", func(o *onlineHouse, _ []byte) {
			o.change("state/upstream.json", func(b []byte) []byte {
				return bytes.Replace(b, []byte(`L1"`), []byte(`L2"`), 1)
			})
		}},
		{"removed", "upstream.json", "missing", func(o *onlineHouse, _ []byte) { o.remove("state/upstream.json") }},
		{"emptied", "upstream.json", "empty", func(o *onlineHouse, _ []byte) {
			o.change("state/upstream.json", empty)
		}},
		{"an older one", "upstream.json", "older", func(o *onlineHouse, old []byte) {
			o.change("state/upstream.json", func([]byte) []byte { return old })
		}},
		{"removed with the seal", "state.seal", "missing", func(o *onlineHouse, _ []byte) {
			o.remove("state/upstream.json", "state/state.seal")
		}},
		{"the seal alone", "state.seal", "missing", func(o *onlineHouse, _ []byte) { o.remove("state/state.seal") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := openOnline(t)
			o.drop("a.lic", o.sign("L1", 2, demands))
			o.until("activated", code("VALID"))
			old, err := os.ReadFile(o.path("state/upstream.json"))
			if err != nil {
				t.Fatal(err)
			}
			o.UpstreamCall(t.Context())
			o.eventually("another generation", func() bool {
				b, err := os.ReadFile(o.path("state/upstream.json"))
				return err == nil && !bytes.Equal(b, old)
			})
			o.away.Store(true)
			o.meddle(func() { test.do(o, old) })
			o.until("owed", code("HEARTBEAT_NOT_STARTED"))
			if got := o.tampered(); got[test.file] != test.fault {
				t.Errorf("found %v, want %s %s", got, test.file, test.fault)
			}
			o.stop() // and once more: it stays owed
			o.start()
			o.until("owed after a restart", code("HEARTBEAT_NOT_STARTED"))
			o.away.Store(false)
			if err := o.UpstreamCall(t.Context()); err != nil {
				t.Fatal(err)
			}
			o.until("said again", code("VALID"))
			if n := o.noted("state.tampered"); n == 0 {
				t.Error("the event log does not say so")
			}
			o.stop()
			if a := o.accept(); len(a) == 0 {
				t.Error("there is nothing to accept")
			}
			o.start()
			if got := o.tampered(); len(got) != 0 {
				t.Errorf("it stands after it was accepted: %v", got)
			}
			o.until("after it was accepted", code("VALID"))
		})
	}
}

// A revocation stands though its record is removed, and accepting the removal heals nothing.
func TestRevocationOutlivesItsRecord(t *testing.T) {
	t.Parallel()
	o := openOnline(t)
	o.drop("a.lic", o.sign("L1", 2, demands))
	o.until("activated", code("VALID"))
	if _, err := o.registry.SetState("L1", registry.StateRevoked, "fraud"); err != nil {
		t.Fatal(err)
	}
	if err := o.UpstreamCall(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.until("revoked", code("REVOKED"))
	o.away.Store(true)
	o.meddle(func() { o.remove("state/upstream.json") })
	o.until("revoked still", code("REVOKED"))
	o.stop()
	o.accept()
	o.start()
	o.until("revoked though it was accepted", code("REVOKED"))
	o.meddle(func() { o.remove("state/upstream.json", "state/state.seal") })
	o.until("good for nothing", code("HEARTBEAT_NOT_STARTED"))
	o.stop()
	o.accept()
	o.start()
	o.until("good for nothing though it was accepted", code("HEARTBEAT_NOT_STARTED"))
}

// withHeld makes a house whose meter is drawn to its end and that has a held lease.
func withHeld(t *testing.T) (*house, *wire.Lease, []byte) {
	t.Helper()
	h := open(t, "")
	h.drop("a.lic", h.sign("L1", 4, func(c *usher.Claims) {
		most := int64(3)
		c.Meters = map[string]usher.Meter{"renders": {Max: &most, Scope: "host"}}
	}))
	h.until("dropped", code("VALID"))
	h.stop()
	old, err := os.ReadFile(h.path("state/durable.journal"))
	if err != nil {
		t.Fatal(err)
	}
	h.start()
	h.until("again", code("VALID"))
	for range 3 {
		if _, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "renders"}); err != nil {
			t.Fatal(err)
		}
	}
	held, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", N: new(int64(3)), Lifetime: "held"})
	if err != nil {
		t.Fatal(err)
	}
	return h, held, old
}

// What was drawn stays drawn and what is held stays held, whatever becomes of the journal that says so.
func TestDurableJournalIsSealed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, fault string
		do          func(h *house, old []byte)
	}{
		{"removed", "missing", func(h *house, _ []byte) { h.remove("state/durable.journal") }},
		{"emptied", "empty", func(h *house, _ []byte) { h.change("state/durable.journal", empty) }},
		{"an older one", "edited", func(h *house, old []byte) {
			h.change("state/durable.journal", func([]byte) []byte { return old })
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h, held, old := withHeld(t)
			h.meddle(func() { test.do(h, old) })
			for again := range 2 {
				h.until("started", code("VALID"))
				if _, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "renders"}); !errors.Is(err,
					client.ErrMeterEmpty) {
					t.Errorf("start %d: a draw beyond the meter: %v", again, err)
				}
				if p, err := h.Pool(t.Context(), "renders"); err != nil || p.InUse != 3 {
					t.Errorf("start %d: the meter stands at %+v, %v", again, p, err)
				}
				if l, err := h.Lease(t.Context(), held.ID); err != nil || l.Items[0].N != 3 {
					t.Errorf("start %d: the held lease is %+v, %v", again, l, err)
				}
				if _, err := h.Acquire(t.Context(),
					wire.AcquireRequest{Pool: "streams", N: new(int64(2))}); !errors.Is(err, client.ErrNoSlots) {
					t.Errorf("start %d: a slot that is held is given again: %v", again, err)
				}
				if got := h.tampered(); got["durable.journal"] != test.fault {
					t.Errorf("start %d: found %v, want %s", again, got, test.fault)
				}
				h.stop()
				h.start()
			}
		})
	}
	t.Run("removed with the seal", func(t *testing.T) {
		h, _, _ := withHeld(t)
		h.meddle(func() { h.remove("state/durable.journal", "state/state.seal") })
		h.until("started", code("VALID"))
		for _, pool := range []string{"renders", "streams"} {
			if _, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: pool, WaitSeconds: 60}); storage(err) == "" {
				t.Errorf("%s are had though nobody knows what was: %v", pool, err)
			} else if s := storage(err); !strings.Contains(s, "state.seal is missing") {
				t.Errorf("it is denied in these words: %s", s)
			}
		}
		h.stop()
		if a := h.accept(); len(a) == 0 {
			t.Error("there is nothing to accept")
		}
		h.start()
		h.until("accepted", code("VALID"))
		if _, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"}); err != nil {
			t.Error(err)
		}
		if n := h.noted("state.accepted"); n == 0 {
			t.Error("the event log does not say that it was accepted")
		}
	})
}

// storage returns the sentence of a denial with that code; empty: it is another error.
func storage(err error) string {
	var e *client.Error
	if errors.As(err, &e) && e.Code == "storage" {
		return e.Detail
	}
	return ""
}

// Where it is not known who holds slots, none is handed out, until somebody who may accepts that.
func TestLeaseJournalIsSealed(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(*crashing){
		"removed":               func(c *crashing) { c.remove("run/leases.journal") },
		"emptied":               func(c *crashing) { c.change("run/leases.journal", empty) },
		"removed with the seal": func(c *crashing) { c.remove("run/leases.journal", "run/runtime.seal") },
		"the whole folder":      func(c *crashing) { os.RemoveAll(c.path("run")) },
	} {
		t.Run(name, func(t *testing.T) {
			c := openCrashing(t, 2, nil)
			c.meddled = true
			if _, err := c.Acquire(t.Context(),
				wire.AcquireRequest{Pool: "streams", N: new(int64(2)), TTLSeconds: 3600}); err != nil {
				t.Fatal(err)
			}
			c.kill()
			do(c)
			c.run()
			for range 2 {
				if _, err := c.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"}); storage(err) == "" {
					t.Fatalf("a slot is given twice: %v", err)
				}
				c.terminate()
				c.run()
			}
			c.terminate()
			if a := c.accept(); len(a) != 1 {
				t.Errorf("accepted %v", a)
			}
			c.run()
			if _, err := c.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"}); err != nil {
				t.Errorf("after it was accepted: %v", err)
			}
		})
	}
	t.Run("the folder of an agent that has ended in order", func(t *testing.T) {
		c := openCrashing(t, 2, nil)
		c.terminate()
		if err := os.RemoveAll(c.path("run")); err != nil { // as a service manager does
			t.Fatal(err)
		}
		c.run()
		if _, err := c.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"}); err != nil {
			t.Error(err)
		}
	})
}

// Blocks of a site that nobody sealed are none.
func TestBlocksAreSealed(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func([]byte) []byte{
		"edited":   func(b []byte) []byte { return bytes.Replace(b, []byte(`"slots":`), []byte(`"slots":1`), 1) },
		"unsealed": func(b []byte) []byte { return append(bytes.Split(b, []byte(`,"usher_seal"`))[0], '}') },
	} {
		t.Run(name, func(t *testing.T) {
			s := openSite(t, time.Minute)
			s.drop("a.lic", s.sign("L1", 8, ofSite))
			s.until("dropped", code("VALID"))
			if _, err := s.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", WaitSeconds: 60}); err != nil {
				t.Fatal(err)
			}
			s.away.Store(true)
			var sealed []byte
			c := s.house
			if b, err := os.ReadFile(c.path("run/blocks.json")); err != nil || !bytes.Contains(b, []byte(`"slots":`)) {
				t.Fatalf("the blocks are %s, %v", b, err)
			} else {
				sealed = b
			}
			c.meddle(func() {
				if err := os.WriteFile(c.path("run/blocks.json"), change(sealed), 0o600); err != nil {
					t.Fatal(err)
				}
			})
			s.until("started", code("VALID"))
			if p, err := s.Pool(t.Context(), "streams"); err != nil || p.Budget == nil || *p.Budget != 0 {
				t.Errorf("the budget is %+v, %v", p, err)
			}
			if got := s.tampered(); got["blocks.json"] != "edited" {
				t.Errorf("found %v", got)
			}
			s.away.Store(false)
			s.until("started", code("VALID"))
			if _, err := s.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", WaitSeconds: 60}); err != nil {
				t.Errorf("the site was asked again: %v", err)
			}
		})
	}
}

// A history that is gone is known still: a licence that was returned stays returned.
func TestHistoryIsSealed(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("L1", 4, nil))
	h.until("dropped", code("VALID"))
	if _, err := h.Return(t.Context(), "L1"); err != nil {
		t.Fatal(err)
	}
	h.until("returned", code("REVOKED"))
	h.meddle(func() { h.remove("state/history.json") })
	h.until("returned still", code("REVOKED"))
	if got := h.tampered(); got["history.json"] != "missing" {
		t.Errorf("found %v", got)
	}
}

// cutLog cuts the last line of a log off.
func (h *house) cutLog(folder string) {
	h.t.Helper()
	all, err := filepath.Glob(h.path(filepath.Join("state", folder, "events-*")))
	if err != nil || len(all) == 0 {
		h.t.Fatalf("the log %s is %v, %v", folder, all, err)
	}
	b, err := os.ReadFile(all[len(all)-1])
	if err != nil {
		h.t.Fatal(err)
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	if err := os.WriteFile(all[len(all)-1], bytes.Join(lines[:len(lines)-2], nil), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// The newest lines of the event log cannot be cut off unnoticed.
func TestEventsHeadIsSealed(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.meddle(func() { h.cutLog("events") })
	if got := h.tampered(); got["events"] != "missing" {
		t.Errorf("found %v", got)
	}
}
