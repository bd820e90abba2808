package main

import (
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// busy is an agent with much to show.
func busy() (*picture, time.Time) {
	now := time.Date(2027, 1, 15, 14, 3, 22, 0, time.UTC)
	end := time.Date(2027, 12, 31, 0, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	p := &picture{product: "acme-render", license: &wire.License{State: "valid", Code: "VALID", CoveredUntil: &end},
		pools: []wire.Pool{
			{Name: "gpu", Kind: "slots", Limit: new(int64(2)), Budget: new(int64(2)), InUse: 3, Peak: 3},
			{Name: "renders", Kind: "meter", Limit: new(int64(1000)), Budget: new(int64(1000)), InUse: 400},
			{Name: "streams", Kind: "slots", Limit: new(int64(8)), Budget: new(int64(8)), InUse: 8, Waiting: 3,
				Peak: 8},
			{Name: "viewers", Kind: "slots", InUse: 120, Peak: 133}},
		leases: []wire.Lease{
			{Items: []wire.Item{{Pool: "streams", N: 4}, {Pool: "gpu", N: 1}}, AcquiredAt: ago(90 * time.Minute),
				State: "held", Holder: &wire.Holder{UID: 1000, User: "alice", PID: 4711, Exe: "/opt/acme/bin/render",
					Labels: map[string]string{"job": "spot-12"}}},
			{Items: []wire.Item{{Pool: "streams", N: 4}}, AcquiredAt: ago(3 * time.Minute), State: "held",
				ExpiresAt: new(now.Add(57 * time.Second)), Holder: &wire.Holder{UID: 1001}},
			{Items: []wire.Item{{Pool: "gpu", N: 2}}, AcquiredAt: ago(26 * time.Hour), State: "unconfirmed",
				Holder: &wire.Holder{UID: nobody, PID: 99}}},
		waiting: []wire.Waiter{
			{Items: []wire.Item{{Pool: "streams", N: 2}}, Position: 1, Priority: 5, Since: ago(2 * time.Minute),
				EstimateSeconds: 150, Holder: &wire.Holder{UID: 1003, PID: 812,
					Labels: map[string]string{"job": "spot-13"}}},
			{Items: []wire.Item{{Pool: "streams", N: 1}}, Position: 2, Since: ago(20 * time.Second), UID: 1004}},
		denied: map[string]int64{"streams": 17},
		denials: []wire.Event{{At: ago(time.Minute), Pool: "streams", Code: "no_slots", Count: 3,
			Reason: "pool streams: 8 of 8 slots are in use, and the request is for 1 more",
			Holder: &wire.Holder{UID: 1002}}}}
	return p, now
}

// A picture at 80 × 24 is the one in the documentation.
func TestTopPicture(t *testing.T) {
	p, now := busy()
	got := joined(p.frame(80, 24, now))
	if !strings.Contains(read(t, "../../docs/usage.md"), "\n```text\n"+got+"```\n") {
		t.Errorf("docs/usage.md does not have this picture:\n%s", got)
	}
}

// On a terminal of any size no line is wider and there are no more of them, and the licence, the pools and the keys
// stay in sight.
func TestTopFits(t *testing.T) {
	p, now := busy()
	for range 200 {
		p.leases = append(p.leases, wire.Lease{Items: []wire.Item{{Pool: "streams", N: 1}}, AcquiredAt: now,
			Holder: &wire.Holder{UID: 7, User: "東京の利用者さま", Labels: map[string]string{"x": strings.Repeat("長", 90)}}})
		p.denials = append(p.denials, p.denials[0])
		p.waiting = append(p.waiting, p.waiting[0])
	}
	for len(p.pools) < 60 {
		p.pools = append(p.pools, wire.Pool{Name: strings.Repeat("very-long-", 9), Budget: new(int64(1)), InUse: 1})
	}
	for _, away := range []string{"", "connect: no such file or directory " + strings.Repeat("x", 300)} {
		p.away = away
		for width := 1; width < 260; width += 7 {
			for height := 1; height < 90; height += 3 {
				all := p.frame(width, height, now)
				if len(all) > max(height, topHeight) {
					t.Fatalf("%d×%d: %d lines", width, height, len(all))
				}
				for _, line := range all {
					if n := cells(line); n > max(width, topWidth) {
						t.Fatalf("%d×%d: a line has %d columns: %s", width, height, n, line)
					}
				}
				text := joined(all)
				if !strings.Contains(text, "POOL") || !strings.HasPrefix(all[len(all)-1], "q quit") {
					t.Fatalf("%d×%d:\n%s", width, height, text)
				}
			}
		}
	}
}

// On a terminal that is smaller than any picture, what it has no room for is cut off, and nothing is wrapped.
func TestTopIsCutOff(t *testing.T) {
	t.Parallel()
	p, now := busy()
	for _, size := range [][2]int{{20, 5}, {10, 3}, {1, 1}, {39, 7}, {40, 8}, {80, 24}} {
		var out strings.Builder
		c := &canvas{to: &out}
		if err := c.paint(p.frame(size[0], size[1], now), size[0], size[1]); err != nil {
			t.Fatal(err)
		}
		text := out.String()
		for _, command := range []string{screenHome, screenClear, restOfLine, restOfAll} {
			text = strings.ReplaceAll(text, command, "")
		}
		all := strings.Split(text, "\r\n")
		if len(all) != size[1] {
			t.Errorf("%v: %d lines", size, len(all))
		}
		for _, line := range all {
			if cells(line) > size[0] {
				t.Errorf("%v: %q has %d columns", size, line, cells(line))
			}
		}
	}
	var out strings.Builder
	err := (&canvas{to: &out}).paint([]string{"a line"}, 0, 0)
	if err != nil || !strings.Contains(out.String(), "a line") {
		t.Errorf("a terminal that does not say its size: %q, %v", out.String(), err)
	}
}

// Keys change the order of the holders and the pool, and end it.
func TestTopKeys(t *testing.T) {
	p, now := busy()
	first := func() string {
		all := p.frame(100, 0, now)
		for i, line := range all {
			if strings.HasPrefix(line, "HOLDER") {
				return strings.Fields(all[i+1])[0]
			}
		}
		return ""
	}
	for _, want := range []string{"without", "uid", "alice", "alice"} { // oldest, newest, slots, holder
		if got := first(); got != want {
			t.Errorf("in the order %s %s is first, not %s", topSorts[p.sort].name, got, want)
		}
		p.key('s')
	}
	for _, want := range []string{"gpu", "renders", "streams", "viewers", ""} {
		if p.key('p'); p.pool != want {
			t.Errorf("the pool shown is %q, not %q", p.pool, want)
		}
	}
	p.pool = "gone"
	if p.key('p'); p.pool != "" {
		t.Errorf("after a pool that is gone comes %q", p.pool)
	}
	for _, k := range []byte{'q', 3} {
		if !p.key(k) {
			t.Errorf("key %d does not end it", k)
		}
	}
	for range 10 {
		p.key('j')
	}
	if p.key('k'); p.first != 1 {
		t.Errorf("the first line shown is %d", p.first)
	}
}

// Where many wait and are denied, holders, the first of those that wait, and denials are all seen, and with one pool
// those that wait for it alone.
func TestTopWaiters(t *testing.T) {
	p, now := busy()
	for range 60 {
		p.waiting = append(p.waiting, p.waiting[1])
		p.denials = append(p.denials, p.denials[0])
	}
	text := joined(p.frame(80, 24, now))
	for _, want := range []string{"alice", "uid 1001", "without an identity", "uid 1003 (job=spot-13)", "more wait",
		"DENIED\n14:02:22"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
	p.behind = true
	if text := joined(p.frame(80, 0, now)); strings.Count(text, "uid 1004") != 61 ||
		!strings.Contains(text, "others behind these") {
		t.Errorf("a picture of any height:\n%s", text)
	}
	p.pool = "gpu"
	if text := joined(p.frame(80, 24, now)); strings.Contains(text, "uid 1003") {
		t.Errorf("for another pool:\n%s", text)
	}
}
