package desk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/enforcer"
)

// repairHouse is an agent's journals after a busy while, and what must be found in them again.
type repairHouse struct {
	files map[string][]byte // by path under dir
	dir   string
	want  string
	ends  map[enforcer.LeaseID]bool // of all leases that ever were: whether each is over
}

// newRepairHouse has leases of every lifetime granted, renewed, noted, doubted, joined and ended, draws and tokens,
// before and after a compaction and a restart.
func newRepairHouse(t *testing.T) *repairHouse {
	k := openKept(t)
	h := &repairHouse{files: map[string][]byte{}, dir: t.TempDir(), ends: map[enforcer.LeaseID]bool{}}
	get := func(r enforcer.Acquire) *enforcer.Lease {
		t.Helper()
		l, _, d := k.get(r)
		if d != nil {
			t.Fatal(d)
		}
		if r.Pool == "streams" {
			h.ends[l.ID] = false
		}
		return l
	}
	end := func(l *enforcer.Lease) {
		t.Helper()
		if d := k.Release(&enforcer.Release{ID: l.ID}); d != nil {
			t.Fatal(d)
		}
		h.ends[l.ID] = true
	}
	for round := range 2 {
		held := enforcer.Acquire{Pool: "streams", Lifetime: enforcer.LifetimeHeld, Token: fmt.Sprint("held", round),
			Data: &enforcer.Data{Owner: "x", Bytes: []byte("first")}}
		kept, over := get(held), get(enforcer.Acquire{Pool: "streams", Lifetime: enforcer.LifetimeHeld})
		get(enforcer.Acquire{Pool: "renders", Token: fmt.Sprint("draw", round)})
		brief, gone := get(enforcer.Acquire{Pool: "streams", Lifetime: enforcer.LifetimeTTL}),
			get(enforcer.Acquire{Pool: "streams", Lifetime: enforcer.LifetimeTTL, Token: fmt.Sprint("gone", round)})
		if d := k.Do(&enforcer.SetData{ID: kept.ID, Data: &enforcer.Data{Owner: "x", Bytes: []byte("second")}}).
			Denial; d != nil {
			t.Fatal(d)
		}
		if _, d := k.Renew(&enforcer.Renew{ID: brief.ID, TTL: time.Hour}); d != nil {
			t.Fatal(d)
		}
		end(over)
		end(gone)
		get(enforcer.Acquire{Pool: "renders"})
		if round == 0 {
			k.restart(true, false)
		}
	}
	h.want = repairState(k.Desk)
	for _, name := range []string{"state/" + seals.DurableJournal, "run/" + seals.RuntimeJournal} {
		b, err := os.ReadFile(filepath.Join(k.dir, name))
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(h.dir, name)), 0o700)
		}
		if err != nil {
			t.Fatal(err)
		}
		ats := recordsOf(b)
		h.files[name] = b[:ats[len(ats)-1][1]]
	}
	return h
}

// repairState is what a desk knows of leases and draws, as a text.
func repairState(d *Desk) string {
	var lines []string
	for _, l := range d.core.Leases(nil) {
		data := ""
		if l.Data != nil {
			data = string(l.Data.Bytes)
		}
		lines = append(lines,
			fmt.Sprint(l.ID, l.Items, l.Lifetime, l.TTL, l.AcquiredAt, l.Holder.Caller, data, l.Token != nil))
	}
	slices.Sort(lines)
	all, _ := d.core.Snapshot().Next(math.MaxInt)
	return fmt.Sprintln(lines, d.core.Meters(), len(all.Tokens))
}

// put puts the journals back as they were, but for one.
func (h *repairHouse) put(t rapid.TB, name string, b []byte) {
	t.Helper()
	for other, was := range h.files {
		if other == name {
			was = b
		}
		if err := os.WriteFile(filepath.Join(h.dir, other), was, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"state", "run"} {
		left, _ := filepath.Glob(filepath.Join(h.dir, dir, "*.damaged-*"))
		for _, name := range left {
			os.Remove(name)
		}
	}
}

// start starts, and repairs and starts again if that is refused. What it returns is closed.
func (h *repairHouse) start(t rapid.TB) (d *Desk, refused error) {
	t.Helper()
	d, refused = h.open()
	if refused == nil {
		return d, nil
	}
	if _, err := Repair(filepath.Join(h.dir, "state"), filepath.Join(h.dir, "run")); err != nil {
		t.Fatalf("refused (%v), and then not repaired: %v", refused, err)
	}
	d, err := h.open()
	if err != nil {
		t.Fatalf("refused (%v), repaired, and then refused: %v", refused, err)
	}
	return d, refused
}

func (h *repairHouse) open() (*Desk, error) {
	k := &keptStore{dir: h.dir, wall: time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)}
	if err := k.begin(); err != nil {
		return nil, err
	}
	return k.Desk, k.store.Close()
}

