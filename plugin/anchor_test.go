package plugin_test

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// An answer is held against the same rules of its anchor as a document, and is of now whatever date it bears.
func TestAnswers(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	for _, row := range []struct {
		name string
		a    plugin.Anchor
		test bool
		at   time.Time
		good bool
	}{
		{"a production key", plugin.Anchor{}, false, now, true},
		{"a production key, of a test licence", plugin.Anchor{Environment: enforcer.Production}, true, now, true},
		{"a test key", plugin.Anchor{Environment: enforcer.Test}, false, now, false},
		{"a test key, of a test licence", plugin.Anchor{Environment: enforcer.Test}, true, now, true},
		{"a revoked key", plugin.Anchor{Revoked: true}, false, now, false},
		{"a key that ends later", plugin.Anchor{NotAfter: now.Add(day)}, false, now, true},
		{"a key past its end", plugin.Anchor{NotAfter: now.Add(-day)}, false, now, false},
		{"a key past its end, that dates its answer back", plugin.Anchor{NotAfter: now.Add(-day)}, false,
			now.Add(-2 * day), false},
		{"a key past its end, by a clock that is behind", plugin.Anchor{NotAfter: now.Add(day)}, false,
			now.Add(2 * day), false},
		{"a key that begins later", plugin.Anchor{NotBefore: now.Add(day)}, false, now, false},
	} {
		if err := row.a.Answers(row.test, row.at, now); (err == nil) != row.good {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}
