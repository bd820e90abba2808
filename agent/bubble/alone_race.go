//go:build race

package bubble

import (
	"runtime"
	"sync"
)

// processors are those that the process had before the first of the bubbles that run now.
var processors struct {
	sync.Mutex // guards all below
	bubbles    int
	before     int
}

// alone leaves the process one processor until end is called. The timers of a bubble have one context of the race
// detector together. Whoever stops, resets or looks at a timer's channel as it is due uses that context, and two
// processors that use it at once break the detector ("ThreadSanitizer: CHECK failed: tsan_rtl.cpp", a fault of memory,
// perhaps a race that is none): golang/go#78156.
func alone() (end func()) {
	p := &processors
	p.Lock()
	defer p.Unlock()
	if p.bubbles++; p.bubbles == 1 {
		p.before = runtime.GOMAXPROCS(1)
	}
	return func() {
		p.Lock()
		defer p.Unlock()
		if p.bubbles--; p.bubbles == 0 {
			runtime.GOMAXPROCS(p.before)
		}
	}
}
