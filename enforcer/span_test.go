package enforcer

import (
	"math"
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0 seconds": 0, "1 second": time.Second, "90 days": 90 * 24 * time.Hour, "3 days": 72 * time.Hour,
		"1 day 12 hours": 36 * time.Hour, "10 minutes": 10 * time.Minute, "1 minute 30 seconds": 90 * time.Second,
		"1.5 seconds": 1500 * time.Millisecond, "0.25 seconds": 250 * time.Millisecond, "-2 hours": -2 * time.Hour,
		"1 day 0.000000001 seconds":                            24*time.Hour + 1,
		"106751 days 23 hours 47 minutes 16.854775807 seconds": math.MaxInt64,
	} {
		if got := Span(d); got != want {
			t.Errorf("%d is %q, want %q", d, got, want)
		}
	}
	if got := Span(math.MinInt64); got != "-106751 days 23 hours 47 minutes 16.854775808 seconds" {
		t.Error(got)
	}
}
