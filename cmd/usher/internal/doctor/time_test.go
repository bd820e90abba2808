package doctor

import (
	"fmt"
	"testing"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

func TestDoctorExplainsTheTime(t *testing.T) {
	t.Parallel()
	right := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) *time.Time { return new(right.Add(d)) }
	const day = 24 * time.Hour
	for _, row := range []struct {
		name, want string
		clock      wire.Clock
	}{
		{"right",
			"ok clock: licence time is 2026-03-01 12:00:00 UTC, by the wall clock; an upstream last signed " +
				"2026-03-01 11:00:00 UTC / ",
			wire.Clock{Wall: right, Time: right, From: "wall", LearntAt: at(-time.Hour), MarkedAt: at(0)}},
		{"a little behind",
			"ok clock: licence time is 2026-03-01 12:00:00 UTC, from the latest time seen before and the time " +
				"since then / ",
			wire.Clock{Wall: right.Add(-time.Minute), Time: right, From: "mark", MarkedAt: at(0), BehindSeconds: 60}},
		{"in 1970",
			"warning clock: the wall clock says 1970-01-01 00:00:05 UTC and is 56 years behind, since 2026-03-01 " +
				"11:59:55 UTC; licence time is 2026-03-01 12:00:00 UTC, from the latest time seen before (an " +
				"upstream has signed 2026-03-01 11:00:00 UTC) and the time since then / set the clock right " +
				"(timedatectl, or check NTP); if it is right, ask the vendor for a document signed with " +
				"--reset-clock for this agent's key",
			wire.Clock{Wall: time.Unix(5, 0), Time: right, From: "mark", LearntAt: at(-time.Hour),
				BehindSeconds: right.Sub(time.Unix(5, 0)).Seconds(), BehindSince: at(-5 * time.Second)}},
		{"a document of the future",
			"warning clock: the wall clock says 2026-03-01 12:00:00 UTC and is 3 days behind, since 2026-03-04 " +
				"11:00:00 UTC; licence time is 2026-03-04 12:00:00 UTC, from the date of a document at hand, " +
				"2026-03-04 11:00:00 UTC, and the time that the host has run with it / set the clock right " +
				"(timedatectl, or check NTP); if it is right, that document is dated ahead of time: ask the vendor " +
				"for another, and remove this one from the folder",
			wire.Clock{Wall: right, Time: right.Add(3 * day), From: "document", SignedAt: at(3*day - time.Hour),
				BehindSeconds: (3 * day).Seconds(), BehindSince: at(3*day - time.Hour)}},
		{"a leap",
			"warning clock: the wall clock says 2027-03-01 12:00:00 UTC, which is 365 days ahead of the latest time " +
				"seen; licences are judged by it, but it counts as proved, and opens new periods of meters, only " +
				"from 2027-03-02 11:00:00 UTC on / if it is wrong, set it right before then, and nothing is lost; a " +
				"newly issued document or an upstream's answer settles it sooner",
			wire.Clock{Wall: right.Add(365 * day), Time: right.Add(365 * day), From: "wall", MarkedAt: at(0),
				AheadSeconds: (365 * day).Seconds(), BelievedAt: at(366*day - time.Hour)}},
		{"a first clock",
			"ok clock: licence time is 2026-03-01 12:00:00 UTC, by the wall clock / ok clock: the first clock of " +
				"this agent is not proved yet (since 2026-03-01 11:00:00 UTC): a day of running proves it, at " +
				"2026-03-02 11:00:00 UTC at the latest; a document in force that was issued within a day of it, or " +
				"an upstream's answer, proves it sooner; until then the licence time follows a clock that is set " +
				"back, and a meter that has been drawn stays in its period / ",
			wire.Clock{Wall: right, Time: right, From: "wall", MarkedAt: at(0),
				FirstClock: &wire.FirstClock{Since: *at(-time.Hour), ProvedAt: *at(23 * time.Hour)}}},
	} {
		e := &exam{}
		e.licenceTime(&row.clock)
		got := ""
		for _, f := range e.found {
			got += fmt.Sprintf("%s %s: %s / %s", f.Result, f.Check, f.Detail, f.Hint)
		}
		if got != row.want {
			t.Errorf("%s:\n got %s\nwant %s", row.name, got, row.want)
		}
	}
}
