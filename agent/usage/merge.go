package usage

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// Row is what was in use of one pool in one hour, or in a whole period.
type Row struct {
	Hour time.Time // zero: of the period
	Pool string
	wire.PoolUsage
	// LeastPeak is the largest peak of one host: no fewer slots were in use together. Peak is the sum of the hosts'
	// peaks, which need not have been at one time: no more were.
	LeastPeak int64
	Hosts     int
}

// Merged is the usage of several agents together.
type Merged struct {
	From, To time.Time
	Agents   []Source
	Rows     []Row     // by hour and pool
	Users    []UserRow // by day, pool and user
	Settings []string  // how the reports name users
	Warnings []string
}

// Source is one agent of a merge.
type Source struct {
	AgentKey string           `json:"agent_key"`
	Host     string           `json:"host"`
	Product  string           `json:"product"`
	Reports  int              `json:"reports"`
	Hours    int              `json:"hours"`
	Gaps     []wire.UsageGap  `json:"gaps"`
	hours    []wire.UsageHour // without repetitions
	days     []wire.UsersDay
}

// Merge puts reports of one agent together, and adds up those of different agents. An hour that two reports of one
// agent have counts once.
func Merge(all []wire.Usage, now time.Time) (*Merged, error) {
	m := &Merged{}
	by := map[string][]wire.Usage{}
	for _, u := range all {
		if u.AgentKey == "" {
			return nil, fmt.Errorf("a report does not name its agent; make it again with this version of usher report")
		}
		by[u.AgentKey] = append(by[u.AgentKey], u)
		if x := u.UsersSetting; x != "" && !slices.Contains(m.Settings, x) {
			m.Settings = append(m.Settings, x)
		}
		if m.From.IsZero() || u.From.Before(m.From) {
			m.From = u.From
		}
		if u.To.After(m.To) {
			m.To = u.To
		}
	}
	hosts := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(by)) {
		s, err := sourceOf(by[key], now)
		if err != nil {
			return nil, err
		}
		if other, ok := hosts[s.Host]; ok && s.Host != "" {
			m.Warnings = append(m.Warnings,
				fmt.Sprintf("host %s has two agents, %s and %s: two products or instances, "+
					"or an agent that got another key; both are added", s.Host, other, s.AgentKey))
		}
		hosts[s.Host] = s.AgentKey
		m.Agents = append(m.Agents, *s)
		for _, gone := range missingOf(by[key]) {
			m.Warnings = append(m.Warnings, fmt.Sprintf("agent %s: hours %d to %d of its record are missing: %s",
				s.AgentKey, gone.After+1, gone.Before-1, gone.Reason))
		}
		for _, gone := range missingDaysOf(by[key]) {
			m.Warnings = append(m.Warnings, fmt.Sprintf("agent %s: days %d to %d of its record by user are missing: %s",
				s.AgentKey, gone.After+1, gone.Before-1, gone.Reason))
		}
	}
	m.rows()
	m.userRows()
	return m, nil
}

func missingDaysOf(all []wire.Usage) (out []wire.UsageMissing) {
	for _, u := range all {
		for _, g := range u.UsersMissing {
			if !slices.Contains(out, g) {
				out = append(out, g)
			}
		}
	}
	return out
}

func missingOf(all []wire.Usage) (out []wire.UsageMissing) {
	for _, u := range all {
		for _, g := range u.Missing {
			if !slices.Contains(out, g) {
				out = append(out, g)
			}
		}
	}
	return out
}

// sourceOf puts the reports of one agent together.
func sourceOf(all []wire.Usage, now time.Time) (*Source, error) {
	slices.SortStableFunc(all, func(a, b wire.Usage) int { return a.To.Compare(b.To) })
	newest := all[len(all)-1]
	s := &Source{AgentKey: newest.AgentKey, Host: newest.Host, Product: newest.Product, Reports: len(all),
		Gaps: []wire.UsageGap{}}
	closed := map[uint64]wire.UsageHour{}
	var last uint64
	for _, u := range all {
		for _, h := range u.Hours {
			if h.Sequence == 0 {
				continue
			}
			if was, ok := closed[h.Sequence]; ok && !sameHour(was, h) {
				return nil, fmt.Errorf(
					"agent %s: two reports differ in hour %d of its record (%s): a copy of the agent's "+
						"state ran twice, an old copy was put back, or a report was changed", s.AgentKey, h.Sequence,
					h.Hour.Format(time.RFC3339))
			}
			closed[h.Sequence] = h
			last = max(last, h.Sequence)
		}
	}
	for _, seq := range slices.Sorted(maps.Keys(closed)) {
		s.hours = append(s.hours, closed[seq])
	}
	// Of the hours that were open the newest report knows best: the others have closed them since, or say less.
	for _, u := range slices.Backward(all) {
		if last != 0 && !slices.ContainsFunc(u.Hours, func(h wire.UsageHour) bool { return h.Sequence == last }) {
			continue
		}
		for _, h := range u.Hours {
			if h.Sequence == 0 {
				s.hours = append(s.hours, h)
			}
		}
		break
	}
	s.Hours = len(s.hours)
	s.Gaps = Gaps(s.hours, all[0].From, newest.To, now)
	var err error
	s.days, err = daysOf(s.AgentKey, all)
	return s, err
}

