package main

import (
	"fmt"
	"slices"

	"github.com/usher-agent/usher/client/wire"
)

// printFleet prints a fleet for people.
func (c *cli) printFleet(f *wire.Fleet) error {
	if f.State != "" {
		fprintf(c.out, "This host, %s: %s\n", hostText(f.Name, f.Agent), f.State)
		if f.Reason != "" && !ofMember(f) {
			fprintf(c.out, "  %s\n", sentence(f.Reason, f.Hint))
		}
		if f.State == "cut_off" || f.State == "member" || f.State == "draining" || f.State == "quarantine" {
			fprintf(c.out, "  its fence is in %s\n", fenceText(&f.FenceSeconds))
			if f.WriteSeconds > 0 {
				fprintf(c.out, "  its writes to etcd take %.2f seconds, of late\n", f.WriteSeconds)
			}
		}
	}
	for _, m := range f.Store {
		fprintf(c.out, "  %s (%s): %s\n", m.Endpoint, m.Fault, sentence(m.Reason, m.Hint))
	}
	for _, m := range f.Sizes {
		fprintf(c.out, "  %s: %s\n", m.Endpoint, sizeText(m))
	}
	switch {
	case f.Current:
	case f.AgeSeconds == nil:
		fprintf(c.out, "\n%s. What follows is what this agent knows of itself.\n", f.Error)
	default:
		fprintf(c.out, "\n%s. What follows is what etcd said %s ago.\n", f.Error, fenceText(f.AgeSeconds))
	}
	if f.Quarantine != "" {
		fprintf(c.out, "\nNobody gets more slots for a moment: %s\n", f.Quarantine)
	}
	if len(f.Agents) > 0 {
		if f.State != "" || f.Quarantine != "" { // a command that asks etcd itself has said nothing yet
			fprintln(c.out)
		}
		if err := c.table(agentRows(f)...); err != nil {
			return err
		}
	}
	for _, p := range f.Pools {
		fprintf(c.out, "\nPool %s: %s\n", poolTitle(p, f.Pools), outText(p))
		if err := c.table(shareRows(p)...); err != nil {
			return err
		}
	}
	if f.Truncated {
		fprintln(c.out, "\nThere are more agents or blocks than are shown.")
	}
	return nil
}

// ofMember reports whether the reason is what is wrong with a member of etcd, which is said of each.
func ofMember(f *wire.Fleet) bool {
	return slices.ContainsFunc(f.Store, func(m wire.FleetFault) bool {
		return f.Reason == m.Endpoint+": "+m.Reason || f.Reason == m.Reason
	})
}

// poolTitle names a pool, and of several of one name says whose it is.
func poolTitle(p wire.FleetPool, all []wire.FleetPool) string {
	title := p.Pool
	if !slices.ContainsFunc(all, func(o wire.FleetPool) bool { return o.Pool == p.Pool && o.Key != p.Key }) {
		return title
	}
	if p.Product != "" {
		title += " of " + p.Product
	}
	if p.AddOn != "" {
		title += ", add-on " + p.AddOn
	}
	return title
}

// outText says how many slots of a pool hosts have.
func outText(p wire.FleetPool) string {
	switch {
	case p.Limit == 0:
		return fmt.Sprintf("hosts have %s, and the limit in force is not known", slotsText(p.Out))
	case p.Limit == 1:
		return fmt.Sprintf("%d of 1 slot is with hosts", p.Out)
	}
	return fmt.Sprintf("%d of %d slots are with hosts", p.Out, p.Limit)
}

func slotsText(n int64) string {
	if n == 1 {
		return "1 slot"
	}
	return fmt.Sprintf("%d slots", n)
}

// sizeText says how full a member of etcd is.
func sizeText(m wire.FleetSize) string {
	const kib, mib = 1 << 10, 1 << 20
	text := fmt.Sprintf("its database has %d KiB", m.Bytes/kib)
	if m.Bytes >= mib {
		text = fmt.Sprintf("its database has %.1f MiB", float64(m.Bytes)/mib)
	}
	if m.QuotaBytes > 0 {
		text += fmt.Sprintf(" of %.0f MiB, %d %% of its quota", float64(m.QuotaBytes)/mib, 100*m.Bytes/m.QuotaBytes)
	}
	if m.NoSpace {
		text += "; it is out of quota (NOSPACE), and takes no writes"
	}
	return text
}

func sentence(reason, hint string) string {
	if hint == "" {
		return reason
	}
	return reason + "; " + hint
}

func agentRows(f *wire.Fleet) [][]string {
	rows := [][]string{{"HOST", "KEY", "STATE", "FENCE", "VERSION", "ORDERED BY"}}
	for _, a := range f.Agents {
		state, by := "gone", "-"
		switch {
		case a.Evicted != nil && a.Draining != nil:
			state, by = "evicted, draining", orderText(a.Evicted)
		case a.Evicted != nil:
			state, by = "evicted", orderText(a.Evicted)
		case a.Draining != nil && !a.Alive: // for good, it may be: `drain --undo KEY` takes the order away
			state, by = "gone, draining", orderText(a.Draining)
		case a.Draining != nil:
			state, by = "draining", orderText(a.Draining)
		case a.Alive:
			state = "member"
		}
		rows = append(rows, []string{dash(a.Name), short(a.Agent), state, fenceText(a.FenceSeconds), dash(a.Version),
			by})
	}
	return rows
}

func orderText(o *wire.FleetOrder) string { return dash(o.By) + ", " + timeText(&o.At) }

func shareRows(p wire.FleetPool) [][]string {
	rows := [][]string{{"HOST", "KEY", "SLOTS", "IN USE", "SINCE", "WAITS FOR", "ITS LIMIT"}}
	for _, s := range p.Agents {
		inUse, waits, limit := "-", "-", "-"
		if s.InUse != nil {
			inUse = fmt.Sprint(*s.InUse)
		}
		if s.Waiting > 0 {
			waits = fmt.Sprintf("%d (turn %d)", s.Waiting, s.Turn)
		}
		if s.Limit > 0 {
			limit = fmt.Sprint(s.Limit)
		}
		if s.Limit > p.Limit && p.Limit > 0 {
			limit += fmt.Sprintf(" (%d is in force)", p.Limit)
		}
		rows = append(rows, []string{dash(s.Name), short(s.Agent), fmt.Sprint(s.Slots), inUse, timeText(s.Since), waits,
			limit})
	}
	return rows
}
