package journal_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"github.com/usher-agent/usher/agent/journal"
)

// goodRecords returns what a journal of these bytes may replay: its records up to the first bad one, by the format's
// description.
func goodRecords(b []byte) (records [][]byte) {
	table := crc32.MakeTable(crc32.Castagnoli)
	for at := 24; at+16 <= len(b); {
		n := binary.LittleEndian.Uint32(b[at:])
		if n == 0 || n > 1<<20 || int(n) > len(b)-at-16 {
			break
		}
		summed := binary.LittleEndian.AppendUint64(nil, uint64(at))
		summed = append(summed, b[at:at+4]...)
		summed = append(summed, b[at+8:at+16+int(n)]...)
		if crc32.Checksum(summed, table) != binary.LittleEndian.Uint32(b[at+4:]) {
			break
		}
		records = append(records, b[at+16:at+16+int(n)])
		at += 16 + int(n)
	}
	return records
}

func FuzzOpen(f *testing.F) {
	b, second, third := sample(f, true)
	f.Add(b)
	f.Add(b[:third+5])
	f.Add(append(bytes.Clone(b), make([]byte, 600)...))
	f.Add(append(bytes.Clone(b[:second]), b[third:]...))
	f.Add(header(1, 24))
	f.Add(header(2, 24))
	f.Add([]byte(nil))
	bad := bytes.Clone(b)
	bad[second+18] ^= 1
	f.Add(bad)
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, "j")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		var got [][]byte
		j, r, err := journal.Open(journal.Config{Dir: dir, Name: "j"}, func(b []byte) error {
			got = append(got, bytes.Clone(b))
			return nil
		})
		if err == nil {
			j.Close()
			want := goodRecords(b)
			if len(got) != len(want) || r.Records != len(got) || !r.New && r.Size+r.TornBytes != int64(len(b)) {
				t.Fatalf("replayed %d records of %d, %+v", len(got), len(want), r)
			}
			for i := range got {
				if !bytes.Equal(got[i], want[i]) {
					t.Fatalf("record %d: %q, want %q", i, got[i], want[i])
				}
			}
			return
		}
		if len(got) > 0 {
			t.Fatalf("a journal that was refused (%v) was replayed in part", err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, b) {
			t.Fatal("a journal that was refused was changed")
		}
		fixed, err := journal.Repair(dir, "j", nil)
		if err != nil {
			return
		}
		j, r, err = journal.Open(journal.Config{Dir: dir, Name: "j"}, func([]byte) error { return nil })
		if err != nil || r.Records != fixed.Kept || r.TornBytes != 0 {
			t.Fatalf("repaired, %+v, but then %+v, %v", fixed, r, err)
		}
		j.Close()
	})
}
