package enforcer

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the stories in testdata")

// TestStories plays the stories in testdata/stories: commands, a line ----, and their results. `go test -run Stories
// -update` writes the results again; a person reads the difference.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/stories/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no stories", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := newStory(t).play(string(b))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(b) {
				t.Errorf(
					"the story goes otherwise now (go test ./enforcer -run Stories -update, and read the "+
						"difference):\n%s", firstDifference(string(b), got))
			}
		})
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		var a, b string
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\n- %s\n+ %s", i+1, a, b)
		}
	}
	return "nothing"
}

type story struct {
	t     *testing.T
	e     *Enforcer
	facts Facts
	now   time.Time
	ids   map[string]LeaseID
	names map[LeaseID]string
	out   strings.Builder
	host  *hostClock // nil: the story's own time is right
}

func newStory(t *testing.T) *story {
	return &story{t: t, e: New(Options{Durable: true}), ids: map[string]LeaseID{}, names: map[LeaseID]string{},
		facts: Facts{Products: []string{"acme"}, Host: Host{Components: map[string][]string{"machine-id": {"aa"},
			"mac": {"bb"}}, Physical: 4, Logical: 8, Effective: 8}},
		now: time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)}
}

// play runs every command and returns the story with what came of them.
func (s *story) play(text string) string {
	var cmds []string
	skipping := false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case skipping:
			if line == "" {
				skipping = false
				s.say("")
			}
		case line == "----":
			s.say("----")
			for _, c := range cmds {
				s.run(strings.Fields(c))
			}
			cmds, skipping = nil, true
		default:
			s.say("%s", line)
			if line != "" && !strings.HasPrefix(line, "#") {
				cmds = append(cmds, line)
			}
		}
	}
	if len(cmds) > 0 {
		s.t.Fatalf("commands without ----: %q", cmds)
	}
	return s.out.String()
}

