package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// conditionRows are the lines about what a licence binds its grants to.
func conditionRows(d *wire.Conditions) (rows [][]string) {
	if d == nil {
		return nil
	}
	row := func(name, value string) { rows = append(rows, []string{name, value}) }
	row("binding", bindingText(d))
	var scopes []string
	for _, name := range slices.Sorted(maps.Keys(d.Scopes)) {
		scopes = append(scopes, name+"="+d.Scopes[name])
	}
	if len(scopes) > 0 {
		row("scope", strings.Join(scopes, ", "))
	}
	if d.SiteServer != "" {
		row("site server", d.SiteServer)
	}
	grace := "none"
	if d.Grace > 0 {
		grace = spanText(d.Grace)
	}
	row("grace", grace+"; then leases: "+d.OnExpiry)
	if d.Trial > 0 {
		text := spanText(d.Trial) + " from its first use"
		if d.TrialEndsAt != nil {
			text += ", which ends " + timeText(d.TrialEndsAt) + " if that is now"
		}
		row("trial", text)
	}
	if a := d.Activation; a != nil {
		row("activation", "required, "+lateText(a, "at once"))
	}
	for _, x := range []struct {
		name string
		of   *wire.Contact
	}{{"heartbeat", d.Heartbeat}, {"check-in", d.CheckIn}} {
		if x.of != nil {
			every := "every " + spanText(x.of.Every)
			if x.of.Months > 0 {
				every = fmt.Sprintf("every %d calendar months", x.of.Months)
			}
			row(x.name, every+", "+lateText(x.of, "no later"))
		}
	}
	if e := d.Emergency; e != nil {
		row("emergency", fmt.Sprintf("%s, %d a year", spanText(e.Length), e.PerYear))
	}
	return rows
}

// bindingText names the hosts and agent keys that a licence is bound to.
func bindingText(d *wire.Conditions) string {
	var parts []string
	for _, h := range d.Hosts {
		text := fmt.Sprintf("host (%s of %s)", h.Strategy, strings.Join(h.Components, ", "))
		if h.Name != "" {
			text = fmt.Sprintf("host %s (%s of %s)", h.Name, h.Strategy, strings.Join(h.Components, ", "))
		}
		parts = append(parts, text)
	}
	for _, k := range d.AgentKeys {
		parts = append(parts, "agent key "+k)
	}
	if len(parts) == 0 {
		return "none: good on every host"
	}
	return strings.Join(parts, "; ")
}

// lateText says how late a contact may be.
func lateText(c *wire.Contact, none string) string {
	if c.Grace <= 0 {
		return none
	}
	return "up to " + spanText(c.Grace) + " late"
}

// spanText returns seconds in words that keep all of a stated span.
func spanText(seconds float64) string {
	return enforcer.Span(time.Duration(seconds * float64(time.Second)))
}
