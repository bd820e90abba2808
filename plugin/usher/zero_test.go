package usher_test

import (
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin/usher"
)

// A claim that states a zero, or nothing, never reads as one that is absent: no document signs a term away by it.
func TestStatedZero(t *testing.T) {
	for _, claim := range []string{`"exp":0`, `"nbf":0`, `"iat":0`, `"exp":-0`, `"exp":0.0`, `"exp":null`,
		`"released_before":0`,
		`"trial_seconds":0`, `"clock_tolerance_seconds":0`, `"agent_away_seconds":0`, `"heartbeat":{"every_seconds":0}`,
		`"heartbeat":{}`, `"check_in":{"every_seconds":0}`, `"check_in":{"every_months":0}`, `"check_in":{}`,
		`"cores":{"max":0}`,
		`"emergency":{"length_seconds":0,"per_year":1}`, `"hosts":[]`, `"hosts":[ ]`, `"hosts":[{"components":{}}]`,
		`"agent_keys":[]`,
		`"cnf":{}`, `"versions":""`, `"pools":{"a":{}}`} {
		b := `{"jti":"a","product":"p"`
		if !strings.HasPrefix(claim, `"iat"`) {
			b += `,"iat":1700000000`
		}
		if _, err := usher.ParseClaims([]byte(b+","+claim+"}"), false); err == nil ||
			!strings.Contains(err.Error(), "claim") {
			t.Errorf("%s: %v", claim, err)
		}
	}
	if usher.DateOf(time.Unix(0, 0)) == 0 || usher.DateOf(time.Time{}) != 0 {
		t.Error("1970 is no date")
	}
}
