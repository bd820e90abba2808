package usage

import (
	"encoding/json"
	"time"

	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/client/wire"
)

// ofUsers is the configuration of the record by user, which is kept like that of hours.
func (u *Usage) ofUsers() Config {
	c := u.cfg
	c.Dir = u.cfg.Users.Dir
	return c
}

// openUsers looks through what is kept by user, and removes what says more than the setting allows.
func (u *Usage) openUsers() error {
	p := u.people
	if p.forget = p.tooMuch(); p.forget {
		u.removeUsers()
		return nil
	}
	if !p.counts() {
		return nil
	}
	if err := putAside(u.ofUsers()); err != nil {
		return err
	}
	err := eventlog.EachFrom(p.cfg.Dir, p.was.Sequence+1, func(l eventlog.Line) bool {
		var d wire.UsersDay
		if l.Event.Sequence > p.was.Sequence && json.Unmarshal(l.Event.Body, &d) == nil {
			delete(p.open, dayKey{dayAt(d.Day), d.Setting})
		}
		return true
	})
	if err != nil {
		u.cfg.Log.Error("the record of usage by user cannot be read", "folder", p.cfg.Dir, "error", err)
	}
	return nil
}

// removeUsers removes what is kept by user, and says so. Where it cannot, it is tried again each minute.
func (u *Usage) removeUsers() {
	p := u.people
	if err := p.remove(); err != nil {
		u.cfg.Log.Error("privacy.users does not allow what is kept of the use by user, and it cannot be removed yet",
			"folder", p.cfg.Dir, "privacy.users", p.cfg.Setting, "error", err)
		return
	}
	u.mu.Lock()
	p.was = eventlog.Head{}
	u.mu.Unlock()
	u.cfg.Log.Warn("what was kept of the use by user is removed: privacy.users does not allow it any more", "folder",
		p.cfg.Dir, "privacy.users", p.cfg.Setting)
	if p.cfg.Removed != nil {
		p.cfg.Removed()
	}
}

// writeUsers closes the days that are over. u.writing is held.
func (u *Usage) writeUsers() error {
	p := u.people
	if p.forget {
		u.removeUsers()
	}
	if !p.counts() || p.forget {
		return nil
	}
	if p.lines == nil {
		c := u.ofUsers()
		if err := mend(c, true); err != nil {
			return err
		}
		lines, err := eventlog.Open(eventlog.Config{Dir: c.Dir, Key: c.Key, FileBytes: fileBytes, Files: fileCount,
			Log: c.Log})
		if err != nil {
			return err
		}
		if lines.Resume(p.was) {
			c.Log.Error("days of the record of usage by user are gone; reports say so", "folder", c.Dir, "last",
				p.was.Sequence)
		}
		if err := p.mark(); err != nil {
			return err
		}
		p.lines = lines
	}
	for {
		k, d := u.dayOver()
		if d == nil {
			break
		}
		body, err := d.closed(k)
		if err == nil {
			err = p.lines.Append(eventlog.Event{At: u.cfg.Now(), Type: DayClosed, Body: body})
		}
		if err != nil {
			u.reopenDay(k, d)
			return err
		}
	}
	u.mu.Lock()
	p.was = p.lines.Head()
	u.mu.Unlock()
	return nil
}

// dayOver takes out the oldest day that can be closed; nil: none can. Where the clock is put back into a day, another
// line is made of it.
func (u *Usage) dayOver() (dayKey, *openDay) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, k := range u.people.keys() {
		if end := k.day.Add(24 * time.Hour); !u.last.Before(end.Add(settled)) || k.day.After(u.last) {
			d := u.people.open[k]
			delete(u.people.open, k)
			return k, d
		}
	}
	return dayKey{}, nil
}

// reopenDay puts a day back that could not be closed.
func (u *Usage) reopenDay(k dayKey, d *openDay) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.people.open[k]
	if now == nil {
		u.people.open[k] = d
		return
	}
	for pool, of := range now.pools {
		for _, x := range of.users {
			d.add(pool, x)
		}
		if of.others.Others > 0 {
			d.add(pool, of.others)
		}
	}
	d.lost += now.lost
	u.people.open[k] = d
	u.people.bound(u.last)
}

// UsersReading is what a record by user has of a period: see [Reading].
type UsersReading struct {
	Stretch
	Open []wire.UsersDay
}

const daysMissing = "the day behind them does not follow from the one before: days were taken out or changed"

// ReadUsers returns what users had in use in a period, up to now: of whole days.
func (u *Usage) ReadUsers(from, to time.Time) (UsersReading, error) {
	u.Look()
	u.writing.Lock() // no day is closed between the two looks
	defer u.writing.Unlock()
	r := UsersReading{Stretch: Stretch{From: dayAt(from), To: dayAt(to.Add(24*time.Hour - 1))}}
	p := u.people
	if !p.counts() || p.forget {
		return r, nil
	}
	u.mu.Lock()
	for _, d := range p.openDays() {
		if r.has(d.Day) {
			r.Open = append(r.Open, d)
		}
	}
	u.mu.Unlock()
	damaged, err := r.lines(p.cfg.Dir, func(body []byte) (time.Time, bool) {
		var d wire.UsersDay
		ok := json.Unmarshal(body, &d) == nil
		return d.Day, ok && rank(d.Setting) >= 1 && rank(d.Setting) <= rank(p.cfg.Setting)
	})
	for i := range r.Missing {
		r.Missing[i].Reason = daysMissing
	}
	if err == nil && damaged {
		err = mend(u.ofUsers(), false)
	}
	return r, err
}

// Days returns the days of the period, of one pool or of all where pool is empty.
func (r *UsersReading) Days(pool string) ([]wire.UsersDay, error) {
	out := []wire.UsersDay{}
	for _, raw := range r.Lines {
		d, _, err := dayOf(raw)
		if err != nil {
			return nil, err
		}
		if r.has(d.Day) {
			out = append(out, d)
		}
	}
	out = append(out, r.Open...)
	if pool == "" {
		return out, nil
	}
	for i, d := range out {
		out[i].Pools = map[string]wire.PoolUsers{}
		if p, ok := d.Pools[pool]; ok {
			out[i].Pools[pool] = p
		}
	}
	return out, nil
}

// dayOf reads a line of a record by user.
func dayOf(raw []byte) (d wire.UsersDay, e eventlog.Event, err error) {
	if err = json.Unmarshal(raw, &e); err == nil {
		err = json.Unmarshal(e.Body, &d)
	}
	d.Sequence, d.Day = e.Sequence, d.Day.UTC()
	return d, e, err
}
