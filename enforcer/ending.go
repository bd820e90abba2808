package enforcer

import "time"

// endingWithin is how long before its end a licence counts as ending; a tenth of its time where that is less.
const endingWithin = 10 * time.Minute

// Ending reports whether it is time to replace a licence because its end is near.
func (l *License) Ending(now time.Time) bool {
	return !l.Expires.IsZero() && !now.Before(l.Expires.Add(-min(endingWithin, l.Expires.Sub(l.Issued)/10)))
}
