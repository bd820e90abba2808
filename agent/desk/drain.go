package desk

import (
	"context"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// Holding counts the leases that are held, and apart from them those that are borrowed.
func (d *Desk) Holding() (held, borrowed int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tick(d.licenceTime())
	for of, n := range d.held {
		if of == enforcer.LifetimeBorrow {
			borrowed += n
		} else {
			held += n
		}
	}
	return held, borrowed
}

// Idle waits until no lease but borrows is held, or ctx ends, or the agent stops.
func (d *Desk) Idle(ctx context.Context, stop <-chan struct{}) {
	for ctx.Err() == nil {
		events, cancel := d.Subscribe(nil, func(_ *enforcer.Holder, ev *wire.Event) bool {
			return ev.Type == "lease.ended"
		})
		for open := true; open; {
			if held, _ := d.Holding(); held == 0 {
				cancel()
				return
			}
			select {
			case <-ctx.Done():
				open = false
			case <-stop:
				cancel()
				return
			case _, open = <-events: // whoever is too slow is left behind, and looks again
			}
		}
		cancel()
	}
}
