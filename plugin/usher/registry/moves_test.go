package registry_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/online"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// branch is a site server of a fleet: it has what its test says, and takes over what agents show.
type branch struct {
	*office
	lends  *registry.Blocks
	has    int64
	unsure bool   // the fleet does not answer
	fails  bool   // it refuses
	then   func() // done once a block was taken over; nil: nothing
}

// openBranches opens site servers of one key that know one licence, each with so many seats of the fleet.
func openBranches(t *testing.T, seats int64, has ...int64) (all []*branch, doc []byte) {
	for i, n := range has {
		x := &branch{has: n}
		x.office = openOffice(t, func(c *registry.Config) {
			if i > 0 {
				c.Signer = all[0].signer
			}
		})
		if i > 0 {
			x.signer = all[0].signer
		} else {
			doc = x.seats("L1", seats, nil)
		}
		if _, err := x.Admit(doc); err != nil {
			t.Fatal(err)
		}
		x.serve(t)
		var err error
		x.lends, err = x.ServeBroker(registry.Broker{Name: string(rune('a' + i)), Lacking: func() {}, Adopt: x.adopt})
		if err != nil {
			t.Fatal(err)
		}
		x.stock()
		all = append(all, x)
	}
	return all, doc
}

// stock puts what the server has in force.
func (x *branch) stock() { x.lends.Stock("L1", "seats", x.has, x.has, time.Hour) }

// adopt takes over what the agent shows.
func (x *branch) adopt(a *registry.Adoption) (unsure bool, err error) {
	if _, err := a.Reserve(a.Slots); err != nil {
		return false, err
	}
	if x.unsure || x.fails {
		return x.unsure, plugin.Transiently("no answer")
	}
	x.has += a.Slots
	if err := a.Put(a.Slots, x.has, x.has, time.Hour); err != nil {
		return false, err
	}
	if x.then != nil {
		x.then()
	}
	return false, nil
}

// roamer is an agent of several site servers.
type roamer struct {
	*online.Several
	t     *testing.T
	doc   []byte
	state []byte
}

