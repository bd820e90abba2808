package dialect

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usher-agent/usher/agent/journal"
	"github.com/usher-agent/usher/plugin"
)

func openTestStore(t testing.TB, dir string, file func(string, int) (journal.File, error)) *store {
	t.Helper()
	s, err := openStore(dir, "toy", slog.New(slog.DiscardHandler), file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// content is all that a store holds.
func (s *store) content() map[string]string {
	out := map[string]string{}
	s.Range("", func(k string, v []byte) bool { out[k] = string(v); return true })
	return out
}

// failing is a file of which writes or syncs fail at will, as they do on a full disk.
type failing struct {
	*os.File
	write, sync *error
}

func (f failing) WriteAt(b []byte, at int64) (int, error) {
	if *f.write != nil {
		return 0, *f.write
	}
	return f.File.WriteAt(b, at)
}

func (f failing) Sync() error {
	if *f.sync != nil {
		return *f.sync
	}
	return f.File.Sync()
}

// put is a change that gives a key a value of n bytes.
func put(key string, n int) plugin.Change { return plugin.Change{Key: key, Value: make([]byte, n)} }

// Changes are made all or none: only within the bounds, and only where all that they expect holds.
func TestStoreApplies(t *testing.T) {
	t.Parallel()
	s := openTestStore(t, t.TempDir(), nil)
	defer s.Close()
	if err := s.Apply(plugin.Change{Key: "a", Value: []byte("1"), If: true},
		plugin.Change{Key: "e", Value: []byte{}}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		changes []plugin.Change
		want    error  // nil: as says
		says    string // empty: it succeeds
	}{
		{"nothing", nil, nil, ""},
		{"no key", []plugin.Change{put("", 1)}, nil, "the key has 0 bytes"},
		{"a long key", []plugin.Change{put(strings.Repeat("k", plugin.MaxStoreKey+1), 1)}, nil,
			"the key has 257 bytes"},
		{"a large value", []plugin.Change{put("k", plugin.MaxStoreValue+1)}, nil, "the value has 16385 bytes"},
		{"much at once", slices.Repeat([]plugin.Change{put("k", plugin.MaxStoreValue)}, 16), nil,
			"apply them one after the other"},
		{"another value is expected", []plugin.Change{put("b", 1),
			{Key: "a", Value: []byte("2"), If: true, Expect: []byte("0")}}, plugin.ErrConflict, "-"},
		{"none is expected", []plugin.Change{put("b", 1), {Key: "a", Value: []byte("2"), If: true}}, plugin.ErrConflict,
			"-"},
		{"an empty one is expected", []plugin.Change{put("b", 1),
			{Key: "x", Value: []byte("2"), If: true, Expect: []byte{}}}, plugin.ErrConflict, "-"},
		{"none is expected, and there is an empty one",
			[]plugin.Change{put("b", 1), {Key: "e", Value: []byte("2"), If: true}}, plugin.ErrConflict, "-"},
		{"as expected", []plugin.Change{{Key: "a", Value: []byte("2"), If: true, Expect: []byte("1")},
			{Key: "a", Value: []byte("1"), If: true, Expect: []byte("1")}, {Key: "x"}}, nil, ""},
	} {
		err := s.Apply(test.changes...)
		switch {
		case test.want != nil && !errors.Is(err, test.want),
			test.want == nil && test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)),
			test.says == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		}
		if got := s.content(); !maps.Equal(got, map[string]string{"a": "1", "e": ""}) {
			t.Fatalf("%s: the store holds %v", test.name, got)
		}
	}
}

// A full disk changes nothing; when there is room again, the store goes on. What never reached the disk cannot be read.
func TestStoreOnAFullDisk(t *testing.T) {
	t.Parallel()
	var noWrite, noSync error
	s := openTestStore(t, t.TempDir(), func(name string, flag int) (journal.File, error) {
		f, err := os.OpenFile(name, flag, 0o600)
		return failing{f, &noWrite, &noSync}, err
	})
	if err := s.Apply(put("a", 1), put("e", 0)); err != nil {
		t.Fatal(err)
	}
	noWrite = &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	if err := s.Apply(put("b", 1)); !errors.Is(err, journal.ErrFull) || len(s.content()) != 2 {
		t.Errorf("on a full disk: %v, %v", err, s.content())
	}
	noWrite = nil
	if err := s.Apply(put("b", 1)); err != nil || len(s.content()) != 3 {
		t.Errorf("with room again: %v, %v", err, s.content())
	}
	noSync = syscall.EIO
	if err := s.Apply(put("c", 1)); err == nil || len(s.content()) != 3 {
		t.Errorf("when nothing reaches the disk: %v, %v", err, s.content())
	}
	// A change that conflicts with one that was lost is told of the disk: nobody looks again in vain.
	if err := s.Apply(plugin.Change{Key: "c", Value: []byte("x"), If: true}); err == nil ||
		errors.Is(err, plugin.ErrConflict) {
		t.Errorf("after a change was lost: %v", err)
	}
	s.Close()
}

