package shares

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
)

// Where leases come and go all the time and nobody waits, the keeper looks 40 times a second. Who waits, or was denied,
// is seen to within 5 ms all the same, and so is use that rises. A change after a quiet time is seen at once.
func TestUseAloneDoesNotPress(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var looks atomic.Int64
		c := &seller{left: 100, done: map[string]int64{}}
		h := openBuyer(t, c, enforcer.ResetsNever, func(cfg *Config) {
			now := cfg.Now
			cfg.Now = func() time.Duration { // each look reads the clock as often as any other
				looks.Add(1)
				return now()
			}
		})
		time.Sleep(time.Minute + 7*time.Second) // it looks every 30 s anyway
		synctest.Wait()
		each := func(change func()) int64 {
			before := looks.Load()
			change()
			synctest.Wait()
			return looks.Load() - before
		}
		comeAndGo := func() {
			h.cfg.Wants.Used(2)
			h.cfg.Wants.Used(-2)
		}
		one := each(comeAndGo)
		if one == 0 {
			t.Fatal("nobody looks at a change after a quiet time")
		}
		busy := func(d time.Duration) {
			for range d / time.Millisecond {
				time.Sleep(time.Millisecond)
				comeAndGo()
			}
		}
		busy(30 * time.Millisecond) // so much is in use for the first time
		if n := each(func() { busy(time.Second) }) / one; n < 39 || n > 41 {
			t.Errorf("in a second of use %d looks, want 40", n)
		}
		busy(30 * time.Millisecond) // a look has just been
		if n := each(func() {
			h.cfg.Wants.Missed(&enforcer.Acquire{Pool: "uses", N: 1})
			busy(5 * time.Millisecond)
		}); n == 0 {
			t.Error("5 ms after a denial nobody has looked")
		}
		busy(30 * time.Millisecond)
		if n := each(func() {
			h.cfg.Wants.Used(3)
			busy(5 * time.Millisecond)
		}); n == 0 {
			t.Error("5 ms after more was in use than before nobody has looked")
		}
		if n := each(func() {
			for range 1000 {
				time.Sleep(time.Millisecond)
				h.cfg.Wants.Changed()
				comeAndGo()
			}
		}); n > 201*one {
			t.Errorf("in a second of pressing changes %d looks, want at most 200", n/one)
		}
	})
}
