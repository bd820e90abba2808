package fleet

import (
	"slices"
	"time"
)

// worse makes the troubles that are seldom; false: what is no kind.
func (y *history) worse(h *host, what int) bool {
	switch what {
	case 11:
		y.sim.compact()
	case 12:
		y.sim.revoke(h.id) // though its time is not over
	case 13:
		y.fault(&h.way.lag, 15*time.Second, func() { h.way.lags(y.rng.Int64N(int64(10 * time.Second))) },
			func() { h.way.lags(0) })
	case 14:
		y.fault(&h.way.twice, 15*time.Second, func() {
			h.way.doubles(func(call string) bool {
				return h.chance.float("twice "+call)*3 < 1
			})
		},
			func() { h.way.doubles(nil) })
	case 15:
		y.copied(h)
	default:
		return false
	}
	return true
}

func (w *way) lags(by int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lag = time.Duration(by)
}

// belated has every other call that is lost be made later all the same, as by a member that hung, or none.
func (w *way) belated(are bool, c *chance) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.late = nil
	if are {
		w.late = func(call string) time.Duration {
			return time.Duration((c.float("late "+call)*2 - 1) * float64(30*time.Second))
		}
	}
}

func (w *way) doubles(twice func(string) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.twice = twice
}

// copied has a copy of a host's disk start as another host, with the same agent's key. It is there for a while.
func (y *history) copied(h *host) {
	twin := &host{c: y.crowd, id: h.id, drift: h.drift, epoch: h.epoch + "copy",
		licence: h.licence,
		keep:    h.keep, labels: h.labels}
	twin.chance = &chance{seed: h.chance.seed, host: h.id + " copied", begin: y.begin}
	twin.way = &way{sim: y.sim, chance: twin.chance}
	if y.ends[h] != nil {
		return
	}
	h.die()
	twin.record, twin.blocks = slices.Clone(h.record), slices.Clone(h.blocks)
	h.start()
	y.fault(twin, 40*time.Second, func() {
		twin.start()
		y.mu.Lock()
		y.twins = append(y.twins, twin)
		y.mu.Unlock()
		twin.act(3, false)
	}, func() {
		y.mu.Lock()
		y.twins = slices.DeleteFunc(y.twins, func(o *host) bool { return o == twin })
		y.mu.Unlock()
		twin.die()
	})
}
