package enforcer

import (
	"fmt"
	"time"
)

// Withheld says what is not handed out because the record of earlier grants is gone or was changed. Each is one
// sentence that names the record and the mend; empty: nothing is withheld. Leases that are held go on, and are renewed
// and released.
type Withheld struct {
	Slots string
	Draws string
}

// withheld denies a grant of what another may have already.
func withheld(kind, name, why string) *Denial {
	return &Denial{Code: Storage, Pool: name, Detail: fmt.Sprintf("%s %s: %s", kind, name, why),
		Hint: "stop the agent and run `usher doctor --repair`, which says what is wrong and accepts the state as it is"}
}

// unproved returns the finding on a licence whose record of the upstream's answers was lost: until a call has succeeded
// since, no duty is met. An earlier refusal cannot have been about a licence that was issued later.
func (c *candidate) unproved(lost time.Time) (Finding, bool) {
	l := c.license
	demands := l.Activation.Required || l.Heartbeat.Stated() || l.CheckIn.Stated()
	if lost.IsZero() || c.up.Proved || !demands || l.Issued.After(lost) {
		return Finding{}, false
	}
	code := HeartbeatNotStarted
	if !l.Activation.Required && !l.Heartbeat.Stated() {
		code = Overdue
	}
	return Finding{code, fmt.Sprintf(
		"licence %s: the record of its upstream's answers was changed or lost on the disk (%s), and counts for "+
			"nothing until a "+
			"call succeeds; check the connection to the upstream",
		c.label(), minute(lost))}, true
}
