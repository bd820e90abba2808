package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/usher-agent/usher/agent/journal"
)

func collect(into *[]string) func([]byte) error {
	return func(b []byte) error { *into = append(*into, string(b)); return nil }
}

func open(t testing.TB, c journal.Config) (*journal.Journal, journal.Report, []string) {
	t.Helper()
	var got []string
	j, r, err := journal.Open(c, collect(&got))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j, r, got
}

func add(t testing.TB, j *journal.Journal, records ...string) {
	t.Helper()
	for _, r := range records {
		c, err := j.Append([]byte(r))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// sample returns the bytes of a journal of three records, the last two of which begin at the offsets.
func sample(t testing.TB, sync bool) (b []byte, second, third int) {
	t.Helper()
	c := journal.Config{Dir: t.TempDir(), Name: "j", Sync: sync}
	j, _, _ := open(t, c)
	add(t, j, "first record")
	second = int(size(t, c))
	add(t, j, "second record")
	third = int(size(t, c))
	add(t, j, "third record")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(c.Dir, c.Name))
	if err != nil {
		t.Fatal(err)
	}
	return b, second, third
}

func size(t testing.TB, c journal.Config) int64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(c.Dir, c.Name))
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// openBytes opens a journal made of b.
func openBytes(t testing.TB, b []byte, sync bool) ([]string, journal.Report, journal.Config, error) {
	t.Helper()
	c := journal.Config{Dir: t.TempDir(), Name: "j", Sync: sync}
	if err := os.WriteFile(filepath.Join(c.Dir, c.Name), b, 0o600); err != nil {
		t.Fatal(err)
	}
	var got []string
	j, r, err := journal.Open(c, collect(&got))
	if err == nil {
		err = j.Close()
	}
	return got, r, c, err
}

var all = []string{"first record", "second record", "third record"}

func TestReplaysWhatWasAppended(t *testing.T) {
	for _, sync := range []bool{false, true} {
		c := journal.Config{Dir: filepath.Join(t.TempDir(), "a", "b"), Name: "j", Sync: sync}
		j, r, got := open(t, c)
		if !r.New || len(got) != 0 {
			t.Errorf("a new journal: %+v, %q", r, got)
		}
		if _, err := j.Append([]byte("a"), []byte("b")); err != nil {
			t.Fatal(err)
		}
		add(t, j, "c", strings.Repeat("x", journal.MaxRecord))
		if _, err := j.Append(nil); err == nil {
			t.Error("an empty record was taken")
		}
		if _, err := j.Append(make([]byte, journal.MaxRecord+1)); err == nil {
			t.Error("a record that is too large was taken")
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := j.Append([]byte("late")); !errors.Is(err, journal.ErrClosed) {
			t.Errorf("append after Close: %v", err)
		}
		_, r, got = open(t, c)
		if want := []string{"a", "b", "c", strings.Repeat("x", journal.MaxRecord)}; !slices.Equal(got, want) ||
			r.Records != 4 || r.TornBytes != 0 {
			t.Errorf("replayed %.60q, %+v", got, r)
		}
		for path, want := range map[string]os.FileMode{c.Dir: 0o700, filepath.Join(c.Dir, "j"): 0o600} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %v, %v; want mode %v", path, info.Mode(), err, want)
			}
		}
	}
}

func TestTornTailIsCut(t *testing.T) {
	for _, sync := range []bool{false, true} {
		b, _, third := sample(t, sync)
		for cut := third; cut < len(b); cut++ {
			got, r, c, err := openBytes(t, b[:cut], sync)
			if err != nil || !slices.Equal(got, all[:2]) || r.TornBytes != int64(cut-third) || r.Size != int64(third) {
				t.Fatalf("cut at %d of %d: %q, %+v, %v", cut, len(b), got, r, err)
			}
			j, r, got := open(t, c)
			if r.TornBytes != 0 || len(got) != 2 {
				t.Fatalf("the torn tail was still there: %+v", r)
			}
			add(t, j, "after")
		}
		for i := third; i < len(b); i++ {
			bad := bytes.Clone(b)
			bad[i] ^= 0x12
			if got, r, _, err := openBytes(t, bad, sync); err != nil || !slices.Equal(got, all[:2]) ||
				r.TornBytes == 0 {
				t.Fatalf("byte %d of the last record changed: %q, %+v, %v", i, got, r, err)
			}
			bad[i] ^= 0x02 // a crash does not leave a single wrong bit
			if got, _, _, err := openBytes(t, bad, sync); !errors.As(err, new(*journal.CorruptError)) {
				t.Fatalf("a bit of byte %d of the last record changed: %q, %v", i, got, err)
			}
		}
	}
}

