package fleet

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// Draws of a meter's past periods would fill the store: one key for each agent and period. They are deleted by a date,
// which is by somebody's clock. So they outlast by far all that may ask for them.

// Bounds of what is kept by date.
const (
	// drawsFor is for how long draws of a period are taken after it began; the longest period is a month.
	drawsFor = 90 * 24 * time.Hour
	// periodKept is for how long the draws of a period are kept after it began: agents of a week's or month's meter
	// have another by then, and the clocks of two hosts may differ by days.
	periodKept = 100 * 24 * time.Hour
	pastEvery  = 6 * time.Hour // between two looks at meters
)

// today returns the date by which keys are over: the earlier of licence time and the host's clock, so that no mark that
// is false by years takes away what counts.
func (f *Fleet) today() time.Time {
	now, wall := f.cfg.Time(), time.Now()
	if now.Before(wall) {
		return now
	}
	return wall
}

// periodStart returns when a period began that keys name; false: it is no date, for the meter never resets.
func periodStart(at string) (time.Time, bool) {
	start, err := time.Parse(time.DateOnly, at)
	return start, err == nil
}

// longPast is the error of a draw in a period of which etcd may have forgotten the draws.
func (f *Fleet) longPast(meter, at string) error {
	if start, ok := periodStart(at); ok && f.today().Sub(start) > drawsFor {
		return &plugin.Error{Class: plugin.Transient, SystemCode: SystemPeriod,
			Reason: "the period of " + meter + " that began on " + at + " is long past, and nothing is drawn in it",
			Hint:   "check this host's clock"}
	}
	return nil
}

// forgetPeriods deletes the draws of meters' periods that are long past, where the meter has a later one.
func (f *Fleet) forgetPeriods(ctx context.Context, me membership) error {
	res, err := f.cfg.Store.Txn(ctx, &Txn{Kind: KindReap, Then: []Op{{List: f.keys.meters(), Most: mostKeys}}})
	if err != nil {
		return err
	}
	now := f.today()
	latest, past := map[string]string{}, map[[2]string][]KV{} // by meter; by meter and period
	for _, kv := range res.Got[0] {
		part := strings.SplitN(strings.TrimPrefix(kv.Key, f.keys.meters()), "/", 3)
		if len(part) < 3 {
			continue
		}
		start, ok := periodStart(part[1])
		if !ok || start.After(now) {
			continue
		}
		latest[part[0]] = max(latest[part[0]], part[1])
		if now.Sub(start) > periodKept {
			of := [2]string{part[0], part[1]}
			past[of] = append(past[of], kv)
		}
	}
	forgotten := 0
	for of, kvs := range past {
		if latest[of[0]] <= of[1] {
			continue
		}
		total := f.keys.drawn(of[0], of[1])
		slices.SortStableFunc(kvs, func(a, b KV) int { // the total goes last
			switch total {
			case a.Key:
				return 1
			case b.Key:
				return -1
			}
			return 0
		})
		for part := range slices.Chunk(kvs, mostCompared) {
			x := &Txn{Kind: KindReap, If: []Is{has(f.keys.agent(f.cfg.Agent), me.value), absent(f.keys.quarantine())}}
			for _, kv := range part {
				x.If, x.Then = append(x.If, still(kv.Key, kv.Mod)), append(x.Then, Op{Delete: kv.Key})
			}
			if res, err := f.cfg.Store.Txn(ctx, x); err != nil {
				return err
			} else if !res.Done {
				break // somebody has drawn in it; the next look sees that
			}
		}
		forgotten++
	}
	if forgotten > 0 {
		f.cfg.Log.Info("the draws of meters in periods that are long past were deleted from etcd", "periods", forgotten)
	}
	return nil
}
