// Package memory tells the garbage collector how eager to be. The collector's own target lets the heap grow to twice of
// what is in use, which is as much again as all leases take. Leases live long and make little garbage, so that a far
// smaller slack costs little work. Start reading at [Share].
package memory

import (
	"os"
	"runtime/debug"
	"sync"
)

const (
	// slack is how many bytes more than what is in use the heap may have where many leases are held.
	slack = 48 << 20
	// leaseSize is about how many bytes a lease takes.
	leaseSize = 280
	// usual and least bound the percentage (GOGC) that Percent returns.
	usual, least = 100, 15
)

// Percent returns the collector's target with so many leases held: by how many percent the heap may grow beyond what is
// in use before it is collected. An agent of few leases has what Go has.
func Percent(leases int) int { return max(least, min(usual, 100*slack/max(1, leases*leaseSize))) }

// process is the one collector of this process, and what all shares in it want.
var process struct {
	sync.Mutex
	leases int
	paused int
	is     int // the percentage that was set last; 0: none was
}

// given reports whether the user has set the target, which stands.
func given() bool { return os.Getenv("GOGC") != "" }

// settle sets the target that follows from process, which is locked. The GOMEMLIMIT of the user holds in any case.
func settle() {
	want := Percent(process.leases)
	if process.paused > 0 {
		want = -1
	}
	if want == process.is || given() {
		return
	}
	process.is = want
	debug.SetGCPercent(want)
}

// Pause stops collections until the returned function is called, but for those that a limit of memory asks for.
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
	most   int // leases held since memory was given back last
	last   int // leases held when Due was asked last
}

// Set says how many leases are held now.
func (s *Share) Set(leases int) {
	process.Lock()
	defer process.Unlock()
	process.leases += leases - s.leases
	s.leases, s.most = leases, max(s.most, leases)
	settle()
}

// massRelease is how many leases must be over until their memory is given back at once, and Step how many are so few
// that they change nothing.
const (
	massRelease = 1 << 16
	Step        = 1 << 12
)

// Waits reports whether so many leases are over that memory is to be given back to the system, once no more end.
func (s *Share) Waits() bool { return s.most-s.leases >= massRelease }

// Due reports whether memory is to be given back now: many leases are over, and their number has not changed much since
// Due was asked last. The caller then calls [debug.FreeOSMemory].
func (s *Share) Due() bool {
	calm := max(s.leases-s.last, s.last-s.leases) < Step
	s.last = s.leases
	if !s.Waits() || !calm {
		return false
	}
	s.most = s.leases
	return true
}
