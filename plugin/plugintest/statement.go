package plugintest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// zeros are what may stand for nothing in a document: each is a value all the same.
var zeros = []any{0, -1, "", nil, []any{}, map[string]any{}, "0", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00",
	"1970-01-01T00:00:00Z", "1970-01-01T00:00:00", "1970-01-01", "0001-01-01"}

// NullIsAbsent says in FormatSamples.Absent that a null means everywhere that the member is absent.
const NullIsAbsent = "*=<nil>"

// zeroed puts each of the zeros into each member of the statement. The document is refused then, or the licence has all
// the terms that it had: a zero is a value, and only what is absent is absent.
func (c *formatCheck) zeroed() {
	var statement any
	if err := json.Unmarshal(c.samples.Statement, &statement); err != nil {
		c.add("the statement is no JSON: %w", err)
		return
	}
	verify := func() (*enforcer.License, *enforcer.Problem) {
		b, err := json.Marshal(statement)
		if err != nil {
			c.add("the statement: %w", err)
			return nil, &enforcer.Problem{}
		}
		doc, err := c.samples.Sign(b)
		if err != nil {
			return nil, &enforcer.Problem{Reason: err.Error()}
		}
		l, p := c.format.Verify(doc, c.samples.Anchors)
		if p == nil {
			l, p = plugin.CheckVerified(c.format.System(), c.samples.Anchors, l, p)
		}
		return l, p
	}
	was, p := verify()
	if p != nil {
		c.add("the statement as it is: it does not verify: %s", p.Reason)
		return
	}
	tried := map[string]bool{}
	walk(statement, "", func(v any) { statement = v }, func(path string, old any, set func(any)) {
		for _, zero := range zeros {
			if zero == nil && slices.Contains(c.samples.Absent, NullIsAbsent) {
				tried[NullIsAbsent] = true
				continue
			}
			if slices.Contains(c.samples.Absent, fmt.Sprintf("%s=%v", path, zero)) {
				tried[fmt.Sprintf("%s=%v", path, zero)] = true
				continue
			}
			set(zero)
			if is, p := verify(); p == nil && is != nil {
				for _, what := range looser(was, is) {
					c.add("%s, which states %.60s: with %#v the licence has %s", path, fmt.Sprint(old), zero, what)
				}
			}
			set(old)
		}
	})
	for _, name := range c.samples.Absent {
		if !tried[name] {
			c.add("the statement has no %s, which means that it is absent", name)
		}
	}
}

// walk calls do for each member of a JSON value, with its path and what sets it.
func walk(v any, path string, set func(any), do func(path string, v any, set func(any))) {
	if path != "" {
		do(path, v, set)
	}
	switch v := v.(type) {
	case map[string]any:
		names := []string{}
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			walk(v[name], strings.TrimPrefix(path+"."+name, "."), func(to any) { v[name] = to }, do)
		}
	case []any:
		for i := range v {
			walk(v[i], fmt.Sprintf("%s[%d]", path, i), func(to any) { v[i] = to }, do)
		}
	}
}

// looser says what a licence has lost of the terms that bind or end it.
func looser(was, is *enforcer.License) (out []string) {
	lost := func(had, has bool, what string) {
		if had && !has {
			out = append(out, what)
		}
	}
	lost(!was.Expires.IsZero(), !is.Expires.IsZero(), "no end")
	lost(true, is.Expires.IsZero() || !is.Expires.After(later(was.Expires, time.Unix(1, 0))), "a later end")
	lost(!was.NotBefore.IsZero() && !was.NotBefore.Equal(was.Issued), !is.NotBefore.IsZero() ||
		!is.Expires.IsZero() && is.Expires.Year() < 1971, "no beginning")
	// A system may bind to a host where it cannot bind to an agent, and the other way round.
	lost(len(was.Hosts) > 0, len(is.Hosts) > 0 || len(was.AgentKeys) == 0 && len(is.AgentKeys) > 0, "no host")
	lost(len(was.AgentKeys) > 0, len(is.AgentKeys) > 0 || len(was.Hosts) == 0 && len(is.Hosts) > 0, "no agent")
	lost(was.CheckIn.Stated(), is.CheckIn.Stated(), "no check-in")
	lost(was.Heartbeat.Stated(), is.Heartbeat.Stated(), "no heartbeat")
	lost(was.Trial > 0, is.Trial > 0, "no trial")
	lost(was.Versions != "", is.Versions != "", "every version")
	lost(!was.ReleasedBefore.IsZero(), !is.ReleasedBefore.IsZero(), "every release")
	capped := func(n enforcer.Limit) bool { return n > 0 && n != enforcer.Unlimited }
	lost(capped(was.CoreCap), capped(is.CoreCap), "any number of cores")
	lost(capped(was.MemoryCap), capped(is.MemoryCap), "any memory")
	lost(capped(was.DiskCap), capped(is.DiskCap), "any disk")
	for name, p := range was.Pools {
		q, ok := is.Pools[name]
		lost(ok && p.Max != enforcer.Unlimited, q.Max != enforcer.Unlimited, "pool "+name+" without a limit")
	}
	for name, p := range was.Meters {
		q, ok := is.Meters[name]
		lost(ok && p.Max != enforcer.Unlimited, q.Max != enforcer.Unlimited, "meter "+name+" without a limit")
	}
	return out
}

// later returns the later of an end and another time; no end is the latest.
func later(end, t time.Time) time.Time {
	switch {
	case end.IsZero():
		return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	case t.After(end):
		return t
	}
	return end
}