// TestPowerCutThatTakesOneBit has a power cut lose one byte of the last record, with one bit in it: all that this
// record has in that sector. The same bit is damage where the rest of its sector is there.
func TestPowerCutThatTakesOneBit(t *testing.T) {
	const at = 100 // of the last record, where it is not said otherwise
	for name, c := range map[string]struct {
		start int // of the last record
		last  string
		lost  int
		torn  bool
	}{
		"its last byte":           {at, strings.Repeat("y", 512-at-16) + " ", 512, true}, // a space has one bit
		"one before its last":     {at, strings.Repeat("y", 512-at-16) + " z", 512, false},
		"the start of a sector":   {at, strings.Repeat("y", 512-at-16) + " " + strings.Repeat("z", 30), 512, false},
		"its first byte":          {511, strings.Repeat("y", 64), 511, true}, // the length
		"its first, of two there": {510, strings.Repeat("y", 1<<8+64), 510, false},
	} {
		config := journal.Config{Dir: t.TempDir(), Name: "j", Sync: true}
		j, _, _ := open(t, config)
		add(t, j, strings.Repeat("x", c.start-int(size(t, config))-16))
		add(t, j, c.last)
		j.Close()
		b, err := os.ReadFile(filepath.Join(config.Dir, config.Name))
		if err != nil {
			t.Fatal(err)
		}
		if len(b) != c.start+16+len(c.last) || bits.OnesCount8(b[c.lost]) != 1 {
			t.Fatalf("%s: %d bytes, with %q at the place", name, len(b), b[c.lost])
		}
		b[c.lost] = 0
		got, r, _, err := openBytes(t, b, true)
		var corrupt *journal.CorruptError
		if torn := err == nil && len(got) == 1 && r.TornBytes > 0; torn != c.torn ||
			!torn && !errors.As(err, &corrupt) {
			t.Errorf("%s: torn is %v; replayed %d, %+v, %v", name, torn, len(got), r, err)
		}
	}
}

func TestDamageInTheMiddleIsRefused(t *testing.T) {
	for _, sync := range []bool{false, true} {
		b, second, third := sample(t, sync)
		for i := range third {
			for _, flip := range []byte{1, 0x80, 0xff} {
				bad := bytes.Clone(b)
				bad[i] ^= flip
				got, _, _, err := openBytes(t, bad, sync)
				var corrupt *journal.CorruptError
				if !errors.As(err, &corrupt) || len(got) != 0 {
					t.Fatalf("byte %d changed by %#x: replayed %q, %v", i, flip, got, err)
				}
				if i >= second && corrupt.Offset != int64(second) {
					t.Fatalf("byte %d changed: damage said to be at %d", i, corrupt.Offset)
				}
				if !strings.Contains(err.Error(), "usher doctor --repair") {
					t.Fatalf("%q does not say what to do", err)
				}
			}
		}
		// A hole, and two records that changed places.
		for name, bad := range map[string][]byte{
			"hole":    append(bytes.Clone(b[:second]), b[third:]...),
			"swapped": slices.Concat(b[:second], b[third:], b[second:third]),
			"twice":   slices.Concat(b[:third], b[second:third], b[third:]),
		} {
			if got, r, _, err := openBytes(t, bad, sync); err == nil && !slices.Equal(got, all[:len(got)]) {
				t.Errorf("%s: replayed %q, %+v", name, got, r)
			}
		}
	}
}

// TestDamageInTheLastGroupIsRefused has no later record whose mark would tell. Only zeros are what a power cut leaves.
func TestDamageInTheLastGroupIsRefused(t *testing.T) {
	c := journal.Config{Dir: t.TempDir(), Name: "j", Sync: true}
	j, _, _ := open(t, c)
	record := bytes.Repeat([]byte("x"), 1500)
	if _, err := j.Append(record, []byte("last")); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(c.Dir, "j"))
	if err != nil {
		t.Fatal(err)
	}
	for i := 24; i < 24+16+len(record); i += 7 {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if got, r, _, err := openBytes(t, bad, true); !errors.As(err, new(*journal.CorruptError)) {
			t.Fatalf("byte %d changed: replayed %d, %+v, %v", i, len(got), r, err)
		}
	}
	lost := bytes.Clone(b)
	clear(lost[512:1024])
	if got, r, _, err := openBytes(t, lost, true); err != nil || len(got) != 0 || r.TornBytes != int64(len(b)-24) {
		t.Errorf("a sector that was never written: replayed %d, %+v, %v", len(got), r, err)
	}
	if _, _, _, err := openBytes(t, lost, false); err == nil {
		// A journal with fsync wrote the marks in it. It does not matter how it is opened.
		return
	}
	t.Error("how a journal is opened changed what its marks mean")
}

