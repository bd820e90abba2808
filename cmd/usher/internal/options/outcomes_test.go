package options

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usher-agent/usher/enforcer"
)

// site is an enforcer under the policies that an options file has become, on a host of a name.
type site struct {
	e      *enforcer.Enforcer
	now    time.Time
	n      int
	leases map[string][]enforcer.LeaseID // by user and pool
}

// newSite has pools of so many slots and so many more as overage.
func newSite(t failing, options string, from System, s Settings, hostname string, pools map[string][2]int64) *site {
	t.Helper()
	c := loaded(t, carried(t, "a.opt", options, from, s).Write("usher"))
	x := &site{e: enforcer.New(enforcer.Options{Durable: true}), now: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC),
		leases: map[string][]enforcer.LeaseID{}}
	v := &enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid, MaxBorrow: 30 * 24 * time.Hour,
		EarlyReturn: true, Pools: map[string]enforcer.PoolGrant{}}
	for name, n := range pools {
		v.Pools[name] = enforcer.PoolGrant{Name: name, Limit: enforcer.Limit(n[0]), Budget: enforcer.Limit(n[0]),
			Overage: enforcer.Limit(n[1])}
	}
	x.do(&enforcer.SetVerdict{Verdict: v})
	x.do(&enforcer.SetPolicies{Policies: c.Rules(hostname)})
	return x
}

func (x *site) do(r enforcer.Request) enforcer.Decision {
	d := x.e.Decide(r, x.now)
	for _, ev := range d.Events {
		x.e.Apply(ev)
	}
	return d
}

// caller is a user of the host. The same name is the same uid.
func caller(user string) enforcer.Caller {
	uid := uint32(1000)
	for _, r := range user {
		uid = uid*31 + uint32(r)
	}
	return enforcer.Caller{UID: uid % 60000, Profile: enforcer.ProfileOf(enforcer.Profile{Login: user})}
}

// step plays a line: "ann f1 2" acquires, "ann f1 2 borrow 48h", "ann f1 1 project=moon" and "ann f1 1 wait" do it in
// other ways; "ann gives f1", "ann renews f1" and "5m passes" change what is held. It returns ok, queued, or the code.
func (x *site) step(t failing, line string) string {
	t.Helper()
	w := strings.Fields(line)
	switch {
	case w[1] == "passes":
		d, err := time.ParseDuration(w[0])
		if err != nil {
			t.Fatal(err)
		}
		for x.now = x.now.Add(d); !x.e.NextTick().IsZero() && !x.e.NextTick().After(x.now); {
			x.do(&enforcer.Tick{})
		}
		return "ok"
	case w[1] == "gives" || w[1] == "renews":
		key := w[0] + " " + w[2]
		ids := x.leases[key]
		if len(ids) == 0 {
			t.Fatalf("%s: nothing is held", line)
		}
		if w[1] == "renews" {
			return outcome(x.do(&enforcer.Renew{ID: ids[0], Caller: caller(w[0])}))
		}
		x.leases[key] = ids[1:]
		got := outcome(x.do(&enforcer.Release{ID: ids[0], Caller: caller(w[0])}))
		x.serve()
		return got
	}
	x.n++
	r := &enforcer.Acquire{ID: enforcer.LeaseID{byte(x.n), byte(x.n >> 8)}, Caller: caller(w[0]), Pool: w[1],
		Lifetime: enforcer.LifetimeHeld}
	if _, err := fmt.Sscan(w[2], &r.N); err != nil {
		t.Fatal(err)
	}
	for i, more := range w[3:] {
		key, value, label := strings.Cut(more, "=")
		switch {
		case label:
			r.Labels = map[string]string{key: value}
		case more == "wait":
			r.Wait = time.Hour
		case more == "borrow":
			d, err := time.ParseDuration(w[3+i+1])
			if err != nil {
				t.Fatal(err)
			}
			r.Lifetime, r.Until = enforcer.LifetimeBorrow, x.now.Add(d)
		}
	}
	d := x.do(r)
	if d.Lease != nil {
		x.leases[w[0]+" "+w[1]] = append(x.leases[w[0]+" "+w[1]], r.ID)
	}
	return outcome(d)
}

