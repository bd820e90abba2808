package registry

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// siteLicence has one pool of a whole site's.
func siteLicence(max, overage enforcer.Limit) *enforcer.License {
	return &enforcer.License{ID: "L1", Pools: map[string]enforcer.PoolTerm{"seats": {Max: max, Overage: overage}, "each": {Max: 9, Scope: enforcer.ScopeHost}}}
}

// believed is a block as an agent has it.
type believed struct {
	id    string
	slots int64
	until time.Duration
}

// Whatever agents ask, in whatever order, with answers lost, the server restarted and time passing: what agents may use
// together is never more than the licence grants, and what is kept fits into it too.
func TestBlocksNeverExceed(t *testing.T) {
	const ttl = 10 * time.Second
	rapid.Check(t, func(t *rapid.T) {
		b, now, n := newBlocks(), time.Duration(0), 0
		total := enforcer.Limit(rapid.Int64Range(0, 12).Draw(t, "limit"))
		overage := enforcer.Limit(rapid.Int64Range(0, 3).Draw(t, "overage"))
		l := siteLicence(total, overage)
		agents := map[string][]believed{"a": nil, "b": nil, "c": nil}
		usable := func() (sum int64) {
			for _, own := range agents {
				for _, x := range own {
					if x.until > now {
						sum += x.slots
					}
				}
			}
			return sum
		}
		pick := func() (string, int) {
			who := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "agent")
			if len(agents[who]) == 0 {
				return who, -1
			}
			return who, rapid.IntRange(0, len(agents[who])-1).Draw(t, "block")
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			before := max(usable(), b.out(share{"L1", "seats"}, "", now)) // more only where the limit became less
			who, i := pick()
			n++
			a := &ask{agent: who, license: l, newID: fmt.Sprint("new", n), now: now, ttl: ttl, BlockRequest: &online.BlockRequest{Pool: "seats",
				Slots: rapid.Int64Range(1, 6).Draw(t, "slots"), AtLeast: 1, Seconds: rapid.Int64Range(0, 12).Draw(t, "seconds"), Token: rapid.SampledFrom([]string{"", "t1", "t2"}).Draw(t, "token")}}
			sent := now - time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "on the way"))
			lost := rapid.IntRange(0, 4).Draw(t, "lost") == 0
			hear := func(x *Block, at int) {
				if lost {
					return
				}
				now := believed{x.ID, x.Slots, sent + time.Duration(a.seconds())*time.Second}
				if at < 0 {
					for i, o := range agents[who] {
						if o.id == x.ID {
							at = i
						}
					}
				}
				if at < 0 {
					agents[who] = append(agents[who], now)
				} else {
					agents[who][at] = now
				}
			}
			switch step := rapid.IntRange(0, 9).Draw(t, "step"); {
			case step < 4:
				x, c, refused := b.checkOut(a)
				if b.apply(c); refused == nil {
					hear(x, -1)
				}
			case step < 6 && i >= 0:
				a.ID, a.Slots = agents[who][i].id, rapid.Int64Range(0, 8).Draw(t, "new size")
				if a.Slots > 0 && a.Slots < agents[who][i].slots {
					agents[who][i].slots = a.Slots // who wants less uses less from before it asks
				}
				x, c, refused := b.extend(a)
				if b.apply(c); refused == nil {
					if a.Slots > 0 && x.Slots < min(a.Slots, agents[who][i].slots) {
						t.Fatalf("a block of %d was to have %d slots, and has %d", agents[who][i].slots, a.Slots, x.Slots)
					}
					hear(x, i)
				}
			case step == 6 && i >= 0:
				id := agents[who][i].id
				agents[who] = append(agents[who][:i:i], agents[who][i+1:]...) // before it says so
				if !lost {
					b.apply(b.giveBack(who, id))
				}
			case step == 7: // the server is started anew
				kept := newBlocks()
				for _, x := range b.by {
					y := *x
					y.until = now + y.span()
					kept.apply(change{put: []*Block{&y}})
				}
				b = kept
			case step == 8:
				total = enforcer.Limit(rapid.Int64Range(0, 12).Draw(t, "new limit"))
				l = siteLicence(total, overage)
			default:
				now += time.Duration(rapid.Int64Range(0, int64(ttl)).Draw(t, "time"))
			}
			if sum := usable(); sum > int64(total+overage) && sum > before {
				t.Fatalf("agents may use %d slots of %d and %d beyond", sum, total, overage)
			}
			var kept int64
			for _, x := range b.by {
				kept += x.Slots
			}
			if kept > 15 { // the largest limit there is
				t.Fatalf("%d slots are kept as out", kept)
			}
		}
	})
}

