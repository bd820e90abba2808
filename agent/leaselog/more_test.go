package leaselog

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/enforcer"
)

// texts returns what the log, which must verify, says, a line each.
func (f *fixture) texts() (out []string) {
	f.t.Helper()
	for _, e := range f.entries() {
		out = append(out, e.Text())
	}
	return out
}

// Holders that join and leave have lines, and so have slots that linger. The line names who came or went.
func TestHoldersAndLingers(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		f := newFixture(t)
		now := time.Now()
		holder := func(uid uint32) *enforcer.Holder { return &enforcer.Holder{Caller: enforcer.Caller{UID: uid}} }
		change := func(other *enforcer.Holder, all ...*enforcer.Holder) *enforcer.Event {
			ev := event(enforcer.EventChanged, 1, now)
			ev.Lease.Lifetime, ev.Other = enforcer.LifetimeProcess, other
			ev.Lease.Holder, ev.Lease.Others = all[0], all[1:]
			return ev
		}
		first, second, third := holder(1), holder(2), holder(3)
		linger := &enforcer.Linger{Lease: enforcer.LeaseID{0, 1}, Item: enforcer.Item{Pool: "streams", N: 2},
			Who: enforcer.User{UID: 3}, Since: now, Until: now.Add(time.Minute), Rule: "short"}
		f.run(on, func(l *Log) {
			l.Observe(change(second, first, second))
			l.Observe(change(third, first, second, third))
			l.Observe(change(first, second, third)) // the one that joined first becomes the holder
			l.Observe(change(second, third))
			l.Observe(&enforcer.Event{Kind: enforcer.EventLingers, At: now, Linger: linger})
			l.Observe(&enforcer.Event{Kind: enforcer.EventLingerOver, At: now, Linger: linger,
				Cause: enforcer.CauseExpired})
			taken := event(enforcer.EventChanged, 2, now) // renewed by another
			taken.Lease.ExpiresAt, taken.Other = now.Add(time.Minute), taken.Lease.Holder
			l.Observe(taken)
		})
		const lease = " 00010000 streams=2, parts=1/4 (holder=user "
		want := []string{"lease.joined" + lease + "2, lifetime=process, holders=2)",
			"lease.joined" + lease + "3, lifetime=process, holders=3)",
			"lease.left" + lease + "1, lifetime=process, holders=2)",
			"lease.left" + lease + "2, lifetime=process, holders=1)",
			"lease.lingers 00010000 streams=2 by rule short until 2000-01-01T00:01:00Z (holder=user 3)",
			"lease.linger_over 00010000 streams=2: expired by rule short (holder=user 3)",
			"lease.renewed 00020000 streams=2, parts=1/4 until 2000-01-01T00:01:00Z " +
				"(holder=user 1000, lifetime=ttl)"}
		if got := f.texts(); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("the log has\n%s\nrather than\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// However often leases are renewed, the log has a line for each hour of each of so many leases, and the number of the
// others. Renewals take the room of no other event.
func TestRenewalsAreFew(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		f := newFixture(t)
		began := time.Now()
		renew := func(l *Log, leases int) {
			for i := range leases {
				l.Observe(event(enforcer.EventRenewed, i, time.Now()))
				if i%100 == 99 {
					time.Sleep(time.Second)
				}
			}
			time.Sleep(time.Second)
		}
		l := f.run(on, func(l *Log) {
			for range 20 {
				renew(l, 3)
			}
			renew(l, renewedBy+50)
			time.Sleep(time.Until(began.Truncate(time.Hour).Add(time.Hour)))
			renew(l, 2)
			for i := range fewBuffered { // at once
				l.Observe(event(enforcer.EventRenewed, i, time.Now()))
			}
			l.Observe(event(enforcer.EventGranted, 1, time.Now()))
		})
		counts := map[string]int{}
		var sums []string
		for _, e := range f.entries() {
			if counts[e.Type]++; e.Lease == "" {
				sums = append(sums, e.Text())
			}
		}
		// In the first hour a line of each of 1,024 leases; in the second of all that found half of the room.
		if want := renewedBy + fewBuffered/2 + len(sums); counts[Renewed] != want || counts[Granted] != 1 {
			t.Errorf("the log has %v rather than %d renewals", counts, want)
		}
		if want := "lease.renewed 50 more of other leases|lease.renewed 250 more of other leases"; strings.Join(sums,
			"|") != want {
			t.Errorf("the log sums up %q", sums)
		}
		if _, dropped := l.Counts(); dropped > 0 {
			t.Errorf("%d were dropped", dropped)
		}
	})
}

