package usage_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/usage"
	"github.com/usher-agent/usher/client/wire"
)

// claims returns what an agent would sign of a period.
func (c *counting) claims(since, until time.Time) *usage.Claims {
	c.Helper()
	r, err := c.u.Read(since, until)
	if err != nil {
		c.Fatal(err)
	}
	return &usage.Claims{Version: 1, Issued: c.now(), Product: "acme", Host: "H-1",
		AgentKey: identity.Thumbprint(c.key.Public().(ed25519.PublicKey)), From: r.From, To: r.To, Record: r.Lines,
		Open: r.Open, Missing: r.Missing}
}

func (c *counting) report(claims *usage.Claims) (*usage.Report, error) {
	c.Helper()
	text, err := usage.Sign(c.key, claims)
	if err != nil {
		c.Fatal(err)
	}
	return usage.ReadReport([]byte(text))
}

// A report holds as its agent made it. One in which an hour was taken out, exchanged, moved or changed does not, though
// the agent's own key has signed it; nor does one of which a byte was changed.
func TestReportHolds(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCounting(t)
		began := c.now()
		c.ask(1, 3)
		c.pass(6*time.Hour + 30*time.Minute)
		defer c.stop()
		good := c.claims(began, c.now())
		r, err := c.report(good)
		if err != nil {
			t.Fatal(err)
		}
		want(t, "first hour", r.First.Sequence, uint64(1))
		want(t, "last hour", r.Last.Sequence, uint64(6))
		want(t, "hours", len(r.Hours), 7)
		want(t, "gaps", len(r.Usage().Gaps), 0)

		for name, harm := range map[string]func(*usage.Claims){
			"an hour was taken out": func(x *usage.Claims) { x.Record = slices.Delete(x.Record, 2, 3) },
			"hours were exchanged":  func(x *usage.Claims) { x.Record[1], x.Record[2] = x.Record[2], x.Record[1] },
			"an hour is there twice": func(x *usage.Claims) {
				x.Record = slices.Insert(x.Record, 1, x.Record[0])
			},
			"an hour was changed": func(x *usage.Claims) {
				x.Record[3] = bytes.Replace(x.Record[3], []byte(`"peak":3`), []byte(`"peak":2`), 1)
			},
			"another agent is named": func(x *usage.Claims) { x.AgentKey = strings.Repeat("A", 43) },
			"a line is no hour": func(x *usage.Claims) {
				x.Record[0] = json.RawMessage(`{"type":"agent.started"}`)
			},
			"the version is not known": func(x *usage.Claims) { x.Version = 2 },
		} {
			x := *good
			x.Record = slices.Clone(good.Record)
			harm(&x)
			if _, err := c.report(&x); err == nil {
				t.Errorf("%s, and the report holds", name)
			}
		}

		text, err := usage.Sign(c.key, good)
		if err != nil {
			t.Fatal(err)
		}
		head, rest, _ := strings.Cut(text, ".")
		for i := range 40 {
			at := len(head) + 1 + i*len(rest)/40
			b := []byte(text)
			b[at] ^= 1
			if r, err := usage.ReadReport(b); err == nil && text != string(b) && r.Issued.Equal(good.Issued) {
				if !sameBits(text, string(b)) {
					t.Errorf("byte %d was changed, and the report holds", at)
				}
			}
		}
	})
}

// sameBits reports whether two texts differ only in bits that base64 does not use.
func sameBits(a, b string) bool {
	return a[:len(a)-1] == b[:len(b)-1]
}

// What is missing by the agent's own words is said, and does not make its report void.
func TestReportWithMissingHours(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCounting(t)
		began := c.now()
		c.pass(6 * time.Hour)
		defer c.stop()
		x := c.claims(began, c.now())
		x.Record = slices.Delete(x.Record, 2, 3)
		x.Missing = []wire.UsageMissing{{After: 2, Before: 4}}
		r, err := c.report(x)
		if err != nil {
			t.Fatal(err)
		}
		m, err := usage.Merge([]wire.Usage{r.Usage()}, c.now())
		if err != nil || len(m.Warnings) != 1 || !strings.Contains(m.Warnings[0], "hours 3 to 3") {
			t.Errorf("warnings %q, %v", m.Warnings, err)
		}
		want(t, "gaps", len(m.Agents[0].Gaps), 1)
	})
}

