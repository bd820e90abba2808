package enforcer

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// lapse is a duty that time or a network may break: an expiry, a heartbeat, a check-in.
type lapse struct {
	due, ends time.Time // when it is due, and when its grace is over
	code      Code
	reason    string // once ends has come
	late      string // between due and ends
}

// expires returns when the licence ends: at its date, or when its trial is over.
func (c *candidate) expires() time.Time {
	if c.license.Trial == 0 || c.seen.IsZero() {
		return c.license.Expires
	}
	return sooner(c.license.Expires, c.seen.Add(c.license.Trial))
}

// terminates returns when the product must stop; zero for a perpetual licence.
func (c *candidate) terminates() time.Time {
	if at := c.expires(); !at.IsZero() {
		return at.Add(c.license.Grace)
	}
	return zeroTime
}

// lapses returns the duties of a licence, each with its grace. They do not depend on the time.
func (c *candidate) lapses() []lapse {
	if c.owed == nil {
		c.owed = c.duties()
	}
	return c.owed
}

func (c *candidate) duties() []lapse {
	l, out := c.license, []lapse{}
	if at := c.expires(); !at.IsZero() {
		what := "it expired"
		if !at.Equal(l.Expires) {
			what = "its trial ended"
		}
		out = append(out, lapse{at, c.terminates(), Expired,
			fmt.Sprintf("licence %s: %s at %s; install a renewed one", c.label(), what, minute(at)),
			fmt.Sprintf("licence %s: %s at %s, and its grace ends at %s; install a renewed one", c.label(), what,
				minute(at), minute(c.terminates()))})
	}
	if unmet := l.Activation.Required && c.up.Activated.IsZero(); unmet ||
		l.Heartbeat.Stated() && c.up.LastHeartbeat.IsZero() {
		// A first contact is due at once. The licence says for how long it may be late.
		from := c.seen
		ends := later(from.Add(l.Activation.Grace), c.up.HoldUntil)
		what := "it demands heartbeats, and none has been answered yet"
		if unmet {
			what = "it demands an activation, and the upstream has not activated it yet"
		}
		out = append(out, lapse{from, ends, HeartbeatNotStarted,
			fmt.Sprintf("licence %s: %s; check the connection to the upstream", c.label(), what),
			fmt.Sprintf("licence %s: %s; without that the licence stops at %s", c.label(), what, minute(ends))})
	}
	if p := l.Heartbeat; p.Stated() && !c.up.LastHeartbeat.IsZero() {
		last := c.up.LastHeartbeat
		due := p.After(last).Add(c.up.Asleep)
		ends := later(due.Add(p.Grace), c.up.HoldUntil)
		out = append(out, lapse{due, ends, HeartbeatDead,
			fmt.Sprintf("licence %s: the upstream last heard of this host at %s; check the connection", c.label(),
				minute(last)),
			fmt.Sprintf("licence %s: a heartbeat was due at %s; without one the licence stops at %s", c.label(),
				minute(due), minute(ends))})
	}
	if p := l.CheckIn; p.Stated() {
		due := p.After(later(l.LastCheckIn(), later(c.up.Activated, c.up.LastCheckIn)))
		ends := later(due.Add(p.Grace), c.up.HoldUntil)
		out = append(out, lapse{due, ends, Overdue,
			fmt.Sprintf("licence %s: an upstream check-in was due at %s; check the connection", c.label(),
				minute(due)),
			fmt.Sprintf("licence %s: an upstream check-in was due at %s; without one the licence stops at %s",
				c.label(), minute(due), minute(ends))})
	}
	return slices.DeleteFunc(out, func(x lapse) bool { return c.met[x.code] })
}

// paused reports whether the upstream says that the licence is not available just now, and has not taken it back. An
// add-on that is not available adds nothing.
func (c *candidate) paused() bool {
	role := orDefault(c.license.Role, RoleBase)
	return c.up.Paused && c.up.Refused == Unavailable && (role == RoleBase || role == RoleFree)
}

// pausedWords says why a licence grants nothing new.
func (c *candidate) pausedWords() string {
	return fmt.Sprintf("licence %s: the upstream says: %s; what is held stands, and nothing new is granted meanwhile",
		c.label(), cmp.Or(c.up.RefusedReason, "it is not available"))
}

// emergency returns when the emergency that runs at an instant ends; zero: none runs. Emergencies beyond what the
// licence grants do not count.
func (c *candidate) emergency(now time.Time) (ends time.Time) {
	e := c.license.Emergency
	for i, began := range c.broken {
		if i >= e.PerYear && began.Sub(c.broken[i-e.PerYear]) < emergencyYear {
			continue
		}
		if !now.Before(began) && now.Before(began.Add(e.Length)) {
			ends = later(ends, began.Add(e.Length))
		}
	}
	return ends
}

// revoked are the notices that revoke licences of a product, by the licences' ids.
type revoked map[struct{ product, id string }][]*License

// by returns the id of the notice that revokes a licence; empty: none does.
func (r revoked) by(l *License) (id string) {
	for _, n := range r[struct{ product, id string }{l.Product, l.ID}] {
		if n.MayActOn(l) && (id == "" || n.ID < id) { // whichever was read first
			id = n.ID
		}
	}
	return id
}

// revoked returns the licences that notices revoke. A notice counts from the moment it is there. A broken replacement
// of it does not undo it.
func (j *judge) revoked() revoked {
	out := revoked{}
	for _, d := range j.Documents {
		if d.License == nil || d.License.Role != RoleNotice || d.Problem != nil && !d.Problem.Stale {
			continue
		}
		for _, id := range d.License.Revokes {
			of := struct{ product, id string }{d.License.Product, id}
			out[of] = append(out[of], d.License)
		}
	}
	return out
}
