package pulse

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// What is not available just now pauses a licence that was good, until its duties lapse. It stays paused over failures,
// and over a restart. A good answer heals it. After another refusal it pauses nothing.
func TestUnavailablePauses(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer func() { r.stop() }()
		refuse := func(c enforcer.Code) {
			r.remote.set(func(Call, *plugin.Request) (*plugin.Reply, error) {
				return nil, &plugin.Error{Class: plugin.Refused, Code: c, Reason: "moving house"}
			})
			r.pass(12 * time.Minute)
		}
		paused := func() bool { return r.Facts()["fake/L1"].Paused }
		refuse(enforcer.Unavailable)
		r.want(enforcer.ValidInGrace)
		if v := r.verdict(); v.Paused == "" || !paused() {
			t.Errorf("it is not paused: %+v", v)
		}
		r.remote.set(func(Call, *plugin.Request) (*plugin.Reply, error) { return nil, plugin.Transiently("away") })
		r.pass(10 * time.Minute)
		r.want(enforcer.ValidInGrace)
		r.stop()
		r.run()
		r.want(enforcer.ValidInGrace)
		r.remote.set(nil)
		r.pass(time.Hour)
		if r.want(enforcer.Valid); paused() {
			t.Error("it is paused after a good answer")
		}
		refuse(enforcer.Suspended)
		r.want(enforcer.Suspended)
		refuse(enforcer.Unavailable)
		r.pass(time.Hour)
		if r.verdict().Good() || paused() {
			t.Error("what was suspended is paused")
		}
	})
}
