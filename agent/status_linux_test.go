package agent_test

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
)

// status returns what `usher status` prints about the house's agent. It exits 3 where the licence is not valid.
func (h *house) status() string {
	h.t.Helper()
	bin, err := buildOnce()
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := exec.Command(bin, "status", "--socket", h.path("s")).CombinedOutput()
	if err != nil && !strings.Contains(err.Error(), "exit status 3") {
		h.t.Errorf("usher status: %v: %s", err, out)
	}
	return string(out)
}

// overs is what stands behind a number of slots that is more than the agent may hand out.
var overs = regexp.MustCompile(`\(\d+ over\)`)

// statusSays checks that `usher status` begins with a state and code, and has a pool's slots in use and limit.
func (h *house) statusSays(state, code, pool string, inUse, limit int64) {
	h.t.Helper()
	out := h.status()
	if !strings.HasPrefix(out, fmt.Sprintf("Licence %s (%s): ", state, code)) {
		h.t.Errorf("`usher status` does not say %s (%s): %s", state, code, out)
	}
	for line := range strings.Lines(overs.ReplaceAllString(out, "")) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == pool {
			if f[1] != fmt.Sprint(inUse) || f[2] != fmt.Sprint(limit) {
				h.t.Errorf("`usher status` does not say %d of %d: %s", inUse, limit, line)
			}
			return
		}
	}
	h.t.Errorf("`usher status` has no pool %s: %s", pool, out)
}