func TestBlocks(t *testing.T) {
	b, l, now := newBlocks(), siteLicence(4, 1), time.Duration(0)
	n := 0
	take := func(agent, token string, slots, least int64) (*Block, *online.Refusal) {
		n++
		x, c, refused := b.checkOut(&ask{agent: agent, license: l, newID: fmt.Sprint(n), now: now, ttl: 10 * time.Second,
			BlockRequest: &online.BlockRequest{Pool: "seats", Slots: slots, AtLeast: least, Token: token}})
		b.apply(c)
		return x, refused
	}
	more := func(agent, id string, slots int64) (*Block, *online.Refusal) {
		x, c, refused := b.extend(&ask{agent: agent, license: l, now: now, ttl: 10 * time.Second, BlockRequest: &online.BlockRequest{ID: id, Slots: slots}})
		b.apply(c)
		return x, refused
	}
	first, _ := take("a", "t", 3, 1)
	if again, _ := take("a", "t", 3, 1); again == nil || again.ID != first.ID || again.Slots != 3 {
		t.Errorf("with one token: %+v, %+v", first, again)
	}
	if other, _ := take("b", "t", 4, 1); other == nil || other.ID == first.ID || other.Slots != 2 {
		t.Errorf("another agent with that token has %+v", other)
	}
	if _, refused := take("c", "", 2, 1); refused == nil || refused.System != plugin.SystemFull || refused.Code != "" {
		t.Errorf("of a pool that is full: %+v", refused)
	}
	if got := b.wanted(share{"L1", "seats"}, "a", now); got != 4 { // b's two and c's two
		t.Errorf("others want %d", got)
	}
	if got := b.wanted(share{"L1", "seats"}, "a", now+6*time.Second); got != 0 {
		t.Errorf("after a while others want %d still", got)
	}
	if _, refused := more("b", first.ID, 0); refused == nil || refused.System != plugin.SystemLapsed {
		t.Errorf("another's block was extended: %+v", refused)
	}
	b.apply(b.giveBack("b", first.ID))
	if b.by[first.ID] == nil {
		t.Error("another's block was given back")
	}
	if x, _ := more("a", first.ID, 1); x == nil || x.Slots != 1 {
		t.Errorf("smaller: %+v", x)
	}
	if x, _ := more("a", first.ID, 9); x == nil || x.Slots != 3 {
		t.Errorf("larger, where 2 are left: %+v", x)
	}
	// It is over; while nobody has the slots it can be had again.
	now = 11 * time.Second
	if x, refused := more("a", first.ID, 0); x == nil {
		t.Errorf("over, and room: %+v", refused)
	}
	now = 22 * time.Second
	if x, _ := take("c", "", 5, 5); x == nil {
		t.Fatal("the slots of what is over cannot be had")
	}
	if _, refused := more("a", first.ID, 0); refused == nil || refused.System != plugin.SystemLapsed {
		t.Errorf("over, and no room: %+v", refused)
	}
	if _, refused := take("a", "", 1, 1); refused == nil {
		t.Error("a sixth slot of five")
	}
	for _, bad := range []online.BlockRequest{{Pool: "each", Slots: 1}, {Pool: "none", Slots: 1}, {Pool: "seats"}, {Pool: "seats", Slots: 1, AtLeast: 2}, {Pool: "seats", Slots: 1 << 50}} {
		if _, _, refused := b.checkOut(&ask{agent: "a", license: l, newID: "x", BlockRequest: &bad, ttl: time.Second}); refused == nil {
			t.Errorf("%+v was given", bad)
		}
	}
	// Where holders are told to stop, the slots are kept back until they have.
	l.OnExpiry = enforcer.Revoke
	now = time.Hour
	take("d", "", 5, 5)
	now += 20 * time.Second
	if _, refused := take("e", "", 1, 1); refused == nil {
		t.Error("slots were had before their holders were told to stop")
	}
	now += 6 * time.Second
	if _, refused := take("e", "", 1, 1); refused != nil {
		t.Errorf("after that: %+v", refused)
	}
}
