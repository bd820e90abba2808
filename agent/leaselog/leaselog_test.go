package leaselog

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/enforcer"
)

type fixture struct {
	t         *testing.T
	cfg       Config
	pub       ed25519.PublicKey
	removed   int
	rest      time.Duration
	fileBytes int64 // of a file, as though it were 4 MiB

	mu     sync.Mutex // guards both below
	sealed eventlog.Head
	seals  int
}

func newFixture(t *testing.T) *fixture {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, pub: pub, fileBytes: fileBytes, rest: rest}
	f.cfg = Config{Dir: filepath.Join(t.TempDir(), Folder), Key: key, Users: eventlog.UsersPlain, Now: time.Now,
		Name: func(u enforcer.User, _ time.Time) string { return fmt.Sprint("user ", u.UID) },
		Log:  slog.New(slog.DiscardHandler), Removed: func() { f.removed++ },
		Seal: func(last eventlog.Head) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.sealed, f.seals = last, f.seals+1
		},
		Check: func(last eventlog.Head) uint64 {
			f.mu.Lock()
			defer f.mu.Unlock()
			gone := f.sealed.Lacking(last)
			if gone > 0 {
				f.sealed = last
			}
			return gone
		}}
	return f
}

// run runs a log while f uses it.
func (f *fixture) run(s Settings, use func(*Log)) *Log {
	f.t.Helper()
	l := New(f.cfg, s)
	l.fileBytes, l.buffered, l.rest = f.fileBytes, fewBuffered, f.rest
	ctx, cancel := context.WithCancel(f.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Run(ctx)
	}()
	use(l)
	cancel()
	<-done
	return l
}

// entries returns what the log, which must verify, has.
func (f *fixture) entries() (out []Entry) {
	f.t.Helper()
	if _, err := eventlog.Verify(f.cfg.Dir, f.pub, nil); err != nil {
		f.t.Fatal(err)
	}
	if err := Read(f.cfg.Dir, func(e Entry) { out = append(out, e) }); err != nil {
		f.t.Fatal(err)
	}
	return out
}

func event(kind enforcer.EventKind, serial int, at time.Time) *enforcer.Event {
	l := &enforcer.Lease{Items: []enforcer.Item{{Pool: "streams", N: 2}, {Pool: "parts", N: 1, Of: 4}},
		Lifetime: enforcer.LifetimeTTL, AcquiredAt: at.Add(-90 * time.Second),
		Holder: &enforcer.Holder{Caller: enforcer.Caller{UID: 1000}}}
	l.ID[0], l.ID[1], l.ID[4] = byte(serial>>8), byte(serial), 0xff
	return &enforcer.Event{Kind: kind, At: at, Lease: l}
}

// fewBuffered is how many events wait at most, as though it were 16,384.
const fewBuffered = 500

var on = Settings{On: true, MiB: 16}

// What was granted, drawn and ended is there, and nothing else; a lease by the beginning of its id alone.
func TestLeasesAreWritten(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		f := newFixture(t)
		l := f.run(on, func(l *Log) {
			now := time.Now()
			l.Observe(event(enforcer.EventGranted, 1, now))
			l.Observe(event(enforcer.EventNoted, 1, now))
			l.Observe(event(enforcer.EventChanged, 1, now)) // doubted: it has the holders that it had
			l.Observe(event(enforcer.EventDrawn, 2, now))
			time.Sleep(time.Second) // of the test's own clock: what was observed is written
			if len(f.entries()) != 2 {
				t.Errorf("a second later the log has %+v", f.entries())
			}
			ended := event(enforcer.EventEnded, 1, now)
			ended.Cause, ended.Rule = enforcer.CauseMaxHold, "short"
			l.Observe(ended)
			l.Set(Settings{MiB: 32}) // off
			l.Observe(event(enforcer.EventGranted, 3, now))
		})
		var got []string
		for _, e := range f.entries() {
			got = append(got, e.Text())
		}
		want := `lease.granted 00010000 streams=2, parts=1/4 (holder=user 1000, lifetime=ttl)
lease.drawn 00020000 streams=2, parts=1/4 (holder=user 1000, lifetime=ttl)
lease.ended 00010000 streams=2, parts=1/4: max_hold by rule short after 1 minute 30 seconds ` +
			"(holder=user 1000, lifetime=ttl)"
		if strings.Join(got, "\n") != want {
			t.Errorf("the log has\n%s\nrather than\n%s", strings.Join(got, "\n"), want)
		}
		if written, dropped := l.Counts(); written != 3 || dropped != 0 {
			t.Errorf("%d written, %d dropped", written, dropped)
		}
	})
}