// The bounds of a whole store hold. A change that only removes is made however full the store is.
func TestStoreBounds(t *testing.T) {
	t.Parallel()
	s := openTestStore(t, t.TempDir(), nil)
	defer s.Close()
	for i := 0; i < plugin.MaxStoreKeys; i += 500 {
		var c []plugin.Change
		for n := range 500 {
			c = append(c, put(fmt.Sprintf("key%05d", i+n), 1))
		}
		if err := s.Apply(c...); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Apply(put("one more", 1)); !errors.Is(err, plugin.ErrStoreFull) {
		t.Errorf("a key too many: %v", err)
	}
	if err := s.Apply(plugin.Change{Key: "key00007"}, put("one more", 1)); err != nil {
		t.Errorf("one for another: %v", err)
	}
	n := 0
	var err error
	for ; err == nil; n += 10 {
		var c []plugin.Change
		for i := range 10 {
			c = append(c, put(fmt.Sprintf("key%05d", 100+n+i), plugin.MaxStoreValue))
		}
		err = s.Apply(c...)
	}
	if s.size > plugin.MaxStore || s.size+10*plugin.MaxStoreValue < plugin.MaxStore ||
		!errors.Is(err, plugin.ErrStoreFull) {
		t.Errorf("it holds %d bytes after %d large ones: %v", s.size, n, err)
	}
	if err := s.Apply(plugin.Change{Key: "key00100"}); err != nil {
		t.Error(err)
	}
}

// Whatever is applied, with restarts and compactions between, the store holds what a map would, all or none of each
// Apply.
func TestStoreAgainstMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "store")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		open := func() *store {
			s, err := openStore(dir, "toy", slog.New(slog.DiscardHandler), nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		s, want := open(), map[string]string{}
		defer func() { s.Close() }()
		key, value := rapid.SampledFrom([]string{"a", "ab", "b", "ba"}),
			rapid.SampledFrom([][]byte{nil, {}, []byte("x"), []byte("y")})
		t.Repeat(map[string]func(*rapid.T){
			"apply": func(t *rapid.T) {
				var changes []plugin.Change
				holds := true
				after := maps.Clone(want)
				for range rapid.IntRange(1, 4).Draw(t, "changes") {
					c := plugin.Change{Key: key.Draw(t, "key"), Value: value.Draw(t, "value"),
						If: rapid.Bool().Draw(t, "if"), Expect: value.Draw(t, "expect")}
					is, ok := want[c.Key]
					holds = holds && (!c.If || ok == (c.Expect != nil) && is == string(c.Expect))
					if after[c.Key] = string(c.Value); c.Value == nil {
						delete(after, c.Key)
					}
					changes = append(changes, c)
				}
				if err := s.Apply(changes...); (err == nil) != holds ||
					err != nil && !errors.Is(err, plugin.ErrConflict) {
					t.Fatalf("%+v on %v: %v", changes, want, err)
				}
				if holds {
					want = after
				}
			},
			"restart": func(t *rapid.T) {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = open()
			},
			"compact": func(t *rapid.T) {
				if err := s.compact(); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) { s.mustHold(t, want) },
		})
	})
}

// mustHold fails unless the store is what a map is, in order and of that size, by every prefix.
func (s *store) mustHold(t *rapid.T, want map[string]string) {
	size := 0
	for k, v := range want {
		size += len(k) + len(v)
	}
	if got := s.content(); !maps.Equal(got, want) || s.size != size || s.bytes != size || len(s.waiting) > 0 ||
		!slices.IsSorted(s.keys) ||
		len(s.keys) != len(want) {
		t.Fatalf("it holds %v (%d bytes, %v), and should hold %v", got, s.size, s.keys, want)
	}
	for _, prefix := range []string{"a", "b", "c"} {
		var keys []string
		s.Range(prefix, func(k string, v []byte) bool {
			if got, ok := s.Get(k); !ok || !bytes.Equal(got, v) { // the store may be used meanwhile
				t.Fatalf("%s is %q and %q", k, got, v)
			}
			keys = append(keys, k)
			return true
		})
		if !slices.Equal(keys, slices.Sorted(maps.Keys(selected(want, prefix)))) {
			t.Fatalf("by %s: %v of %v", prefix, keys, want)
		}
	}
}

func selected(m map[string]string, prefix string) map[string]string {
	m = maps.Clone(m)
	maps.DeleteFunc(m, func(k, _ string) bool { return !strings.HasPrefix(k, prefix) })
	return m
}