// Reports of one agent that follow each other are whole; a stretch between them shows, and so does a second history.
func TestBreaks(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCounting(t)
		began := c.now()
		c.pass(12 * time.Hour)
		defer func() { c.stop() }()
		part := func(from, to int) *usage.Report {
			t.Helper()
			r, err := c.report(c.claims(began.Add(time.Duration(from)*time.Hour),
				began.Add(time.Duration(to)*time.Hour)))
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		first, second, third := part(0, 4), part(3, 7), part(9, 11)
		breaks, err := usage.Breaks([]*usage.Report{second, first})
		if err != nil || len(breaks) > 0 {
			t.Errorf("of reports that overlap: %q, %v", breaks, err)
		}
		breaks, err = usage.Breaks([]*usage.Report{first, second, third})
		if err != nil || len(breaks) != 1 || !strings.Contains(breaks[0], "hours 8 to 9") {
			t.Errorf("a stretch is in no report: %q, %v", breaks, err)
		}

		other := newCounting(t) // the same key, and another history
		other.ask(1, 1)
		other.pass(12 * time.Hour)
		defer other.stop()
		forked, err := other.report(other.claims(began.Add(12*time.Hour), other.now()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := usage.Breaks([]*usage.Report{first, forked}); err == nil {
			t.Error("two histories of one agent go together")
		}
	})
}

func hour(seq uint64, at time.Time, peak int64) wire.UsageHour {
	return wire.UsageHour{Sequence: seq, Hour: at, Observed: 3600, Pools: map[string]wire.PoolUsage{
		"streams": {Limit: new(int64(8)), Budget: new(int64(8)), Peak: peak, SlotSeconds: 100}}}
}

// Sums of hosts add, their peaks too, as the most that can have been at one time; what two reports of one agent have
// counts once, and where they differ nothing is made of them.
func TestMerge(t *testing.T) {
	at := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	report := func(key, host string, hours ...wire.UsageHour) wire.Usage {
		return wire.Usage{From: at, To: at.Add(3 * time.Hour), AgentKey: key, Host: host, Hours: hours}
	}
	one := report("one", "h1", hour(1, at, 3), hour(2, at.Add(time.Hour), 4), hour(0, at.Add(2*time.Hour), 1))
	again := report("one", "h1", hour(2, at.Add(time.Hour), 4), hour(3, at.Add(2*time.Hour), 5))
	two := report("two", "h2", hour(7, at, 2))
	m, err := usage.Merge([]wire.Usage{one, two, again}, at.Add(3*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	want(t, "rows", len(m.Rows), 3)
	want(t, "peak of both", m.Rows[0].Peak, int64(5))
	want(t, "of one at least", m.Rows[0].LeastPeak, int64(3))
	want(t, "budget of both", *m.Rows[0].Budget, int64(16))
	want(t, "slot-seconds of both", m.Rows[0].SlotSeconds, float64(200))
	want(t, "an hour of two reports", m.Rows[1].SlotSeconds, float64(100))
	want(t, "an hour that was open", m.Rows[2].Peak, int64(5))
	totals, busiest := m.Totals()
	want(t, "totals", totals[0].SlotSeconds, float64(400))
	want(t, "busiest", busiest["streams"], at)
	want(t, "gaps of the second", m.Agents[1].Gaps[0].Seconds, float64(7200))

	again.Hours[0] = hour(2, at.Add(time.Hour), 6)
	if _, err := usage.Merge([]wire.Usage{one, again}, at); err == nil || !strings.Contains(err.Error(), "hour 2") {
		t.Errorf("two reports of one agent differ: %v", err)
	}
	m, err = usage.Merge([]wire.Usage{one, report("three", "h1")}, at)
	if err != nil || len(m.Warnings) != 1 || !strings.Contains(m.Warnings[0], "two agents") {
		t.Errorf("two agents on one host: %q, %v", m.Warnings, err)
	}
}

// FuzzReadReport: no text makes reading a report panic.
func FuzzReadReport(f *testing.F) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	text, err := usage.Sign(key,
		&usage.Claims{Version: 1, AgentKey: identity.Thumbprint(key.Public().(ed25519.PublicKey)),
			Record: []json.RawMessage{json.RawMessage(`{"seq":1}`)}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(text))
	f.Add([]byte("e30.e30.e30"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := usage.ReadReport(b); err == nil {
			r.Usage()
		}
	})
}