// serve gives what is free to those who wait.
func (x *site) serve() {
	for d := x.do(&enforcer.Serve{}); len(d.Events) > 0; d = x.do(&enforcer.Serve{}) {
		if d.Lease == nil {
			continue
		}
		key := d.Lease.Holder.Profile.Profile().Login + " " + d.Lease.Items[0].Pool
		x.leases[key] = append(x.leases[key], d.Lease.ID)
	}
}

func outcome(d enforcer.Decision) string {
	switch {
	case d.Denial != nil:
		return string(d.Denial.Code)
	case d.Waiter != nil:
		return "queued"
	default:
		return "ok"
	}
}

const denied = "denied_by_policy"

// outcomes are options files, and what comes of what is tried under them.
var outcomes = []struct {
	name    string
	from    System
	options string
	s       Settings
	host    string
	steps   []string // each: what is tried => what comes of it
}{
	{name: "EXCLUDE keeps one out", from: FlexNet, options: "EXCLUDE f1 USER lori",
		steps: []string{"lori f1 1 => " + denied, "ann f1 1 => ok", "lori f2 1 => ok"}},
	{name: "EXCLUDEALL keeps one out of all", from: FlexNet, options: "EXCLUDEALL USER lori",
		steps: []string{"lori f1 1 => " + denied, "lori f2 1 => " + denied, "ann f2 1 => ok"}},
	{name: "INCLUDE keeps all others out", from: FlexNet, options: "INCLUDE f1 USER bob\nINCLUDE f1 USER tom",
		steps: []string{"bob f1 1 => ok", "tom f1 1 => ok", "ann f1 1 => " + denied, "ann f2 1 => ok"}},
	{name: "EXCLUDE before INCLUDE", from: FlexNet, options: "INCLUDE f1 USER bob\nEXCLUDE f1 USER bob",
		steps: []string{"bob f1 1 => " + denied, "ann f1 1 => " + denied}},
	{name: "EXCLUDE of a member of an INCLUDE's group", from: FlexNet,
		options: "GROUP g bob tom\nINCLUDE f1 GROUP g\nEXCLUDE f1 USER tom",
		steps:   []string{"bob f1 1 => ok", "tom f1 1 => " + denied}},
	{name: "INCLUDE by user or host", from: FlexNet, options: "INCLUDE f1 USER bob\nINCLUDE f1 HOST here",
		host:  "here",
		steps: []string{"bob f1 1 => ok", "ann f1 1 => ok"}},
	{name: "INCLUDE by user or host, on another host", from: FlexNet, host: "there",
		options: "INCLUDE f1 USER bob\nINCLUDE f1 HOST here",
		steps:   []string{"bob f1 1 => ok", "ann f1 1 => " + denied}},
	{name: "EXCLUDE by host", from: FlexNet, options: "HOST_GROUP h there here\nEXCLUDE f1 HOST_GROUP h",
		host:  "here",
		steps: []string{"bob f1 1 => " + denied, "bob f2 1 => ok"}},
	{name: "INCLUDEALL", from: FlexNet, options: "INCLUDEALL USER jane",
		steps: []string{"jane f1 1 => ok", "jane f2 1 => ok", "bob f1 1 => " + denied}},
	{name: "INCLUDEALL and INCLUDE are one list", from: FlexNet,
		options: "INCLUDEALL USER jane\nINCLUDE f1 USER bob",
		s:       Settings{All: []string{"f1", "f2"}},
		steps: []string{"jane f1 1 => ok", "jane f2 1 => ok", "bob f1 1 => ok", "bob f2 1 => " + denied,
			"ann f1 1 => " + denied}},
	{name: "INCLUDEALL and INCLUDE, where nobody names all pools", from: FlexNet,
		options: "INCLUDEALL USER jane\nINCLUDE f1 USER bob",
		steps: []string{"jane f1 1 => ok", "jane f3 1 => ok", "bob f1 1 => ok", "bob f2 1 => " + denied,
			"ann f1 1 => " + denied}},
	{name: "names are case sensitive", from: FlexNet, options: "GROUP g Bob\nEXCLUDE f1 GROUP g",
		steps: []string{"bob f1 1 => ok", "Bob f1 1 => " + denied}},
	{name: "GROUPCASEINSENSITIVE", from: FlexNet,
		options: "GROUPCASEINSENSITIVE ON\nGROUP g Bob\nEXCLUDE f1 GROUP g",
		steps:   []string{"bob f1 1 => " + denied, "BOB f1 1 => " + denied, "ann f1 1 => ok"}},
	{name: "RLM knows no case", from: RLM, options: "exclude f1 user BOB",
		steps: []string{"bob f1 1 => " + denied, "Bob f1 1 => " + denied, "ann f1 1 => ok"}},
	{name: "MAX of a user", from: FlexNet, options: "MAX 2 f1 USER jan",
		steps: []string{"jan f1 1 => ok", "jan f1 1 => ok", "jan f1 1 => no_slots|" + denied, "ann f1 2 => ok",
			"jan f2 3 => ok"}},
	{name: "MAX of a group is of all together", from: FlexNet, options: "GROUP g jan ann\nMAX 2 f1 GROUP g",
		steps: []string{"jan f1 1 => ok", "ann f1 1 => ok", "ann f1 1 => no_slots|" + denied, "bob f1 2 => ok"}},
	{name: "MAX of all users is of each", from: FlexNet, options: "MAX 3 f1 USER jan\nMAX 1 f1 USER ALL_USERS",
		steps: []string{"ann f1 1 => ok", "ann f1 1 => no_slots|" + denied, "bob f1 1 => ok", "jan f1 2 => ok"}},
	{name: "MAX of all groups is of each", from: FlexNet,
		options: "GROUP g ann bob\nGROUP h tom\nMAX 1 f1 GROUP ALL_GROUPS",
		steps:   []string{"ann f1 1 => ok", "bob f1 1 => no_slots|" + denied, "tom f1 1 => ok", "jan f1 2 => ok"}},
	{name: "MAX 0", from: FlexNet, options: "MAX 0 f1 USER jan",
		steps: []string{"jan f1 1 => " + denied, "ann f1 1 => ok"}},
	{name: "RLM's MAX for * with an exemption", from: RLM, options: "MAX 1 f1 user *\nEXEMPT_MAX f1 user plum",
		steps: []string{"ann f1 1 => ok", "ann f1 1 => no_slots|" + denied, "plum f1 2 => ok"}},
	{name: "EXEMPTALL_MAX", from: RLM, options: "GROUP g plum ann\nMAX 1 f1 group g\nEXEMPTALL_MAX user plum",
		steps: []string{"plum f1 2 => ok", "ann f1 1 => ok", "ann f1 1 => no_slots|" + denied}},
	{name: "RESERVE", from: FlexNet, options: "RESERVE 3 f1 USER mel",
		steps: []string{"ann f1 1 => ok", "ann f1 1 => no_slots|" + denied, "mel f1 3 => ok"}},
	{name: "RESERVE twice adds up", from: FlexNet, options: "RESERVE 2 f1 USER mel\nRESERVE 1 f1 USER mel",
		steps: []string{"ann f1 2 => no_slots|" + denied, "ann f1 1 => ok", "mel f1 3 => ok"}},
	{name: "RESERVE for a group", from: RLM, options: "group g mel TOM\nreserve 2 f1 group G",
		steps: []string{"ann f1 2 => ok", "ann f1 1 => no_slots|" + denied, "tom f1 1 => ok", "mel f1 1 => ok"}},
	{name: "MAX_OVERDRAFT", from: FlexNet, options: "MAX_OVERDRAFT f3 1",
		steps: []string{"ann f3 5 => ok", "ann f3 1 => no_slots|" + denied}},
	{name: "EXCLUDE_BORROW", from: FlexNet, options: "EXCLUDE_BORROW f1 USER fred",
		steps: []string{"fred f1 1 borrow 24h => " + denied, "fred f1 1 => ok", "ann f1 1 borrow 24h => ok"}},
	{name: "INCLUDE_BORROW", from: FlexNet, options: "INCLUDE_BORROW f1 USER tom",
		steps: []string{"ann f1 1 borrow 24h => " + denied, "ann f1 1 => ok", "tom f1 1 borrow 24h => ok"}},
	{name: "BORROW_LOWWATER", from: FlexNet, options: "BORROW_LOWWATER f1 3",
		steps: []string{"ann f1 1 borrow 24h => ok", "ann f1 1 borrow 24h => " + denied, "ann f1 3 => ok"}},
	{name: "MAX_BORROW_HOURS, the last counts", from: FlexNet,
		options: "MAX_BORROW_HOURS f1 12\nMAX_BORROW_HOURS f1 48",
		steps:   []string{"ann f1 1 borrow 49h => " + denied, "ann f1 1 borrow 48h => ok"}},
	{name: "ROAM_MAX_DAYS", from: RLM, options: "ROAM_MAX_DAYS 5 f1",
		steps: []string{"ann f1 1 borrow 121h => " + denied, "ann f1 1 borrow 120h => ok",
			"ann f2 1 borrow 240h => ok"}},
	{name: "EXCLUDEALL_ROAM", from: RLM, options: "EXCLUDEALL_ROAM user bob",
		steps: []string{"bob f2 1 borrow 24h => " + denied, "bob f2 1 => ok", "ann f2 1 borrow 24h => ok"}},
	{name: "a project", from: FlexNet, options: "EXCLUDE f1 PROJECT moon",
		steps: []string{"ann f1 1 project=moon => " + denied, "ann f1 1 project=sun => ok", "ann f1 1 => ok"}},
	{name: "noproject", from: RLM, options: "EXCLUDE f1 noproject",
		steps: []string{"ann f1 1 project=moon => ok", "ann f1 1 => " + denied}},
	{name: "LINGER", from: FlexNet, options: "LINGER f1 600",
		steps: []string{"ann f1 4 => ok", "ann gives f1 => ok", "bob f1 1 => no_slots|" + denied, "ann f1 1 => ok",
			"ann gives f1 => ok", "601s passes => ok", "bob f1 4 => ok"}},
	{name: "TIMEOUT", from: FlexNet, options: "TIMEOUT f1 3600",
		steps: []string{"ann f1 4 => ok", "59m passes => ok", "ann renews f1 => ok", "59m passes => ok",
			"bob f1 1 => no_slots", "2m passes => ok", "bob f1 4 => ok"}},
	{name: "TIMEOUTALL and a longer TIMEOUT", from: FlexNet, options: "TIMEOUTALL 60\nTIMEOUT f1 3600",
		s: Settings{All: []string{"f1", "f2"}},
		steps: []string{"ann f1 4 => ok", "ann f2 4 => ok", "2m passes => ok", "bob f1 1 => no_slots",
			"bob f2 4 => ok"}},
	{name: "TIMEOUTALL and a longer TIMEOUT, where nobody names all pools", from: FlexNet,
		options: "TIMEOUTALL 60\nTIMEOUT f1 3600",
		steps: []string{"ann f1 4 => ok", "ann f2 4 => ok", "2m passes => ok", "bob f1 1 => no_slots",
			"bob f2 4 => ok"}},
	{name: "PRIORITY, the first line that matches counts", from: RLM,
		options: "PRIORITY 7 f1 user plum\nPRIORITY 3 f1 user mustard\nPRIORITY 1 f1 user plum",
		steps: []string{"ann f1 4 => ok", "bob f1 1 wait => queued", "plum f1 1 wait => queued",
			"mustard f1 1 wait => queued",
			"ann gives f1 => ok", "mustard gives f1 => ok", "plum gives f1 => ok", "bob gives f1 => ok"}},
	{name: "a pool of another name", from: FlexNet, options: "EXCLUDE \"CAD:VERSION=2.0\" USER lori",
		s:     Settings{Pools: map[string]string{"CAD:VERSION=2.0": "f2"}},
		steps: []string{"lori f1 1 => ok", "lori f2 1 => " + denied}},
	{name: "an option for a name is for all its parts", from: FlexNet, options: "EXCLUDE f1 USER lori",
		s:     Settings{Pools: map[string]string{"f1:VERSION=2.0": "f2"}},
		steps: []string{"lori f1 1 => " + denied, "lori f2 1 => " + denied}},
}

