package usage_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/usage"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// byUser has users counted as c.users says, each under a name that no figure has in it.
func (c *counting) byUser() usage.UsersConfig {
	names := eventlog.NewUsers(c.users, filepath.Join(c.dir, "pseudonyms"))
	return usage.UsersConfig{Setting: c.users, Dir: filepath.Join(c.dir, "users"),
		Name: func(of enforcer.User, at time.Time) string {
			name, err := names.Name(fmt.Sprintf("member-%d", of.UID), at)
			if err != nil {
				c.Error(err)
			}
			return name
		},
		Take: func() (all []enforcer.UserUsage, lost int) {
			c.mu.Lock()
			defer c.mu.Unlock()
			for _, name := range append(c.core.PoolNames(), "") {
				for more := true; more; {
					var some []enforcer.UserUsage
					var n int
					some, n, more = c.core.TakeUserUsage(name, 2, c.now())
					all, lost = append(all, some...), lost+n
				}
			}
			return all, lost
		},
		Removed: func() { c.removed = true }}
}

// newCountingBy is newCounting with privacy.users, and begins so long after the year 2000.
func newCountingBy(t *testing.T, users string, after time.Duration) *counting {
	c := &counting{T: t, dir: t.TempDir(), key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)),
		users: users}
	c.back.Store(-int64(after))
	c.start()
	return c
}

// days returns what users had in use since then, by day and pool.
func (c *counting) days(since time.Time) (out []wire.UsersDay) {
	c.Helper()
	r, err := c.u.ReadUsers(since, c.now())
	if err == nil {
		out, err = r.Days("")
	}
	if err != nil || len(r.Missing) > 0 {
		c.Fatal(err, r.Missing)
	}
	return out
}

// names returns whether files of the state have a text in them.
func (c *counting) names(text string) (in []string) {
	c.Helper()
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(text)) {
			in = append(in, path)
		}
		return err
	})
	if err != nil {
		c.Error(err)
	}
	return in
}

func userOf(t *testing.T, d wire.UsersDay, pool, name string) wire.UserUsage {
	t.Helper()
	for _, u := range d.Pools[pool].Users {
		if u.User == name {
			return u
		}
	}
	t.Fatalf("%s is not among %+v", name, d.Pools[pool])
	return wire.UserUsage{}
}

// What users had in use is counted by pool and day, over a restart, with draws and denials; together it is what the
// pool had.
func TestUsageByUser(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCountingBy(t, eventlog.UsersPlain, 0)
		defer func() { c.stop() }()
		began := c.now()
		first := c.ask(1, 3)
		c.ask(2, 6)
		c.ask(3, 1)
		c.ask(3, 1)
		c.ask(2, 7, func(r *enforcer.Acquire) { r.Pool, r.Lifetime = "renders", enforcer.LifetimeDraw })
		c.pass(6 * time.Hour)
		c.release(first)
		c.ask(1, 1)
		c.pass(17 * time.Hour)
		c.stop()
		c.start()
		c.ask(2, 2)
		c.pass(5 * time.Hour) // the first day is closed
		d := c.days(began)
		if len(d) != 2 || d[0].Sequence != 1 || d[1].Sequence != 0 || d[0].Setting != "plain" {
			t.Fatalf("the days are %+v", d)
		}
		one, two := userOf(t, d[0], "streams", "member-1"), userOf(t, d[0], "streams", "member-2")
		want(t, "peak", one.Peak, int64(3))
		want(t, "slot-seconds", one.SlotSeconds, float64(3600*(3*6+17)))
		want(t, "grants", one.Grants, int64(2))
		want(t, "slot-seconds of another", two.SlotSeconds, float64(3600*(6*23+2)))
		want(t, "denials", userOf(t, d[0], "streams", "member-3").Denials, int64(2))
		want(t, "drawn", userOf(t, d[0], "renders", "member-2").Drawn, int64(7))
		var all, hours float64
		for _, x := range d {
			for _, u := range x.Pools["streams"].Users {
				all += u.SlotSeconds
			}
		}
		r, err := c.u.Read(began, c.now())
		if err != nil {
			t.Fatal(err)
		}
		of, err := r.Hours("streams")
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range of {
			hours += h.Pools["streams"].SlotSeconds
		}
		want(t, "all users together", all, hours)
		r2, err := c.u.ReadUsers(began, c.now())
		if err != nil {
			t.Fatal(err)
		}
		one2, err := r2.Days("renders")
		if err != nil || len(one2[0].Pools) != 1 {
			t.Errorf("of one pool %+v, %v", one2, err)
		}
		if in := c.names("member-1"); len(in) == 0 {
			t.Error("no file names a user")
		}
	})
}