func sameHour(a, b wire.UsageHour) bool {
	return a.Hour.Equal(b.Hour) && a.Observed == b.Observed && a.Starts == b.Starts &&
		maps.EqualFunc(a.Pools, b.Pools, func(p, q wire.PoolUsage) bool {
			return p.Peak == q.Peak && p.SlotSeconds == q.SlotSeconds && p.Drawn == q.Drawn && p.Grants == q.Grants &&
				p.OverSlotSeconds == q.OverSlotSeconds && p.Waits == q.Waits && maps.Equal(p.Denials, q.Denials)
		})
}

type cell struct {
	hour time.Time
	pool string
}

// rows adds the agents up.
func (m *Merged) rows() {
	sums := map[cell]*Row{}
	for _, s := range m.Agents {
		own := map[cell]wire.PoolUsage{}
		for _, h := range s.hours {
			for pool, p := range h.Pools {
				k := cell{h.Hour.UTC(), pool}
				if was, ok := own[k]; ok {
					p = Sum(was, p)
				}
				own[k] = p
			}
		}
		for k, p := range own {
			r := sums[k]
			if r == nil {
				sums[k] = &Row{Hour: k.hour, Pool: k.pool, PoolUsage: p, LeastPeak: p.Peak, Hosts: 1}
				continue
			}
			r.Hosts++
			r.LeastPeak = max(r.LeastPeak, p.Peak)
			peak, over := r.Peak+p.Peak, r.OverPeak+p.OverPeak
			limit, budget := larger(r.Limit, p.Limit), together(r.Budget, p.Budget)
			r.PoolUsage = plus(r.PoolUsage, p)
			r.Peak, r.OverPeak, r.Limit, r.Budget = peak, over, limit, budget
		}
	}
	for _, r := range sums {
		m.Rows = append(m.Rows, *r)
	}
	slices.SortFunc(m.Rows, func(a, b Row) int {
		return cmp.Or(a.Hour.Compare(b.Hour), cmp.Compare(a.Pool, b.Pool))
	})
}

// together adds up the budgets of hosts; nil is none.
func together(a, b *int64) *int64 {
	if a == nil || b == nil {
		return nil
	}
	return new(*a + *b)
}

// Totals returns one row for each pool, of the whole period: sums, and the hour with the highest peak.
func (m *Merged) Totals() (out []Row, busiest map[string]time.Time) {
	sums := map[string]*Row{}
	busiest = map[string]time.Time{}
	for _, r := range m.Rows {
		t := sums[r.Pool]
		if t == nil {
			t = &Row{Pool: r.Pool, PoolUsage: wire.PoolUsage{Limit: r.Limit, Budget: r.Budget}}
			sums[r.Pool] = t
		}
		if r.Peak > t.Peak || busiest[r.Pool].IsZero() {
			busiest[r.Pool] = r.Hour
		}
		t.PoolUsage = Sum(t.PoolUsage, r.PoolUsage)
		t.LeastPeak, t.Hosts = max(t.LeastPeak, r.LeastPeak), max(t.Hosts, r.Hosts)
	}
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		out = append(out, *sums[name])
	}
	return out, busiest
}

// Breaks says which stretches of the agents' records none of the reports has. Its error says that two reports of one
// agent do not go together.
func Breaks(all []*Report) (out []string, err error) {
	by := map[string][]*Report{}
	for _, r := range all {
		if r.Last.Sequence > 0 {
			by[r.AgentKey] = append(by[r.AgentKey], r)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(by)) {
		reports := by[key]
		slices.SortStableFunc(reports, func(a, b *Report) int {
			return cmp.Compare(a.First.Sequence, b.First.Sequence)
		})
		digests := map[uint64]string{}
		var last uint64
		for i, r := range reports {
			before, known := digests[r.First.Sequence-1]
			switch {
			case known && before != r.First.Digest:
				return nil, forked(key, r.First.Sequence)
			case i > 0 && r.First.Sequence > last+1:
				out = append(out, fmt.Sprintf("agent %s: no report has hours %d to %d of its record; ask for a report "+
					"that begins earlier", key, last+1, r.First.Sequence-1))
			}
			for seq, digest := range r.digests {
				if was, ok := digests[seq]; ok && was != digest {
					return nil, forked(key, seq)
				}
				digests[seq] = digest
			}
			last = max(last, r.Last.Sequence)
		}
	}
	return out, nil
}

func forked(key string, seq uint64) error {
	return fmt.Errorf(
		"agent %s: two reports differ in hour %d of its record, or before it: a copy of the agent's state "+
			"ran twice, or an old copy was put back", key, seq)
}