func TestOtherDamagedFiles(t *testing.T) {
	b, second, _ := sample(t, true)
	zeros := make([]byte, 5000)
	future := bytes.Clone(b)
	copy(future, header(2, 24))
	missing := slices.Concat(header(1, uint64(len(b)+1)), b[24:])
	for _, c := range []struct {
		name string
		b    []byte
		want []string
		torn int64
		err  any
	}{
		{name: "empty"},
		{name: "trailing zeros", b: append(bytes.Clone(b), zeros...), want: all, torn: 5000},
		{name: "one trailing zero", b: append(bytes.Clone(b), 0), want: all, torn: 1},
		{name: "trailing garbage", b: append(bytes.Clone(b), bytes.Repeat([]byte("garbage "), 4000)...), want: all,
			torn: 32000},
		{name: "only zeros", b: zeros, err: new(*journal.CorruptError)},
		{name: "wrong magic", b: []byte("{\"a\": 1, \"b\": 2, \"c\": 3}\n"), err: new(*journal.CorruptError)},
		{name: "half a header", b: b[:10], err: new(*journal.CorruptError)},
		{name: "future version", b: future, err: new(*journal.VersionError)},
		{name: "zeros in the middle", b: slices.Concat(b[:second], make([]byte, 16), b[second+16:]),
			err: new(*journal.CorruptError)},
		{name: "part of the snapshot missing", b: missing, err: new(*journal.CorruptError)},
	} {
		got, r, _, err := openBytes(t, c.b, true)
		if c.err != nil {
			if !errors.As(err, c.err) || len(got) != 0 {
				t.Errorf("%s: replayed %q, %v", c.name, got, err)
			}
		} else if err != nil || !slices.Equal(got, c.want) || r.TornBytes != c.torn {
			t.Errorf("%s: replayed %q, %+v, %v", c.name, got, r, err)
		}
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "/"} {
		if _, _, err := journal.Open(journal.Config{Dir: t.TempDir(), Name: name}, collect(new([]string))); err == nil {
			t.Errorf("a journal named %q was opened", name)
		}
	}
	c := journal.Config{Dir: t.TempDir(), Name: "j"}
	if err := os.Mkdir(filepath.Join(c.Dir, "j"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := journal.Open(c, collect(new([]string))); err == nil {
		t.Error("a folder was opened as a journal")
	}
}

func TestReplayMayRefuse(t *testing.T) {
	b, _, _ := sample(t, false)
	c := journal.Config{Dir: t.TempDir(), Name: "j"}
	if err := os.WriteFile(filepath.Join(c.Dir, "j"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	n := 0
	_, _, err := journal.Open(c, func([]byte) error {
		if n++; n == 2 {
			return refused
		}
		return nil
	})
	if !errors.Is(err, refused) || n != 2 {
		t.Errorf("after %d records: %v", n, err)
	}
}

func TestCompact(t *testing.T) {
	for _, sync := range []bool{false, true} {
		c := journal.Config{Dir: t.TempDir(), Name: "j", Sync: sync, MaxSize: 2000}
		j, _, _ := open(t, c)
		for i := range 100 {
			add(t, j, fmt.Sprintf("old %d", i))
		}
		if !j.Due() {
			t.Error("a journal above its size is not due")
		}
		before := size(t, c)
		from := j.Mark()
		err := j.Compact(func(write func([]byte) error) error {
			add(t, j, "meanwhile")
			return errors.Join(write([]byte("snapshot 1")), write([]byte("snapshot 2")))
		})
		if err != nil {
			t.Fatal(err)
		}
		if j.Due() || size(t, c) >= before {
			t.Errorf("compacted from %d to %d bytes, still due: %v", before, size(t, c), j.Due())
		}
		if err := j.CompactFrom(from, func(func([]byte) error) error { return nil }); err == nil {
			t.Error("a snapshot from before the last compaction was taken")
		}
		add(t, j, "after")
		failed := errors.New("failed")
		if err := j.Compact(func(func([]byte) error) error { return failed }); !errors.Is(err, failed) {
			t.Errorf("a failed snapshot: %v", err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(filepath.Join(c.Dir, "*.tmp")); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
		if _, _, got := open(t, c); !slices.Equal(got, []string{"snapshot 1", "snapshot 2", "meanwhile", "after"}) {
			t.Errorf("sync %v: replayed %q", sync, got)
		}
	}
}

func TestRepair(t *testing.T) {
	b, second, third := sample(t, true)
	flip := func(masks ...int) []byte {
		bad := bytes.Clone(b)
		for i := 0; i < len(masks); i += 2 {
			bad[masks[i]] ^= byte(masks[i+1])
		}
		return bad
	}
	for _, c := range []struct {
		name    string
		b       []byte
		want    []string
		changed bool
	}{
		{"sound", b, all, false},
		{"one bit", flip(second+20, 4), all, true},
		{"a bit of the length", flip(second+2, 4), all, true},
		{"a bit of the last record", flip(len(b)-1, 1), all, true},
		{"middle", flip(second+20, 5), []string{all[0], all[2]}, true},
		{"length", flip(second+2, 6), []string{all[0], all[2]}, true},
		{"first", flip(44, 3), all[1:], true},
		{"a bit each of two records", flip(44, 8, second+20, 4), all, true},
		{"header", flip(9, 4), all, true},
		{"magic", flip(0, 7), all, true},
		{"tail", b[:third+3], all[:2], true},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "j"), c.b, 0o640); err != nil {
			t.Fatal(err)
		}
		r, err := journal.Repair(dir, "j", nil)
		if err != nil || r.Kept != len(c.want) || r.Rewrote != c.changed {
			t.Errorf("%s: %+v, %v", c.name, r, err)
			continue
		}
		aside, _ := filepath.Glob(filepath.Join(dir, "j.damaged-*"))
		if c.changed != (len(aside) == 1) {
			t.Errorf("%s: put aside %q", c.name, aside)
		} else if c.changed {
			if kept, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(kept, c.b) {
				t.Errorf("%s: the damaged file was not kept: %v", c.name, err)
			}
		}
		if fi, err := os.Stat(filepath.Join(dir, "j")); err != nil || fi.Mode().Perm() != 0o640 {
			t.Errorf("%s: the mode is %v, %v", c.name, fi.Mode(), err)
		}
		if _, r, got := open(t, journal.Config{Dir: dir, Name: "j"}); !slices.Equal(got, c.want) || r.TornBytes != 0 {
			t.Errorf("%s: replayed %q, %+v", c.name, got, r)
		}
	}

	for name, b := range map[string][]byte{"not a journal": []byte("some text that is no journal at all"),
		"future": header(2, 24)} {
		dir := t.TempDir()
		path := filepath.Join(dir, "j")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := journal.Repair(dir, "j", nil)
		if after, _ := os.ReadFile(path); err == nil || !bytes.Equal(after, b) {
			t.Errorf("%s was repaired: %v", name, err)
		}
	}
}

// TestRepairOneBit flips bits of a journal, one in every byte. A start notices it, the repair finds every record, and
// the next start is good.
func TestRepairOneBit(t *testing.T) {
	for _, sync := range []bool{false, true} {
		b, _, _ := sample(t, sync)
		path := filepath.Join(t.TempDir(), "j")
		c := journal.Config{Dir: filepath.Dir(path), Name: "j"}
		replay := func(got *[]string) func([]byte) error {
			return func(r []byte) error { *got = append(*got, string(r)); return nil }
		}
		for i := 0; i < len(b)*8; i += 9 {
			bad := bytes.Clone(b)
			bad[i/8] ^= 1 << (i % 8)
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			var got []string
			if j, _, err := journal.Open(c, replay(&got)); err == nil {
				j.Close()
				t.Fatalf("sync %v, bit %d: it was not noticed: %q", sync, i, got)
			}
			if r, err := journal.Repair(c.Dir, c.Name, nil); err != nil || r.Dropped != 0 {
				t.Fatalf("sync %v, bit %d: %+v, %v", sync, i, r, err)
			}
			j, r, err := journal.Open(c, replay(&got))
			if err != nil || r.TornBytes != 0 || !slices.Equal(got, all) {
				t.Fatalf("sync %v, bit %d: %q, %+v, %v", sync, i, got, r, err)
			}
			j.Close()
			aside, _ := filepath.Glob(path + ".damaged-*")
			for _, name := range aside {
				os.Remove(name)
			}
		}
	}
}

// TestRepairReplay: of a sound journal, what the replay keeps remains, and nothing remains when it refuses.
func TestRepairReplay(t *testing.T) {
	b, _, _ := sample(t, true)
	path := filepath.Join(t.TempDir(), "j")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	if _, err := journal.Repair(filepath.Dir(path), "j", func([][]byte) ([][]byte, error) {
		return nil, refused
	}); !errors.Is(err, refused) {
		t.Errorf("a replay that refuses: %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(after, b) {
		t.Error("the journal was changed though its replay was refused")
	}
	r, err := journal.Repair(filepath.Dir(path), "j", func(r [][]byte) ([][]byte, error) { return r[1:], nil })
	if err != nil || !r.Rewrote || r.Kept != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, _, got := open(t, journal.Config{Dir: filepath.Dir(path), Name: "j"}); !slices.Equal(got, all[1:]) {
		t.Errorf("replayed %q", got)
	}
}
