package ucloud

import "testing"

// A claim of a companion document that states nothing is a fault, and reads as no end and no binding.
func TestStatedZero(t *testing.T) {
	for _, name := range []string{"exp", "nbf", "agent_keys"} {
		if (&Claims{}).checkZeros(map[string]any{name: nil}) == nil {
			t.Errorf("%s: a stated zero reads as absent", name)
		}
	}
	if err := (&Claims{Expires: 1, Start: 1, AgentKeys: []string{"k"}}).checkZeros(map[string]any{"exp": 1.0,
		"nbf": 1.0, "agent_keys": []any{"k"}}); err != nil {
		t.Error(err)
	}
	if err := (&Claims{}).checkZeros(map[string]any{}); err != nil {
		t.Error(err)
	}
}
