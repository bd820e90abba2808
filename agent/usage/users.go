package usage

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// DayClosed is the type of a line of the record by user.
const DayClosed = "usage.users"

// plainMark is a file in the folder of the record by user, which says that lines of it name users in plain.
const plainMark = "plain"

// Bounds of what is kept by user. A day's line is shorter than the longest that the log reads.
const (
	namesOpen   = 1024 // of a pool that are told apart while a day lasts
	namesDay    = 8192 // of all pools together
	namesClosed = 64   // of a pool, when a day is over: the heaviest
	lineBytes   = 600 << 10
	mostSums    = 16384 // denials and draws by user between two looks
	namesKnown  = 65536 // names that are remembered between two hours
	mostDays    = 8     // that are not closed
)

// UsersConfig says how users are counted.
type UsersConfig struct {
	Setting string // privacy.users: with omit nothing is kept, and what was kept is removed
	Dir     string // of the record
	// Name returns the name of a user on a day, as Setting has it; empty: it has none, and is among the others.
	Name func(of enforcer.User, at time.Time) string
	// Take returns what users had in use since the last call: see [enforcer.Enforcer.TakeUserUsage].
	Take func() (all []enforcer.UserUsage, lost int)
	// Removed is called when what was kept is removed, since Setting does not allow it.
	Removed func()
}

// rank orders the settings by how much they show.
func rank(setting string) int {
	return slices.Index([]string{eventlog.UsersOmit, eventlog.UsersPseudonym, eventlog.UsersPlain}, setting)
}

// people counts by user. Usage.mu guards open and was, Usage.writing lines and forget.
type people struct {
	cfg    UsersConfig
	open   map[dayKey]*openDay
	was    eventlog.Head
	lines  *eventlog.Log
	forget bool // what is kept says more than the setting allows, and has to go

	naming sync.Mutex // guards all below; held over the disk
	names  map[namedUser]string
	hour   time.Time // of names
}

type namedUser struct {
	user  enforcer.User
	month string
}

// dayKey is a day under a setting: one on which the setting changed has two lines.
type dayKey struct {
	day     time.Time
	setting string
}

// openDay is a day that is not closed.
type openDay struct {
	lost  int64
	names int
	pools map[string]*openUsers
	// so many names of a pool, and of all pools, stay when there are twice as many
	ofPool, ofAll int
}

func newDay() *openDay {
	return &openDay{pools: map[string]*openUsers{}, ofPool: namesOpen, ofAll: namesDay}
}

type openUsers struct {
	users  map[string]wire.UserUsage
	others wire.UserUsage
	short  float64
}

// counts reports whether use is counted by user.
func (p *people) counts() bool { return rank(p.cfg.Setting) > 0 }

// UsersSetting is privacy.users, by which users are counted and named.
func (u *Usage) UsersSetting() string { return u.cfg.Users.Setting }

// userPlace is a user of a pool on a day; others: all those that are not told apart.
type userPlace struct {
	day    time.Time
	pool   string
	user   enforcer.User
	others bool
}

type userSums struct{ drawn, denials int64 }

// byUser returns a user's sums. t.mu is held.
func (t *tally) byUser(at time.Time, pool string, who enforcer.User) *userSums {
	k := userPlace{day: dayAt(at), pool: pool, user: who}
	s := t.users[k]
	if s == nil && len(t.users) >= mostSums {
		k = userPlace{day: k.day, others: true}
		s = t.users[k]
	}
	if s == nil {
		if t.users == nil {
			t.users = map[userPlace]*userSums{}
		}
		s = &userSums{}
		t.users[k] = s
	}
	return s
}

func (t *tally) takeUsers() map[userPlace]*userSums {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.users
	t.users = nil
	return out
}

func dayAt(at time.Time) time.Time { return at.UTC().Truncate(24 * time.Hour) }

// namedUsage is what was counted of a user, under its name.
type namedUsage struct {
	day  time.Time
	pool string
	wire.UserUsage
}

