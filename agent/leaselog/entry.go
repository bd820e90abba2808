package leaselog

import (
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// Entry is what has happened to a lease, a draw, or what has happened to slots that linger.
type Entry struct {
	At       time.Time `json:"at"` // licence time
	Type     string    `json:"type"`
	Lease    string    `json:"lease"` // the first eight digits of its id
	Items    []Item    `json:"items"`
	Lifetime string    `json:"lifetime,omitempty"`
	Holder   string    `json:"holder,omitempty"` // as privacy.users names users; empty: it omits them
	Cause    string    `json:"cause,omitempty"`  // why it has ended
	Rule     string    `json:"rule,omitempty"`   // of the site's that ended it, or by which its slots linger
	Held     float64   `json:"held_seconds,omitempty"`
	Until    time.Time `json:"until,omitzero"`    // of Renewed and Lingers
	Holders  int       `json:"holders,omitempty"` // of Joined and Left: how many hold it from then on
	// Renewals is of Renewed without a lease: how many others there were in an hour.
	Renewals uint64 `json:"renewals,omitempty"`
}

// Item is slots of a pool, or parts of slots, or what is drawn from a meter.
type Item struct {
	Pool string `json:"pool"`
	N    int64  `json:"n"`
	Of   int64  `json:"of,omitempty"` // so many of these parts make a slot
}

// entry returns what an event was.
func (l *Log) entry(s *seen) Entry {
	out := Entry{At: s.at.UTC().Truncate(time.Millisecond), Type: Granted}
	switch {
	case s.linger != nil:
		return l.lingers(s, out)
	case s.lease == nil:
		out.Type, out.Items, out.Renewals = Renewed, []Item{}, s.n
		return out
	}
	is := s.lease
	out.Lease, out.Items, out.Lifetime = is.ID.String()[:8], items(is.Items), string(is.Lifetime)
	holder := is.Holder
	switch s.kind {
	case enforcer.EventDrawn:
		out.Type = Drawn
	case enforcer.EventEnded:
		out.Type, out.Cause, out.Rule = Ended, string(s.cause), s.rule
		out.Held = max(0, s.at.Sub(is.AcquiredAt).Round(time.Millisecond).Seconds())
	case enforcer.EventRenewed:
		out.Type, out.Until = Renewed, second(is.ExpiresAt)
	case enforcer.EventChanged:
		switch {
		case s.other == is.Holder: // a caller that renews or attaches, and has not held it before
			out.Type, out.Until = Renewed, second(is.ExpiresAt)
		case slices.Contains(is.Others, s.other):
			out.Type, out.Holders = Joined, 1+len(is.Others)
		default:
			out.Type, out.Holders = Left, 1+len(is.Others)
		}
		holder = s.other
	default:
	}
	if holder != nil {
		out.Holder = l.name(holder.Who(), s.at)
	}
	return out
}

// lingers returns what became of slots that linger.
func (l *Log) lingers(s *seen, out Entry) Entry {
	is := s.linger
	out.Lease, out.Items, out.Rule = is.Lease.String()[:8], items([]enforcer.Item{is.Item}), is.Rule
	out.Holder = l.name(is.Who, s.at)
	if out.Type, out.Until = Lingers, second(is.Until); s.kind == enforcer.EventLingerOver {
		out.Type, out.Cause, out.Until = LingerOver, string(s.cause), time.Time{}
	}
	return out
}

// second returns an instant as lines have it; zero stays zero.
func second(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Truncate(time.Second)
}

func items(of []enforcer.Item) []Item {
	out := make([]Item, 0, len(of))
	for _, it := range of {
		item := Item{Pool: it.Pool, N: it.N}
		if it.Of > 1 {
			item.Of = it.Of
		}
		out = append(out, item)
	}
	return out
}

func (l *Log) name(of enforcer.User, at time.Time) string {
	if rank(l.cfg.Users) < 1 {
		return ""
	}
	if hour := at.Truncate(time.Hour); !hour.Equal(l.hour) || len(l.names) > namesKnown {
		l.hour, l.names = hour, map[namedUser]string{}
	}
	k := namedUser{of, at.UTC().Format("2006-01")}
	name, ok := l.names[k]
	if !ok {
		name = l.cfg.Name(of, at)
		l.names[k] = name
	}
	return name
}
