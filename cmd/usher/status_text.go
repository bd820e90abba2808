package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// printStatus prints what the agent says of the licence and its pools.
func (c *cli) printStatus(l *wire.License, pools []wire.Pool, now time.Time) error {
	fprintf(c.out, "Licence %s (%s): %s\n\n", l.State, l.Code, l.Reason)
	if err := c.table(statusRows(l, now)...); err != nil {
		return err
	}
	if len(pools) > 0 {
		fprintln(c.out)
		if err := c.printPools(pools); err != nil {
			return err
		}
	}
	for _, w := range l.Warnings {
		fprintf(c.out, "\nwarning %s: %s", w.Code, w.Detail)
	}
	if len(l.Warnings) > 0 {
		fprintln(c.out)
	}
	return nil
}

func statusRows(l *wire.License, now time.Time) (rows [][]string) {
	row := func(name, value string) { rows = append(rows, []string{name, value}) }
	if l.Draining {
		row("drained", "no new leases are granted; `usher leases` shows those that are held, and `usher drain --undo` "+
			"ends it")
	}
	for _, d := range l.Licenses {
		if d.InForce {
			text := fmt.Sprintf("%s, %s for %s", dash(d.ID), dash(d.Product), dash(d.Licensee))
			if d.Role == "add-on" {
				text += " (add-on)"
			}
			row("licence", text)
		}
	}
	if l.State == "valid" {
		if l.Code == "VALID_IN_GRACE" && l.GraceEndsAt != nil {
			row("grace ends", timeText(l.GraceEndsAt)+", "+away(*l.GraceEndsAt, now))
		}
		switch {
		case l.CoveredUntil != nil:
			row("good until", timeText(l.CoveredUntil)+", "+away(*l.CoveredUntil, now))
		case l.Code != "VALID_IN_GRACE":
			row("good until", "for ever")
		}
	}
	for _, d := range l.Licenses {
		if d.InForce && d.Conditions != nil && d.Conditions.TrialEndsAt != nil {
			row("trial", dash(d.ID)+" ends "+timeText(d.Conditions.TrialEndsAt)+", "+
				away(*d.Conditions.TrialEndsAt, now))
		}
	}
	for _, d := range l.Licenses {
		if d.Code == "SUPERSEDED" && !d.InForce {
			row("not used", d.Reason)
		}
	}
	for _, ch := range l.Coming {
		row("from "+ch.At.UTC().Format(time.DateOnly), changeText(ch))
	}
	rows = append(rows, contactRows(l, now)...)
	if l.Environment == "test" {
		row("environment", "test")
	}
	switch l.Host.Match {
	case "ok":
		row("host", fmt.Sprintf("matches (score %.2f)", l.Host.Score))
	case "failed":
		row("host", fmt.Sprintf("does not match (score %.2f)", l.Host.Score))
	default:
		if l.State != "missing" {
			row("host", "the licence names none")
		}
	}
	row("cores", fmt.Sprintf("%d physical, %d logical, %g effective", l.Host.Cores.Physical, l.Host.Cores.Logical,
		l.Host.Cores.Effective))
	var features []string
	for name, f := range l.Features {
		features = append(features, name+"="+featureText(f))
	}
	if slices.Sort(features); len(features) > 0 {
		row("features", strings.Join(features, ", "))
	}
	return rows
}

// contactRows are the lines about the upstream, and about the site server or fleet that gives shares of a site.
func contactRows(l *wire.License, now time.Time) (rows [][]string) {
	row := func(name, value string) { rows = append(rows, []string{name, value}) }
	if u := l.Upstream; u != nil {
		row("upstream", remoteText(u, now))
		if h := l.Heartbeat; h != nil && h.Last != nil {
			row("heartbeat", fmt.Sprintf("%s; without another it falls %s", away(*h.Last, now), away(*h.Deadline, now)))
		}
		if c := l.CheckIn; c != nil && c.Next != nil {
			text := fmt.Sprintf("the next %s", away(*c.Next, now))
			if c.Due != nil {
				text += ", due " + away(*c.Due, now)
			}
			row("check-in", text)
		}
	}
	if s := l.SiteServer; s != nil {
		row("site's slots", remoteText(s, now))
	}
	return rows
}

