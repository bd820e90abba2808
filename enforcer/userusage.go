package enforcer

import (
	"slices"
	"time"
)

// UserUsage is what one user had in use of one pool on one day, as far as it has been counted since it was last taken:
// see [Enforcer.TakeUserUsage]. Sums of several for the same day are added, and the larger of two peaks is the day's.
type UserUsage struct {
	Pool string
	Day  time.Time // its beginning, UTC
	User User
	// Others is of how many users this is together; zero: of User alone. Peak is then the largest of one of them. A
	// user that came back counts once more.
	Others int
	// Peak is the most slots that the user's own leases counted as at one time, and Slots is slots times how long they
	// did, in slot-milliseconds. Where leases of several users count as one, as by host or pod, each user has them.
	Peak, Slots int64
	Grants      int64 // leases that were granted
}

// mostUsers bounds the users of a pool that are counted and have nothing in use: those beyond it are not told apart.
const mostUsers = 4096

// userCount is what is counted of one user in one pool on the present day. The numbers of slots are in parts.
type userCount struct {
	user User
	usage
	place   int   // in the list of its pool
	touched bool  // its use may be another than was
	since   int64 // nanoseconds since 1970: up to then it is counted
	day     int64 // since 1970
	was     int64 // in use since then
	peak    int64
	slots   wide
	grants  int64
}

// userCounts is what is counted of a pool by user.
type userCounts struct {
	of      map[User]*userCount
	list    []*userCount
	touched []*userCount
	per     int64 // parts of a slot
	next    int   // in the list, of who is taken next
	others  UserUsage
}

// ofUser returns the count of a user, made if need be, whose use an event changes.
func (u *userCounts) ofUser(who User) *userCount {
	c := u.of[who]
	if c == nil {
		c = &userCount{user: who, place: len(u.list)}
		u.of[who], u.list = c, append(u.list, c)
	}
	if !c.touched {
		c.touched = true
		u.touched = append(u.touched, c)
	}
	return c
}

// idle reports whether the user has nothing in use.
func (c *userCount) idle() bool { return c.inUse == 0 && len(c.groups) == 0 }

// recountUsers counts a pool's leases by user again, which count otherwise than before.
func (p *pool) recountUsers() {
	if p.users == nil {
		return
	}
	for _, c := range p.users.list {
		p.users.ofUser(c.user).usage = usage{}
	}
	for h := range p.members.all {
		p.users.ofUser(h.Holder.Who()).add(p.grant.units(h.Lease), p.grant.parts(h.item(p.name)))
	}
}

// countUsers counts the users whose use an event has changed up to the instant to which the pool is counted, and takes
// note of what they have in use from then on.
func (e *Enforcer) countUsers(p *pool) {
	u := p.users
	if per := p.grant.per(); per != u.per {
		for _, c := range u.list {
			e.passUser(p, c)
			e.closeUser(p, c)
		}
		u.per = per
	}
	for _, c := range u.touched {
		c.touched = false
		e.passUser(p, c)
		c.was = c.inUse
		c.peak = max(c.peak, c.was)
		if c.idle() && len(u.list) > e.mostUsers() {
			e.foldUser(p, c)
		}
	}
	clear(u.touched)
	u.touched = u.touched[:0]
}

func (e *Enforcer) mostUsers() int {
	if e.options.mostUsers > 0 {
		return e.options.mostUsers
	}
	return mostUsers
}

func dayOf(at int64) int64 {
	d := at / int64(24*time.Hour)
	if at%int64(24*time.Hour) < 0 {
		d--
	}
	return d
}

// passUser counts a user up to the instant to which its pool is counted, day by day.
func (e *Enforcer) passUser(p *pool, c *userCount) {
	at := p.counted.since
	if c.since == 0 { // it has only just come
		c.since, c.day = at, dayOf(at)
	}
	for c.since < at {
		end := min(at, (c.day+1)*int64(24*time.Hour))
		c.peak = max(c.peak, c.was)
		if c.was > 0 {
			c.slots.add(c.was, end-c.since)
		}
		e.setUser(p, c, end)
	}
}

