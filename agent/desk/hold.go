package desk

import (
	"sync"
	"sync/atomic"
	"time"
)

// lock is the desk's lock. While somebody measures, it takes note of how long it is held; else that costs nothing.
type lock struct {
	sync.Mutex
	measured atomic.Int32  // so many measure
	since    time.Duration // since origin: when it was taken; 0: nobody measured then. Its holder's
	most     time.Duration // the longest that it was held since the first of them began. Its holder's
}

// Lock takes the lock.
func (l *lock) Lock() {
	l.Mutex.Lock()
	if l.measured.Load() > 0 {
		l.since = time.Since(origin)
	}
}

// Unlock gives the lock back.
func (l *lock) Unlock() {
	if l.since != 0 {
		l.most, l.since = max(l.most, time.Since(origin)-l.since), 0
	}
	l.Mutex.Unlock()
}

// MeasureHolds begins to measure for how long the desk's lock is held at one time, by whomever: so long others may have
// to wait. longest, to be called once, ends that and returns the longest. Where others measure already, that may have
// been before.
func (d *Desk) MeasureHolds() (longest func() time.Duration) {
	d.mu.Lock()
	if d.mu.measured.Add(1) == 1 {
		d.mu.most = 0
	}
	d.mu.Unlock()
	return func() time.Duration {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.mu.measured.Add(-1)
		return d.mu.most
	}
}
