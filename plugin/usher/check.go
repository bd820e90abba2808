package usher

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// check reports the first claim that a document must not make.
func (c *Claims) check() error {
	for _, check := range []func() error{c.checkTexts, c.checkDates, c.checkDurations, c.checkWords, c.checkRole,
		c.checkCoresAndVersions, c.checkLists} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Claims) checkTexts() error {
	for _, t := range []struct {
		claim, value string
		must         bool
	}{{"jti", c.ID, true}, {"product", c.Product, true}, {"iss", c.Issuer, false}, {"licensee", c.Licensee, false},
		{"add_on_to", c.AddOnTo, false}, {"versions", c.Versions, false}} {
		switch {
		case t.must && t.value == "":
			return fmt.Errorf("claim %q is missing", t.claim)
		case len(t.value) > maxText:
			return fmt.Errorf("claim %q has %d bytes; the limit is %d", t.claim, len(t.value), maxText)
		case strings.ContainsFunc(t.value, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return fmt.Errorf("claim %q has control characters", t.claim)
		}
	}
	return nil
}

func (c *Claims) checkDates() error {
	if c.Issued == 0 {
		return fmt.Errorf("claim %q is missing", "iat")
	}
	for _, t := range []struct {
		claim string
		value int64
	}{{"iat", c.Issued}, {"nbf", c.NotBefore}, {"exp", c.Expires}, {"released_before", c.ReleasedBefore}} {
		if t.value < 0 || t.value > latestDate {
			return fmt.Errorf("claim %q is not a date: %d", t.claim, t.value)
		}
	}
	if c.Expires != 0 && c.NotBefore != 0 && c.Expires <= c.NotBefore {
		return fmt.Errorf("it expires before it begins")
	}
	return nil
}

func (c *Claims) checkDurations() error {
	durations := map[string]int64{"grace_seconds": c.Grace, "clock_tolerance_seconds": c.ClockTolerance,
		"agent_away_seconds": c.AgentAway, "max_borrow_seconds": c.MaxBorrow, "trial_seconds": c.Trial}
	if p := c.Heartbeat; p != nil {
		durations["heartbeat.every_seconds"], durations["heartbeat.grace_seconds"] = p.Every, p.Grace
		if p.Every <= 0 {
			return fmt.Errorf("claim %q: every_seconds is %d, and must be more than 0", "heartbeat", p.Every)
		}
	}
	if p := c.CheckIn; p != nil {
		durations["check_in.every_seconds"], durations["check_in.grace_seconds"] = p.Every, p.Grace
		if (p.Every > 0) == (p.Months > 0) || p.Months < 0 || p.Months > maxMonths {
			return fmt.Errorf(
				"claim %q: one of every_seconds and every_months must be more than 0, and the latter at most %d",
				"check_in", maxMonths)
		}
	}
	if p := c.Activation; p != nil {
		durations["activation.grace_seconds"] = p.Grace
	}
	if r := c.Reactivations; r != nil &&
		(r.Max < 0 || r.Max > maxReactivations || r.Within < 1 || r.Within > maxReactivationsWithin) {
		return fmt.Errorf("claim %q: max must be from 0 to %d, and within_seconds from 1 to %d", "reactivations",
			maxReactivations, maxReactivationsWithin)
	}
	if e := c.Emergency; e != nil {
		durations["emergency.length_seconds"] = e.Length
		if e.Length <= 0 || e.PerYear <= 0 || e.PerYear > maxEmergencies {
			return fmt.Errorf("claim %q: length_seconds must be more than 0, and per_year from 1 to %d", "emergency",
				maxEmergencies)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(durations)) {
		if v := durations[name]; v < 0 || v > maxSeconds {
			return fmt.Errorf("claim %q is %d seconds; it must lie between 0 and a hundred years", name, v)
		}
	}
	return nil
}

// checkWords checks the claims that are one of a few words.
func (c *Claims) checkWords() error {
	for _, e := range []struct {
		claim, value string
		of           []string
	}{
		{"environment", c.Environment, []string{"production", "test"}},
		{"role", c.Role, []string{"base", "add-on", "free-tier", "notice"}},
		{"on_expiry", c.OnExpiry, []string{"drain", "revoke", "keep"}},
		{"clock", c.Clock, []string{"lenient", "strict"}},
	} {
		if err := oneOf(e.claim, e.value, e.of); err != nil {
			return err
		}
	}
	return nil
}

// checkRole checks the claims that only one role may make, or that need a binding to an agent.
func (c *Claims) checkRole() error {
	if c.AddOnTo != "" && c.Role != "add-on" {
		return fmt.Errorf("claim %q is only for the role add-on", "add_on_to")
	}
	bound := c.Confirmation != nil || len(c.AgentKeys) > 0
	switch {
	case len(c.Revokes) > 0 && c.Role != "notice":
		return fmt.Errorf("claim %q is only for the role notice", "revokes")
	case c.Role == "notice" && len(c.Pools)+len(c.Meters)+len(c.Features) > 0:
		return fmt.Errorf("a notice grants nothing; leave pools, meters and features out")
	case c.Trial > 0 && !bound:
		return fmt.Errorf("claim %q needs cnf or agent_keys: a trial is for one agent; bind it to a request",
			"trial_seconds")
	case c.ResetClock && !bound:
		return fmt.Errorf(
			"claim %q needs cnf or agent_keys: only the agent that is meant may believe it; bind it to a request",
			"reset_clock")
	}
	return nil
}

func (c *Claims) checkCoresAndVersions() error {
	if c.Cores != nil {
		if c.Cores.Max <= 0 {
			return fmt.Errorf("claim %q: max is %d, and must be more than 0", "cores", c.Cores.Max)
		}
		if err := oneOf("cores.count", c.Cores.Count, []string{"physical", "logical", "effective"}); err != nil {
			return err
		}
	}
	if c.Versions != "" {
		if _, err := enforcer.ParseVersions(c.Versions); err != nil {
			return fmt.Errorf("claim %q: %w", "versions", err)
		}
	}
	return nil
}

// checkLists checks pools, meters and features, and the length of every list.
func (c *Claims) checkLists() error {
	if n := max(len(c.Pools), len(c.Meters), len(c.Features), len(c.Hosts), len(c.Supersedes), len(c.AgentKeys),
		len(c.Revokes)); n > maxNames {
		return fmt.Errorf("a list of %d entries is longer than %d", n, maxNames)
	}
	count := func(claim, name string, maximum *int64, overage int64, scope string) error {
		switch {
		case !NameRule.MatchString(name):
			return badName(claim, name)
		case maximum != nil && (*maximum < 0 || *maximum > maxCount):
			return fmt.Errorf("claim %q: max of %s is %d, and must lie between 0 and %d; null is unlimited", claim,
				name, *maximum, maxCount)
		case overage < 0 || overage > maxCount:
			return fmt.Errorf("claim %q: overage of %s is %d, and must lie between 0 and %d", claim, name, overage,
				maxCount)
		}
		return oneOf(claim+"."+name+".scope", scope, []string{"host", "site"})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Pools)) {
		p := c.Pools[name]
		if err := count("pools", name, p.Max, p.Overage, p.Scope); err != nil {
			return err
		}
		if err := enforcer.CountBy(p.CountBy).Check(); err != nil {
			return fmt.Errorf("claim %q: %w", "pools."+name+".count_by", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Meters)) {
		m := c.Meters[name]
		if err := count("meters", name, m.Max, m.Overage, m.Scope); err != nil {
			return err
		}
		if err := oneOf("meters."+name+".resets", m.Resets, []string{"week", "month"}); err != nil {
			return err
		}
		if _, both := c.Pools[name]; both {
			return fmt.Errorf("%s is both a pool and a meter; give one of them another name", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Features)) {
		if !NameRule.MatchString(name) {
			return badName("features", name)
		}
	}
	return c.checkBindings()
}

func badName(claim, name string) error {
	return fmt.Errorf("claim %q: the name %q must begin with A-Z, a-z or 0-9, and have only these and . _ : / -, 64 "+
		"at most", claim, plugin.Short(name))
}

// checkBindings checks hosts and keys.
func (c *Claims) checkBindings() error {
	for i, h := range c.Hosts {
		if len(h.Components) == 0 {
			return fmt.Errorf("claim %q: host %d names no component, and would match no host", "hosts", i+1)
		}
		if err := oneOf("hosts.strategy", h.Strategy, []string{"any", "two", "most", "all"}); err != nil {
			return err
		}
	}
	if c.Confirmation != nil && !thumbprintRule.MatchString(c.Confirmation.Thumbprint) {
		return fmt.Errorf("claim %q: jkt is not an RFC 7638 thumbprint", "cnf")
	}
	if c.SiteServer != nil && !thumbprintRule.MatchString(c.SiteServer.Thumbprint) {
		return fmt.Errorf("claim %q: jkt is not an RFC 7638 thumbprint", "site_server")
	}
	for _, k := range c.AgentKeys {
		if !thumbprintRule.MatchString(k) {
			return fmt.Errorf("claim %q: %q is not an RFC 7638 thumbprint", "agent_keys", plugin.Short(k))
		}
	}
	return nil
}

var thumbprintRule = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

func oneOf(claim, value string, of []string) error {
	if value == "" || slices.Contains(of, value) {
		return nil
	}
	return fmt.Errorf("claim %q is %q, and must be one of %s", claim, plugin.Short(value), strings.Join(of, ", "))
}