// gather takes what was counted by user since the last call, and names the users. It holds no lock that anybody waits
// for who decides.
func (p *people) gather(t *tally, now time.Time) (out []namedUsage, lost int64) {
	if !p.counts() {
		return nil, 0
	}
	p.naming.Lock()
	defer p.naming.Unlock()
	if hour := now.Truncate(time.Hour); !hour.Equal(p.hour) || len(p.names) > namesKnown {
		p.hour, p.names = hour, map[namedUser]string{}
	}
	all, n := p.cfg.Take()
	for i := range all {
		a := &all[i]
		u := wire.UserUsage{Others: int64(a.Others), Peak: a.Peak, SlotSeconds: float64(a.Slots) / 1000,
			Grants: a.Grants}
		if a.Others == 0 {
			u.User = p.name(a.User, a.Day)
		}
		out = append(out, namedUsage{a.Day, a.Pool, u})
	}
	for k, s := range t.takeUsers() {
		u := wire.UserUsage{Drawn: s.drawn, Denials: s.denials}
		if !k.others {
			u.User = p.name(k.user, k.day)
		}
		out = append(out, namedUsage{k.day, k.pool, u})
	}
	return out, int64(n)
}

func (p *people) name(of enforcer.User, at time.Time) string {
	k := namedUser{of, at.Format("2006-01")}
	name, ok := p.names[k]
	if !ok {
		name = p.cfg.Name(of, at)
		p.names[k] = name
	}
	return name
}

// day returns a day that is open.
func (p *people) day(at time.Time) *openDay {
	k := dayKey{dayAt(at), p.cfg.Setting}
	d := p.open[k]
	if d == nil {
		d = newDay()
		p.open[k] = d
	}
	return d
}

// add adds to what is counted of a user.
func (d *openDay) add(pool string, u wire.UserUsage) {
	of := d.pools[pool]
	if of == nil && len(d.pools) >= mostPools {
		pool = ""
		of = d.pools[""]
	}
	if of == nil {
		of = &openUsers{users: map[string]wire.UserUsage{}}
		d.pools[pool] = of
	}
	if u.User == "" {
		u.Others = max(1, u.Others)
		of.short = tidy(of.short + u.SlotSeconds)
		of.others = AddUser(of.others, u)
		return
	}
	if _, ok := of.users[u.User]; !ok {
		d.names++
	}
	of.users[u.User] = AddUser(of.users[u.User], u)
	if len(of.users) > 2*d.ofPool {
		d.names -= of.cut(d.ofPool)
	}
	if d.names > 2*d.ofAll {
		for _, of := range d.pools {
			d.names -= of.cut(d.ofAll / len(d.pools))
		}
	}
}

// AddUser adds what was counted of one user at one agent, or of the others.
func AddUser(a, b wire.UserUsage) wire.UserUsage {
	a.User = cmp.Or(a.User, b.User)
	a.Others += b.Others
	a.Peak = max(a.Peak, b.Peak)
	a.SlotSeconds = tidy(a.SlotSeconds + b.SlotSeconds)
	a.Grants += b.Grants
	a.Drawn += b.Drawn
	a.Denials += b.Denials
	return a
}

// HeavierUser orders users: those with more slot-seconds first, then those who drew more, and who were denied more.
func HeavierUser(a, b wire.UserUsage) int {
	return cmp.Or(cmp.Compare(b.SlotSeconds, a.SlotSeconds), cmp.Compare(b.Drawn, a.Drawn),
		cmp.Compare(b.Denials, a.Denials), cmp.Compare(b.Grants, a.Grants), cmp.Compare(a.User, b.User))
}

// heaviest returns the users, the heaviest first.
func (of *openUsers) heaviest() []wire.UserUsage {
	return slices.SortedFunc(maps.Values(of.users), HeavierUser)
}

// cut puts all but the n heaviest users among the others, and returns how many that were. From then on a user may lack
// as much as the heaviest of those had.
func (of *openUsers) cut(n int) int {
	all := of.heaviest()
	if len(all) <= n {
		return 0
	}
	of.short = tidy(of.short + all[n].SlotSeconds)
	for _, u := range all[n:] {
		delete(of.users, u.User)
		of.others = AddUser(of.others, other(u))
	}
	return len(all) - n
}

