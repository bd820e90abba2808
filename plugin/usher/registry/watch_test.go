package registry

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usher-agent/usher/plugin/usher/online"
)

// Of many agents with idle slots only as many are asked for them as have what is lacking, each for no more than it has,
// and no other until those had the time to act. What comes free is told to the agent that lacks it.
func TestNewsMovesFew(t *testing.T) {
	b, l := newBlocks(), siteLicence(100, 0)
	now := time.Duration(1)
	call := func(agent string, slots, least int64) *Block {
		x, c, refused := b.checkOut(&ask{agent: agent, license: l, newID: agent + fmt.Sprint(now), now: now,
			ttl:          blockTTL,
			BlockRequest: &online.BlockRequest{Pool: "seats", Slots: slots, AtLeast: least}})
		if refused != nil {
			return nil
		}
		b.apply(c)
		return x
	}
	all := func(string) bool { return true }
	blocks := map[string]*Block{}
	for i := range 20 {
		who := fmt.Sprintf("agent-%02d", i)
		blocks[who] = call(who, 5, 5)
		b.state(who, "L1", map[string]int64{"seats": 4, "each": 7}, now+time.Minute, now)
	}
	if call("starving", 10, 1) != nil {
		t.Fatal("there is a slot left")
	}
	told := b.news("L1", all, now)
	if len(told) != 3 || told["agent-00"]["seats"].Wanted != 4 || told["agent-02"]["seats"].Wanted != 2 {
		t.Fatalf("of 20 agents with 4 idle slots each these are asked for 10: %v", told)
	}
	if more := b.news("L1", all, now); len(more) != 0 {
		t.Errorf("others are asked too: %v", more)
	}
	if e := b.elsewhere(share{"L1", "seats"}, "starving", "", now); e.Out != 100 || e.Idle != 80 {
		t.Errorf("elsewhere there are %+v", e)
	}
	// One returns what it was asked for, and the agent that lacks them is told.
	x, c, refused := b.extend(&ask{agent: "agent-00", license: l, now: now, ttl: blockTTL,
		BlockRequest: &online.BlockRequest{ID: blocks["agent-00"].ID, Slots: 1}})
	if refused != nil || x.Slots != 1 {
		t.Fatalf("%+v, %+v", x, refused)
	}
	b.apply(c)
	if told = b.news("L1", all, now); len(told) != 1 || told["starving"]["seats"].Free != 4 {
		t.Errorf("4 are free, and these are told: %v", told)
	}
	if again := b.news("L1", all, now); len(again) != 0 {
		t.Errorf("it is told twice: %v", again)
	}
	// The others do not answer: next ones are asked, for what is still lacking.
	now += actWithin + 1
	told = b.news("L1", func(who string) bool { return who != "starving" }, now)
	n := int64(0)
	for who, of := range told {
		if n += of["seats"].Wanted; of["seats"].Wanted > 4 {
			t.Errorf("%s is asked for %+v", who, of)
		}
	}
	if n != 6 {
		t.Errorf("6 are lacking, and %d are asked for: %v", n, told)
	}
	// What is asked for ahead of need has nobody return anything.
	b, now = newBlocks(), 1
	call("holder", 100, 1)
	b.state("holder", "L1", map[string]int64{"seats": 50}, now+time.Minute, now)
	b.checkOut(&ask{agent: "greedy", license: l, newID: "g", now: now, ttl: blockTTL,
		BlockRequest: &online.BlockRequest{Pool: "seats", Slots: 5, Ahead: 5, AtLeast: 1}})
	if told := b.news("L1", all, now); len(told) != 0 {
		t.Errorf("slots that nobody needs yet are wanted back: %v", told)
	}
}

// Whatever agents ask, say and return: no more free slots are told at one time than are free, and no more are asked
// back than are lacking, nor from an agent than it has.
func TestNewsIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, l := newBlocks(), siteLicence(20, 0)
		s := share{"L1", "seats"}
		now, n := time.Duration(1), 0
		who := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		own := map[string][]string{}
		t.Repeat(map[string]func(*rapid.T){
			"check out": func(t *rapid.T) {
				n++
				slots := rapid.Int64Range(1, 12).Draw(t, "slots")
				a := &ask{agent: who.Draw(t, "who"), license: l, newID: fmt.Sprint(n), now: now, ttl: blockTTL,
					BlockRequest: &online.BlockRequest{Pool: "seats", Slots: slots, AtLeast: 1,
						Ahead: rapid.Int64Range(0, slots).Draw(t, "ahead")}}
				if x, c, refused := b.checkOut(a); refused == nil {
					b.apply(c)
					own[a.agent] = append(own[a.agent], x.ID)
				}
			},
			"extend": func(t *rapid.T) {
				a := &ask{agent: who.Draw(t, "who"), license: l, now: now, ttl: blockTTL}
				if len(own[a.agent]) == 0 {
					t.Skip("it has none")
				}
				a.BlockRequest = &online.BlockRequest{ID: rapid.SampledFrom(own[a.agent]).Draw(t, "block"),
					Slots: rapid.Int64Range(0, 12).Draw(t, "slots")}
				if _, c, refused := b.extend(a); refused == nil {
					b.apply(c)
				}
			},
			"state": func(t *rapid.T) {
				b.state(who.Draw(t, "who"), "L1", map[string]int64{"seats": rapid.Int64Range(-1, 30).Draw(t, "idle")},
					now+blockTTL, now)
			},
			"wait": func(t *rapid.T) { now += time.Duration(rapid.Int64Range(1, int64(5*time.Second)).Draw(t, "for")) },
			"news": func(t *rapid.T) {
				deaf := who.Draw(t, "deaf")
				told := b.news("L1", func(agent string) bool { return agent != deaf }, now)
				if len(told[deaf]) > 0 {
					t.Fatalf("%s does not watch, and is told %v", deaf, told[deaf])
				}
				var free, back, lacks int64
				for _, w := range b.missing[s] {
					lacks += w.slots
				}
				for agent, of := range told {
					n := of["seats"]
					if free, back = free+n.Free, back+n.Wanted; n.Free > 0 && n.Wanted > 0 || n.Free+n.Wanted == 0 {
						t.Fatalf("%s lacks slots, and is to return some: %+v", agent, n)
					}
					if n.Wanted > b.idle[s][agent].slots || n.Free > b.missing[s][agent].slots {
						t.Fatalf("%s has %+v idle, lacks %+v, and is told %+v", agent, b.idle[s][agent],
							b.missing[s][agent], n)
					}
				}
				if room := b.room(s, "", 20, now); free > room || back > max(0, lacks-room) {
					t.Fatalf("%d are free, and %d were told so; %d are lacking, and %d asked back", room, free, lacks,
						back)
				}
				if again := b.news("L1", func(string) bool { return true }, now); len(told) > 0 && len(again) > 0 {
					for agent := range again {
						if agent != deaf && len(told[agent]) > 0 {
							t.Fatalf("%s is told twice at one time", agent)
						}
					}
				}
			},
		})
	})
}
