// Package usage keeps what was in use, by pool and hour, for those who plan and pay: peaks, slot-seconds, time over the
// budget, waits, denials and draws. Nothing that decides waits for it: the core counts slots itself and is asked once a
// minute, and what else is counted is a sum in memory. It knows holders for minutes only, to tell true denials from
// false ones. Users it writes nowhere but in a record of its own, by days, and only where privacy.users allows it.
//
// Hours are of licence time, in UTC. An hour that is over is a line of a signed chain ([eventlog.Log]); hours that are
// not lie in a sealed file that is replaced once a minute. Start reading at [Usage.Run].
package usage

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// The measure of counting.
const (
	every   = time.Minute // between two looks at the core
	window  = 10 * time.Minute
	settled = window + every // after an hour's end, when it can be closed
	// stepped is how far licence time and the host's own may differ between two looks before that is a step.
	stepped = 2 * time.Second
)

// Bounds of what is kept.
const (
	fileBytes    = 4 << 20
	fileCount    = 16
	mostPools    = 1024 // that are told apart in an hour
	mostLicenses = 32   // likewise
	mostOpen     = 72   // hours that are not closed
	mostPending  = 8192 // denials whose end is not known
)

// Window is how long after a denial a grant to the same holder makes it a false one.
const Window = window

// Config is what Open needs. All fields are required.
type Config struct {
	Dir string // of the record
	Key ed25519.PrivateKey
	// File is where open hours are kept; Read and Write read and replace it.
	File  string
	Read  func(file string) ([]byte, error)
	Write func(file string, data []byte) error
	// Take returns what was in use since the last call: see [enforcer.Enforcer.TakeUsage].
	Take func() (all []enforcer.Usage, lost int)
	// Terms returns a pool, or a meter, with the limits that it has now, and no usage.
	Terms func(pool string) wire.PoolUsage
	// Licenses returns the ids of the licences in force.
	Licenses func() []string
	// Gone is called when hours that were recorded are gone.
	Gone func()
	Now  func() time.Time // licence time
	Wall func() time.Time
	Boot func() time.Duration // since the host was started
	Log  *slog.Logger
	// Users says how users are counted; the zero value: not at all.
	Users UsersConfig
}

// Usage counts. Make one with Open.
type Usage struct {
	cfg   Config
	lines *eventlog.Log // Run's, and nobody's while it is nil

	tally  tally
	people *people

	mu     sync.Mutex // guards all below; held over the core's lock, and never over the disk
	open   map[time.Time]*wire.UsageHour
	last   time.Time // of the last look; zero: there was none
	boot   time.Duration
	failed bool // the last write did
	begun  bool
	was    eventlog.Head // the record's last line, as the last agent knew it

	writing sync.Mutex // one at a time; held over the disk
}