// What the manuals say that an option does, the policies do that it becomes.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	for _, c := range outcomes {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x := newSite(t, c.options, c.from, c.s, c.host,
				map[string][2]int64{"f1": {4, 0}, "f2": {4, 0}, "f3": {4, 4}})
			for i, s := range c.steps {
				line, want, _ := strings.Cut(s, " => ")
				if got := x.step(t, line); !slices.Contains(strings.Split(want, "|"), got) {
					t.Fatalf("step %d, %s: %s, want %s\n%s", i, line, got, want,
						carried(t, "a.opt", c.options, c.from, c.s).Write("usher"))
				}
			}
		})
	}
}

// reading is a plain reading of options about access, limits and reservations of the feature f1.
type reading struct {
	lines    []string
	access   [][2]string // keyword and who
	maxima   []maximum
	reserved map[string]int64 // by who
	held     map[string]int64 // by user
}

type maximum struct {
	n   int64
	who string
}

var (
	readers = []string{"ann", "bob", "tom", "jan"}
	teams   = map[string][]string{"g": {"ann", "bob"}, "h": {"bob", "tom"}}
)

const readLimit = 6 // slots

// drawReading makes an options file up.
func drawReading(t *rapid.T) *reading {
	r := &reading{lines: []string{"GROUP g ann bob", "GROUP h bob tom"}, reserved: map[string]int64{},
		held: map[string]int64{}}
	who := rapid.SampledFrom([]string{"USER ann", "USER bob", "USER tom", "GROUP g", "GROUP h"})
	for range rapid.IntRange(0, 5).Draw(t, "options") {
		w := who.Draw(t, "who")
		switch k := rapid.SampledFrom([]string{"INCLUDE", "EXCLUDE", "MAX", "RESERVE"}).Draw(t, "keyword"); k {
		case "MAX":
			m := maximum{rapid.Int64Range(1, 3).Draw(t, "n"), w}
			r.maxima = append(r.maxima, m)
			r.lines = append(r.lines, fmt.Sprintf("MAX %d f1 %s", m.n, w))
		case "RESERVE":
			w = "USER " + rapid.SampledFrom(readers[:3]).Draw(t, "user")
			r.reserved[w]++
			r.lines = append(r.lines, "RESERVE 1 f1 "+w)
		default:
			r.access = append(r.access, [2]string{k, w})
			r.lines = append(r.lines, k+" f1 "+w)
		}
	}
	return r
}

