package usher

import (
	"strings"
	"testing"
)

// What is said of a bad name is true of it: the first character is bound more narrowly than the others.
func TestBadNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"..", "-a", "_", "ströme", "a b", ""} {
		if NameRule.MatchString(name) {
			t.Errorf("%q is a name", name)
		}
		if err := badName("pools", name); !strings.Contains(err.Error(), "must begin with A-Z, a-z or 0-9") {
			t.Errorf("of %q it says %v", name, err)
		}
	}
}
