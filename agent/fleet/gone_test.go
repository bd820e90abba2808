package fleet

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
)

// passes has time pass while agents live on and look, the first one first.
func (r *rig) passes(d time.Duration, all ...*Fleet) {
	r.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(4 * time.Second) {
		for _, f := range all {
			if _, err := f.ready(r.t.Context(), true); err != nil {
				r.t.Fatal(err)
			}
			f.forgetGone(r.t.Context())
		}
	}
}

// left returns the keys that an agent has left.
func (r *rig) left(id string) (all []string) {
	for key := range r.sim.kvs {
		if strings.HasPrefix(key, "/u/o/"+id) || strings.HasPrefix(key, "/u/r/"+id+"/") {
			all = append(all, key)
		}
	}
	slices.Sort(all)
	return all
}

// An order to an agent that is gone for good stays until an operator takes it away, by the agent's key; the host that
// came in its place has its name. What is undone says which other order is there still.
func TestOrdersToTheGone(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		agent := func(id string) *Fleet {
			f, _ := r.agent(id, new([]byte))
			f.cfg.Member.Name = "host"
			return f
		}
		old, next := agent("oldkeyofthehost"), agent("newkeyofthehost")
		lives := func(f *Fleet) {
			if _, err := f.ready(t.Context(), true); err != nil {
				t.Fatal(err)
			}
		}
		lives(old)
		o := &Operator{Store: &way{sim: r.sim}, Prefix: "/u/", Time: time.Now, Now: old.cfg.Now}
		if done, err := o.Drain(t.Context(), "host", false); err != nil || done.Gone {
			t.Fatalf("%+v, %v", done, err)
		}
		time.Sleep(2 * time.Hour)
		lives(next)
		is, err := o.Look(t.Context(), false)
		if err != nil || len(is.Agents) != 2 || !is.Agents[0].Alive || is.Agents[0].Draining != nil ||
			is.Agents[1].Alive || is.Agents[1].Draining == nil {
			t.Fatalf("%+v, %v", is.Agents, err)
		}
		_, err = o.Drain(t.Context(), "host", true)
		if err == nil || !strings.Contains(err.Error(), "host (oldkeyoftheh, gone)") {
			t.Errorf("of a name of two hosts: %v", err)
		}
		if _, err := o.Evict(t.Context(), "oldkey", 0); err != nil {
			t.Fatal(err)
		}
		if done, err := o.Readmit(t.Context(), "oldkey"); err != nil || !done.Gone || !done.Draining {
			t.Errorf("%+v, %v", done, err)
		}
		if done, err := o.Drain(t.Context(), "oldkey", true); err != nil || !done.Done || !done.Gone || done.Evicted {
			t.Errorf("%+v, %v", done, err)
		}
		if is, err := o.Look(t.Context(), false); err != nil || len(is.Agents) != 1 {
			t.Errorf("what is left of it: %+v, %v", is.Agents, err)
		}
	})
}

// Keys of an agent that is gone are deleted after an hour, by the member that joined first; not while it has a block,
// not where it comes back meanwhile, and not where a later version has written what this one cannot read.
func TestKeysOfTheLongGone(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		b, _ := r.agent("b", new([]byte))
		none, _ := r.agent("none", new([]byte))
		has, _ := r.agent("has", new([]byte))
		back, _ := r.agent("back", new([]byte))
		r.join(a, b, none, has, back)
		for _, f := range []*Fleet{none, has, back} {
			got := r.must(r.checkOut(r.bound(f, 10), "1", 2))
			if f != has {
				if _, err := r.bound(f, 10).shrink(t.Context(), "streams", got.ID, 0); code(err) != "" {
					t.Fatal(err)
				}
			}
			r.put("/u/r/"+f.cfg.Agent+"/"+streams, text(word{Free: 1}))
		}
		r.put("/u/r/stranger/x", text(word{Free: 1})) // of one that never had a block
		r.put("/u/r/word/x", text(word{Free: 1}))
		r.put("/u/o/later", `{"pools":{"of another":"shape"}}`)
		r.put("/u/r/later/x", "{}")
		r.passes(50*time.Minute, a, b)
		if _, err := back.ready(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		r.passes(5*time.Minute, back, a, b)
		for id, n := range map[string]int{"none": 2, "has": 2, "back": 2, "stranger": 1, "word": 1, "later": 2} {
			if got := r.left(id); len(got) != n {
				t.Errorf("before an hour has passed, %s has left %v", id, got)
			}
		}
		r.put("/u/r/word/x", text(word{Free: 2}))
		r.passes(31*time.Minute, a, b)
		for id, n := range map[string]int{"none": 0, "has": 2, "back": 2, "stranger": 0, "word": 1, "later": 2} {
			if got := r.left(id); len(got) != n {
				t.Errorf("after 86 minutes, %s has left %v", id, got)
			}
		}
		r.untilGot(r.bound(b, 10), "1", 8)
		r.untilGot(r.bound(b, 10), "2", 2) // what it had
		r.passes(55*time.Minute, b)
		if len(r.left("has")) != 2 {
			t.Error("a member that has just become the first has not waited for an hour")
		}
		r.passes(31*time.Minute, b)
		if got := append(r.left("has"), r.left("back")...); len(got) != 0 {
			t.Errorf("without blocks, they have left %v", got)
		}
	})
}

