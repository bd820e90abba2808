package enforcer

import (
	"testing"
	"time"
)

func TestEnding(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		lasts, before time.Duration
		want          bool
	}{{24 * time.Hour, 11 * time.Minute, false}, {24 * time.Hour, 10 * time.Minute, true},
		{24 * time.Hour, -time.Hour, true}, {10 * time.Minute, 2 * time.Minute, false},
		{10 * time.Minute, time.Minute, true}} {
		if got := (&License{Issued: noon.Add(-row.lasts), Expires: noon}).Ending(noon.Add(-row.before)); got !=
			row.want {
			t.Errorf("%s before the end of %s: %t", row.before, row.lasts, got)
		}
	}
	if (&License{Issued: noon}).Ending(noon) {
		t.Error("what has no end ends")
	}
}
