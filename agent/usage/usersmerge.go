package usage

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// UserRow is what one user had in use of one pool on one day, or in a whole period; without a name: the others.
type UserRow struct {
	Day  time.Time // zero: of the period
	Pool string
	wire.UserUsage
	// Short is of the others: how many slot-seconds of one named user may be among theirs.
	Short float64
	// LeastPeak is the largest peak at one host, and Peak the sum of the hosts' peaks, which need not have been at one
	// time.
	LeastPeak int64
	Hosts     int
}

// daysOf puts the days of the reports of one agent together, the oldest report first. A day that two of them have
// counts once; of one that was open the newest report knows best.
func daysOf(agent string, all []wire.Usage) (out []wire.UsersDay, err error) {
	type line struct {
		sequence uint64
		dayKey
	}
	closed := map[line]wire.UsersDay{}
	seen := map[dayKey]bool{}
	for _, u := range all {
		for _, d := range u.Users {
			k := line{d.Sequence, dayKey{dayAt(d.Day), d.Setting}}
			if d.Sequence == 0 {
				continue
			}
			if was, ok := closed[k]; ok && !sameDay(was, d) {
				return nil, fmt.Errorf(
					"agent %s: two reports differ in day %s by user: a copy of the agent's state ran "+
						"twice, an old copy was put back, or a report was changed", agent, d.Day.Format(time.DateOnly))
			}
			if _, ok := closed[k]; !ok {
				out = append(out, d)
			}
			closed[k], seen[k.dayKey] = d, true
		}
	}
	for _, u := range slices.Backward(all) {
		open := map[dayKey]bool{}
		for _, d := range u.Users {
			if k := (dayKey{dayAt(d.Day), d.Setting}); d.Sequence == 0 && !seen[k] {
				open[k] = true
				out = append(out, d)
			}
		}
		maps.Copy(seen, open)
	}
	return out, nil
}

// sameDay reports whether two lines say the same.
func sameDay(a, b wire.UsersDay) bool {
	x, err := json.Marshal(a.Pools)
	y, err2 := json.Marshal(b.Pools)
	return err == nil && err2 == nil && string(x) == string(y)
}

type userCell struct {
	day        time.Time
	pool, user string
}

// userRows adds the agents up by user. Plain names of different hosts are taken for one user; pseudonyms of different
// hosts are alike only where the hosts share their keys.
func (m *Merged) userRows() {
	sums := map[userCell]*UserRow{}
	for _, s := range m.Agents {
		own := map[userCell]UserRow{}
		for _, d := range s.days {
			for pool, p := range d.Pools {
				for _, u := range append(slices.Clone(p.Users), p.Others) {
					if u.User == "" && u == (wire.UserUsage{}) && p.Short == 0 {
						continue
					}
					k := userCell{dayAt(d.Day), pool, u.User}
					r := own[k]
					if u.User == "" {
						r.Short += p.Short
					}
					r.UserUsage = AddUser(r.UserUsage, u)
					own[k] = r
				}
			}
		}
		for k, r := range own {
			is := sums[k]
			if is == nil {
				is = &UserRow{Day: k.day, Pool: k.pool}
				sums[k] = is
			}
			peak := is.Peak + r.Peak
			is.LeastPeak = max(is.LeastPeak, r.Peak)
			is.UserUsage = AddUser(is.UserUsage, r.UserUsage)
			is.Peak = peak
			is.Short = tidy(is.Short + r.Short)
			is.Hosts++
		}
	}
	m.Users = sortedRows(sums)
}

// UserTotals returns one row for each pool and user, of the whole period.
func (m *Merged) UserTotals() []UserRow {
	sums := map[userCell]*UserRow{}
	for _, r := range m.Users {
		k := userCell{pool: r.Pool, user: r.User}
		t := sums[k]
		if t == nil {
			t = &UserRow{Pool: r.Pool}
			sums[k] = t
		}
		t.UserUsage = AddUser(t.UserUsage, r.UserUsage)
		t.Short = tidy(t.Short + r.Short)
		t.LeastPeak, t.Hosts = max(t.LeastPeak, r.LeastPeak), max(t.Hosts, r.Hosts)
	}
	return sortedRows(sums)
}

func sortedRows(sums map[userCell]*UserRow) (out []UserRow) {
	for _, r := range sums {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b UserRow) int {
		last := 0 // the others come last
		if (a.User == "") != (b.User == "") {
			last = 1
			if b.User == "" {
				last = -1
			}
		}
		return cmp.Or(a.Day.Compare(b.Day), cmp.Compare(a.Pool, b.Pool), last, HeavierUser(a.UserUsage, b.UserUsage))
	})
	return out
}
