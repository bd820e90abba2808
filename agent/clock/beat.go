package clock

import "time"

// Beat returns a rhythm. It says how long it is until the next instant at which everybody looks who looks so often, and
// starts with the call. Spans of which one divides the other have common instants. An agent that has nothing to do is
// thus woken once for all who look, and not once for each of them.
func Beat() func(every time.Duration) time.Duration {
	start := time.Now()
	return func(every time.Duration) time.Duration { return every - time.Since(start)%every }
}
