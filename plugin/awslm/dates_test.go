package awslm_test

import (
	"testing"

	"github.com/usher-agent/usher/plugin/awslm"
)

// The first date of all is a date, and only an empty text is none.
func TestFirstDate(t *testing.T) {
	for text, none := range map[string]bool{"": true, "0001-01-01T00:00:00Z": false, "0001-01-01T00:00:00": false,
		"0001-01-01T00:00Z": false, "1970-01-01T00:00:00Z": false} {
		if at, err := awslm.ParseTime(text); err != nil || at.IsZero() != none {
			t.Errorf("%q: %v, %v", text, at, err)
		}
	}
}
