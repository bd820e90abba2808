package registry_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// place is an office whose store can be put back to a copy, and what shows that a store is the latest.
type place struct {
	*office
	t    *testing.T
	run  string
	boot string
}

func openPlace(t *testing.T) *place {
	p := &place{t: t, run: t.TempDir(), boot: "start 1"}
	p.office = openOffice(t, func(c *registry.Config) { c.RunDir, c.BootID = p.run, p.boot })
	p.serve(t)
	return p
}

// restart closes the server, does something, and opens it again.
func (p *place) restart(do func()) {
	p.t.Helper()
	if err := p.Registry.Close(); err != nil {
		p.t.Fatal(err)
	}
	do()
	var err error
	if p.Registry, err = registry.Open(registry.Config{Dir: p.dir, Signer: p.signer, Now: p.clock, RunDir: p.run,
		BootID: p.boot}); err != nil {
		p.t.Fatal(err)
	}
	p.serve(p.t)
}

// copies keeps a folder's files, and returns what puts them back.
func copies(t *testing.T, dir string) (back func()) {
	t.Helper()
	kept := t.TempDir()
	if err := os.CopyFS(kept, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		old, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range old {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.CopyFS(dir, os.DirFS(kept)); err != nil {
			t.Fatal(err)
		}
	}
}

func (p *place) settles(when string, h *host) {
	p.t.Helper()
	if b, err := h.checkOut(1); err == nil {
		p.t.Errorf("%s %d slots were given", when, b.Slots)
	} else {
		p.refused(err, plugin.Misconfigured, "", plugin.SystemSettling)
	}
}

func (p *place) goesOn(when string, h *host, b *plugin.Block) {
	p.t.Helper()
	if x, err := h.extend(b.ID, b.Slots); err != nil || x.Slots != b.Slots {
		p.t.Errorf("%s a block of %d is extended: %+v, %v", when, b.Slots, x, err)
	}
}

// A server that is started on an old copy of its folder gives nothing that agents have: neither those that the copy
// knows nor those that it does not. They go on, nobody is taken for a copy, and when all that may be out is known, the
// rest is given again.
func TestOldCopyOfTheFolder(t *testing.T) {
	p := openPlace(t)
	doc := p.seats("L1", 8, func(c *usher.Claims) { c.Heartbeat = &usher.Period{Every: 600} })
	a, b, c := p.host(doc), p.host(doc), p.host(doc)
	pulse := p.hostWith(a.key, doc)
	reply, err := pulse.ask(pulse.Activate)
	must(t, reply, err)
	x, err := a.checkOut(3)
	if err != nil {
		t.Fatal(err)
	}
	var back func()
	p.restart(func() { back = copies(t, p.dir) })
	y, err := b.checkOut(4)
	if err != nil || y.Slots != 4 {
		t.Fatalf("after a restart: %+v, %v", y, err)
	}
	if x, err = a.extend(x.ID, 2); err != nil || x.Slots != 2 {
		t.Fatalf("%+v, %v", x, err)
	}
	reply, err = pulse.ask(pulse.Heartbeat)
	must(t, reply, err)
	z, err := b.checkOut(2)
	if err != nil {
		t.Fatal(err)
	}
	p.restart(back)
	p.settles("at once", c)
	p.goesOn("known,", a, x)
	p.goesOn("not known,", b, y)
	if more, err := b.extend(y.ID, 6); err != nil || more.Slots != 4 {
		t.Errorf("a block of 4 has grown: %+v, %v", more, err)
	}
	reply, err = pulse.ask(pulse.Heartbeat)
	must(t, reply, err)
	// One that is restarted meanwhile waits for its whole time again.
	p.pass(6 * time.Second)
	p.restart(func() {})
	p.goesOn("after a restart,", b, y)
	p.pass(6 * time.Second)
	p.settles("after another restart", c)
	p.goesOn("known,", a, x)
	p.goesOn("not known,", b, y)
	p.goesOn("not known and late,", b, z)
	p.pass(4 * time.Second)
	_, err = c.checkOut(1)
	p.refused(err, plugin.Misconfigured, "", plugin.SystemFull)
	p.pass(5 * time.Second)
	p.goesOn("later,", a, x)
	p.goesOn("later,", b, z)
	p.pass(6 * time.Second) // y is over
	if got, err := c.checkOut(8); err != nil || got.Slots != 4 {
		t.Errorf("of what is over: %+v, %v", got, err)
	}
}

// Signs that a store is the latest, and signs that it is not.
func TestWhichStoreIsTheLatest(t *testing.T) {
	for name, c := range map[string]struct {
		do      func(p *place)
		settles bool
	}{
		"as it was":               {func(*place) {}, false},
		"another start":           {func(p *place) { p.boot = "start 2" }, true},
		"no start is known":       {func(p *place) { p.boot = "" }, true},
		"no folder for the stamp": {func(p *place) { p.run = "" }, true},
		"another folder":          {func(p *place) { p.run = p.t.TempDir() }, true},
		"a lost store": {func(p *place) {
			succeed(p.t, os.Remove(filepath.Join(p.dir, "registry.db")))
		}, true},
		"a lost store and a start": {func(p *place) {
			succeed(p.t, os.Remove(filepath.Join(p.dir, "registry.db")))
			p.boot = "start 2"
		}, true},
		"a store of a former version": {func(p *place) {
			db, err := bbolt.Open(filepath.Join(p.dir, "registry.db"), 0o600, nil)
			succeed(p.t, err)
			succeed(p.t, db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("meta")) }))
			succeed(p.t, db.Close())
			succeed(p.t, os.Remove(filepath.Join(p.dir, "pools-served")))
		}, true},
		"a moved folder": {func(p *place) {
			moved := filepath.Join(p.t.TempDir(), "moved")
			succeed(p.t, os.Rename(p.dir, moved))
			p.dir = moved
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := openPlace(t)
			p.t = t
			doc := p.seats("L1", 8, nil)
			a, b := p.host(doc), p.host(doc)
			if x, err := a.checkOut(2); err != nil || x.Slots != 2 {
				t.Fatalf("of a new store: %+v, %v", x, err)
			}
			p.restart(func() { c.do(p) })
			if c.settles {
				p.settles("at once", b)
				p.pass(10 * time.Second)
			}
			if x, err := b.checkOut(2); err != nil || x.Slots != 2 {
				t.Errorf("later: %+v, %v", x, err)
			}
		})
	}
}

