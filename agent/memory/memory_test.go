package memory

import (
	"runtime/debug"
	"testing"
)

// percent returns the collector's target as it is set.
func percent() int {
	is := debug.SetGCPercent(100)
	debug.SetGCPercent(is)
	return is
}

// The slack beyond what is in use follows the number of leases, and an agent of few has what Go has.
func TestPercent(t *testing.T) {
	t.Parallel()
	for leases, want := range map[int]int{0: 100, 1: 100, 100_000: 89, 500_000: 17, 1_000_000: 15, 4_000_000: 15} {
		if is := Percent(leases); is != want {
			t.Errorf("%d leases: %d %%, want %d", leases, is, want)
		}
	}
}

// The target follows the leases of all desks of the process, and comes back when these are over or a pause ends. A
// target that the user has set stands.
func TestShare(t *testing.T) {
	t.Setenv("GOGC", "")
	want := func(what string, n int) {
		t.Helper()
		if is := percent(); is != n {
			t.Errorf("%s: %d %%, want %d", what, is, n)
		}
	}
	var one, two Share
	one.Set(300_000)
	two.Set(200_000)
	want("500,000 leases of two desks", 17)
	first, second := Pause(), Pause()
	want("paused", paused)
	first()
	first()
	want("one pause is over", paused)
	one.Set(0)
	second()
	want("200,000 leases", 44)
	two.Set(0)
	want("none", 100)
	t.Setenv("GOGC", "77")
	one.Set(1_000_000)
	want("the user has said", 100)
	one.Set(0)
}

// A small heap that is collected often for some seconds may grow further, until there are no collections for a while.
// Then its memory is given back. A burst changes nothing.
func TestPressure(t *testing.T) {
	t.Parallel()
	var p pressure
	cycles := uint64(0)
	look := func(step string, since, inUse uint64, want int, over bool) {
		t.Helper()
		cycles += since
		if is, gone := p.next(cycles, inUse<<20); is != want || gone != over {
			t.Errorf("%s: %d, %v", step, is, gone)
		}
	}
	look("a burst", 20, 3, usual, false)
	look("is over", 0, 3, usual, false)
	for range steady + 2 {
		look("now and then", 1, 3, usual, false)
	}
	look("calm", 0, 3, usual, false)
	for range steady - 1 {
		look("often", 2, 3, usual, false)
	}
	look("for some seconds", 2, 3, busy, false)
	look("more in use", 1, 5, busy/2, false)
	look("much in use", 1, 9, usual, false)
	for range 2 {
		for range rest - 1 {
			look("few collections", 0, 3, busy, false)
		}
		look("one more", 1, 3, busy, false)
	}
	for range rest - 1 {
		look("no collections", 0, 3, busy, false)
	}
	look("for a while", 0, 3, usual, true)
	look("from then on", 1, 3, usual, false)
}

// Memory is given back once after many leases have come or gone, when no more do.
func TestDue(t *testing.T) {
	t.Parallel()
	var s Share
	for _, step := range []struct {
		leases int
		due    bool
	}{{0, false}, {250_000, false}, {500_000, false}, {500_000, true}, {500_000, false}, {450_000, false},
		{300_000, false}, {300_000 - few, false}, {300_001 - few, true}, {300_000, false}, {100_000, false}, {0, false},
		{0, true}, {0, false}, {many - 1, false}, {many - 1, false}, {many, true}, {many, false},
		{part * 2 * many, false}, {part * 2 * many, true}, {part*2*many - many, false}, {part*2*many - many, false},
		{part*2*many - 2*many, false}, {part*2*many - 2*many, true}} {
		s.leases = step.leases // as Set does
		if due := s.Due(); due != step.due {
			t.Fatalf("%d leases: due %v", step.leases, due)
		}
	}
}

// What a start has left is given back once, by the agent.
func TestNotDueAfterAStart(t *testing.T) {
	t.Parallel()
	s := Share{leases: 10 * many}
	s.Gave()
	for range 3 {
		if s.Due() {
			t.Fatal("memory is given back again, with all leases still held")
		}
	}
}

// Leases that came and went between two looks have left memory behind, too.
func TestDueAfterAPeak(t *testing.T) {
	t.Parallel()
	var s Share
	for _, step := range []struct {
		leases, most int
		due          bool
	}{{0, 0, false}, {10, 500_000, true}, {10, 10, false}, {10, many, false}, {10, many + 10, true}, {10, 0, false}} {
		s.leases = step.leases // as Set does
		s.Peak(step.most)
		if due := s.Due(); due != step.due {
			t.Fatalf("%+v: due %v", step, due)
		}
	}
}
