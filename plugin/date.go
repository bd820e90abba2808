package plugin

import "time"

// Stated returns a date that a document or a file states. The zero Time means that none is stated. So the very date
// that it stands for, the first instant of the year 1, becomes the one after: no stated end reads as "never".
func Stated(t time.Time) time.Time {
	if t.IsZero() {
		return t.Add(1)
	}
	return t
}