// The hour is one of being a member: a host that was suspended has seen nothing meanwhile.
func TestSuspendedForgetsNothing(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		r.join(a)
		r.put("/u/r/stranger/x", text(word{Free: 1}))
		r.passes(30*time.Minute, a)
		time.Sleep(2 * time.Hour)
		r.passes(30*time.Minute, a)
		if len(r.left("stranger")) != 1 {
			t.Error("a host that was suspended has deleted what it has not watched")
		}
		r.passes(time.Hour, a)
		if len(r.left("stranger")) != 0 {
			t.Error("after another hour it has deleted nothing")
		}
	})
}

// An agent comes back while its keys are deleted: it joins, and its next block is one that its next start finds.
func TestForgottenBetween(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		record := new([]byte)
		b, way := r.agent("b", record)
		r.join(a, b)
		got := r.must(r.checkOut(r.bound(b, 10), "1", 2))
		if _, err := r.bound(b, 10).shrink(t.Context(), "streams", got.ID, 0); code(err) != "" {
			t.Fatal(err)
		}
		r.passes(time.Minute, a)
		gone, err := a.leftovers(t.Context(), 0)
		if err != nil || gone["b"] == nil {
			t.Fatalf("%v, %v", gone, err)
		}
		happened := way.between(joins, func() {
			if !a.forgetAgent(t.Context(), a.me, "b", gone["b"]) {
				t.Error("its keys were not deleted")
			}
		})
		for range 2 {
			if _, err = b.ready(t.Context(), false); err == nil {
				break
			}
		}
		r.must(r.checkOut(r.bound(b, 10), "2", 2))
		if !happened() || err != nil || r.value("/u/o/b") == "" {
			t.Errorf("%v; the store names its pools as %q", err, r.value("/u/o/b"))
		}
		if a.forgetAgent(t.Context(), a.me, "b", &leftover{keys: []KV{r.sim.kvs["/u/o/b"]}}) {
			t.Error("keys of an agent that lives were deleted")
		}
	})
}

// unnamed returns the agents that have a block of a pool that the store does not name as theirs.
func (s *sim) unnamed() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.kvs {
		pool, id, ok := strings.Cut(strings.TrimPrefix(key, "/u/p/"), "/g/")
		if !ok || !strings.HasPrefix(key, "/u/p/") {
			continue
		}
		var o owned
		if json.Unmarshal([]byte(s.kvs["/u/o/"+id].Value), &o) != nil || !slices.Contains(o.Pools, pool) {
			all = append(all, id)
		}
	}
	return all
}

// In a crowd whose keys are deleted as soon as can be, the promises hold, and no block is without its name.
func TestCrowdForgets(t *testing.T) {
	for seed := range min(*seeds, 4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				playAs(t, uint64(seed), func(y *history) {
					for _, h := range y.agents {
						h.keeping = keeping{after: 5 * time.Second, every: time.Second}
					}
					y.looks = func() {
						if got := y.sim.unnamed(); len(got) > 0 {
							t.Errorf("at %s the store does not name the pool as one of %v", time.Since(y.begin), got)
						}
					}
				})
			})
		})
	}
}