// names reports whether a line for who is for a user.
func (*reading) names(who, user string) bool {
	kind, name, _ := strings.Cut(who, " ")
	return kind == "USER" && name == user || kind == "GROUP" && slices.Contains(teams[name], user)
}

// use returns how many slots those have whom a line is for; empty: all.
func (r *reading) use(who string) (n int64) {
	for user, has := range r.held {
		if who == "" || r.names(who, user) {
			n += has
		}
	}
	return n
}

// grants reports whether a user gets so many slots more.
func (r *reading) grants(user string, n int64) bool {
	listed, included := false, false
	for _, a := range r.access {
		if a[0] == "EXCLUDE" && r.names(a[1], user) {
			return false
		}
		listed = listed || a[0] == "INCLUDE"
		included = included || a[0] == "INCLUDE" && r.names(a[1], user)
	}
	for _, m := range r.maxima {
		if r.names(m.who, user) && r.use(m.who)+n > m.n {
			return false
		}
	}
	var kept int64
	for w, n := range r.reserved {
		if !r.names(w, user) {
			kept += max(0, n-r.use(w))
		}
	}
	return (!listed || included) && r.use("")+kept+n <= readLimit
}

// Whatever options about access, limits and reservations a file has, and whoever asks: the policies grant what a plain
// reading of the options grants.
func TestOutcomesAgainstAReading(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := drawReading(t)
		text := strings.Join(r.lines, "\n")
		x := newSite(t, text, FlexNet, Settings{}, "", map[string][2]int64{"f1": {readLimit, 0}})
		taken := map[string][]int64{}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			u := rapid.SampledFrom(readers).Draw(t, "user")
			if len(taken[u]) > 0 && rapid.Bool().Draw(t, "gives") {
				if got := x.step(t, u+" gives f1"); got != "ok" {
					t.Fatalf("%s cannot give back: %s", u, got)
				}
				r.held[u] -= taken[u][0]
				taken[u] = taken[u][1:]
				continue
			}
			n := rapid.Int64Range(1, 3).Draw(t, "slots")
			want := r.grants(u, n)
			got := x.step(t, fmt.Sprintf("%s f1 %d", u, n))
			if (got == "ok") != want {
				t.Fatalf("%s asks for %d: %s, and a reading of the options says %v; held is %v\n%s", u, n, got, want,
					r.held, text)
			}
			if want {
				r.held[u] += n
				taken[u] = append(taken[u], n)
			}
		}
	})
}
