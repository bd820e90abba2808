package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Duration is a span of time in Go's form ("90s", "1h30m"), with days ("30d"), or in ISO 8601's ("P30D", "PT90S").
type Duration time.Duration

// Duration returns the span.
func (d Duration) Duration() time.Duration { return time.Duration(d) }

// String returns the span as a file may state it: "3d", "1d12h", "1m30s", "0s".
func (d Duration) String() string {
	left, sign := time.Duration(d), ""
	if left < 0 {
		left, sign = -left, "-"
	}
	var text strings.Builder
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if n := left / u.unit; n > 0 {
			text.WriteString(strconv.FormatInt(int64(n), 10) + u.name)
		}
		left %= u.unit
	}
	switch {
	case left > 0 && left < time.Second && left%time.Millisecond == 0:
		text.WriteString(strconv.FormatInt(left.Milliseconds(), 10) + "ms")
	case left != 0 || text.Len() == 0:
		text.WriteString(strconv.FormatFloat(left.Seconds(), 'f', -1, 64) + "s")
	}
	return sign + text.String()
}

func (d *Duration) pointer() *time.Duration {
	if d == nil {
		return nil
	}
	return new(time.Duration(*d))
}

var (
	iso  = regexp.MustCompile(`^P(?:(\d{1,6})W)?(?:(\d{1,6})D)?(?:T(?:(\d{1,8})H)?(?:(\d{1,9})M)?(?:(\d{1,10})S)?)?$`)
	days = regexp.MustCompile(`^(\d{1,6})d(.*)$`)
)

// maxDuration keeps sums far from overflow.
const maxDuration = 100 * 366 * 24 * time.Hour

// ParseDuration reads a span of time; see [Duration]. It is never negative and at most a hundred years.
func ParseDuration(s string) (time.Duration, error) {
	d, ok := parseDuration(s)
	if !ok || d < 0 || d > maxDuration {
		return 0, fmt.Errorf("%q is not a span of time such as 90s, 12h, 30d or P30D", s)
	}
	return d, nil
}

func parseDuration(s string) (time.Duration, bool) {
	if strings.HasPrefix(s, "P") {
		m := iso.FindStringSubmatch(s)
		if m == nil || strings.HasSuffix(s, "P") || strings.HasSuffix(s, "T") {
			return 0, false
		}
		var d time.Duration
		for i, unit := range []time.Duration{7 * 24 * time.Hour, 24 * time.Hour, time.Hour, time.Minute, time.Second} {
			if m[i+1] == "" {
				continue
			}
			n, err := strconv.Atoi(m[i+1])
			if err != nil || time.Duration(n) > maxDuration/unit {
				return 0, false
			}
			d += time.Duration(n) * unit
		}
		return d, true
	}
	var d time.Duration
	if m := days.FindStringSubmatch(s); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil || time.Duration(n) > maxDuration/(24*time.Hour) {
			return 0, false
		}
		d, s = time.Duration(n)*24*time.Hour, m[2]
		if s == "" {
			return d, true
		}
	}
	rest, err := time.ParseDuration(s)
	if err != nil || rest < 0 || rest > maxDuration {
		return 0, false
	}
	return d + rest, true
}
