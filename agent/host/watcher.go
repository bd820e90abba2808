package host

import (
	"context"
	"time"
)

// WatchConfig is what a Watcher needs.
type WatchConfig struct {
	Config
	Every time.Duration // how often the cores are looked at; zero: 10 s, at most 5 min
	// Beat says how long it is until the next look, of those that come so often; nil: that long.
	Beat     func(every time.Duration) time.Duration
	OnChange func(Report) // called for each change, not for the first report
}

// fullEvery is how often the watcher looks at everything, however often it looks at the cores.
const fullEvery = 5 * time.Minute

// Watcher notices when the host changes: a CPU quota, a hot-plugged core, an undocked NIC. Nothing reports these, so it
// looks.
type Watcher struct{ config WatchConfig }

// NewWatcher returns a watcher that looks at nothing before Run.
func NewWatcher(c WatchConfig) *Watcher {
	if c.Every <= 0 {
		c.Every = 10 * time.Second
	}
	c.Every = min(c.Every, fullEvery)
	if c.Beat == nil {
		c.Beat = func(every time.Duration) time.Duration { return every }
	}
	return &Watcher{c}
}

// Run looks until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	last := Measure(ctx, w.config.Config)
	t := time.NewTimer(w.config.Beat(w.config.Every))
	defer t.Stop()
	full := int64(fullEvery / w.config.Every)
	var quick counter
	for n := int64(1); ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		t.Reset(w.config.Beat(w.config.Every))
		next := last
		if n%full == 0 {
			next, quick = Measure(ctx, w.config.Config), counter{}
		} else {
			next.Physical, next.Logical, next.Effective = quick.count(ctx, placesOf(w.config.Root))
		}
		if ctx.Err() == nil && !next.equal(last) {
			last = next
			w.config.OnChange(next)
		}
	}
}
