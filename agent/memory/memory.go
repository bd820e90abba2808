// Package memory tells the garbage collector how eager to be. The collector's own target lets the heap grow to twice of
// what is in use, which is as much again as all leases take. Leases live long and make little garbage, so that a far
// smaller slack costs little work. An agent of few leases has so small a heap that it would be collected several times
// a second while many acquires come: then it may grow further. Start reading at [Share], and at [Look].
package memory

import (
	"cmp"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

const (
	// slack is how many bytes more than what is in use the heap may have where many leases are held.
	slack = 24 << 20
	// leaseSize is about how many bytes a lease takes.
	leaseSize = 280
	// usual and least bound the percentage (GOGC) that Percent returns.
	usual, least = 100, 15
	// paused is the percentage of a pause: the heap may grow to 920 MB at least, Go's least target of 4 MiB taken 230
	// times. Without any target (-1), a collection that is under way when the pause begins finds the heap large, which
	// it is to Go beyond 1 GiB, and has the kernel use huge pages for the heap's tables: 2 MiB more for good.
	paused = 23_000
)

// Percent returns the collector's target with so many leases held: by how many percent the heap may grow beyond what is
// in use before it is collected. An agent of few leases has what Go has.
func Percent(leases int) int { return percentOf(leases, usual) }

// percentOf is Percent with another target for few leases.
func percentOf(leases, few int) int { return max(least, min(few, 100*slack/max(1, leases*leaseSize))) }

const (
	// steady looks one after the other, each with a collection since the one before, and often collections in all: the
	// heap is too small for the garbage that is made. A burst, as when many sessions open at once, is over sooner.
	steady, often = 8, 12
	// rest is after how many looks without any collection in between that is over.
	rest = 5
	// busy is the collector's target until then, where the heap is small: up to smallHeap bytes, and half of it up to
	// twice as many. So the heap may have 16 MiB more than is in use, and a larger one what it has else.
	busy      = 400
	smallHeap = 4 << 20
)

// pressure is how often the heap was collected lately.
type pressure struct {
	cycles uint64 // of the collector, at the last look
	looks  int    // one after the other, with a collection since the one before
	made   uint64 // collections in these
	calm   int    // looks since the last collection
	high   bool   // it is collected too often
}

// next returns the target for few leases that follows from a look: so many collections there were since the start of
// the process, and so many bytes were in use after the last. over says that the heap need be no larger than it is else
// from now on.
func (p *pressure) next(cycles, inUse uint64) (percent int, over bool) {
	since, was := cycles-p.cycles, p.high
	p.cycles = cycles
	if since > 0 {
		p.looks, p.made, p.calm = p.looks+1, p.made+since, 0
	} else {
		p.looks, p.made, p.calm = 0, 0, p.calm+1
	}
	p.high = p.looks >= steady && p.made >= often || p.high && p.calm < rest
	over = was && !p.high
	switch {
	case !p.high || inUse > 2*smallHeap:
		return usual, over
	case inUse > smallHeap:
		return busy / 2, over
	default:
		return busy, over
	}
}

// Look sees how often the heap is collected, and has the target follow. It is called every second, and reports whether
// the caller is to call [debug.FreeOSMemory]: the heap has been larger, and need not be any more.
func Look() (over bool) {
	now := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(now)
	process.Lock()
	defer process.Unlock()
	process.few, over = process.pressure.next(now[0].Value.Uint64(), now[1].Value.Uint64())
	settle()
	return over
}

// process is the one collector of this process, and what all shares in it want.
var process struct {
	sync.Mutex
	leases   int
	paused   int
	is       int // the percentage that was set last; 0: none was
	pressure pressure
	few      int // the target for few leases; 0: there was no look yet
}

// given reports whether the user has set the target, which stands.
func given() bool { return os.Getenv("GOGC") != "" }

// settle sets the target that follows from process, which is locked. The GOMEMLIMIT of the user holds in any case.
func settle() {
	want := percentOf(process.leases, cmp.Or(process.few, usual))
	if process.paused > 0 {
		want = paused
	}
	if want == process.is || given() {
		return
	}
	process.is = want
	debug.SetGCPercent(want)
}

// Pause stops collections until the returned function is called, but for those that a limit of memory asks for, and
// those of a heap that has grown to a multiple of what it was.
func Pause() (resume func()) {
	process.Lock()
	defer process.Unlock()
	process.paused++
	settle()
	return sync.OnceFunc(func() {
		process.Lock()
		defer process.Unlock()
		process.paused--
		settle()
	})
}

// Share is what one desk wants of the collector. The zero value wants nothing yet. It is not safe for concurrent use.
type Share struct {
	leases int
	given  int // leases held when memory was given back last
	last   int // leases held when Due was asked last
	most   int // leases held at one time since memory was given back last
}

// Set says how many leases are held now.
func (s *Share) Set(leases int) {
	process.Lock()
	defer process.Unlock()
	process.leases += leases - s.leases
	s.leases = leases
	settle()
}

// Gave says that memory was given back, or is about to be, with so many leases held as now.
func (s *Share) Gave() { s.given, s.most = s.leases, s.leases }

// Peak says how many leases were held at one time since it was called last.
func (s *Share) Peak(most int) { s.most = max(s.most, most) }

const (
	// many is of how many leases that came or went memory is given back: what they were made with is garbage by then,
	// and so are they when they are over.
	many = 1 << 16
	// part is what part of the leases that were held when memory was given back last must have come or gone, too: what
	// a smaller one leaves is soon used again, and a whole collection takes longer the more leases are held.
	part = 4
	// few is how many leases between two looks are so few that the others have come, or have gone.
	few = 1 << 12
)

// Due reports whether memory is to be given back to the system now: the number of leases has changed much since that
// was done last, even if by now it is what it was, and little since Due was asked last. The caller then calls
// [debug.FreeOSMemory].
func (s *Share) Due() bool {
	calm := abs(s.leases-s.last) < few
	s.last = s.leases
	s.most = max(s.most, s.leases)
	if !calm || max(abs(s.leases-s.given), s.most-s.leases) < max(many, s.given/part) {
		return false
	}
	s.Gave()
	return true
}

func abs(n int) int { return max(n, -n) }
