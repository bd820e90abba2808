package early

import (
	"strings"
	"testing"
)

func TestIsAgent(t *testing.T) {
	for line, want := range map[string]bool{"usher": false, "usher agent": true, "usher --json agent --check": true,
		"usher --socket agent status": false, "usher --socket s agent": true, "usher --socket=s agent": true,
		"usher run -- agent": false, "usher --socket": false} {
		if got := isAgent(strings.Fields(line)); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}
