package catalog

import (
	"testing"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// One system tells the time, whatever the order of the anchors, and never a plugin's or one that has test keys alone.
func TestTimeTeller(t *testing.T) {
	for _, row := range []struct {
		want    string
		anchors []plugin.Anchor
	}{
		{"", nil},
		{"usher", []plugin.Anchor{{System: "toy"}, {System: "awslm"}, {System: "keygen"}, {System: "usher"}}},
		{"keygen", []plugin.Anchor{{System: "awslm"}, {System: "keygen"},
			{System: "usher", Environment: enforcer.Test}}},
		{"awslm", []plugin.Anchor{{System: "awslm", Environment: enforcer.Production},
			{System: "keygen", Revoked: true}}},
		{"", []plugin.Anchor{{System: "toy"}}},
	} {
		if got := TimeTeller(row.anchors); got != row.want {
			t.Errorf("%v: %q, want %q", row.anchors, got, row.want)
		}
	}
}