// Nothing is kept by user where privacy.users omits users; and when it does from now on, what was kept is removed, from
// the open days and the closed ones, and the log and the agent are told.
func TestUsersAreForgotten(t *testing.T) {
	for _, x := range []struct {
		from, to string
		named    string // while it was kept
		gone     bool
	}{
		{"plain", "omit", "member-1", true},
		{"plain", "pseudonym", "member-1", true},
		{"pseudonym", "omit", `"user":"p-`, true},
		{"pseudonym", "plain", `"user":"p-`, false},
		{"omit", "plain", "", false},
	} {
		t.Run(x.from+" to "+x.to, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				c := newCountingBy(t, x.from, 23*time.Hour)
				defer func() { c.stop() }()
				began := c.now()
				c.ask(1, 3)
				c.pass(90 * time.Minute)
				if x.named == "" {
					if in := c.names("member-1"); in != nil {
						t.Errorf("a user is named in %q", in)
					}
					if d := c.days(began); len(d) > 0 {
						t.Errorf("kept are %+v", d)
					}
				} else if in := c.names(x.named); len(in) < 2 {
					t.Errorf("users are named in %q alone", in)
				}
				if in := c.names("member-1"); x.from == "pseudonym" && in != nil {
					t.Errorf("a user is named in %q", in)
				}
				c.stop()
				if err := os.Mkdir(filepath.Join(c.dir, "users-20250101T000000"), 0o700); err != nil { // put aside
					t.Fatal(err)
				}
				c.users = x.to
				c.start()
				want(t, "removed", c.removed, x.gone)
				if x.named == "" {
					return
				}
				in := c.names(x.named)
				if (len(in) == 0) != x.gone {
					t.Errorf("users are named in %q", in)
				}
				want(t, "said", strings.Contains(c.log.String(), "what was kept of the use by user is removed"), x.gone)
				_, err := os.Stat(filepath.Join(c.dir, "users-20250101T000000"))
				want(t, "what was put aside is removed", err != nil, x.gone)
				c.ask(2, 2)
				c.pass(time.Minute)
				if d := c.days(began); (len(d) == 0) != (x.to == "omit") {
					t.Errorf("from then on %+v", d)
				}
				settings := map[string]int{}
				for _, d := range c.days(began) {
					settings[d.Setting]++
				}
				if !x.gone && (settings[x.from] != 2 || settings[x.to] != 1) {
					t.Errorf("the days are of %v", settings)
				}
			})
		})
	}
}

// A record that says more than the setting allows shows nothing of it, though it was put there behind the agent's back.
func TestNoReportShowsMoreThanAllowed(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCountingBy(t, eventlog.UsersPlain, 23*time.Hour)
		began := c.now()
		c.ask(1, 3)
		c.pass(3 * time.Hour)
		c.stop()
		if err := os.Remove(filepath.Join(c.dir, "users", "plain")); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(c.dir, "usage.json")); err != nil {
			t.Fatal(err)
		}
		c.users = eventlog.UsersPseudonym
		c.start()
		defer c.stop()
		c.ask(1, 1)
		c.pass(time.Minute)
		r, err := c.u.ReadUsers(began, c.now())
		if err != nil || len(r.Lines) > 0 || len(r.Open) != 1 || r.Open[0].Setting != eventlog.UsersPseudonym {
			t.Errorf("shown is %+v, %v", r, err)
		}
	})
}

// A user has one pseudonym in a month, and another in the next.
func TestPseudonymsOfMonths(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCountingBy(t, eventlog.UsersPseudonym, (30*24+22)*time.Hour)
		defer func() { c.stop() }()
		began := c.now()
		c.ask(1, 3)
		c.pass(4 * time.Hour)
		names := map[string]string{}
		for _, d := range c.days(began) {
			name := d.Pools["streams"].Users[0].User
			month := d.Day.Format("2006-01")
			if was := names[month]; was != "" && was != name {
				t.Errorf("in %s the user is %s and %s", month, was, name)
			}
			names[month] = name
		}
		if len(names) != 2 || names["2000-01"] == names["2000-02"] || !strings.HasPrefix(names["2000-01"], "p-") {
			t.Errorf("the user is called %q", names)
		}
	})
}

