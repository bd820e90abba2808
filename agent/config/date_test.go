package config

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestDates walks all keys that are dates: a bare date is the beginning of its day, or its end where an end is meant,
// and the zero of the clock or of the calendar is no date.
func TestDates(t *testing.T) {
	for _, row := range []struct {
		text, begins, ends string
	}{
		{"2026-11-28", "2026-11-28T00:00:00Z", "2026-11-28T23:59:59Z"},
		{"9999-12-31", "9999-12-31T00:00:00Z", "9999-12-31T23:59:59Z"},
		{"2026-11-28T01:00:00+01:00", "2026-11-28T00:00:00Z", "2026-11-28T00:00:00Z"},
		{"0001-01-01", "", ""}, {"0001-01-01T00:00:00Z", "", ""}, {"1969-12-31", "", ""},
		{"1970-01-01T00:00:00Z", "", ""},
	} {
		for _, key := range []string{"license.released", "license.trust[0].not_before", "license.trust[0].not_after"} {
			want := row.begins
			if isEnd(key) {
				want = row.ends
			}
			var d decoder
			var at time.Time
			d.scalar(row.text, "c.yaml:1", reflect.ValueOf(&at).Elem(), key)
			switch {
			case want == "" &&
				(len(d.faults) != 1 || !strings.Contains(d.faults[0].Error(), key+`: "`+row.text+`" is out of range`)):
				t.Errorf("%s: %s: %v, %v", key, row.text, at, d.faults)
			case want != "" && (len(d.faults) > 0 || at.Format(time.RFC3339) != want):
				t.Errorf("%s: %s: %v, %v", key, row.text, at, d.faults)
			}
		}
	}
}
