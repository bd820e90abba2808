package usher_test

import (
	"strings"
	"testing"

	"github.com/usher-agent/usher/plugin/usher"
)

// A claim that is called as people or the flags call it, or is misspelt, is answered with the one that may be meant.
func TestWrongClaimsSuggest(t *testing.T) {
	for name, want := range map[string]string{"limits": "pools", "expires": "exp", "id": "jti",
		"grace":    "grace_seconds",
		"licencee": "licensee", "prodcut": "product", "nothing_like_it": ""} {
		_, err := usher.ReadClaims([]byte(`{"`+name+`": 1}`), true)
		if err == nil || want != "" && !strings.Contains(err.Error(), "did you mean \""+want+"\"?") ||
			want == "" && strings.Contains(err.Error(), "did you mean") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
