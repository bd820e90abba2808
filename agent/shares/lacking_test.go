package shares

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// An upstream that keeps an agent's turn hears that its callers wait no more, also where the agent has nothing idle.
func TestLackingIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &late{&watched{lender: newLender(5, 10*time.Minute)}, make(chan map[string]int64, 9), true}
		h := openTenant(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), l)
		h.want(5)
		time.Sleep(3 * time.Second)
		h.want(4) // there are no more
		time.Sleep(3 * time.Second)
		for len(l.lacks) > 0 {
			<-l.lacks
		}
		h.mu.Lock()
		h.waiting = 0 // they give up
		h.mu.Unlock()
		h.Nudge()
		time.Sleep(3 * time.Second)
		select {
		case lacks := <-l.lacks:
			if lacks["seats"] != 0 {
				t.Errorf("nobody waits, and the upstream was told of %d", lacks["seats"])
			}
		default:
			t.Error("the upstream was not told that nobody waits any more")
		}
	})
}

// A check-out that is asked again under its token asks for what it asked for then, and says what of it is needed now.
func TestTokenSaysWhatIsNeeded(t *testing.T) {
	p := &Pool{total: 40}
	for _, c := range []struct{ step, want Step }{
		{Step{CheckOut, "", 3, 0}, Step{CheckOut, "", 3, 0}},
		{Step{CheckOut, "", 1, 1}, Step{CheckOut, "", 3, 3}},
		{Step{CheckOut, "", 2, 1}, Step{CheckOut, "", 3, 2}},
		{Step{CheckOut, "", 5, 0}, Step{CheckOut, "", 3, 0}},
	} {
		got := c.step
		if p.openToken(&got); got != c.want {
			t.Errorf("%+v is asked for as %+v, want %+v", c.step, got, c.want)
		}
	}
}
