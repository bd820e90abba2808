package desk

import (
	"runtime"
	"time"
)

const (
	// stretch is how long work in many steps goes on before it pauses.
	stretch = time.Millisecond
	// pause is how long a pause is. Go makes a millisecond of it where nothing else happens.
	pause = 100 * time.Microsecond
)

// Pause has work in many steps leave its processor for a moment.
func Pause() { time.Sleep(pause) }

// pace is the pace of work in many steps. The zero value begins with the first step's end.
//
// Between two steps whoever waits for the lock gets it: a waiter would be passed over for a millisecond otherwise, as
// [sync.Mutex] has it. Now and then the work pauses, so that it leaves its processor: Go looks at the network only when
// a thread has nothing else to do, or every ten milliseconds, and the kernel lets a thread that never rests go on for
// several milliseconds while others wait.
type pace struct{ since time.Time }

// giveWay lets others go on. The lock is free.
func (p *pace) giveWay() {
	switch now := time.Now(); {
	case p.since.IsZero():
		p.since = now
		runtime.Gosched()
	case now.Sub(p.since) < stretch:
		runtime.Gosched()
	default:
		Pause()
		p.since = time.Now()
	}
}
