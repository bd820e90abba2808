package main

import (
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/eventlog"
	inuse "github.com/usher-agent/usher/agent/usage"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/textual"
)

// checkBy checks what --by asks for.
func (o *reportFlags) checkBy() error {
	switch {
	case o.by != "" && o.by != "user":
		return usage("--by %s: give --by user, or leave it out", o.by)
	case o.by == "user" && o.hours:
		return usage("--by user goes without --hours: use by user is kept by days; --csv has a row for each day")
	}
	return nil
}

// errNoUsers says that there is nothing by user to be shown.
func errNoUsers() error {
	return fail(exitFailed,
		"set privacy.users to pseudonym or plain, and start the agent again: from then on it counts "+
			"by user (docs/privacy.md)", "privacy.users is omit: the agent keeps nothing of who used what")
}

// hasUsers wants that reports say anything of users.
func hasUsers(m *inuse.Merged) error {
	switch {
	case len(m.Settings) == 0:
		return fail(exitFailed, "make the reports with usher report --by user", "no report says anything of users")
	case !slices.ContainsFunc(m.Settings, func(s string) bool { return s != eventlog.UsersOmit }):
		return errNoUsers()
	}
	return nil
}

// printUsers prints use by user for people, or as CSV.
func (c *cli) printUsers(m *inuse.Merged, o reportFlags) error {
	if err := hasUsers(m); err != nil {
		return err
	}
	if o.csv {
		return c.usersCSV(m)
	}
	several := len(m.Agents) > 1
	head := []string{"POOL", "USER", "PEAK", "SLOT-HOURS", "GRANTS", "DENIED", "DRAWN"}
	if several {
		head = slices.Insert(head, 3, "AT LEAST")
	}
	rows := [][]string{head}
	short := false
	for _, r := range m.UserTotals() {
		rows = append(rows, userCells(r, several))
		short = short || r.Short > 0
	}
	from, to := m.From.UTC().Truncate(24*time.Hour), m.To.UTC().Add(24*time.Hour-1).Truncate(24*time.Hour)
	fprintf(c.out, "by user, whole days from %s to before %s (UTC)\n", from.Format(time.DateOnly),
		to.Format(time.DateOnly))
	if len(rows) == 1 {
		fprintln(c.out, "nothing was in use")
	} else if err := c.table(rows...); err != nil {
		return err
	}
	for _, note := range userNotes(m, several, short) {
		fprintln(c.out, note)
	}
	c.sayGaps(m)
	return nil
}

// userNotes says how the names and figures are to be read.
func userNotes(m *inuse.Merged, several, short bool) (out []string) {
	if slices.ContainsFunc(m.Users, func(r inuse.UserRow) bool { return strings.HasPrefix(r.User, "p-") }) {
		note := "p-… are pseudonyms: a user has another one each month"
		if several {
			note += ", and at each host unless the hosts share their keys, so that one user can have several rows"
		}
		out = append(out, note)
	}
	if several {
		out = append(out, fmt.Sprintf(
			"PEAK is the sum of the peaks at %d agents, which need not have been at one time; a "+
				"name is taken for one user at all hosts", len(m.Agents)))
	}
	if short {
		out = append(out,
			"more users came in a day than are told apart: part of what a user had may be among the others'")
	}
	return out
}

func userText(r inuse.UserRow) string {
	switch {
	case r.User != "":
		return textual.Printable(r.User)
	case r.Others == 1:
		return "(1 other)"
	default:
		return fmt.Sprintf("(%d others)", r.Others)
	}
}

func userCells(r inuse.UserRow, several bool) []string {
	pool := r.Pool
	if pool == "" {
		pool = "(others)"
	}
	count := func(n int64) string { return dash(strings.TrimPrefix(strconv.FormatInt(n, 10), "0")) }
	out := []string{pool, userText(r), count(r.Peak)}
	if several {
		out = append(out, count(r.LeastPeak))
	}
	return append(out, strconv.FormatFloat(r.SlotSeconds/3600, 'f', 2, 64), count(r.Grants), count(r.Denials),
		count(r.Drawn))
}

// usersCSV prints a row for each day, pool and user (RFC 4180).
func (c *cli) usersCSV(m *inuse.Merged) error {
	var text strings.Builder
	w := csv.NewWriter(&text)
	rows := [][]string{{"day", "pool", "user", "others", "hosts", "peak", "peak_at_least", "slot_seconds", "grants",
		"denials", "drawn", "short_slot_seconds"}}
	whole := func(n int64) string { return strconv.FormatInt(n, 10) }
	part := func(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }
	for _, r := range m.Users {
		rows = append(rows, []string{r.Day.Format(time.DateOnly), csvText(r.Pool), csvText(r.User), whole(r.Others),
			strconv.Itoa(r.Hosts), whole(r.Peak), whole(r.LeastPeak), part(r.SlotSeconds), whole(r.Grants),
			whole(r.Denials), whole(r.Drawn), part(r.Short)})
	}
	if err := w.WriteAll(rows); err != nil {
		return err
	}
	return lines(c.out, text.String())
}

// userRow is a row by user in JSON.
type userRow struct {
	Day  time.Time `json:"day"`
	Pool string    `json:"pool"`
	wire.UserUsage
	Short     float64 `json:"short_slot_seconds,omitzero,omitempty"`
	LeastPeak int64   `json:"peak_at_least"` // the largest at one host; peak is the sum of the hosts' peaks
	Hosts     int     `json:"hosts"`
}