// TestRepairLosesNothing flips bits of both journals, one at a time: a start is refused, the repair leaves journals
// that replay, and every lease and draw is as it was.
func TestRepairLosesNothing(t *testing.T) {
	h := newRepairHouse(t)
	for _, name := range slices.Sorted(maps.Keys(h.files)) {
		b := h.files[name]
		// Every bit of a file is the journal's own test; here is one of every few bytes, and of the last.
		for i := len(b) - 1; i >= 0; i -= 13 {
			bad := bytes.Clone(b)
			bad[i] ^= 1 << (i % 8)
			h.put(t, name, bad)
			d, refused := h.start(t)
			if refused == nil {
				t.Fatalf("%s, byte %d: not noticed", name, i)
			}
			if got := repairState(d); got != h.want {
				t.Fatalf("%s, byte %d:\n%s, want\n%s", name, i, got, h.want)
			}
		}
	}
}

// TestRepairReplays wrecks whole records, so that others follow from nothing: what the repair leaves always replays, no
// lease is lost of which a word is left, and meters stand at the last word that is left of them.
func TestRepairReplays(t *testing.T) {
	h := newRepairHouse(t)
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom(slices.Sorted(maps.Keys(h.files))).Draw(t, "journal")
		bad := bytes.Clone(h.files[name])
		ats := recordsOf(bad)
		wrecked := rapid.SliceOfNDistinct(rapid.IntRange(0, len(ats)-1), 1, len(ats), rapid.ID).Draw(t, "records")
		known := map[enforcer.LeaseID]bool{} // by the word of a record that is left, other than its end
		for i, at := range ats {
			if slices.Contains(wrecked, i) {
				for j := at[0] + 16; j < at[1]; j++ {
					bad[j] ^= 0x5a
				}
				continue
			}
			if r := bad[at[0]+16 : at[1]]; r[0] == recordVersion {
				ev, err := decodeEvent(r, func(id enforcer.LeaseID) *enforcer.Lease {
					return &enforcer.Lease{ID: id}
				}, nil)
				if err == nil && ev.Lease != nil && ev.Kind != enforcer.EventEnded &&
					ev.Kind != enforcer.EventRemembered {
					known[ev.Lease.ID] = true
				}
			}
		}
		h.put(t, name, bad)
		d, _ := h.start(t)
		for id, over := range h.ends {
			if _, held := d.core.Lease(id); known[id] && !over && !held {
				t.Fatalf("lease %s is lost, and there is a record of it", id)
			}
		}
		if again, err := h.open(); err != nil || repairState(again) != repairState(d) {
			t.Fatalf("another start finds another state: %v", err)
		}
	})
}

// recordsOf returns where the records of a sound journal begin and end.
func recordsOf(b []byte) (out [][2]int) {
	for at := 24; at+16 < len(b) && binary.LittleEndian.Uint32(b[at:]) != 0; { // zeros are ready for more
		end := at + 16 + int(binary.LittleEndian.Uint32(b[at:]))
		out = append(out, [2]int{at, end})
		at = end
	}
	return out
}

// TestRepairOfAFormerRepair: a journal whose records are all sound, and in which the end of a lease follows from no
// grant, is what a former version's repair could leave.
func TestRepairOfAFormerRepair(t *testing.T) {
	k := openKept(t)
	l, _, d := k.get(enforcer.Acquire{Pool: "streams", Lifetime: enforcer.LifetimeHeld})
	if d != nil {
		t.Fatal(d)
	}
	id := l.ID
	id[0]++
	if _, err := k.store.durable.Append(encodeEvent(nil, enforcer.Event{Kind: enforcer.EventEnded, At: k.wall,
		Cause: enforcer.CauseReleased, Lease: &enforcer.Lease{ID: id}})); err != nil {
		t.Fatal(err)
	}
	k.close()
	if err := k.begin(); err == nil || !bytes.Contains([]byte(err.Error()), []byte("usher doctor --repair")) {
		t.Fatalf("a start on it: %v", err)
	}
	out, err := Repair(filepath.Join(k.dir, "state"), filepath.Join(k.dir, "run"))
	if err != nil || out[0].LeftOut != 1 {
		t.Fatalf("%+v, %v", out, err)
	}
	k.open()
	if _, held := k.Lease(l.ID); !held {
		t.Error("the other lease is lost")
	}
}
