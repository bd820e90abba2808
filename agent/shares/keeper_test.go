package shares

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// upstream lends slots and gives draws.
type upstream struct {
	*lender
	seller *seller
}

func (s *upstream) System() string                    { return "usher" }
func (s *upstream) Capabilities() plugin.Capabilities { return plugin.Capabilities{Budget: true} }
func (s *upstream) Draw(ctx context.Context, r *plugin.Draw) (*plugin.Drawn, error) {
	return s.seller.Draw(ctx, r)
}

// disk is where the records are: each may hang, and says what was written last.
type disk struct {
	mu     sync.Mutex
	hangs  chan struct{} // writes wait until it is closed; nil: they do not
	before func(path string, data []byte)
	last   map[string][]byte
}

func (d *disk) write(path string, data []byte) error {
	d.mu.Lock()
	hangs, before := d.hangs, d.before
	d.mu.Unlock()
	if before != nil {
		before(path, data)
	}
	if hangs != nil {
		<-hangs
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last[path] = data
	return nil
}

func (d *disk) change(f func()) { d.mu.Lock(); defer d.mu.Unlock(); f() }

// agent is a keeper of both with what it is asked for, which is the same always.
type agent struct {
	*Keeper
	pool    PoolDemand
	meter   MeterDemand
	blocks  *disk
	draws   *disk
	changes chan struct{}
}

func bothTerms() *enforcer.License {
	return &enforcer.License{ID: "L1", System: "usher", Pools: map[string]enforcer.PoolTerm{"seats": {Max: 40}},
		Meters: map[string]enforcer.MeterTerm{"uses": {Max: 100, Scope: enforcer.ScopeSite}}}
}

func openBoth(t *testing.T, u plugin.Upstream, change ...func(*Config)) *agent {
	t.Helper()
	a := &agent{blocks: &disk{last: map[string][]byte{}}, draws: &disk{last: map[string][]byte{}},
		changes: make(chan struct{}, 1000)}
	var mu sync.Mutex
	cfg := Config{Blocks: File{Path: filepath.Join(t.TempDir(), "blocks"), Write: a.blocks.write},
		Draws: File{Path: filepath.Join(t.TempDir(), "draws"), Write: a.draws.write}, BootID: "boot", Now: spans(),
		Time: time.Now, Upstreams: map[string]plugin.Upstream{"usher": u},
		Pool: func(string) PoolDemand { mu.Lock(); defer mu.Unlock(); return a.pool },
		Meter: func(string) MeterDemand {
			mu.Lock()
			defer mu.Unlock()
			return a.meter
		},
		OnChange: func() { a.changes <- struct{}{} }, Jitter: func() float64 { return 0.5 },
		Request: func(l *enforcer.License, doc []byte) plugin.Request {
			return plugin.Request{LicenseID: l.ID, Document: doc}
		}}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if a.Keeper, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *agent) run(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { a.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
}

func newUpstream() *upstream {
	return &upstream{newLender(40, time.Minute), &seller{left: 100, done: map[string]int64{}}}
}

func inForce(licences ...*enforcer.License) *enforcer.Verdict {
	v := &enforcer.Verdict{}
	for _, l := range licences {
		v.Licenses = append(v.Licenses, enforcer.Judged{Document: l.ID + ".lic", License: l, InForce: true})
	}
	return v
}

// A verdict is judged again where the keeper names more than it did, and at no other time; facts that are filled in say
// what there is of both kinds, until the first of it is over.
func TestSource(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		a := openBoth(t, newUpstream())
		document := func(name string) []byte { return []byte("bytes of " + name) }
		var f enforcer.Facts
		other := &enforcer.License{ID: "L2", System: "other", Pools: map[string]enforcer.PoolTerm{"seats": {Max: 4}}}
		if a.See(nil, inForce(other), document) || a.See(nil, &enforcer.Verdict{Licenses: []enforcer.Judged{
			{Document: "broken"}, {Document: "L1.lic", License: bothTerms()}}}, document) {
			t.Error("judged again for licences that are not in force, or that no upstream gives shares of")
		}
		if fence := a.Fill(&f, time.Now()); len(f.Budgets)+len(f.Draws) > 0 || fence != 0 {
			t.Errorf("there is %v and %v, until %v", f.Budgets, f.Draws, fence)
		}
		if !a.See(nil, inForce(bothTerms()), document) || a.See(nil, inForce(bothTerms()), document) {
			t.Error("a licence in force is news once")
		}
		if all := a.Preview(); len(all) != 1 || string(all[0].Document) != "bytes of L1.lic" {
			t.Errorf("a call would send %+v", all)
		}
		a.Fill(&f, time.Now())
		if n, ok := f.Budgets[seats]; n != 0 || !ok || len(f.Budgets) != 1 {
			t.Errorf("the budgets are %v", f.Budgets)
		}
		if taken, ok := f.Draws[uses]; taken.N != 0 || !ok || len(f.Draws) != 1 {
			t.Errorf("the draws are %v", f.Draws)
		}
		a.pool.Waiting, a.meter.Waiting = 3, 5
		a.run(t)
		settle()
		if len(a.changes) < 2 {
			t.Errorf("told of %d changes", len(a.changes))
		}
		fence := a.Fill(&f, time.Now())
		if n := f.Budgets[seats]; n < 3 || f.Draws[uses].N < 5 || fence <= 50*time.Second ||
			fence > time.Minute {
			t.Errorf("there is %v and %v until %v", f.Budgets, f.Draws, fence)
		}
		time.Sleep(25 * time.Second)
		synctest.Wait()
		budgets := maps.Clone(f.Budgets)
		if later := a.Fill(&f, time.Now()); !maps.Equal(budgets, f.Budgets) || later <= fence {
			t.Errorf("%v was given more time, and is %v until %v, after %v", budgets, f.Budgets, later, fence)
		}
	})
}

