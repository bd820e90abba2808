package main

import (
	"os/exec"
	"strings"
	"testing"
)

// The demo of a fleet sees what the page promises: never a slot too many, a waiter that gets what another host
// releases, a dead host's slots that come back, a host that is cut off and stops in time.
func TestDemoFleet(t *testing.T) {
	t.Parallel()
	debianTool(t, "etcd")
	w := newWard(t)
	out, err := exec.CommandContext(t.Context(), "../../configs/etcd/demo.sh", w.bin).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"A seventh slot is denied.", "The waiter on host-3 has a slot",
		"host-2 has three of them",
		"It grants nothing any more", "All was seen."} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
}
