package inspect

import (
	"strings"
	"testing"

	"github.com/usher-agent/usher/agent/config"
)

// A check without an agent names a dialect that there is not.
func TestInspectNamesUnknownDialects(t *testing.T) {
	c, err := config.Load(config.Source{Data: []byte("listeners: [{address: /run/a, dialect: plain}]\n")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Configured(c); err == nil ||
		!strings.Contains(err.Error(), `there is no dialect "plain" (known: `) {
		t.Errorf("a check says %v", err)
	}
}