// The stamp was put back with the store, as in a snapshot of a whole machine: the server hears it from the first agent
// that it has answered since, and is careful from then on.
func TestAgentsTellOfAnOldStore(t *testing.T) {
	p := openPlace(t)
	doc := p.seats("L1", 8, nil)
	a, b, c := p.host(doc), p.host(doc), p.host(doc)
	x, err := a.checkOut(2)
	if err != nil {
		t.Fatal(err)
	}
	var back, backRun func()
	p.restart(func() { back, backRun = copies(t, p.dir), copies(t, p.run) })
	y, err := a.checkOut(5)
	if err != nil {
		t.Fatal(err)
	}
	p.restart(func() { back(); backRun() })
	p.goesOn("not known,", a, y)
	p.goesOn("known,", a, x)
	p.settles("when an agent has told of it", b)
	p.pass(9 * time.Second)
	p.settles("a block time later", c)
	p.goesOn("not known,", a, y)
	p.pass(2 * time.Second)
	if z, err := b.checkOut(9); err != nil || z.Slots != 3 {
		t.Errorf("of what is left: %+v, %v", z, err)
	}
	// A copy of an agent is told from that still.
	clone := p.hostWith(a.key, doc)
	clone.chain = a.chain
	for range 2 {
		p.goesOn("known again,", a, y)
	}
	_, err = clone.extend(y.ID, 0)
	p.refused(err, plugin.Refused, "AGENT_KEY_MISMATCH", plugin.SystemCloned)
}

func succeed(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
