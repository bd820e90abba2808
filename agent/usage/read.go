package usage

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"

	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/client/wire"
)

// maxAnswer bounds the bytes of lines in one answer.
const maxAnswer = 16 << 20

// Stretch is what a record has of a period.
type Stretch struct {
	From, To time.Time // whole hours, or days
	// Lines are closed hours, or days, as they lie on the disk, one after the other: from the first whose beginning is
	// in the period to the last.
	Lines   []json.RawMessage
	Missing []wire.UsageMissing
	More    bool // there are more than one answer can hold
}

// has reports whether an hour or day is in the period.
func (r *Stretch) has(at time.Time) bool { return !at.Before(r.From) && at.Before(r.To) }

// Reading is what was in use in a period, by hours.
type Reading struct {
	Stretch
	Open []wire.UsageHour // that are not closed yet
}

// Read returns what was in use in a period, up to now.
func (u *Usage) Read(from, to time.Time) (Reading, error) {
	u.Look()
	u.writing.Lock() // no hour is closed between the two looks
	defer u.writing.Unlock()
	r := Reading{Stretch: Stretch{From: from.UTC().Truncate(time.Hour), To: ceil(to.UTC())}}
	u.mu.Lock()
	for _, h := range u.openHours() {
		if r.has(h.Hour) {
			r.Open = append(r.Open, h)
		}
	}
	u.mu.Unlock()
	damaged, err := r.lines(u.cfg.Dir, func(body []byte) (time.Time, bool) {
		var h wire.UsageHour
		err := json.Unmarshal(body, &h)
		return h.Hour, err == nil
	})
	if err == nil && damaged {
		err = mend(u.cfg, false)
	}
	return r, err
}

func ceil(t time.Time) time.Time {
	if h := t.Truncate(time.Hour); h.Before(t) {
		return h.Add(time.Hour)
	}
	return t
}

// lines reads the record, and reports whether part of it is damaged. at returns the beginning of a line's hour or day;
// one that it does not know is none.
func (r *Stretch) lines(dir string, at func(body []byte) (time.Time, bool)) (damaged bool, err error) {
	size := 0
	var last uint64
	var prev string
	var between []json.RawMessage // since the last line in the period
	err = eventlog.Each(dir, func(l eventlog.Line) bool {
		damaged = damaged || l.Bad
		if l.Bad {
			return true // the next line does not follow
		}
		begins, ok := at(l.Event.Body)
		if !ok {
			return true
		}
		is := l.Event
		if last != 0 && (is.Sequence != last+1 || is.Previous != prev) {
			r.Missing = append(r.Missing, missing(last, is.Sequence))
		}
		last, prev = is.Sequence, eventlog.Digest(l.Raw)
		inside := r.has(begins)
		if !inside && len(r.Lines) == 0 {
			return true
		}
		if size += len(l.Raw); size > maxAnswer {
			r.More = r.More || inside
			return true
		}
		between = append(between, bytes.Clone(l.Raw))
		if inside {
			r.Lines, between = append(r.Lines, between...), nil
		}
		return true
	})
	return damaged, err
}

func missing(after, before uint64) wire.UsageMissing {
	return wire.UsageMissing{After: after, Before: before,
		Reason: "the hour behind them does not follow from the one before: hours were taken out or changed"}
}

// Hours returns the hours of the period, of one pool or of all where pool is empty.
func (r *Reading) Hours(pool string) ([]wire.UsageHour, error) {
	out := []wire.UsageHour{}
	for _, raw := range r.Lines {
		h, _, err := hourOf(raw)
		if err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	out = append(out, r.Open...)
	out = slices.DeleteFunc(out, func(h wire.UsageHour) bool {
		return h.Hour.Before(r.From) || !h.Hour.Before(r.To)
	})
	if pool == "" {
		return out, nil
	}
	for i, h := range out {
		out[i].Pools = nil
		if p, ok := h.Pools[pool]; ok {
			out[i].Pools = map[string]wire.PoolUsage{pool: p}
		}
	}
	return out, nil
}

// hourOf reads a line of a record.
func hourOf(raw []byte) (h wire.UsageHour, e eventlog.Event, err error) {
	if err = json.Unmarshal(raw, &e); err == nil {
		err = json.Unmarshal(e.Body, &h)
	}
	h.Sequence, h.Hour = e.Sequence, h.Hour.UTC()
	return h, e, err
}

// slack is how much of an hour may be uncounted without a gap: what lies between two starts of an agent, at a reload of
// its unit.
const slack = 5.0 // seconds

// Gaps returns the stretches of a period, up to now, in which nobody counted.
func Gaps(hours []wire.UsageHour, from, to, now time.Time) []wire.UsageGap {
	out := []wire.UsageGap{}
	seen := map[time.Time]float64{}
	for _, h := range hours {
		seen[h.Hour.UTC()] += h.Observed
	}
	if now.Before(to) {
		to = now
	}
	for at := from.UTC().Truncate(time.Hour); at.Before(to); at = at.Add(time.Hour) {
		end := at.Add(time.Hour)
		if end.After(to) {
			end = to
		}
		left := end.Sub(at).Seconds() - seen[at]
		if left <= slack {
			continue
		}
		if n := len(out); n > 0 && out[n-1].To.Equal(at) {
			out[n-1].To = end
			out[n-1].Seconds = tidy(out[n-1].Seconds + left)
			continue
		}
		out = append(out, wire.UsageGap{From: at, To: end, Seconds: tidy(left)})
	}
	return out
}

// AddHour adds what one agent has counted at two times within the same hour.
func AddHour(a, b wire.UsageHour) wire.UsageHour {
	a = copied(&a)
	a.Observed = tidy(a.Observed + b.Observed)
	a.Starts += b.Starts
	a.ClockSteps += b.ClockSteps
	a.Lost += b.Lost
	for _, id := range b.Licenses {
		if !slices.Contains(a.Licenses, id) {
			a.Licenses = append(a.Licenses, id)
		}
	}
	for name, p := range b.Pools {
		if was, ok := a.Pools[name]; ok {
			p = Sum(was, p)
		}
		a.Pools[name] = p
	}
	return a
}