// remoteText says how a remote side is: "retrying since 12 minutes ago: connection refused".
func remoteText(u *wire.Upstream, now time.Time) string {
	text := u.State
	if u.Since != nil {
		text += ", failing since " + away(*u.Since, now)
	}
	if u.Detail != "" {
		text += ": " + u.Detail
	}
	if u.Hint != "" && !strings.Contains(u.Detail, u.Hint) {
		text += "; " + u.Hint
	}
	return text
}

// changeText says what begins, what ends, and what shrinks or vanishes.
func changeText(ch wire.Change) string {
	var parts []string
	for _, s := range ch.Begins {
		text := fmt.Sprintf("licence %s (%s) is in force", dash(s.License), s.Document)
		if s.ExpiresAt != nil {
			text += " until " + s.ExpiresAt.UTC().Format(time.DateOnly)
		}
		parts = append(parts, text)
	}
	for _, s := range ch.Ends {
		parts = append(parts, fmt.Sprintf("licence %s (%s) is not", dash(s.License), s.Document))
	}
	text := strings.Join(parts, ", ")
	if len(ch.Losses) == 0 {
		return text + "; nothing shrinks"
	}
	var losses []string
	for _, l := range ch.Losses {
		if l.Is == "" {
			losses = append(losses, fmt.Sprintf("%s %s is gone (now %s)", l.Kind, l.Name, l.Was))
		} else {
			losses = append(losses, fmt.Sprintf("%s %s %s → %s", l.Kind, l.Name, l.Was, l.Is))
		}
	}
	return text + "; less: " + strings.Join(losses, ", ")
}

// printPools prints pools: what is in use and what is available make the budget, which is this agent's part of the
// limit.
func (c *cli) printPools(pools []wire.Pool) error {
	rows := [][]string{{"POOL", "IN USE", "LIMIT", "BUDGET", "AVAILABLE", "PEAK", "LEASES", "SCOPE"}}
	for _, p := range pools {
		name, use := p.Name, fmt.Sprint(p.InUse)
		if p.Kind == "meter" {
			name += " (meter)"
		}
		if p.Budget != nil && p.InUse > *p.Budget {
			use += fmt.Sprintf(" (%d over)", p.InUse-*p.Budget)
		}
		scope := p.Scope
		if p.CountBy != "" {
			scope += ", by " + p.CountBy
		}
		rows = append(rows, []string{name, use, limitText(p.Limit), limitText(p.Budget), limitText(p.Available),
			fmt.Sprint(p.Peak), fmt.Sprint(p.Leases), scope})
	}
	if err := c.table(rows...); err != nil {
		return err
	}
	now := time.Now()
	for _, p := range pools {
		for _, h := range p.HoldOffs {
			fprintf(c.out, "%s: %s is held off until %s, %s: lease %s was released by force\n", p.Name, heldOffText(h),
				h.Until.UTC().Format(time.RFC3339), away(h.Until, now), h.Lease)
		}
	}
	return nil
}

// heldOffText names a holder that is held off.
func heldOffText(h wire.HoldOff) string {
	if len(h.PIDs) == 0 {
		return holderText(&wire.Holder{UID: h.UID, Credential: h.Credential})
	}
	pids := make([]string, len(h.PIDs))
	for i, pid := range h.PIDs {
		pids[i] = fmt.Sprint(pid)
	}
	return "without an identity, pid " + strings.Join(pids, ", ")
}

// troubles are what a check warns of though the licence is good: nobody is served, or somebody does not answer.
func troubles(l *wire.License) (out []string) {
	if l.Draining {
		out = append(out, "the agent is drained and grants no new leases; `usher drain --undo` ends it")
	}
	for _, w := range l.Warnings {
		if w.Code == "UPSTREAM_FAILING" || w.Code == "SITE_SERVER_FAILING" {
			out = append(out, w.Code+": "+w.Detail)
		}
	}
	return out
}

// contactsLeft is the performance data of the duties towards the upstream: how long until the licence falls.
func contactsLeft(l *wire.License) (out []string) {
	if h := l.Heartbeat; h != nil && h.Deadline != nil {
		out = append(out, fmt.Sprintf("heartbeat_left=%.0fs", time.Until(*h.Deadline).Seconds()))
	}
	if c := l.CheckIn; c != nil && c.Due != nil {
		out = append(out, fmt.Sprintf("check_in_left=%.0fs", time.Until(*c.Due).Seconds()))
	}
	return out
}
