package clock

import "time"

// Bounds of what is taken from the last reading of the Fence clock.
const (
	glanceFor   = time.Second
	glanceSlack = time.Millisecond
)

// Glance looks at the [Fence] clock without a call of the kernel for nearly every look. Between two readings the
// monotonic clock says how much time has passed. It stands still in a suspension, and the wall clock does not: a look
// reads the Fence clock where the two disagree. So a Glance may be late only where the host was suspended and somebody
// has put the wall clock back by the same time within that second. What leaves the host, or is answered, needs Fence
// itself. The zero value is ready. It is not safe for concurrent use.
type Glance struct {
	asked        bool
	wall         int64         // the wall clock at the last reading, in nanoseconds since 1970
	awake, fence time.Duration // the monotonic clock then, and what was read
}

// Past reports whether the Fence clock has come to an instant.
func (g *Glance) Past(fence time.Duration) bool {
	now := time.Now()
	return g.past(now.UnixNano(), now.Sub(loaded), fence, Fence)
}

// Ask is Past by the Fence clock itself, in any case. What it reads, later looks go on from.
func (g *Glance) Ask(fence time.Duration) bool {
	g.asked = false
	return g.Past(fence)
}

// past is Past by readings of the wall clock and the monotonic one, and by the clock read.
func (g *Glance) past(wall int64, awake, fence time.Duration, read func() time.Duration) bool {
	since := awake - g.awake
	drift := time.Duration(wall-g.wall) - since
	if g.asked && since < glanceFor && drift.Abs() < glanceSlack && g.fence+since < fence-glanceSlack {
		return false
	}
	g.asked, g.wall, g.awake, g.fence = true, wall, awake, read() // an instant that is near is looked at exactly
	return g.fence >= fence
}