// No call of the keeper's methods waits for a disk, and a disk that hangs under one of the records
// does not keep the agent from the shares of the other.
func TestNobodyWaitsForADisk(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		u := newUpstream()
		a := openBoth(t, u)
		heal := make(chan struct{})
		lockFree := func(string, []byte) {
			for range 1000 { // others may hold it for a moment
				if a.mu.TryLock() {
					a.mu.Unlock()
					return
				}
				runtime.Gosched()
			}
			t.Error("the keeper's lock is held over the disk")
		}
		a.blocks.change(func() { a.blocks.before = lockFree })
		a.draws.change(func() { a.draws.hangs, a.draws.before = heal, lockFree })
		a.pool.Waiting, a.meter.Waiting = 3, 5
		a.run(t)
		a.See(nil, inForce(bothTerms()), func(string) []byte { return nil })
		settle()
		if n, calls := u.seller.took(); n != 0 || calls != 0 {
			t.Fatalf("%d draws by %d calls that are not on the disk", n, calls)
		}
		var f enforcer.Facts
		a.Fill(&f, time.Now())
		a.cfg.Wants.Missed(&enforcer.Acquire{Items: []enforcer.Item{{Pool: "uses", N: 2}, {Pool: "seats", N: 2}}})
		a.See(nil, inForce(bothTerms()), func(string) []byte { return nil })
		if n := f.Budgets[seats]; n < 3 {
			t.Errorf("%d slots are here while the disk of the draws hangs", n)
		}
		time.Sleep(3 * time.Minute)
		if u.total() < 3 {
			t.Errorf("%d slots are out while the disk of the draws hangs", u.total())
		}
		hang := make(chan struct{})
		a.blocks.change(func() { a.blocks.hangs = hang })
		close(heal)
		settle()
		if a.Fill(&f, time.Now()); f.Draws[uses].N < 5 {
			t.Errorf("%v are taken while the disk of the blocks hangs", f.Draws)
		}
		close(hang)
	})
}

// What is drawn is on the disk before anybody may hand it out.
func TestDrawsAreRecordedFirst(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		a := openBoth(t, newUpstream())
		writes := 0
		a.draws.change(func() {
			a.draws.before = func(path string, data []byte) {
				was := int64(0)
				var r drawsRecord
				a.draws.change(func() {
					if b := a.draws.last[path]; b != nil && json.Unmarshal(b, &r) == nil {
						was = r.Licences["L1"].Meters["uses"].Taken
					}
				})
				time.Sleep(time.Second)
				if n := int64(a.Taken()[uses].N); n != was {
					t.Errorf("%d may be handed out, and %d are on the disk", n, was)
				}
				writes++
			}
		})
		a.meter.Waiting = 5
		a.run(t)
		a.See(nil, inForce(bothTerms()), func(string) []byte { return nil })
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := a.Taken()[uses].N; n < 5 || writes < 2 {
			t.Errorf("%d are taken, after %d writes", n, writes)
		}
	})
}

// Both records are what the version wrote that kept blocks and draws apart: it reads what this one writes.
func TestRecordsAreAsBefore(t *testing.T) {
	blocks, err := os.ReadFile("testdata/blocks.json")
	if err != nil {
		t.Fatal(err)
	}
	draws, err := os.ReadFile("testdata/draws.json")
	if err != nil {
		t.Fatal(err)
	}
	a := openBoth(t, newUpstream(), func(cfg *Config) {
		cfg.Blocks.Path, cfg.Draws.Path = "testdata/blocks.json", "testdata/draws.json"
		cfg.Now = func() time.Duration { return time.Hour + time.Second }
	})
	if !a.Keeper.blocks.save(nil) || !a.Keeper.draws.save(nil) {
		t.Fatal("not written")
	}
	if got := a.blocks.last["testdata/blocks.json"]; string(got) != string(blocks) {
		t.Errorf("blocks were\n%s\nand are\n%s", blocks, got)
	}
	if got := a.draws.last["testdata/draws.json"]; string(got) != string(draws) {
		t.Errorf("draws were\n%s\nand are\n%s", draws, got)
	}
}

// A record of blocks from which something is missing is one of nothing, and no reason to fall.
func TestPoorRecordOfBlocks(t *testing.T) {
	for _, poor := range []string{`null`, `{}`, `{"boot":"boot","host_clock":true}`,
		`{"boot":"boot","licences":{"L1":null,"L2":{},"L3":{"pools":{"seats":null,"bays":{"blocks":[null]}}}}}`} {
		file := filepath.Join(t.TempDir(), "blocks")
		if err := os.WriteFile(file, []byte(poor), 0o600); err != nil {
			t.Fatal(err)
		}
		a := openBoth(t, newUpstream(), func(cfg *Config) { cfg.Blocks.Path = file })
		l := bothTerms()
		l.ID = "L2"
		if !a.See(nil, inForce(bothTerms(), l), func(string) []byte { return nil }) {
			t.Errorf("%s: nothing has changed", poor)
		}
	}
}