// A store that is changed over and over does not grow beyond its bounds on the disk, and many may use it at one time.
func TestStoreCompacts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openTestStore(t, dir, nil)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := range 150 {
				key := fmt.Sprint(w)
				is, ok := s.Get(key)
				next := bytes.Repeat([]byte{byte(n)}, plugin.MaxStoreValue)
				if err := s.Apply(plugin.Change{Key: key, Value: next, If: true, Expect: is}); err != nil ||
					ok != (n > 0) {
					t.Errorf("%d %d: %v", w, n, err)
					return
				}
				next[0]++ // it is the caller's still
			}
		})
	}
	wg.Wait()
	want := s.content()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(dir + "/" + journalOf("toy"))
	if err != nil || fi.Size() > journal.DefaultMaxSize+1<<20 {
		t.Errorf("the journal has %d bytes, %v", fi.Size(), err)
	}
	s = openTestStore(t, dir, nil)
	defer s.Close()
	if !maps.Equal(s.content(), want) || len(want) != 4 || want["0"] != strings.Repeat("\x95", plugin.MaxStoreValue) {
		t.Error("it is not what it was")
	}
}

func FuzzDecodeChanges(f *testing.F) {
	f.Add(encodeChanges(nil, []plugin.Change{{Key: "a", Value: []byte("x")}, {Key: "b"}, {Key: "c", Value: []byte{}}}))
	f.Add([]byte{storeVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		changes, err := decodeChanges(b)
		if err != nil {
			return
		}
		again, err := decodeChanges(encodeChanges(nil, changes))
		if err != nil || !reflect.DeepEqual(again, changes) {
			t.Fatalf("%+v is read back as %+v, %v", changes, again, err)
		}
	})
}

// slowDisk is a file whose fsync waits, while it is slow, until the test lets it go on.
type slowDisk struct {
	*os.File
	slow       *atomic.Bool
	begun, end chan struct{}
	wrote      chan int // bytes of each write
}

func (f slowDisk) WriteAt(b []byte, at int64) (int, error) {
	n, err := f.File.WriteAt(b, at)
	select {
	case f.wrote <- n:
	default:
	}
	return n, err
}

func (f slowDisk) Sync() error {
	if f.slow.Load() {
		f.begun <- struct{}{}
		<-f.end
	}
	return f.File.Sync()
}

// One change does not wait for the fsync of another to be written: many are safe by one. None can be read before it is
// safe. A change that conflicts with one on its way is told when the other can be read: the caller sees why.
func TestStoreSharesAnFsync(t *testing.T) {
	t.Parallel()
	d := slowDisk{slow: &atomic.Bool{}, begun: make(chan struct{}), end: make(chan struct{}), wrote: make(chan int, 16)}
	s := openTestStore(t, t.TempDir(), func(name string, flag int) (journal.File, error) {
		f, err := os.OpenFile(name, flag, 0o600)
		d.File = f
		return d, err
	})
	d.slow.Store(true)
	done := make(chan error, 8)
	apply := func(c ...plugin.Change) { go func() { done <- s.Apply(c...) }() }
	apply(put("first", 1))
	soon(t, d.begun)
	for len(d.wrote) > 0 {
		<-d.wrote
	}
	for i := range 3 {
		apply(put(fmt.Sprint("second", i), 1))
		soon(t, d.wrote) // though the first is not safe yet
	}
	if got := s.content(); len(got) > 0 {
		t.Errorf("%v can be read, and nothing is safe", got)
	}
	conflict := make(chan error, 1)
	go func() {
		err := s.Apply(plugin.Change{Key: "first", Value: []byte("x"), If: true})
		if _, ok := s.Get("first"); !ok {
			err = errors.New("it conflicts with what cannot be read")
		}
		conflict <- err
	}()
	d.end <- struct{}{}
	soon(t, d.begun) // of the others, all at once
	close(d.end)
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := <-conflict; !errors.Is(err, plugin.ErrConflict) {
		t.Error(err)
	}
	if len(s.content()) != 4 {
		t.Errorf("it holds %v", s.content())
	}
	d.slow.Store(false)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// soon waits for what a channel brings, for as long as a loaded machine may need.
func soon[T any](t *testing.T, c <-chan T) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(time.Minute):
		t.Fatal("nothing has come within a minute")
	}
}

// Those who change one key at the same time, each by what it read, lose no change.
func TestStoreLosesNoUpdate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openTestStore(t, dir, nil)
	const workers, each = 4, 30
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for done := 0; done < each; {
				was, _ := s.Get("n")
				n, _ := strconv.Atoi(string(was)) // 0 where there is none
				err := s.Apply(plugin.Change{Key: "n", Value: []byte(strconv.Itoa(n + 1)), If: true, Expect: was})
				switch {
				case err == nil:
					done++
				case !errors.Is(err, plugin.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTestStore(t, dir, nil)
	defer s.Close()
	if got := s.content()["n"]; got != strconv.Itoa(workers*each) {
		t.Errorf("%s, want %d", got, workers*each)
	}
}
