package fleet

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// openFormer is a rig on the keys of a file in testdata, and the records of their agents. rewrite changes each value.
func openFormer(t *testing.T, file string, rewrite func(string) string) (*rig, map[string]*[]byte) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	var x struct {
		Cluster uint64
		Rev     int64
		Seconds float64
		Keys    []KV
		Records map[string]json.RawMessage
	}
	if err == nil {
		err = json.Unmarshal(b, &x)
	}
	if err != nil || len(x.Keys) == 0 {
		t.Fatalf("%s: %v", file, err)
	}
	r := newRig(t)
	r.begin = r.begin.Add(-seconds(x.Seconds))
	r.sim.cluster, r.sim.rev = x.Cluster, x.Rev
	for _, kv := range x.Keys {
		if kv.Lease != 0 && r.sim.leases[kv.Lease] == nil {
			r.sim.grant(kv.Lease, 10*time.Second, map[string]bool{})
			r.sim.next = max(r.sim.next, kv.Lease)
		}
		kv.Value = rewrite(kv.Value)
		r.sim.put(kv)
	}
	records := map[string]*[]byte{}
	for id, record := range x.Records {
		b := []byte(record)
		records[id] = &b
	}
	return r, records
}

// Keys and records of former versions are read: agents go on with their blocks, tokens bring what they have brought,
// the total holds, who waits is served first, and what the dead had comes free. So it is where a later version has
// written what this one does not know, and that stays.
func TestFormerKeys(t *testing.T) {
	later := func(v string) string { return strings.Replace(v, "{", `{"later":{"x":[1]},`, 1) }
	for name, c := range map[string]struct {
		file    string
		rewrite func(string) string
	}{
		"the first version": {"keys-first.json", strings.Clone},
		"before rules":      {"keys-before-rules.json", strings.Clone},
		"a later version":   {"keys-before-rules.json", later},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				r, records := openFormer(t, c.file, c.rewrite)
				unknown := []string{"/u/z/a", "/u/p/" + streams + "/y/a", "/u/m/x/y/z"}
				for _, key := range unknown {
					r.put(key, "?")
				}
				r.beside(records)
				for _, key := range unknown {
					if r.value(key) != "?" {
						t.Errorf("the key %s, which this version does not know, is %q", key, r.value(key))
					}
				}
			})
		})
	}
}

// What an agent had before its host was started again is not its own any more: that shows in the incarnation which a
// former version has written beside its blocks. They count beside what the agent takes, until they are over.
func TestFormerIncarnations(t *testing.T) {
	for _, file := range []string{"keys-first.json", "keys-before-rules.json"} {
		t.Run(file, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				r, records := openFormer(t, file, strings.Clone)
				var was record
				if err := json.Unmarshal(*records["a"], &was); err != nil || len(was.Incarnations) == 0 {
					t.Fatalf("%s: %v", *records["a"], err)
				}
				a, _ := r.agent("a", new([]byte))
				for tries := 0; ; tries++ { // its former key lives for a moment
					if _, err := a.ready(t.Context(), true); err == nil {
						break
					} else if tries > 20 {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
				}
				got, err := r.checkOut(r.bound(a, 10), "1", 3)
				if err == nil && got.ID == blockID("1") && got.Slots == 3 {
					t.Errorf("it goes on with %+v, which a former start of the host had", got)
				}
			})
		})
	}
}

// beside has agents a and b of former keys start again, beside d, which joins with this version.
func (r *rig) beside(records map[string]*[]byte) {
	r.t.Helper()
	a, _ := r.agent("a", records["a"])
	b, _ := r.agent("b", records["b"])
	d, _ := r.agent("d", new([]byte))
	for _, f := range []*Fleet{a, b, d} {
		if _, err := f.ready(r.t.Context(), false); err != nil {
			r.t.Fatal(err)
		}
	}
	ba, bb, bd := r.bound(a, 10), r.bound(b, 10), r.bound(d, 10)
	if _, err := r.checkOut(bd, "x", 1); !isFull(err) {
		r.t.Errorf("an eleventh of ten slots: %v", err)
	}
	extend := func(of *Bound, id string, n int64) (*plugin.Block, error) {
		return of.Extend(r.t.Context(), &plugin.Extend{Block: id, Slots: n, For: time.Hour})
	}
	if got, err := extend(ba, blockID("1"), 3); err != nil || got.Slots != 3 {
		r.t.Errorf("an agent that started again goes on with %+v: %v", got, err)
	}
	if got := r.must(r.checkOut(ba, "1", 3)); got.ID != blockID("1") || got.Slots != 3 {
		r.t.Errorf("the token of a former check-out brings %+v", got)
	}
	if got, err := extend(ba, blockID("1"), 1); err != nil || got.Slots != 1 {
		r.t.Errorf("%+v, %v", got, err)
	}
	if got, err := r.checkOut(bd, "x", 2); !isFull(err) {
		r.t.Errorf("what one that waits since before asked for: %+v, %v", got, err)
	}
	if got := r.must(r.checkOut(bb, "4", 2)); got.Slots != 2 {
		r.t.Errorf("the one that has waited gets %+v", got)
	}
	r.adds()
	l := metered(20)
	all := func(string) bool { return true }
	da, dd := a.DrawerFor(l, nil, nil, all), d.DrawerFor(l, nil, nil, all)
	for _, x := range []struct {
		d      plugin.Drawer
		token  string
		ask, n int64
	}{{da, "d1", 3, 3}, {da, "d3", 1, 1}, {dd, "d1", 20, 14}} { // 3 and 2 were drawn
		got, err := x.d.Draw(r.t.Context(), &plugin.Draw{Meter: "renders", N: x.ask, Token: x.token})
		if err != nil || got.N != x.n {
			r.t.Errorf("the draw %s of %d: %+v, %v", x.token, x.ask, got, err)
		}
	}
	r.untilGot(bd, "y", 5) // c's
	r.adds()
	for _, f := range []*Fleet{a, b, d} {
		if _, err := f.ready(r.t.Context(), true); err != nil {
			r.t.Fatal(err)
		}
	}
	rep := d.Report(r.t.Context())
	if len(rep.Agents) != 3 || len(rep.Pools) != 1 || rep.Pools[0].Limit != 10 {
		r.t.Errorf("the report is %+v", rep)
	}
}