// A report by user holds as its agent made it, and not where a day was taken out or changed; reports of two hosts add
// up under the same plain name.
func TestReportByUser(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCountingBy(t, eventlog.UsersPlain, 23*time.Hour)
		defer func() { c.stop() }()
		began := c.now()
		c.ask(1, 3)
		c.ask(2, 2)
		c.pass(50 * time.Hour)
		claims := func() *usage.Claims {
			x := c.claims(began, c.now())
			r, err := c.u.ReadUsers(began, c.now())
			if err != nil {
				t.Fatal(err)
			}
			x.Users = &usage.ClaimsByUser{Setting: c.users, From: r.From, To: r.To, Record: r.Lines, Open: r.Open,
				Missing: r.Missing}
			return x
		}
		r, err := c.report(claims())
		if err != nil {
			t.Fatal(err)
		}
		want(t, "days", len(r.Days), 4)
		for name, harm := range map[string]func(*usage.ClaimsByUser){
			"a day was taken out": func(x *usage.ClaimsByUser) { x.Record = append(x.Record[:1:1], x.Record[2:]...) },
			"a day was changed": func(x *usage.ClaimsByUser) {
				x.Record[0] = bytes.Replace(x.Record[0], []byte("member-1"), []byte("member-9"), 1)
			},
			"an hour is no day": func(x *usage.ClaimsByUser) { x.Record[0] = claims().Record[0] },
		} {
			x := claims()
			harm(x.Users)
			if _, err := c.report(x); err == nil {
				t.Errorf("%s, and the report holds", name)
			}
		}
		mine, other := r.Usage(), r.Usage()
		other.AgentKey, other.Host = strings.Repeat("B", 43), "H-2"
		m, err := usage.Merge([]wire.Usage{mine, mine, other}, c.now())
		if err != nil {
			t.Fatal(err)
		}
		rows := m.UserTotals()
		if len(rows) != 2 || rows[0].User != "member-1" {
			t.Fatalf("the rows are %+v", rows)
		}
		want(t, "peak of two hosts", rows[0].Peak, int64(6))
		want(t, "the least", rows[0].LeastPeak, int64(3))
		want(t, "slot-seconds", rows[0].SlotSeconds, float64(2*3*50*3600))
		want(t, "hosts", rows[0].Hosts, 2)
		changed := r.Usage()
		changed.Users[0].Pools = map[string]wire.PoolUsers{}
		if _, err := usage.Merge([]wire.Usage{mine, changed}, c.now()); err == nil {
			t.Error("reports that differ are merged")
		}
	})
}

// Open days and lines of the record that nobody has written stop no agent, and make no report that does not hold.
func FuzzUsersKept(f *testing.F) {
	f.Add([]byte(`{"after":{"seq":0,"digest":""},"hours":[],"days_after":{"seq":3,"digest":"x"},"days":[{"day":`+
		`"2026-01-01T00:00:00Z","setting":"plain","pools":{"p":{"users":[{"user":"u","peak":1,"slot_seconds":2}],`+
		`"others":{"others":2,"peak":1,"slot_seconds":1}}}}]}`), []byte(`{"seq":1,"at":"2026-01-01T00:00:00Z","type":`+
		`"usage.users","body":{"day":"2026-01-01T00:00:00Z","setting":"plain","pools":null},"prev":"","sig":"x"}`))
	f.Add([]byte(`{"days":[{"setting":"none"}]}`), []byte("\n"))
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	f.Fuzz(func(t *testing.T, kept, line []byte) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "users"), 0o700); err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{"usage.json": kept, "users/events-000000000001.jsonl": line} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
		u, err := usage.Open(usage.Config{Dir: filepath.Join(dir, "usage"), Key: key,
			File: filepath.Join(dir, "usage.json"),
			Read: os.ReadFile, Write: func(string, []byte) error { return nil },
			Take:     func() ([]enforcer.Usage, int) { return nil, 0 },
			Terms:    func(string) wire.PoolUsage { return wire.PoolUsage{} },
			Licenses: func() []string { return nil }, Gone: func() {}, Now: func() time.Time { return now },
			Wall: func() time.Time { return now }, Boot: func() time.Duration { return 0 },
			Users: usage.UsersConfig{Setting: eventlog.UsersPlain, Dir: filepath.Join(dir, "users"),
				Name: func(enforcer.User, time.Time) string { return "u" },
				Take: func() ([]enforcer.UserUsage, int) {
					return []enforcer.UserUsage{{Pool: "p", Day: now.Truncate(24 * time.Hour), Peak: 1, Slots: 1000}}, 0
				}}})
		if err != nil {
			return
		}
		r, err := u.ReadUsers(now.AddDate(0, 0, -7), now)
		if err != nil {
			return
		}
		days, err := r.Days("")
		if err != nil {
			return
		}
		if _, err := usage.Merge([]wire.Usage{{AgentKey: identity.Thumbprint(key.Public().(ed25519.PublicKey)),
			Users: days, From: now, To: now}}, now); err == nil && len(days) == 0 {
			t.Error("what was counted just now is not there")
		}
	})
}
