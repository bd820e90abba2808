package shares

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
)

// seats is the pool of the licence L1.
var seats = enforcer.Share{License: "usher/L1", Pool: "seats"}

// recordOfFive makes a keeper with five slots in use, and returns it with its record.
func recordOfFive(t *testing.T, c *lender, file string, began time.Time) (h *tenant, record []byte) {
	t.Helper()
	h = openTenant(t, file, began, c)
	h.want(5)
	time.Sleep(time.Second)
	record, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return h, record
}

// A restarted keeper goes on with the blocks of the old one, on the same start of the host alone.
func TestBlocksRecord(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		began := time.Now()
		h, record := recordOfFive(t, newLender(40, time.Minute), filepath.Join(t.TempDir(), "blocks"), began)
		unmarked := bytes.Replace(record, []byte(`"host_clock":true,`), nil, 1)
		for _, row := range []struct {
			what   string
			record []byte
			boot   string
			offset bool
			after  time.Duration
			want   int64 // slots; -1: nothing is kept of the licence
		}{
			{"restarted", record, "boot", false, 0, h.demand("").Capacity},
			{"after another start of the host", record, "another boot", false, 0, -1},
			{"where there is no boot id", record, "", false, 0, -1},
			{"after their time", record, "boot", false, time.Minute, 0},
			{"in a time namespace", record, "boot", true, 0, h.demand("").Capacity},
			{"of a former version", unmarked, "boot", false, 0, h.demand("").Capacity},
			{"of a former version, which counted by the time namespace", unmarked, "boot", true, 0, -1},
		} {
			of, err := loadBlocks(Config{BootID: row.boot, Offset: row.offset,
				Blocks: File{Read: func(string) ([]byte, error) { return row.record, nil }},
				Now:    func() time.Duration { return h.up() + row.after }})
			n := int64(-1)
			if e := of["usher/L1"]; e != nil {
				n = 0
				for _, b := range e.plans["seats"].Blocks {
					n += b.Use
				}
				if string(e.state) != "s" {
					t.Errorf("%s: the upstream's state is %q", row.what, e.state)
				}
			}
			if err != nil || n != row.want {
				t.Errorf("%s: %d slots, %v; want %d", row.what, n, err, row.want)
			}
		}
	})
}

// A keeper that is started after a kill hands out of the old blocks, also where a former version named the licence by
// its id alone. A broken record is refused.
func TestBlocksAfterAKill(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c, file, began := newLender(40, time.Minute), filepath.Join(t.TempDir(), "blocks"), time.Now()
		h, record := recordOfFive(t, c, file, began)
		h.stop()
		again := func(record []byte) (*Keeper, error) {
			if err := os.WriteFile(file, record, 0o600); err != nil {
				t.Fatal(err)
			}
			return New(Config{Blocks: File{Path: file}, BootID: "boot", Now: h.up, Time: time.Now})
		}
		k, err := again(record)
		if err != nil {
			t.Fatal(err)
		}
		if budgets, fence := k.Budgets(); budgets[seats] < 5 || fence <= h.up() {
			t.Errorf("the budget is %v until %v", budgets, fence)
		}
		former := bytes.Replace(record, []byte(`"L1":{"named":true,`), []byte(`"L1":{`), 1)
		if bytes.Equal(former, record) {
			t.Fatalf("the record is %s", record)
		}
		if k, err = again(former); err != nil {
			t.Fatal(err)
		}
		k.Set([]Licence{blockLicence("L1", c)})
		if budgets, _ := k.Budgets(); len(budgets) != 1 || budgets[seats] < 5 {
			t.Errorf("of a former version's record: %v", budgets)
		}
		if _, err := again([]byte("{")); err == nil {
			t.Error("a broken record is taken")
		}
	})
}

// The upstream hears that slots come back only when they are out of use here, and in the record of a restarted agent:
// it may give them to others before its answer comes.
func TestGivenBackAfterUse(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c, file := newLender(40, time.Minute), filepath.Join(t.TempDir(), "blocks")
		h := openTenant(t, file, time.Now(), c)
		heard := map[string]bool{}
		c.change(func() {
			c.less = func(id string, slots int64) {
				if was := c.blocks[id].slots; slots >= was || was == 0 {
					return
				}
				most := slots
				for other, b := range c.blocks {
					if other != id {
						most += b.slots
					}
				}
				h.mu.Lock()
				use := h.cap
				h.mu.Unlock()
				if use > most {
					t.Errorf("the upstream hears that %d slots are enough while the agent may hand out %d", most, use)
				}
				if n := h.recorded(file)[id]; n > slots {
					t.Errorf(
						"the upstream hears that a block has %d slots while a restarted agent would hand out %d of it",
						slots, n)
				}
				heard[map[bool]string{true: "smaller", false: "back"}[slots > 0]] = true
			}
		})
		for range 3 {
			h.want(24)
			time.Sleep(time.Second)
			h.release(19)
			time.Sleep(3 * time.Minute)
			h.release(5)
			time.Sleep(3 * time.Minute)
		}
		h.stop()
		if !heard["smaller"] || !heard["back"] {
			t.Errorf("the upstream has heard %v", heard)
		}
	})
}

// What cannot be recorded as given back stays in use here, and is given back once it can.
func TestGivenBackNotRecorded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newLender(40, time.Minute)
		h := openTenant(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), c)
		h.want(24)
		time.Sleep(time.Second)
		h.has(24, 40)
		h.full.Store(true)
		h.release(24)
		for range 200 {
			time.Sleep(time.Second)
			synctest.Wait()
			if n := h.demand("").Capacity; n < 24 {
				t.Fatalf("%d of 24 slots are here, and no disk has recorded that they are given back", n)
			}
		}
		h.full.Store(false)
		time.Sleep(3 * time.Minute)
		if h.has(0, 2); c.total() > 2 {
			t.Errorf("none is in use, and %d are out", c.total())
		}
	})
}

// The upstream cuts a block. It does not hear that the agent has heard of it before the record has: one that is
// restarted with the old record would go on with the old size.
func TestCutIsRecordedFirst(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c, file := newLender(40, time.Minute), filepath.Join(t.TempDir(), "blocks")
		h := openTenant(t, file, time.Now(), c)
		h.want(8)
		time.Sleep(time.Second)
		h.has(8, 16)
		h.full.Store(true)
		c.change(func() { c.cut = 3 })
		time.Sleep(22 * time.Second) // it was extended once
		h.has(8, 3)
		h.mu.Lock()
		use := h.cap
		h.mu.Unlock()
		calls := c.took("extend") + c.took("check_out")
		time.Sleep(10 * time.Second)
		if n := c.took("extend") + c.took("check_out"); use == 0 || n != calls {
			t.Errorf("%d are here, the record cannot be written, and %d calls were made", use, n-calls)
		}
		h.full.Store(false)
		before := c.took("extend")
		again := func() bool {
			synctest.Wait()
			return c.took("extend") > before && len(h.recorded(file)) > 0
		}
		for i := 0; !again(); i++ {
			if time.Sleep(time.Second); i == 60 {
				t.Fatalf("the record can be written again and says %v; %d calls", h.recorded(file),
					c.took("extend")-before)
			}
		}
	})
}
