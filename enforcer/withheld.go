package enforcer

import (
	"fmt"
	"time"
)

// Withheld says what is not handed out because it is not known what was handed out before: the record of it is gone, or
// was changed. Each is one sentence that names the record and the mend; empty: nothing is withheld. Leases that are
// held go on, and are renewed and released.
type Withheld struct {
	Slots string
	Draws string
}

// withheld is the denial of a grant that could be of what another has already.
func withheld(kind, name, why string) *Denial {
	return &Denial{Code: Storage, Pool: name, Detail: fmt.Sprintf("%s %s: %s", kind, name, why),
		Hint: "stop the agent and run `usher doctor --repair`, which says what is wrong and accepts the state as it is"}
}

// unproved returns what is found of a licence whose upstream's words were lost: until a call has succeeded since, no
// duty is met. A licence that was issued later cannot have been refused before.
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
		"licence %s: what its upstream had said was changed or lost on the disk (%s), and counts as unsaid until a "+
			"call succeeds; see to the connection to the upstream",
		c.label(), minute(lost))}, true
}
