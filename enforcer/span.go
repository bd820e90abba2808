package enforcer

import (
	"strconv"
	"strings"
	"time"
)

// Span writes a span of time as people say it, and exactly: "3 days", "1 day 12 hours", "1.5 seconds". A day has 24
// hours; weeks and longer are days.
func Span(d time.Duration) string {
	if d == 0 {
		return "0 seconds"
	}
	sign := ""
	left := uint64(d)
	if d < 0 {
		sign, left = "-", -left
	}
	var parts []string
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if n := left / uint64(u.unit); n > 0 {
			parts = append(parts, plural(int(n), u.name))
		}
		left %= uint64(u.unit)
	}
	switch {
	case left == uint64(time.Second):
		parts = append(parts, "1 second")
	case left > 0:
		parts = append(parts, strconv.FormatFloat(time.Duration(left).Seconds(), 'f', -1, 64)+" seconds")
	}
	return sign + strings.Join(parts, " ")
}
