package journal_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/agent/journal"
)

// More of the same: `make soak` sets them.
var (
	kills  = flag.Int("journal.kills", 20, "how often TestKilledWhileStoring kills")
	stores = flag.Int("journal.stores", 500, "how many partial stores TestStoredInPart tries")
)

// childEnv names the folder of the process that TestKilledWhileStoring kills.
const childEnv = "JOURNAL_TEST_CHILD"

func TestMain(m *testing.M) {
	flag.Parse()
	if dir := os.Getenv(childEnv); dir != "" {
		fmt.Fprintln(os.Stderr, appendForEver(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// memoryDir returns a folder on a tmpfs, of which size is the size in KiB; 0: any.
func memoryDir(t *testing.T, size int) string {
	t.Helper()
	var st unix.Statfs_t
	if size == 0 && unix.Statfs("/dev/shm", &st) == nil && int64(st.Type) == unix.TMPFS_MAGIC {
		dir, err := os.MkdirTemp("/dev/shm", "journal")
		if err == nil {
			t.Cleanup(func() { os.RemoveAll(dir) })
			return dir
		}
	}
	dir := t.TempDir()
	options := ""
	if size > 0 {
		options = fmt.Sprintf("size=%dk", size)
	}
	if err := unix.Mount("test", dir, "tmpfs", 0, options); err != nil {
		t.Skip("no tmpfs can be mounted here:", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func mapped(dir string) journal.Config {
	return journal.Config{Dir: dir, Name: "j", Map: true, MaxSize: 256 << 10}
}

// appendForEver appends numbers, each after the one before, and says each once it is appended. Meanwhile it compacts.
func appendForEver(dir string) error {
	var moment sync.Mutex // guards last
	var last uint64
	j, _, err := journal.Open(mapped(dir), func(b []byte) error {
		last = binary.LittleEndian.Uint64(b)
		return nil
	})
	if err != nil {
		return err
	}
	due := make(chan struct{}, 1)
	go func() {
		for range due {
			moment.Lock() // the snapshot is of the last number alone
			mark, upto := j.Mark(), last
			moment.Unlock()
			j.CompactFrom(mark, func(write func([]byte) error) error {
				return write(binary.LittleEndian.AppendUint64(nil, upto))
			})
		}
	}()
	for n := last + 1; ; n++ {
		record := binary.LittleEndian.AppendUint64(nil, n)
		moment.Lock()
		_, err := j.Append(append(record, bytes.Repeat([]byte{byte(n)}, rand.IntN(300))...))
		last = n
		moment.Unlock()
		if err != nil {
			return err
		}
		if _, err := os.Stdout.Write(record); err != nil {
			return err
		}
		if j.Due() {
			select {
			case due <- struct{}{}:
			default:
			}
		}
	}
}

// killed has a child append until it has said some number of records, kills it, and returns the last that it said.
func killed(t *testing.T, dir string, after int) (said uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), childEnv+"="+dir), os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(out)
	var b [8]byte
	for i := 0; ; i++ {
		if i == after {
			cmd.Process.Kill()
		}
		if _, err := io.ReadFull(in, b[:]); err != nil {
			break
		}
		said = binary.LittleEndian.Uint64(b[:])
	}
	cmd.Wait()
	return said
}

// What was stored through memory is found again after kill -9, whenever it came: while a record was stored, a window
// was made, the journal compacted.
func TestKilledWhileStoring(t *testing.T) {
	dir := memoryDir(t, 0)
	torn := 0
	for range *kills {
		said := killed(t, dir, 1+rand.IntN(6000))
		var last uint64
		j, r, err := journal.Open(mapped(dir), func(b []byte) error {
			n := binary.LittleEndian.Uint64(b)
			if last != 0 && n > last+1 || len(b) > 8 && bytes.Count(b[8:], []byte{byte(n)}) != len(b)-8 {
				return fmt.Errorf("record %d follows %d", n, last)
			}
			last = max(last, n)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if r.TornBytes > 0 {
			torn++
		}
		if last != said && last != said+1 {
			t.Fatalf("%d was acknowledged last, and %d is found last", said, last)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills left %d torn tails", *kills, torn)
}

// Whatever part of the last record was stored, the others are found, and it is there as it was or not at all.
func TestStoredInPart(t *testing.T) {
	dir := memoryDir(t, 0)
	j, _, err := journal.Open(mapped(dir), func([]byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for i := range 3 {
		if _, err := j.Append(bytes.Repeat([]byte{byte(i + 1)}, 40)); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(filepath.Join(dir, "j")) // as a killed process leaves it, with what was made ready
	if err != nil {
		t.Fatal(err)
	}
	end := len(bytes.TrimRight(whole, "\x00"))
	const head, length = 16, 56
	if len(whole) == end {
		t.Fatal("nothing was made ready: the journal is not mapped")
	}
	last := end - length
	for range *stores {
		b := bytes.Clone(whole[:min(len(whole), end+4096)])
		done := rand.IntN(3) == 0
		if !done { // the checksum comes last
			clear(b[last+4 : last+8])
		}
		if at := last + head + rand.IntN(length-head); !done && rand.IntN(2) == 0 {
			clear(b[at:end]) // and the data in order, as far as it came
		} else if !done && rand.IntN(2) == 0 {
			for i := last; i < end; i++ { // or any of it
				b[i] *= byte(rand.IntN(2))
			}
		}
		d := t.TempDir()
		if err := os.WriteFile(filepath.Join(d, "j"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		n := 0
		k, _, err := journal.Open(mapped(d), func(r []byte) error {
			if n++; !bytes.Equal(r, bytes.Repeat([]byte{byte(n)}, 40)) {
				return fmt.Errorf("record %d is %x", n, r)
			}
			return nil
		})
		if err != nil {
			t.Fatalf("%v, of %x", err, b[last:end])
		}
		if want := map[bool]int{true: 3, false: 2}[done]; n != want {
			t.Fatalf("%d records are found, want %d: %x", n, want, b[last:end])
		}
		k.Close()
		os.RemoveAll(d)
	}
}

// A full disk is an error and no signal, leaves nothing behind, and is over once there is room.
func TestWindowOnAFullDisk(t *testing.T) {
	dir := memoryDir(t, 1024)
	j, _, err := journal.Open(mapped(dir), func([]byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 600<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; err == nil; n++ {
		_, err = j.Append(bytes.Repeat([]byte{1}, 1000))
	}
	if n--; !errors.Is(err, journal.ErrFull) || n < 300 {
		t.Fatalf("after %d records of a kilobyte: %v", n, err)
	}
	if err := j.Room(1000); !errors.Is(err, journal.ErrFull) {
		t.Errorf("there is no room, and it says %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := j.Room(1000); err != nil {
		t.Errorf("there is room again, and it says %v", err)
	}
	for range 100 { // more than one window
		if _, err := j.Append(bytes.Repeat([]byte{1}, 5000)); err != nil {
			t.Fatal("there is room again:", err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	found := 0
	j, r, err := journal.Open(mapped(dir), func([]byte) error { found++; return nil })
	if err != nil || found != n+100 || r.TornBytes != 0 {
		t.Fatalf("%d records are found of %d, %+v, %v", found, n+100, r, err)
	}
	j.Close()
}

// Somebody who cuts the file off from outside ends neither the agent nor what it holds: the journal fails, says so, and
// is well again with its successor.
func TestCutFromOutside(t *testing.T) {
	for _, size := range []int64{0, 100} {
		dir := memoryDir(t, 0)
		j, _, err := journal.Open(mapped(dir), func([]byte) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.Append(make([]byte, 8000)); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dir, "j"), size); err != nil {
			t.Fatal(err)
		}
		if err := j.Look(); err == nil {
			t.Error("nobody notices that the file was cut")
		}
		for err == nil {
			_, err = j.Append(make([]byte, 100))
		}
		if j.Look() == nil || !bytes.Contains([]byte(err.Error()), []byte("cut")) {
			t.Errorf("an append says %v", err)
		}
		if err := j.Compact(func(write func([]byte) error) error {
			return write([]byte("all that is held"))
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := j.Append([]byte("more")); err != nil || j.Look() != nil {
			t.Errorf("after a successor: %v, %v", err, j.Look())
		}
		j.Close()
		var found [][]byte
		j, _, err = journal.Open(mapped(dir), func(b []byte) error {
			found = append(found, bytes.Clone(b))
			return nil
		})
		if err != nil || len(found) != 2 || string(found[1]) != "more" {
			t.Errorf("found %q, %v", found, err)
		}
		j.Close()
	}
}

// Only a folder in memory is mapped: on a disk the pages of a file reach it in any order, so that zeros among records
// would be damage after a power cut.
func TestDiskIsNotMapped(t *testing.T) {
	dir := t.TempDir()
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil && int64(st.Type) == unix.TMPFS_MAGIC {
		t.Skip("the folder of temporary files is in memory")
	}
	j, _, err := journal.Open(mapped(dir), func([]byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if _, err := j.Append([]byte("a record")); err != nil {
		t.Fatal(err)
	}
	if i, err := os.Stat(filepath.Join(dir, "j")); err != nil || i.Size() > 100 {
		t.Errorf("the file has %d bytes, %v", i.Size(), err)
	}
}

// What a killed process had made ready is no damage to a repair, nor part of an extent.
func TestReadyIsNoDamage(t *testing.T) {
	dir := memoryDir(t, 0)
	killed(t, dir, 50)
	before, err := os.ReadFile(filepath.Join(dir, "j"))
	if err != nil {
		t.Fatal(err)
	}
	x, err := journal.ExtentOf(filepath.Join(dir, "j"))
	if err != nil || x.Size >= int64(len(before)) {
		t.Fatalf("the extent has %d of %d bytes, %v", x.Size, len(before), err)
	}
	r, err := journal.Repair(dir, "j", nil)
	if err != nil || r.Rewrote && r.Dropped == 0 || r.Kept < 50 {
		t.Errorf("repaired: %+v, %v", r, err)
	}
	if fault, err := journal.Check(filepath.Join(dir, "j"), []journal.Extent{x}); err != nil ||
		!r.Rewrote && fault != "" {
		t.Errorf("checked: %s, %v", fault, err)
	}
}