// setUser sets the clock of a user's count, and counts nothing for it.
func (e *Enforcer) setUser(p *pool, c *userCount, at int64) {
	c.since = at
	if day := dayOf(at); day != c.day {
		e.closeUser(p, c)
		c.day = day
	}
}

// setUsers has time that a pool does not count not count for its users either.
func (e *Enforcer) setUsers(p *pool, at int64) {
	if p.users == nil {
		return
	}
	for _, c := range p.users.list {
		e.passUser(p, c)
		e.setUser(p, c, at)
	}
}

// grantedTo counts a lease that was granted.
func (p *pool) grantedTo(who User) {
	if p.users == nil {
		return
	}
	if c := p.users.of[who]; c != nil {
		c.grants++
	}
}

// cut takes what a user's count has since it was last taken.
func (c *userCount) cut(pool string, per int64) UserUsage {
	out := UserUsage{Pool: pool, Day: time.Unix(c.day*24*3600, 0).UTC(), User: c.user, Peak: slotsOf(c.peak, per),
		Slots: c.slots.take(uint64(per) * uint64(time.Millisecond)), Grants: c.grants}
	c.peak, c.grants = 0, 0 // what is still in use shows when time passes
	return out
}

// closeUser ends a stretch of a user's count: it can be taken.
func (e *Enforcer) closeUser(p *pool, c *userCount) {
	if c.grants > 0 || c.peak > 0 {
		e.closedUsers(c.cut(p.name, p.users.per))
	}
}

func (e *Enforcer) closedUsers(u UserUsage) {
	if len(e.byUser) >= mostClosed {
		e.lostUsers++
		return
	}
	e.byUser = append(e.byUser, u)
}

// foldUser forgets a user that has nothing in use, and adds what was counted of it to the others.
func (e *Enforcer) foldUser(p *pool, c *userCount) {
	s := c.cut(p.name, p.users.per)
	p.users.forget(c)
	o := &p.users.others
	if o.Others > 0 && !o.Day.Equal(s.Day) {
		e.closedUsers(*o)
		*o = UserUsage{}
	}
	*o = UserUsage{Pool: p.name, Day: s.Day, Others: o.Others + 1, Peak: max(o.Peak, s.Peak), Slots: o.Slots + s.Slots,
		Grants: o.Grants + s.Grants}
}

func (u *userCounts) forget(c *userCount) {
	delete(u.of, c.user)
	last := u.list[len(u.list)-1]
	u.list[c.place], last.place = last, c.place
	u.list = slices.Delete(u.list, len(u.list)-1, len(u.list))
}

// TakeUserUsage returns what was in use of a pool by user since the last call, by days, and forgets it: of up to most
// users, and more says that there are others. The next call goes on with them. lost is how many days of users were
// dropped because nobody took them. What was in use of a pool that is gone, or of days that are over, comes with any
// call, whatever pool it names.
//
// It counts where Options.CountUsers says so, and while [Enforcer.TakeUsage] counts the pool.
func (e *Enforcer) TakeUserUsage(name string, most int, now time.Time) (all []UserUsage, lost int, more bool) {
	if p := e.pools[name]; p != nil && p.users != nil && p.counted != nil {
		e.count(p, now)
		u := p.users
		for n := 0; n < most && u.next < len(u.list); n++ {
			c := u.list[u.next]
			e.passUser(p, c)
			c.peak = max(c.peak, c.was)
			e.closeUser(p, c)
			if c.idle() {
				u.forget(c) // another has its place
			} else {
				u.next++
			}
		}
		if more = u.next < len(u.list); !more {
			u.next = 0
			e.closeOthers(p)
		}
	}
	all, lost = e.byUser, e.lostUsers
	e.byUser, e.lostUsers = nil, 0
	return all, lost, more
}

func (e *Enforcer) closeOthers(p *pool) {
	if p.users.others.Others > 0 {
		e.closedUsers(p.users.others)
		p.users.others = UserUsage{}
	}
}

// endUsers ends the counts by user of a pool that is forgotten.
func (e *Enforcer) endUsers(p *pool) {
	if p.users == nil || p.counted == nil {
		return
	}
	for _, c := range p.users.list {
		e.passUser(p, c)
		e.closeUser(p, c)
	}
	e.closeOthers(p)
	p.users = nil
}