// other makes a user one of the others.
func other(u wire.UserUsage) wire.UserUsage {
	u.User, u.Others = "", max(1, u.Others)
	return u
}

// line returns a day in the form that is kept, with the n heaviest users of each pool. Who is left out is among the
// others; those that are named lack nothing by it.
func (d *openDay) line(k dayKey, n int) wire.UsersDay {
	out := wire.UsersDay{Day: k.day, Setting: k.setting, Lost: d.lost, Pools: map[string]wire.PoolUsers{}}
	for name, of := range d.pools {
		all := of.heaviest()
		p := wire.PoolUsers{Users: all, Others: of.others, Short: of.short}
		if len(all) > n {
			p.Users = all[:n]
			for _, u := range all[n:] {
				p.Others = AddUser(p.Others, other(u))
			}
		}
		out.Pools[name] = p
	}
	return out
}

// closed returns a day as a line of the record, which is no longer than the log can read.
func (d *openDay) closed(k dayKey) ([]byte, error) {
	for n := namesClosed; ; n /= 2 {
		b, err := json.Marshal(d.line(k, n))
		if err != nil || len(b) <= lineBytes || n == 0 {
			return b, err
		}
	}
}

// openDays returns the open days as they are kept.
func (p *people) openDays() []wire.UsersDay {
	out := []wire.UsersDay{}
	for _, k := range p.keys() {
		out = append(out, p.open[k].line(k, 2*namesDay))
	}
	return out
}

func (p *people) keys() []dayKey {
	return slices.SortedFunc(maps.Keys(p.open), func(a, b dayKey) int {
		return cmp.Or(a.day.Compare(b.day), cmp.Compare(a.setting, b.setting))
	})
}

// take takes over the days that the last agent left open, without those that say more than the setting allows.
func (p *people) take(days []wire.UsersDay) {
	for _, l := range days {
		if r := rank(l.Setting); r < 1 || r > rank(p.cfg.Setting) {
			p.forget = true
			continue
		}
		d := newDay()
		d.lost = l.Lost
		for name, x := range l.Pools {
			of := &openUsers{users: map[string]wire.UserUsage{}, others: x.Others, short: x.Short}
			for _, u := range x.Users {
				of.users[u.User] = u
			}
			d.pools[name] = of
			d.names += len(of.users)
		}
		p.open[dayKey{dayAt(l.Day), l.Setting}] = d
	}
}

// bound forgets the oldest open days where there are too many, as when the disk takes none.
func (p *people) bound(now time.Time) {
	for len(p.open) > mostDays {
		delete(p.open, p.keys()[0])
		p.day(now).lost++
	}
}

// tooMuch reports whether the record says more than the setting allows.
func (p *people) tooMuch() bool {
	kept := p.cfg.Dir // its being there
	if p.counts() {
		kept = filepath.Join(p.cfg.Dir, plainMark)
	}
	_, err := os.Lstat(kept)
	return p.forget || p.cfg.Setting != eventlog.UsersPlain && !errors.Is(err, fs.ErrNotExist)
}

// remove removes the record, and copies of it that were put aside.
func (p *people) remove() error {
	if p.cfg.Dir == "" {
		p.forget = false
		return nil
	}
	parent, name := filepath.Split(p.cfg.Dir)
	entries, err := os.ReadDir(filepath.Clean(parent))
	for _, e := range entries {
		if e.Name() == name || strings.HasPrefix(e.Name(), name+"-") {
			err = errors.Join(err, os.RemoveAll(filepath.Join(parent, e.Name())))
		}
	}
	if err != nil {
		return fmt.Errorf("what was in use by user cannot be removed: %w", err)
	}
	p.forget = false
	return nil
}

// mark says on the disk that the record names users in plain, before it does.
func (p *people) mark() error {
	if p.cfg.Setting != eventlog.UsersPlain {
		return nil
	}
	path := filepath.Join(p.cfg.Dir, plainMark)
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	return files.Replace(path, nil, 0o600)
}
