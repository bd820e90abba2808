package main

import (
	"fmt"

	"github.com/usher-agent/usher/client/wire"
)

// firstClock says of a first clock since when it has not been proved, and what proves it; empty: it is proved.
func firstClock(k *wire.Clock) string {
	if k.FirstClock == nil {
		return ""
	}
	return fmt.Sprintf(
		"the first clock of this agent is not proved yet (since %s): a day of running proves it, at %s at "+
			"the latest; a document in force that was issued within a day of it, or an upstream's answer, proves "+
			"it sooner",
		instantText(&k.FirstClock.Since), instantText(&k.FirstClock.ProvedAt))
}

// examineFirstClock explains what holds until the first clock is proved.
func examineFirstClock(k *wire.Clock, add func(check, result, hint, format string, args ...any)) {
	if text := firstClock(k); text != "" {
		add("clock", "ok", "",
			"%s; until then the licence time follows a clock that is set back, and a meter that has "+
				"been drawn stays in its period", text)
	}
}