// While the disk hangs, Observe returns at once. It drops what finds no room, and the log says how many those were.
func TestHangingDiskDrops(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		f := newFixture(t)
		hangs := make(chan struct{})
		f.cfg.Name = func(enforcer.User, time.Time) string { // what Run waits for, as for a disk
			<-hangs
			return "somebody"
		}
		const lost = 7
		l := f.run(on, func(l *Log) {
			now := time.Now()
			l.Observe(event(enforcer.EventGranted, 1, now))
			time.Sleep(time.Second)
			synctest.Wait()
			for i := range fewBuffered + lost {
				l.Observe(event(enforcer.EventGranted, i, now))
			}
			if got := time.Since(now); got != time.Second {
				t.Errorf("to observe took %s", got-time.Second)
			}
			close(hangs)
			time.Sleep(time.Second)
		})
		all := f.entries()
		var gaps []string
		for _, e := range all {
			if e.Type == eventlog.Gap {
				gaps = append(gaps, e.Cause)
			}
		}
		if len(all) != 1+fewBuffered+1 || len(gaps) != 1 || gaps[0] != "7 events could not be written" {
			t.Errorf("%d entries, with the gaps %q", len(all), gaps)
		}
		if written, dropped := l.Counts(); written != fewBuffered+1 || dropped != lost {
			t.Errorf("%d written, %d dropped", written, dropped)
		}
	})
}

// A disk that takes nothing costs entries, which are counted. When it takes some again, the log goes on.
func TestFullDiskDrops(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		f := newFixture(t)
		if err := os.WriteFile(f.cfg.Dir, nil, 0o600); err != nil { // where the folder is to be
			t.Fatal(err)
		}
		f.run(on, func(l *Log) {
			for i := range 5 {
				l.Observe(event(enforcer.EventGranted, i, time.Now()))
			}
			time.Sleep(time.Second)
			if written, dropped := l.Counts(); written != 0 || dropped != 5 {
				t.Errorf("%d written, %d dropped", written, dropped)
			}
			if err := os.Remove(f.cfg.Dir); err != nil {
				t.Fatal(err)
			}
			l.Observe(event(enforcer.EventGranted, 9, time.Now()))
			time.Sleep(time.Second)
		})
		if all := f.entries(); len(all) != 2 || all[0].Cause != "5 events could not be written" ||
			!strings.HasPrefix(all[1].Lease, "0009") {
			t.Errorf("the log has %+v", all)
		}
	})
}

// The log takes no more of the disk than it may, and less as soon as it may take less.
func TestSpaceIsBounded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.fileBytes = 64 << 10
		size := func() (sum int64) {
			names, err := os.ReadDir(f.cfg.Dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range names {
				fi, err := n.Info()
				if err != nil {
					t.Fatal(err)
				}
				sum += fi.Size()
			}
			return sum
		}
		fill := func(l *Log, events int) {
			for i := range events {
				if l.Observe(event(enforcer.EventEnded, i, time.Now())); i%50 == 49 {
					time.Sleep(time.Second)
				}
			}
		}
		f.run(Settings{On: true, MiB: 20}, func(l *Log) { // five files
			fill(l, 2500)
			if got := size(); got > 5*64<<10 || got < 3*40<<10 {
				t.Errorf("the log takes %d bytes", got)
			}
			l.Set(on) // four
			fill(l, 1000)
			if got := size(); got > 4*64<<10 || got < 2*40<<10 {
				t.Errorf("the log takes %d bytes after the bound was lowered", got)
			}
			if _, dropped := l.Counts(); dropped > 0 {
				t.Errorf("%d were dropped", dropped)
			}
		})
		f.entries()
	})
}

