package config

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// The dates that files and flags may state; both are in UTC.
var (
	earliest = time.Unix(1, 0).UTC()
	latest   = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

var errNoDate = errors.New("neither a date (2027-01-31) nor RFC 3339 (2027-01-31T12:00:00Z)")

// ParseDate reads RFC 3339, or a date such as 2027-01-31: its first second, or with end its last one (UTC). It is later
// than 1970-01-01T00:00:00Z and no later than the year 9999, so that no stated date reads as one that is not stated.
func ParseDate(s string, end bool) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		if t, err = time.Parse(time.DateOnly, s); err != nil {
			return time.Time{}, fmt.Errorf("%q is %w", clip(s), errNoDate)
		}
		if end {
			t = t.AddDate(0, 0, 1).Add(-time.Second)
		}
	}
	return t.UTC(), DateInRange(s, t)
}

// DateInRange reports a date that no file or flag may state. s is how it was written.
func DateInRange(s string, t time.Time) error {
	if t.Before(earliest) || t.After(latest) {
		return fmt.Errorf("%q is out of range: a date is later than 1970-01-01T00:00:00Z, and no later than %s",
			clip(s),
			latest.Format(time.RFC3339))
	}
	return nil
}

// isEnd reports whether a key states the end of something, so that a bare date means the end of that day.
func isEnd(key string) bool { return strings.HasSuffix(key, "not_after") }
