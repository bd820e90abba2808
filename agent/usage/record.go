package usage

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/client/wire"
)

// HourClosed is the type of a line of the record.
const HourClosed = "usage.hour"

// kept is the file of the hours that are open.
type kept struct {
	// After is the last line of the record when the file was written: hours that lie behind it were closed since.
	After eventlog.Head    `json:"after"`
	Hours []wire.UsageHour `json:"hours"`
	// Days are the same of the days by user, where those are counted.
	DaysAfter eventlog.Head   `json:"days_after,omitzero"`
	Days      []wire.UsersDay `json:"days,omitempty"`
}

// Open reads the hours that the last agent has left open. It starts nothing.
func Open(c Config) (*Usage, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	u := &Usage{cfg: c, open: map[time.Time]*wire.UsageHour{},
		people: &people{cfg: c.Users, open: map[dayKey]*openDay{}}}
	if err := putAside(c); err != nil {
		return nil, err
	}
	if err := u.openKept(); err != nil {
		return nil, err
	}
	return u, u.openUsers()
}

// openKept reads the hours and days that the last agent has left open.
func (u *Usage) openKept() error {
	c := u.cfg
	b, err := c.Read(c.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var k kept
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil { // it only counts: the agent starts all the same
		c.Log.Error("the usage of the last hours cannot be read; counting begins again", "file", c.File, "error", err)
		return nil
	}
	u.people.was = k.DaysAfter
	u.people.take(k.Days)
	u.was = k.After
	closed := map[time.Time]bool{}
	if err := eventlog.EachFrom(c.Dir, k.After.Sequence+1, func(l eventlog.Line) bool {
		var h wire.UsageHour
		if l.Event.Sequence > k.After.Sequence && json.Unmarshal(l.Event.Body, &h) == nil {
			closed[h.Hour.UTC()] = true
		}
		return true
	}); err != nil {
		c.Log.Error("the record of usage cannot be read", "folder", c.Dir, "error", err)
	}
	for _, h := range k.Hours {
		if at := h.Hour.UTC(); !closed[at] {
			if h.Pools == nil {
				h.Pools = map[string]wire.PoolUsage{}
			}
			u.open[at] = &h
		}
	}
	return nil
}

// putAside puts a record that another key has signed aside whole.
func putAside(c Config) error {
	other := false
	_ = eventlog.Each(c.Dir, func(l eventlog.Line) bool { // one that cannot be read is seen when it is opened
		other = !l.Bad && !eventlog.Signed(l.Raw, c.Key.Public().(ed25519.PublicKey))
		return false
	})
	if !other {
		return nil
	}
	aside := c.Dir + "-" + c.Wall().UTC().Format("20060102T150405")
	if err := os.Rename(c.Dir, aside); err != nil {
		return fmt.Errorf("record of usage: %w", err)
	}
	c.Log.Warn("another key than the agent's has signed the record of usage, which is put aside", "folder", aside)
	return nil
}

// openLines opens the record, without what is damaged of it, and goes on behind what was its last line.
func (u *Usage) openLines() error {
	if err := mend(u.cfg, true); err != nil {
		return err
	}
	lines, err := eventlog.Open(eventlog.Config{Dir: u.cfg.Dir, Key: u.cfg.Key, FileBytes: fileBytes, Files: fileCount,
		Log: u.cfg.Log})
	if err != nil {
		return err
	}
	if lines.Resume(u.was) {
		u.cfg.Log.Error("hours of the record of usage are gone; reports say so", "folder", u.cfg.Dir, "last",
			u.was.Sequence)
		u.cfg.Gone()
	}
	u.lines = lines
	return nil
}

// mend sets files aside in which there are bytes that are no lines, and puts the lines that can be read in their place:
// of the newest file, which nothing is written to yet, or of all others. A last line that a crash has cut off is no
// damage: opening the record takes it away.
func mend(c Config, newest bool) error {
	from := uint64(0)
	if newest {
		from = math.MaxUint64 - 1
	}
	good := map[string][]byte{}
	bad := map[string]bool{}
	last, cut := "", false
	err := eventlog.EachFrom(c.Dir, from, func(l eventlog.Line) bool {
		if l.File != last {
			last = l.File
			if len(bad) == 0 {
				clear(good) // of files without a fault
			}
		}
		switch {
		case !l.Bad:
			good[l.File] = append(append(good[l.File], l.Raw...), '\n')
		case l.Cut:
			cut = !bad[l.File]
			bad[l.File] = true
		default:
			bad[l.File] = true
		}
		return true
	})
	if err != nil {
		return err
	}
	if !newest || cut {
		delete(bad, last)
	}
	for name := range bad {
		path := filepath.Join(c.Dir, name)
		aside := filepath.Join(c.Dir, "damaged-"+name+"-"+c.Wall().UTC().Format("20060102T150405"))
		if err := os.Rename(path, aside); err != nil {
			return err
		}
		c.Log.Error("a file of the record of usage is damaged; it is set aside, and the hours that can be read of it "+
			"stay", "file", aside)
		if len(good[name]) > 0 {
			if err := files.Replace(path, good[name], 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// keep closes the hours that are over, and writes those that are not.
func (u *Usage) keep() {
	u.writing.Lock()
	defer u.writing.Unlock()
	err := u.write()
	u.mu.Lock()
	first := err != nil && !u.failed
	u.failed = err != nil
	u.mu.Unlock()
	if first {
		u.cfg.Log.Error("usage cannot be written; it is counted in memory, and written when it can be", "error", err)
	}
}

func (u *Usage) write() error {
	if u.lines == nil {
		if err := u.openLines(); err != nil {
			return err
		}
	}
	for h := u.over(); h != nil; h = u.over() {
		body, err := json.Marshal(h)
		if err == nil {
			err = u.lines.Append(eventlog.Event{At: u.cfg.Now(), Type: HourClosed, Body: body})
		}
		if err != nil {
			u.reopen(h)
			return err
		}
	}
	failed := u.writeUsers()
	u.mu.Lock()
	k := kept{After: u.lines.Head(), Hours: u.openHours(), DaysAfter: u.people.was, Days: u.people.openDays()}
	u.mu.Unlock()
	b, err := json.Marshal(k)
	if err == nil {
		err = u.cfg.Write(u.cfg.File, b)
	}
	return errors.Join(failed, err)
}

// over takes out the oldest hour that can be closed; nil: none can. Where the clock is put back into an hour, another
// line is made of it.
func (u *Usage) over() *wire.UsageHour {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, at := range hoursOf(u.open) {
		// one that is ahead of the clock was counted before the clock was put back
		if end := at.Add(time.Hour); !u.last.Before(end.Add(settled)) || at.After(u.last) {
			h := u.open[at]
			delete(u.open, at)
			return h
		}
	}
	return nil
}

// reopen puts an hour back that could not be closed.
func (u *Usage) reopen(h *wire.UsageHour) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.hour(h.Hour)
	*now = AddHour(*h, *now)
	u.bound()
}

// Head is the last line of the record; the zero value: there is none, or it is not open.
func (u *Usage) Head() eventlog.Head {
	u.writing.Lock()
	defer u.writing.Unlock()
	if u.lines == nil {
		return eventlog.Head{}
	}
	return u.lines.Head()
}

// openHours returns copies of the open hours, the oldest first. u.mu is held.
func (u *Usage) openHours() []wire.UsageHour {
	out := []wire.UsageHour{}
	for _, at := range hoursOf(u.open) {
		out = append(out, copied(u.open[at]))
	}
	return out
}

func copied(h *wire.UsageHour) wire.UsageHour {
	c := *h
	c.Licenses = slices.Clone(h.Licenses)
	c.Pools = make(map[string]wire.PoolUsage, len(h.Pools))
	for name, p := range h.Pools { // its denials are never changed, but replaced
		c.Pools[name] = p
	}
	return c
}
