package agent_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/usher-agent/usher/client/wire"
)

// answered is the id of the request that an answer is to.
var answered = regexp.MustCompile(`"id":(\d+),"result"`)

// Acquires of one session that wait have their places in the order of its messages, though none is waited for, and are
// answered in that order: one slot coming free after the other, or all at once.
func TestPipelinedWaitersInTurn(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 8, nil))
	h.until("dropped", inForce("a"))
	for name, sizes := range map[string][]int64{"one by one": {1, 1, 1, 1, 1, 1, 1, 1}, "all at once": {8}} {
		t.Run(name, func(t *testing.T) {
			for range 10 {
				var held []*wire.Lease
				for _, n := range sizes {
					held = append(held, h.acquire(n))
				}
				l := h.dial()
				var all strings.Builder
				for i := range 8 {
					all.WriteString(acquireLine(i, `,"wait_seconds":60,"lifetime":"connection"`))
				}
				l.say(strings.TrimSuffix(all.String(), "\n"))
				h.untilWaiting(8)
				for _, was := range held {
					h.release(was)
				}
				for i := range 8 {
					answer := l.hear()
					if m := answered.FindStringSubmatch(answer); m == nil || m[1] != fmt.Sprint(i) {
						t.Fatalf("in the place of %d came %s", i, answer)
					}
				}
				l.conn.Close()
				h.inUse(0)
			}
		})
	}
}
