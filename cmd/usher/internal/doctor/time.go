package doctor

import (
	"fmt"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// tolerance is how far the wall clock may be behind without a word.
const tolerance = 10 * time.Minute

// licenceTime explains the licence time: its origin, its distance from the wall clock, and the remedy.
func (e *exam) licenceTime(k *wire.Clock) {
	behind, ahead := seconds(k.BehindSeconds), seconds(k.AheadSeconds)
	is := "licence time is " + instantText(&k.Time)
	switch k.From {
	case "mark":
		is += ", from the latest time seen before"
		if k.LearntAt != nil {
			is += " (an upstream has signed " + instantText(k.LearntAt) + ")"
		}
		is += " and the time since then"
	case "document":
		is += ", from the date of a document at hand, " + instantText(k.SignedAt) +
			", and the time that the host has run with it"
	default:
		is += ", by the wall clock"
	}
	switch {
	case behind > tolerance:
		hint := "set the clock right (timedatectl, or check NTP); if it is right, ask the vendor for a document " +
			"signed with --reset-clock for this agent's key"
		if k.From == "document" {
			hint = "set the clock right (timedatectl, or check NTP); if it is right, that document is dated ahead " +
				"of time: ask the vendor for another, and remove this one from the folder"
		}
		since := ""
		if k.BehindSince != nil {
			since = ", since " + instantText(k.BehindSince)
		}
		e.warn("CLOCK_BEHIND", "clock", hint, "the wall clock says %s and is %s behind%s; %s", instantText(&k.Wall),
			roughly(behind), since, is)
	case ahead > 0:
		e.warn("CLOCK_AHEAD", "clock",
			"if it is wrong, set it right before then, and nothing is lost; a newly issued document or an upstream's "+
				"answer settles it sooner",
			"the wall clock says %s, which is %s ahead of the latest time seen; licences are judged by it, but it "+
				"counts as proved, and opens new periods of meters, only from %s on", instantText(&k.Wall),
			roughly(ahead), instantText(k.BelievedAt))
	default:
		seen := ""
		if k.LearntAt != nil {
			seen = "; an upstream last signed " + instantText(k.LearntAt)
		}
		e.ok("clock", "%s%s", is, seen)
	}
	e.firstClock(k)
}

// FirstClock says of a first clock since when it has not been proved, and what proves it; empty: it is proved.
func FirstClock(k *wire.Clock) string {
	if k.FirstClock == nil {
		return ""
	}
	return fmt.Sprintf(
		"the first clock of this agent is not proved yet (since %s): a day of running proves it, at %s at "+
			"the latest; a document in force that was issued within a day of it, or an upstream's answer, proves "+
			"it sooner",
		instantText(&k.FirstClock.Since), instantText(&k.FirstClock.ProvedAt))
}

// firstClock explains what holds until the first clock is proved. Where a licence has expired, a clock that is
// ahead may be why.
func (e *exam) firstClock(k *wire.Clock) {
	text := FirstClock(k)
	if text == "" {
		return
	}
	if l := e.said; l != nil && l.Code == string(enforcer.Expired) && !e.has("CLOCK_AHEAD") {
		e.warn("CLOCK_AHEAD", "clock", "compare the clock with a good one, and set it; nothing is lost until it is "+
			"proved", "the wall clock says %s, and nothing proves it: %s", instantText(&k.Wall), text)
		return
	}
	e.ok("clock", "%s; until then the licence time follows a clock that is set back, and a meter that has been drawn "+
		"stays in its period", text)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func instantText(t *time.Time) string {
	if t == nil {
		return "unknown"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// roughly writes a span in years, days, or exactly.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*365*day:
		return fmt.Sprintf("%d years", int(d/(365*day)))
	case d >= 2*day:
		return fmt.Sprintf("%d days", int(d/day))
	default:
		return enforcer.Span(d.Round(time.Second))
	}
}
