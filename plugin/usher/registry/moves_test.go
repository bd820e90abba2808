package registry_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
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
	unsure bool // the fleet does not answer
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
	if err := a.Reserve(a.Slots); err != nil {
		return false, err
	}
	if x.unsure {
		return true, plugin.Transiently("no answer")
	}
	x.has += a.Slots
	return false, a.Put(a.Slots, x.has, x.has, time.Hour)
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
	first, second := all[0], all[1]
	if first.lends.Lent("seats") == 0 { // which one an agent asks first is by its key
		first, second = second, first
	}
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