// However much happens, writing takes no more than its share: what comes faster is dropped and counted.
func TestWritingRests(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.rest = 10 * time.Millisecond
		const each, times = 100, 40
		l := f.run(on, func(l *Log) {
			for range times {
				for i := range each {
					l.Observe(event(enforcer.EventGranted, i, time.Now()))
				}
				time.Sleep(gather / 10)
			}
			if written, _ := l.Counts(); written == 0 || written > fewBuffered {
				t.Errorf("%d were written in a second, rather than one lot", written)
			}
			time.Sleep(fewBuffered * f.rest)
			if written, _ := l.Counts(); written <= fewBuffered {
				t.Errorf("%d were written after the rest", written)
			}
		})
		if written, dropped := l.Counts(); written+dropped != each*times || dropped == 0 {
			t.Errorf("%d written, %d dropped", written, dropped)
		}
	})
}

// What names users is removed at the first start under a setting that shows less, also where it was put aside, and
// whether the log is still on or not.
func TestStricterSettingRemoves(t *testing.T) {
	for from, others := range map[string][]string{
		eventlog.UsersPlain:     {eventlog.UsersPseudonym, eventlog.UsersOmit},
		eventlog.UsersPseudonym: {eventlog.UsersOmit},
	} {
		for _, to := range others {
			f := newFixture(t)
			f.cfg.Users = from
			f.run(on, func(l *Log) { l.Observe(event(enforcer.EventGranted, 1, time.Now())) })
			for _, same := range []string{from, eventlog.UsersPlain} {
				if from == eventlog.UsersPseudonym && same == eventlog.UsersPlain {
					continue // would show more from then on
				}
				f.cfg.Users = same
				f.run(on, func(l *Log) { l.Observe(event(enforcer.EventEnded, 1, time.Now())) })
			}
			if n := len(f.entries()); n < 2 || f.removed != 0 {
				t.Fatalf("under %s the log has %d entries, and was removed %d times", from, n, f.removed)
			}
			if err := os.Mkdir(f.cfg.Dir+"-20260101T000000", 0o700); err != nil {
				t.Fatal(err)
			}
			f.cfg.Users = to
			f.run(Settings{}, func(*Log) {})
			if left, _ := os.ReadDir(filepath.Dir(f.cfg.Dir)); len(left) != 0 || f.removed != 1 {
				t.Errorf("%s after %s: %v are left; told %d times", to, from, left, f.removed)
			}
			f.run(on, func(l *Log) { l.Observe(event(enforcer.EventGranted, 2, time.Now())) })
			if all := f.entries(); len(all) != 1 || (all[0].Holder == "") != (to == eventlog.UsersOmit) {
				t.Errorf("%s after %s: the log has %+v", to, from, all)
			}
		}
	}
}

// A log that another key has signed, or whose end is no line, is put aside, and a new one begins. Where the state's
// seal knows its lines, the new one says that they are gone. One that a crash has cut off goes on.
func TestOthersLogIsPutAside(t *testing.T) {
	write := func(f *fixture) { f.run(on, func(l *Log) { l.Observe(event(enforcer.EventGranted, 1, time.Now())) }) }
	for name, c := range map[string]struct {
		spoil   func(f *fixture, file string) error
		aside   bool
		entries int
	}{
		"another key": {func(f *fixture, _ string) (err error) {
			f.pub, f.cfg.Key, err = ed25519.GenerateKey(nil)
			return err
		}, true, 1},
		"no line": {func(_ *fixture, file string) error { return add(file, "hello\n") }, true, 2},
		"cut off": {func(_ *fixture, file string) error { return add(file, `{"seq":2,`) }, false, 2},
	} {
		f := newFixture(t)
		write(f)
		if name == "another key" {
			f.sealed = eventlog.Head{} // the seal is another key's, too
		}
		if err := c.spoil(f, filepath.Join(f.cfg.Dir, "events-000000000001.jsonl")); err != nil {
			t.Fatal(err)
		}
		write(f)
		aside, err := filepath.Glob(f.cfg.Dir + "-*")
		all := f.entries()
		if want := map[bool]int{true: 1}[c.aside]; err != nil || len(aside) != want || len(all) != c.entries ||
			(all[0].Type == eventlog.Cut) != (name == "no line") {
			t.Errorf("%s: put aside %v (%v), and the log has %+v", name, aside, err, all)
		}
	}
}

func add(file, text string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func BenchmarkObserve(b *testing.B) {
	l := New(Config{}, on)
	ev := event(enforcer.EventGranted, 1, time.Now())
	for b.Loop() {
		l.Observe(ev)
		if len(l.waiting) == fewBuffered {
			l.waiting = l.waiting[:0]
		}
	}
}
