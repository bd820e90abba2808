package shares

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// A meter whose upstream gives no draws is not named: the verdict says that it is not shared out here, and not that it
// is empty. It is asked for again, and draws count once there are some.
func TestUpstreamWithoutDraws(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := &seller{left: 100, done: map[string]int64{},
			err: &plugin.Error{Class: plugin.Misconfigured, SystemCode: plugin.SystemNoDraws,
				Reason: "it has no fleet"}}
		h := openBuyer(t, c, enforcer.ResetsNever)
		if _, named := h.Taken()[uses]; !named {
			t.Error("a meter is not named before anybody was asked")
		}
		h.wait(3)
		settle()
		if _, named := h.Taken()[uses]; named {
			t.Error("a meter is named of which the upstream gives no draws")
		}
		c.change(func() { c.err = nil })
		time.Sleep(2 * refusedWait)
		if got, named := h.Taken()[uses]; !named || got.N < 3 {
			t.Errorf("draws of an upstream that gives some since: %+v", got)
		}
		c.change(func() { c.err = &plugin.Error{Class: plugin.Misconfigured, SystemCode: plugin.SystemNoDraws} })
		h.wait(50)
		settle()
		if got, named := h.Taken()[uses]; !named || got.N < 3 {
			t.Errorf("what was taken counts: %+v", got)
		}
	})
}