// The log's last line is known elsewhere within ten seconds, and at the log's end. Lines that are cut off are missed by
// the next run, which says so once, in a line; whether the log is on or off.
func TestCutTailIsMissed(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		f := newFixture(t)
		grant := func(l *Log) { l.Observe(event(enforcer.EventGranted, 1, time.Now())); time.Sleep(time.Second) }
		f.run(on, func(l *Log) {
			grant(l)
			if _, n := f.known(); n != 0 {
				t.Error("the first line was sealed at once")
			}
			time.Sleep(10 * time.Second)
			if is, _ := f.known(); is.Sequence != 1 {
				t.Errorf("ten seconds later the last line that is known is %+v", is)
			}
			for range 3 {
				grant(l)
			}
		})
		if f.sealed.Sequence != 4 || f.seals != 2 {
			t.Errorf("at the end the last line that is known is %+v, after %d seals", f.sealed, f.seals)
		}
		f.run(on, func(*Log) {})
		if got := f.texts(); len(got) != 4 {
			t.Errorf("a log that is whole has %q", got)
		}
		f.cut(2)
		f.run(on, grant)
		f.run(on, grant)
		got := f.texts()
		if len(got) != 5 || got[2] != "log.cut: 2 lines that stood here are gone" {
			t.Errorf("the log has %q", got)
		}
		if r, err := eventlog.Verify(f.cfg.Dir, f.pub, nil); err != nil || r.Gone != 2 {
			t.Errorf("the log verifies with %+v, %v", r, err)
		}
		if err := os.RemoveAll(f.cfg.Dir); err != nil {
			t.Fatal(err)
		}
		var gone []uint64
		check := f.cfg.Check
		f.cfg.Check = func(last eventlog.Head) uint64 {
			gone = append(gone, check(last))
			return gone[len(gone)-1]
		}
		for range 2 {
			f.run(Settings{}, func(*Log) {})
		}
		if len(gone) != 2 || gone[0] != 5 || gone[1] != 0 {
			t.Errorf("of a folder that was removed %v lines are missed", gone)
		}
	})
}

// known returns what was sealed as the last line, and how often something was.
func (f *fixture) known() (eventlog.Head, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sealed, f.seals
}

// cut cuts the last lines of the newest file off.
func (f *fixture) cut(lines int) {
	f.t.Helper()
	all, err := filepath.Glob(filepath.Join(f.cfg.Dir, "events-*"))
	if err != nil || len(all) == 0 {
		f.t.Fatal(all, err)
	}
	file := all[len(all)-1]
	b, err := os.ReadFile(file)
	if err != nil {
		f.t.Fatal(err)
	}
	parts := bytes.SplitAfter(b, []byte("\n"))
	if err := os.WriteFile(file, bytes.Join(parts[:len(parts)-1-lines], nil), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// Where a crash has left the newest file without a line, and where privacy.users removes the log, nothing is missed.
func TestNothingIsMissedInVain(t *testing.T) {
	f := newFixture(t)
	one := func(l *Log) { l.Observe(event(enforcer.EventGranted, 1, time.Now())) }
	f.run(on, one)
	newest := filepath.Join(f.cfg.Dir, "events-000000000002.jsonl")
	if err := os.WriteFile(newest, []byte(`{"seq":2`), 0o600); err != nil {
		t.Fatal(err)
	}
	check := f.cfg.Check
	f.cfg.Check = func(last eventlog.Head) uint64 {
		gone := check(last)
		if gone > 0 {
			t.Errorf("%d lines are missed", gone)
		}
		return gone
	}
	f.run(Settings{}, func(*Log) {})
	f.run(on, one)
	f.cfg.Users = eventlog.UsersOmit
	f.run(Settings{}, func(*Log) {})
	f.run(on, one)
	if f.sealed.Sequence != 1 {
		t.Errorf("after the log was removed, and begun anew, the last line that is known is %+v", f.sealed)
	}
}
