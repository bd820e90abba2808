package plugin_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{"": 0, "120": 2 * time.Minute, "301": plugin.MaxRetryAfter,
		"86400": plugin.MaxRetryAfter, "Mon, 05 Jan 2099 11:00:00 GMT": plugin.MaxRetryAfter, "-1": 0, "soon": 0,
		"99999999999":                   0,
		"Mon, 05 Jan 2026 12:01:30 GMT": 90 * time.Second, "Mon, 05 Jan 2026 11:00:00 GMT": 0} {
		if got := plugin.RetryAfter(http.Header{"Retry-After": {value}}, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}