// roam makes an agent that asks these site servers.
func roam(t *testing.T, doc []byte, all ...*branch) *roamer {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	var at []string
	by := map[string]*branch{}
	for _, x := range all {
		at, by[x.server.URL] = append(at, x.server.URL), x
	}
	s, err := online.NewSeveral(at, func(url string) (*online.Client, error) {
		return by[url].hostWith(key, doc).Client, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return &roamer{Several: s, t: t, doc: doc}
}

func (r *roamer) request() plugin.Request {
	q := plugin.Request{LicenseID: "L1", Product: "acme", Document: r.doc, State: r.state, Nonce: make([]byte, 32)}
	rand.Read(q.Nonce)
	return q
}

// checkOut takes a block of n seats, at least one.
func (r *roamer) checkOut(n int64) *plugin.Block {
	r.t.Helper()
	b, err := r.CheckOut(context.Background(), &plugin.CheckOut{Request: r.request(), Pool: "seats", Slots: n,
		AtLeast: 1, For: time.Minute, Token: rand.Text()})
	return r.heard(b, err)
}

// extend has a block have n seats.
func (r *roamer) extend(id string, n int64) *plugin.Block {
	r.t.Helper()
	return r.heard(r.tryExtend(id, n))
}

func (r *roamer) tryExtend(id string, n int64) (*plugin.Block, error) {
	return r.Extend(context.Background(), &plugin.Extend{Request: r.request(), Block: id, Slots: n,
		For: time.Minute})
}

func (r *roamer) heard(b *plugin.Block, err error) *plugin.Block {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	r.state = b.State
	return b
}

// gave orders two servers of which an agent has a block: the one that gave it comes first.
func gave(x, y *branch) (first, second *branch) {
	if x.lends.Lent("seats") == 0 { // which one an agent asks first is by its key
		return y, x
	}
	return x, y
}

// leaves has a server stop, so that others take over what its agents have.
func (x *branch) leaves() {
	x.lends.Leave()
	x.lends.Left()
}

// A block that has come back to the server that gave it has what its agent has by the word of the server where it was
// meanwhile. What the first one had said before counts no more: by that, a block that had grown elsewhere was cut while
// the server kept slots for another agent, and what its agent held was given to others.
func TestBlockThatComesBack(t *testing.T) {
	all, doc := openBranches(t, 12, 12, 12)
	agents := []*roamer{roam(t, doc, all[0], all[1]), roam(t, doc, all[1], all[0])}
	one, two := agents[0], agents[1]
	got := one.checkOut(3)
	first, second := gave(all[0], all[1])
	first.leaves()
	if got = one.extend(got.ID, 3); got.Slots != 3 {
		t.Fatalf("the block has moved with %d of three slots", got.Slots)
	}
	if got = one.extend(got.ID, 4); got.Slots != 4 {
		t.Fatalf("the block has grown to %d slots, not to four", got.Slots)
	}
	other := two.checkOut(4)
	if n := second.lends.Lent("seats"); n != 8 {
		t.Fatalf("agents have %d slots of the second server", n)
	}
	if err := first.lends.Moved([]string{got.ID}); err != nil {
		t.Fatal(err)
	}
	first.lends.Stay()
	first.has, first.unsure = 0, true // from now on it has what moves to it
	first.stock()
	second.leaves()
	if _, err := two.tryExtend(other.ID, 4); err == nil {
		t.Fatal("a block has moved although the fleet does not answer")
	}
	first.unsure = false
	if got = one.extend(got.ID, 4); got.Slots != 4 {
		t.Errorf("the block has come back with %d of the four slots that its agent has", got.Slots)
	}
	if other = two.extend(other.ID, 4); other.Slots != 4 || first.lends.Lent("seats") != 8 {
		t.Errorf("the other has %d slots, and the server counts %d", other.Slots, first.lends.Lent("seats"))
	}
}

// A block that is not needed goes back although the server that gave it has stopped: another takes it over and back.
// The one that stops takes nothing back itself, because the fleet would not hear of it.
func TestBlockGoesBackToAnother(t *testing.T) {
	all, doc := openBranches(t, 12, 12, 12)
	one := roam(t, doc, all[0], all[1])
	got := one.checkOut(3)
	first, second := gave(all[0], all[1])
	first.lends.Stop()
	first.lends.Left()
	second.has = 0
	second.stock()
	if err := one.Return(t.Context(), &plugin.Return{Request: one.request(), Block: got.ID}); err != nil {
		t.Fatal(err)
	}
	if n := first.lends.Lent("seats"); n != 3 {
		t.Errorf("the server that stops has said that three slots are lent, and counts %d", n)
	}
	if n := second.lends.Lent("seats"); n != 0 || second.has != 3 {
		t.Errorf("of three slots the other has taken over %d, and agents have %d of them", second.has, n)
	}
	if got = one.checkOut(3); got.Slots != 3 {
		t.Errorf("%d of three slots are free", got.Slots)
	}
}

// A server that has taken a block over and stops before its agent was answered answers it still, with no more time than
// it keeps the slots for: so the agent has its word for the next server.
func TestBlockThatHasJustMoved(t *testing.T) {
	all, doc := openBranches(t, 12, 12, 12)
	one := roam(t, doc, all[0], all[1])
	got := one.checkOut(3)
	first, second := gave(all[0], all[1])
	first.leaves()
	second.then = func() {
		second.pass(4 * time.Second)
		second.leaves()
	}
	if got = one.extend(got.ID, 5); got.Slots != 3 || got.For != 6*time.Second {
		t.Errorf("of a block of ten seconds, kept for four, the agent has %d slots for %s", got.Slots, got.For)
	}
	first.lends.Stay()
	if err := first.lends.Moved([]string{got.ID}); err != nil {
		t.Fatal(err)
	}
	if got = one.extend(got.ID, 3); got.Slots != 3 || got.For != 10*time.Second || first.lends.Lent("seats") != 3 {
		t.Errorf("the block has come back with %d slots for %s", got.Slots, got.For)
	}
}

// An agent that has not heard which server took its block over is sent on by the one that gave it: its slots are kept
// there. They are not when the block's time is over.
func TestBlockThatHasMovedUnheard(t *testing.T) {
	all, doc := openBranches(t, 12, 12, 12)
	one := roam(t, doc, all[0], all[1])
	got := one.checkOut(3)
	first, second := gave(all[0], all[1])
	first.leaves()
	state := one.state
	one.extend(got.ID, 3)
	one.state = state // the answer was lost
	first.lends.Stay()
	if err := first.lends.Moved([]string{got.ID}); err != nil {
		t.Fatal(err)
	}
	if got = one.extend(got.ID, 3); got.Slots != 3 || second.lends.Lent("seats") != 3 ||
		first.lends.Lent("seats") != 0 {
		t.Errorf("the block has %d slots where it is", got.Slots)
	}
	one.state = state
	first.pass(10 * time.Second)
	var e *plugin.Error
	if _, err := one.tryExtend(got.ID, 3); !errors.As(err, &e) || e.SystemCode != plugin.SystemLapsed {
		t.Errorf("a block whose time is over: %v", err)
	}
}

// While a server does not know whether it has taken a block over, it keeps the slots for the block's agent; it does not
// where it knows that it has not.
func TestUnsureTakeOver(t *testing.T) {
	for _, unsure := range []bool{true, false} {
		all, doc := openBranches(t, 12, 12, 12)
		one := roam(t, doc, all[0], all[1])
		got := one.checkOut(3)
		first, second := gave(all[0], all[1])
		first.leaves()
		second.unsure, second.fails = unsure, !unsure
		if _, err := one.tryExtend(got.ID, 3); err == nil {
			t.Fatal("a block has moved although the fleet does not answer")
		}
		want := map[bool]int64{true: 3, false: 0}[unsure]
		if n := second.lends.Lent("seats"); n != want {
			t.Errorf("unsure %v: the server keeps %d slots, not %d", unsure, n, want)
		}
		if got := roam(t, doc, second).checkOut(12); got.Slots != 12-want {
			t.Errorf("unsure %v: another agent has %d slots of twelve", unsure, got.Slots)
		}
	}
}