func (s *story) say(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

func (s *story) run(f []string) {
	var err error
	switch f[0] {
	case "now":
		s.now, err = time.Parse(time.RFC3339, f[1])
	case "pass":
		var d time.Duration
		if d, err = duration(f[1]); err == nil {
			s.pass(s.now.Add(d))
		}
	case "drop":
		var l *License
		if l, err = s.licenseFrom(f[1], f[2:]); err == nil {
			s.put(Document{Name: f[1], License: l})
		}
	case "break":
		d := Document{Name: f[1],
			Problem: &Problem{Code: Code(f[2]), Reason: "licence " + f[1] + ": broken for this story"}}
		for _, was := range s.facts.Documents {
			if was.Name == f[1] && was.License != nil {
				d.License, d.Problem.Stale = was.License, true
			}
		}
		s.put(d)
	case "remove":
		s.facts.Documents = slices.DeleteFunc(s.facts.Documents, func(d Document) bool { return d.Name == f[1] })
		s.judge()
	case "narrow": // narrow max_borrow=D: the configuration is stricter
		var d time.Duration
		if d, err = duration(strings.TrimPrefix(f[1], "max_borrow=")); err == nil {
			s.facts.Narrowing.MaxBorrow = &d
			s.judge()
		}
	case "pools":
		for _, p := range s.e.AppendPools(nil, slices.Sorted(slices.Values(s.e.PoolNames())), s.now) {
			borrowed := ""
			if p.Borrowed > 0 {
				borrowed = fmt.Sprintf(", %d borrowed", p.Borrowed)
			}
			s.say("%s: %d of %s in use%s, budget %s, %s available, scope %s", p.Name, p.InUse, p.Limit, borrowed,
				p.Budget, p.Available(), p.Scope)
		}
	case "leases":
		for _, l := range s.leases() {
			s.say("%s", s.describe(l))
		}
	case "verdict":
		v := s.e.Verdict()
		s.say("%s: until %s, covered until %s, terminates %s", v.Code, s.at(v.Until), s.at(v.CoveredUntil),
			s.at(v.TerminatesAt))
		for _, w := range v.Warnings {
			s.say("  warning %s: %s", w.Code, w.Detail)
		}
	default:
		err = s.operate(f)
	}
	if err != nil {
		s.t.Fatalf("%q: %v", strings.Join(f, " "), err)
	}
}

// operate asks something of the enforcer.
func (s *story) operate(f []string) (err error) {
	switch f[0] {
	case "acquire":
		err = s.acquire(f[1], f[2:])
	case "renew":
		s.do(&Renew{ID: s.ids[f[1]], Caller: Caller{UID: 1000}})
	case "release":
		force := slices.Contains(f, "force")
		s.do(&Release{ID: s.ids[f[1]], Caller: Caller{UID: 1000, Admin: force}, Force: force})
	case "cancel":
		s.do(&Cancel{ID: s.ids[f[1]]})
	case "doubt":
		s.do(&Doubt{ID: s.ids[f[1]], Until: s.now.Add(15 * time.Second)})
	case "join", "attach", "leave":
		var pid int64
		if pid, err = strconv.ParseInt(f[2], 10, 32); err != nil {
			break
		}
		c := Caller{UID: 1000, User: "ann", PID: int32(pid), Start: 1}
		s.do(map[string]Request{"join": &Join{ID: s.ids[f[1]], Caller: c},
			"attach": &Attach{ID: s.ids[f[1]], Caller: c}, "leave": &Leave{ID: s.ids[f[1]], Holder: c}}[f[0]])
	case "adjust":
		var n int64
		n, err = strconv.ParseInt(f[2], 10, 64)
		s.do(&Adjust{Pool: f[1], Drawn: n, Caller: Caller{Admin: true}})
	case "shift": // shift METER BY [admin]
		var n int64
		n, err = strconv.ParseInt(f[2], 10, 64)
		s.do(&Shift{Pool: f[1], By: n, Caller: Caller{UID: 1000, Admin: slices.Contains(f, "admin")}})
	default:
		err = s.runClock(f)
	}
	return err
}

func (s *story) leases() []*Lease {
	all := s.e.Leases(nil)
	slices.SortFunc(all, func(a, b *Lease) int { return cmp.Compare(s.names[a.ID], s.names[b.ID]) })
	return all
}

func (s *story) describe(l *Lease) string {
	var items []string
	for _, it := range l.Items {
		items = append(items, fmt.Sprintf("%s×%d", it.Pool, it.N))
	}
	out := fmt.Sprintf("%s: %s, %s", s.names[l.ID], strings.Join(items, " "), l.Lifetime)
	if !l.ExpiresAt.IsZero() {
		out += " until " + s.at(l.ExpiresAt)
	}
	if l.Unconfirmed {
		out += ", unconfirmed"
	}
	if l.Lifetime == LifetimeProcess {
		out += fmt.Sprintf(", of process %d", l.Holder.PID)
		for _, o := range l.Others {
			out += fmt.Sprintf(" and %d", o.PID)
		}
	}
	if !l.RevokeAt.IsZero() {
		out += ", to be revoked at " + s.at(l.RevokeAt)
	}
	return out
}

func (s *story) at(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

func (s *story) put(d Document) {
	s.facts.Documents = slices.DeleteFunc(s.facts.Documents, func(o Document) bool { return o.Name == d.Name })
	s.facts.Documents = append(s.facts.Documents, d)
	s.judge()
}

func (s *story) judge() {
	if s.host != nil {
		s.look(true)
		return
	}
	s.judgeNow()
}

func (s *story) judgeNow() { s.do(&SetVerdict{Judge(s.facts, s.now)}) }

// pass lets time pass as the agent does: due leases end, and the judge is asked again, each at its instant.
func (s *story) pass(to time.Time) {
	for {
		next := s.e.NextTick()
		judge := time.Time{}
		if v := s.e.Verdict(); v != nil {
			judge = v.JudgeAgainAt
		}
		if next = sooner(next, judge); next.IsZero() || next.After(to) {
			break
		}
		s.now = later(s.now, next)
		if !judge.IsZero() && !judge.After(s.now) {
			s.judge()
		}
		if at := s.e.NextTick(); !at.IsZero() && !at.After(s.now) {
			s.do(&Tick{})
		}
	}
	s.now = to
}

// do has a request decided and carried out, and passes on what came free to those who wait, as the agent does.
func (s *story) do(r Request) {
	s.one(r)
	_, judged := r.(*SetVerdict)
	for s.e.Waiting() > 0 && s.one(&Serve{Recheck: judged}) {
	}
}

// one has one request decided and carried out, and reports whether anything happened.
func (s *story) one(r Request) bool {
	d := s.e.Decide(r, s.now)
	if d.Denial != nil {
		s.say("denied %s: %s", d.Denial.Code, d.Denial.Detail)
		if d.Denial.Hint != "" {
			s.say("  hint: %s", d.Denial.Hint)
		}
	}
	if d.Replayed {
		s.say("the same lease again: %s", s.describe(d.Lease))
	}
	// Leases that end together do so in no particular order.
	slices.SortStableFunc(d.Events, func(a, b Event) int {
		if a.Kind != EventEnded || b.Kind != EventEnded {
			return 0
		}
		return cmp.Compare(s.names[a.Lease.ID], s.names[b.Lease.ID])
	})
	for _, ev := range d.Events {
		s.e.Apply(ev)
		switch ev.Kind {
		case EventVerdict:
			s.say("%s  verdict %s (%s): %s", s.at(ev.At), ev.Verdict.State, ev.Verdict.Code, ev.Verdict.Reason)
		case EventGranted, EventRenewed:
			s.say("%s  %s %s", s.at(ev.At), ev.Kind, s.describe(ev.Lease))
		case EventEnded:
			s.say("%s  %s ended: %s", s.at(ev.At), s.names[ev.Lease.ID], ev.Cause)
		case EventQueued:
			s.say("%s  %s waits until %s", s.at(ev.At), s.names[ev.Waiter.ID], s.at(ev.Waiter.Until))
		case EventLeft:
			s.say("%s  %s waits no longer: %s", s.at(ev.At), s.names[ev.Waiter.ID], ev.Cause)
			if ev.Denial != nil {
				s.say("denied %s after %v: %s", ev.Denial.Code, ev.Denial.Waited, ev.Denial.Detail)
			}
		case EventDrawn:
			s.say("%s  %s drew %s", s.at(ev.At), s.names[ev.Lease.ID], s.describe(ev.Lease))
		case EventChanged:
			s.say("%s  changed %s", s.at(ev.At), s.describe(ev.Lease))
		}
	}
	return len(d.Events) > 0
}

func (s *story) acquire(name string, args []string) error {
	r := &Acquire{Caller: Caller{UID: 1000, User: "ann"}, Lifetime: LifetimeTTL, TTL: time.Minute}
	if id, ok := s.ids[name]; ok {
		r.ID = id
	} else {
		r.ID = LeaseID{byte(len(s.ids) + 1)}
		s.ids[name], s.names[r.ID] = r.ID, name
	}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		var err error
		switch k {
		case "uid":
			var n uint64
			n, err = strconv.ParseUint(v, 10, 32)
			r.Caller.UID, r.Caller.User = uint32(n), ""
		case "ttl":
			r.TTL, err = duration(v)
		case "held":
			r.Lifetime, r.TTL = LifetimeHeld, 0
		case "min_n":
			r.MinN, err = strconv.ParseInt(v, 10, 64)
		case "token":
			r.Token = v
		case "wait":
			r.Wait, err = duration(v)
		case "lifetime":
			r.Lifetime, r.TTL = Lifetime(v), 0
		case "until":
			r.Lifetime, r.TTL = LifetimeBorrow, 0
			r.Until, err = s.instant(v)
		case "pid":
			var n int64
			n, err = strconv.ParseInt(v, 10, 32)
			r.Caller.PID, r.Caller.Start = int32(n), 1
		case "version":
			r.Version = v
		default:
			var n int64
			n, err = strconv.ParseInt(v, 10, 64)
			r.Items = append(r.Items, Item{Pool: k, N: n})
		}
		if err != nil {
			return err
		}
	}
	if len(r.Items) == 1 {
		r.Pool, r.N, r.Items = r.Items[0].Pool, r.Items[0].N, nil
	}
	s.do(r)
	return nil
}

// licenseFrom makes a licence: pools as name=limit, the rest by the names of the licence's claims. It is bound to the
// story's host unless it says "unbound".
func (s *story) licenseFrom(name string, args []string) (*License, error) {
	l := &License{ID: strings.TrimSuffix(name, ".lic"), System: "usher", Product: "acme", Licensee: "Blue Cinema",
		Issued: s.right(), Role: RoleBase,
		Pools: map[string]PoolTerm{}, Features: map[string]Value{}, KeyID: "2026-a",
		Hosts: []HostBinding{{Components: map[string][]string{"machine-id": {"aa"}, "mac": {"bb"}}}}}
	overage := map[string]Limit{}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		var err error
		switch k {
		case "unbound":
			l.Hosts = nil
		case "product":
			l.Product = v
		case "role":
			l.Role = Role(v)
		case "supersedes":
			l.Supersedes = strings.Split(v, ",")
		case "expires":
			l.Expires, err = s.instant(v)
		case "not_before":
			l.NotBefore, err = s.instant(v)
		case "issued":
			l.Issued, err = s.instant(v)
		case "clock":
			l.Clock = ClockPolicy(v)
		case "grace":
			l.Grace, err = duration(v)
		case "on_expiry":
			l.OnExpiry = OnExpiry(v)
		case "max_borrow":
			l.MaxBorrow, err = duration(v)
		case "early_return":
			l.EarlyReturn = true
		case "versions":
			l.Versions = v
		case "environment":
			l.Environment = Environment(v)
		case "meter":
			v, adjustable := strings.CutSuffix(v, "/adjustable")
			m, resets, _ := strings.Cut(v, "/")
			meter, n, _ := strings.Cut(m, ":")
			var count int64
			count, err = strconv.ParseInt(n, 10, 64)
			if l.Meters == nil {
				l.Meters = map[string]MeterTerm{}
			}
			l.Meters[meter] = MeterTerm{Max: Limit(count), Resets: Resets(resets), Adjustable: adjustable}
		case "feature":
			l.Features[v] = Value{Kind: KindBool, Bool: true}
		default:
			pool, by, _ := strings.Cut(k, "/")
			pool, isOverage := strings.CutPrefix(pool, "overage:")
			n := int64(Unlimited)
			if v != "unlimited" {
				n, err = strconv.ParseInt(v, 10, 64)
			}
			if isOverage {
				overage[pool] = Limit(n)
			} else {
				l.Pools[pool] = PoolTerm{Max: Limit(n), CountBy: CountBy(by)}
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a, err)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(overage)) {
		term := l.Pools[p]
		term.Overage = overage[p]
		l.Pools[p] = term
	}
	return l, nil
}

func (s *story) instant(v string) (time.Time, error) {
	d, err := duration(strings.TrimPrefix(v, "+"))
	return s.right().Add(d), err
}

// duration reads a Go duration, or days as 30d.
func duration(v string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(v, "d"); ok {
		n, err := strconv.Atoi(days)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(v)
}
