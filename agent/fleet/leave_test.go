package fleet

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// left is a lender "a" of ten slots that has stopped, with the parts x of four and y of three lent, and others.
type left struct {
	*rig
	told    []string
	all     []*Fleet
	records []*[]byte
	a, b, c *Bound
}

func openLeft(t *testing.T) *left {
	l := &left{rig: newRig(t)}
	l.all, l.records = l.lenders(&l.told, "a", "b", "c")
	l.join(l.all...)
	time.Sleep(2 * time.Minute) // the quarantine is as long as slots may be in use
	l.a, l.b, l.c = l.bound(l.all[0], 10), l.bound(l.all[1], 10), l.bound(l.all[2], 10)
	l.must(l.checkOut(l.a, "broker", 10))
	l.leaves(map[string]int64{"x": 4, "y": 3})
	return l
}

func (l *left) leaves(lent map[string]int64) {
	l.t.Helper()
	if err := l.a.Leave(l.t.Context(), "streams", BlockID("broker"), lent); err != nil {
		l.t.Fatal(err)
	}
}

func (l *left) adopt(by *Bound, part string, n int64) (int64, error) {
	_, got, err := by.Adopt(l.t.Context(), "a", "streams", part, BlockID("broker"), n, reserved)
	return got, err
}

// again has the lender lend again, and returns how many slots it has.
func (l *left) again(by *Bound) int64 {
	l.t.Helper()
	got := l.must(l.checkOut(by, "broker", 10))
	if is := l.value("/u/p/" + streams + "/g/a"); strings.Contains(is, "left") || strings.Contains(is, "moved") {
		l.t.Errorf("a lender lends again although others may take over what it has: %s", is)
	}
	return got.Slots
}

// What a lender had lent when it stopped is another's at once, as much as the lender says and once; what it had beyond
// that is free. It changes nothing until it lends again, and then nobody takes anything over. What moved once does not
// move again after that.
func TestLeave(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l := openLeft(t)
		if out, sum := l.sums(); out != 7 || sum != 7 {
			t.Errorf("of ten slots seven are lent; the total is %d, the blocks have %d", out, sum)
		}
		began := time.Now()
		if got, err := l.adopt(l.b, "x", 9); err != nil || got != 4 || time.Since(began) > time.Second {
			t.Errorf("a part of four: %d, %v after %s", got, err, time.Since(began))
		}
		if got, err := l.adopt(l.b, "x", 4); err != nil || got != 4 {
			t.Errorf("the same again, because the answer was lost: %d, %v", got, err)
		}
		for part, by := range map[string]*Bound{"x": l.c, "z": l.b} {
			if _, err := l.adopt(by, part, 1); !isLapsed(err) {
				t.Errorf("part %s, which is another's or was not lent: %v", part, err)
			}
		}
		if out, sum := l.sums(); out != 7 || sum != 7 {
			t.Errorf("the total is %d, the blocks have %d", out, sum)
		}
		_, extended := l.a.Extend(t.Context(), &plugin.Extend{Block: BlockID("broker"), For: time.Hour})
		_, more := l.checkOut(l.a, "more", 1)
		if extended == nil || more == nil {
			t.Errorf("a lender that has stopped: %v, %v", extended, more)
		}
		l.all[0].Stay()
		if got := l.again(l.a); got != 3 || !slices.Equal(l.told, []string{"x"}) {
			t.Errorf("it has %d slots, and was told that %v have moved", got, l.told)
		}
		if _, err := l.adopt(l.c, "y", 3); err == nil || isLapsed(err) {
			t.Errorf("a part of a lender that lends: %v", err)
		}
		l.leaves(map[string]int64{"y": 3})
		if _, err := l.adopt(l.b, "x", 4); !isLapsed(err) {
			t.Errorf("a part that moved before: %v", err)
		}
		l.leaves(nil) // nobody has it any more
		if out, sum := l.sums(); out != 4 || sum != 4 {
			t.Errorf("the total is %d, the blocks have %d", out, sum)
		}
	})
}

// A lender that is started again after it stopped writes that it lends before it does, and goes on with what is left.
func TestLeaveAndStartAgain(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l := openLeft(t)
		if _, err := l.adopt(l.b, "y", 3); err != nil {
			t.Fatal(err)
		}
		back := l.bound(l.lender("a", l.records[0], &l.told), 10)
		if got := l.again(back); got != 4 || !slices.Contains(l.told, "y") {
			t.Errorf("it has %d slots, and was told that %v have moved", got, l.told)
		}
		if _, err := l.adopt(l.c, "x", 4); err == nil || isLapsed(err) {
			t.Errorf("a part of a lender that lends: %v", err)
		}
	})
}

// A lender that lends again between another's look at what it has left and the change has what it had: one of the two
// comes first.
func TestStayBetween(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l := openLeft(t)
		way := l.all[1].store.(*hooked)
		happened := way.between(func(x *Txn) bool {
			return slices.ContainsFunc(x.Then, func(o Op) bool { return o.Put == "/u/p/"+streams+"/g/a" })
		}, func() { l.all[0].Stay(); l.again(l.a) })
		if _, err := l.adopt(l.b, "x", 4); err == nil || !happened() {
			t.Errorf("a part of a lender that lends: %v", err)
		}
		if got := l.again(l.a); got < 7 {
			t.Errorf("the lender has %d slots", got)
		}
		l.adds()
	})
}

// An answer that is on its way when the lender stops gives nothing more to lend.
func TestLeaveWhileAnAnswerIsOnItsWay(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l := openLeft(t)
		l.all[0].Stay()
		l.again(l.a)
		way, ended := l.all[0].store.(*hooked), make(chan error, 1)
		happened := way.between(func(x *Txn) bool { return x.Kind == KindChange }, func() {
			go func() { ended <- l.a.Leave(t.Context(), "streams", BlockID("broker"), map[string]int64{"x": 4}) }()
			synctest.Wait()
		})
		got, err := l.a.Extend(t.Context(), &plugin.Extend{Block: BlockID("broker"), Slots: 5, For: time.Hour})
		if !happened() || err == nil {
			t.Errorf("it has stopped, and %+v, %v", got, err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if out, sum := l.sums(); out != 4 || sum != 4 {
			t.Errorf("the total is %d, the blocks have %d", out, sum)
		}
	})
}