// Run counts until ctx ends, and keeps what is counted. It looks through the record first.
func (u *Usage) Run(ctx context.Context) error {
	u.Look()
	u.keep()
	defer func() {
		u.Look()
		u.keep()
		if u.lines != nil {
			u.lines.Close() // every line is on the disk
		}
		if u.people.lines != nil {
			u.people.lines.Close()
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := u.cfg.Now()
		hour := now.Truncate(time.Hour).Add(time.Hour)
		timer.Reset(max(100*time.Millisecond, min(every, hour.Sub(now)+10*time.Millisecond)))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		u.Look()
		u.keep()
	}
}

// Look takes over what the core has counted, and what was tallied.
func (u *Usage) Look() {
	byUser, lostUsers := u.people.gather(&u.tally, u.cfg.Now())
	u.mu.Lock()
	defer u.mu.Unlock()
	now, boot := u.cfg.Now(), u.cfg.Boot()
	all, lost := u.cfg.Take()
	for i := range all {
		u.slots(&all[i])
	}
	sums, dropped := u.tally.take(now)
	for k, s := range sums {
		u.add(k, s)
	}
	h := u.hour(now)
	h.Lost += int64(lost) + dropped
	if !u.begun {
		u.begun = true
		h.Starts++
	} else {
		u.observe(now, boot)
	}
	for _, id := range u.cfg.Licenses() {
		if !slices.Contains(h.Licenses, id) && len(h.Licenses) < mostLicenses {
			h.Licenses = append(h.Licenses, id)
		}
	}
	for i := range byUser {
		u.people.day(byUser[i].day).add(byUser[i].pool, byUser[i].UserUsage)
	}
	if lostUsers > 0 {
		u.people.day(now).lost += lostUsers
	}
	u.last, u.boot = now, boot
	u.bound()
	u.people.bound(now)
}

// observe counts the time since the last look as observed. Where the clock was set meanwhile, only the time that the
// host has seen pass counts.
func (u *Usage) observe(now time.Time, boot time.Duration) {
	passed, since := boot-u.boot, now.Sub(u.last)
	if d := since - passed; d > stepped || d < -stepped {
		u.hour(now).ClockSteps++
	}
	passed = max(0, min(passed, mostOpen*time.Hour))
	for from := now.Add(-passed); from.Before(now); {
		end := from.Truncate(time.Hour).Add(time.Hour)
		if end.After(now) {
			end = now
		}
		h := u.hour(from)
		h.Observed = tidy(h.Observed + end.Sub(from).Seconds())
		from = end
	}
}

// tidy rounds seconds to a thousandth, so that sums stay readable.
func tidy(s float64) float64 { return math.Round(s*1000) / 1000 }

// hour returns an hour that is open. u.mu is held.
func (u *Usage) hour(at time.Time) *wire.UsageHour {
	at = at.UTC().Truncate(time.Hour)
	h := u.open[at]
	if h == nil {
		h = &wire.UsageHour{Hour: at, Pools: map[string]wire.PoolUsage{}}
		u.open[at] = h
	}
	return h
}

// slots adds what the core has counted.
func (u *Usage) slots(s *enforcer.Usage) {
	u.add(place{s.Hour, s.Pool}, wire.PoolUsage{Limit: limit(s.Limit), Budget: limit(s.Budget), Peak: s.Peak,
		OverPeak: s.OverPeak, SlotSeconds: float64(s.Slots) / 1000, OverSlotSeconds: float64(s.Over) / 1000,
		OverSeconds: s.OverFor.Seconds(), Grants: s.Grants})
}

func limit(l enforcer.Limit) *int64 {
	if l == enforcer.Unlimited {
		return nil
	}
	return new(int64(l))
}

// add adds to the sums of a pool. u.mu is held.
func (u *Usage) add(k place, s wire.PoolUsage) {
	h := u.hour(k.hour)
	was, ok := h.Pools[k.pool]
	if !ok {
		if len(h.Pools) >= mostPools {
			k.pool = ""
			was, ok = h.Pools[""]
		}
		if !ok {
			was = u.cfg.Terms(k.pool)
		}
	}
	h.Pools[k.pool] = Sum(was, s)
}

// Sum adds what was counted of one pool at one agent: sums add, and the largest peak is the peak.
func Sum(a, b wire.PoolUsage) wire.PoolUsage {
	a.Peak, a.OverPeak = max(a.Peak, b.Peak), max(a.OverPeak, b.OverPeak)
	a.Limit, a.Budget = larger(a.Limit, b.Limit), larger(a.Budget, b.Budget)
	return plus(a, b)
}

// plus adds all but peaks and limits.
func plus(a, b wire.PoolUsage) wire.PoolUsage {
	a.Meter = a.Meter || b.Meter
	for _, x := range []struct {
		to *float64
		n  float64
	}{{&a.SlotSeconds, b.SlotSeconds}, {&a.OverSeconds, b.OverSeconds}, {&a.OverSlotSeconds, b.OverSlotSeconds},
		{&a.WaitSeconds, b.WaitSeconds}} {
		*x.to = tidy(*x.to + x.n)
	}
	a.Grants += b.Grants
	a.Drawn += b.Drawn
	a.Waits += b.Waits
	a.LongestWait = max(a.LongestWait, b.LongestWait)
	a.TrueDenials += b.TrueDenials
	a.FalseDenials += b.FalseDenials
	if len(b.Denials) > 0 {
		all := map[string]int64{}
		for _, m := range []map[string]int64{a.Denials, b.Denials} {
			for code, n := range m {
				all[code] += n
			}
		}
		a.Denials = all
	}
	return a
}

// larger returns the larger of two limits; nil is none.
func larger(a, b *int64) *int64 {
	if a == nil || b == nil {
		return nil
	}
	return new(max(*a, *b))
}

// bound forgets the oldest open hours where there are too many, as when the disk takes none. u.mu is held.
func (u *Usage) bound() {
	for len(u.open) > mostOpen {
		oldest := slices.MinFunc(hoursOf(u.open), time.Time.Compare)
		delete(u.open, oldest)
		u.hour(u.last).Lost++
	}
}

func hoursOf(open map[time.Time]*wire.UsageHour) []time.Time {
	out := make([]time.Time, 0, len(open))
	for at := range open {
		out = append(out, at)
	}
	slices.SortFunc(out, time.Time.Compare)
	return out
}
