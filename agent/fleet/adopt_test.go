package fleet

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// lenders makes n members that lend their blocks on for up to a minute after their last sign of life.
func (r *rig) lenders(told *[]string, names ...string) (all []*Fleet, records []*[]byte) {
	for _, id := range names {
		record := new([]byte)
		all, records = append(all, r.lender(id, record, told)), append(records, record)
	}
	return all, records
}

func (r *rig) lender(id string, record *[]byte, told *[]string) *Fleet {
	f, _ := r.agent(id, record)
	f.cfg.Keep, f.cfg.Lends = time.Minute, true
	f.cfg.OnMoved = func(_ string, parts []string) error { *told = append(*told, parts...); return nil }
	return f
}

// threeLenders makes the members a, b and c that lend, and what each gives of a licence with ten slots.
func (r *rig) threeLenders(told *[]string) (all []*Fleet, records []*[]byte, of [3]*Bound) {
	r.t.Helper()
	all, records = r.lenders(told, "a", "b", "c")
	r.join(all...)
	time.Sleep(2 * time.Minute) // the quarantine is as long as slots may be in use
	for i, f := range all {
		of[i] = r.bound(f, 10)
	}
	return all, records, of
}

func reserved(int64) (bool, error) { return true, nil }

func isLapsed(err error) bool {
	var e *plugin.Error
	return errors.As(err, &e) && e.SystemCode == plugin.SystemLapsed
}

// sums returns the total of the pool in the store, and the sum of all blocks.
func (r *rig) sums() (total, blocks int64) {
	c := &crowd{t: r.t, sim: r.sim}
	return c.sum()
}

// What a dead lender has lent on is another lender's once its fence is over, and no sooner; once alone, and the sum
// stays as it is. A lender that comes back goes on with the rest, and is told before.
func TestAdopt(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r, told := newRig(t), []string(nil)
		_, records, of := r.threeLenders(&told)
		a, b, c := of[0], of[1], of[2]
		mine := r.must(r.checkOut(a, "broker", 10))
		r.must(a.Extend(t.Context(), &plugin.Extend{Block: mine.ID, For: time.Hour}))
		part := func(by *Bound, id string, n int64) (*plugin.Block, error) {
			got, _, err := by.Adopt(t.Context(), "a", "streams", id, BlockID("broker"), n, reserved)
			return got, err
		}
		stopped := time.Now()
		for {
			got, err := part(b, "x", 4)
			if err == nil {
				if got.Slots != 4 {
					t.Errorf("of a part of 4 slots there are %d", got.Slots)
				}
				break
			}
			if isLapsed(err) || time.Since(stopped) > time.Minute {
				t.Fatalf("%s after the lender stopped: %v", time.Since(stopped), err)
			}
			time.Sleep(time.Second)
		}
		// its key has gone after 10 s, its fence is over 10 s later
		if took := time.Since(stopped); took < 20*time.Second {
			t.Errorf("a part was taken over %s after the lender's last sign of life", took)
		}
		if out, sum := r.sums(); out != 10 || sum != 10 {
			t.Errorf("the total is %d, the blocks have %d", out, sum)
		}
		if got := r.must(part(b, "x", 4)); got.Slots != 4 {
			t.Errorf("the same part once more: %d slots", got.Slots)
		}
		if _, err := part(c, "x", 4); !isLapsed(err) {
			t.Errorf("another takes the same part over: %v", err)
		}
		if _, err := part(c, "y", 7); !isLapsed(err) {
			t.Errorf("more than is left: %v", err)
		}
		if got := r.must(part(c, "y", 3)); got.Slots != 3 {
			t.Errorf("of another part of 3 there are %d", got.Slots)
		}
		back := r.bound(r.lender("a", records[0], &told), 10)
		got := r.must(back.CheckOut(t.Context(),
			&plugin.CheckOut{Pool: "streams", Slots: 10, AtLeast: 1, For: time.Hour,
				Token: "broker"}))
		if got.Slots != 3 || !slices.Equal(told, []string{"x", "y"}) {
			t.Errorf("the lender that is back has %d slots, and was told of %v", got.Slots, told)
		}
		if out, sum := r.sums(); out != 10 || sum != 10 {
			t.Errorf("the total is %d, the blocks have %d", out, sum)
		}
		if _, err := part(c, "z", 1); err == nil || isLapsed(err) {
			t.Errorf("of a lender that lives: %v", err)
		}
	})
}
