package pulse

import (
	"context"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// Who asks for calls hears what came of them: of the ones that are made then, and that none was made in time.
func TestAsk(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer func() { r.stop() }()
		before := r.remote.count(Heartbeat)
		got := r.Ask(t.Context())
		if len(got) == 0 || got[0].Failure != nil || got[0].LicenseID != "L1" || got[0].Call == None {
			t.Errorf("a good upstream: %+v", got)
		}
		if n := r.remote.count(Heartbeat); n != before+1 {
			t.Errorf("%d heartbeats were made", n-before)
		}
		r.remote.set(down)
		if got = r.Ask(t.Context()); len(got) != 1 || got[0].Failure == nil ||
			got[0].Failure.Class != plugin.Transient {
			t.Errorf("an upstream that is down: %+v", got)
		}
		held := make(chan struct{})
		r.remote.set(func(Call, *plugin.Request) (*plugin.Reply, error) {
			<-held
			return nil, plugin.Transiently("late")
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got = r.Ask(ctx); len(got) != 1 || got[0].Call != None || got[0].Failure != nil {
			t.Errorf("an upstream that does not answer: %+v", got)
		}
		close(held)
		r.Set(nil)
		if got = r.Ask(t.Context()); got != nil {
			t.Errorf("no licence: %+v", got)
		}
	})
}
