package enforcer

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// bench is an enforcer that is given verdicts over documents, and draws.
type bench struct {
	t    interface{ Fatalf(string, ...any) }
	e    *Enforcer
	log  []Event
	now  time.Time
	last uint16
}

func newBench(t interface{ Fatalf(string, ...any) }) *bench {
	return &bench{t: t, e: New(Options{Durable: true}), now: noon}
}

func (b *bench) apply(events []Event) {
	for _, ev := range events {
		b.e.Apply(ev)
		if len(ev.Draws) > 0 {
			b.log = append(b.log, ev)
		}
	}
}

func (b *bench) judge(docs ...Document) MeterGrant {
	v := Judge(factsWith(docs...), b.now)
	b.apply(b.e.Decide(&SetVerdict{v}, b.now).Events)
	b.apply(b.e.Decide(&TakeOver{}, b.now).Events)
	return v.Meters["renders"]
}

// again goes on with what the records say, as after a restart.
func (b *bench) again() {
	b.e = New(Options{Durable: true})
	for _, ev := range b.log {
		b.e.Apply(ev)
	}
}

// draw draws at most n, and returns how many it got.
func (b *bench) draw(n int64) int64 {
	b.last++
	d := b.e.Decide(&Acquire{ID: LeaseID{byte(b.last >> 8), byte(b.last)}, Pool: "renders", N: n, MinN: 1}, b.now)
	b.apply(d.Events)
	if d.Denial != nil {
		return 0
	}
	return d.Lease.Items[0].N
}

func (b *bench) shift(by int64) *Denial {
	d := b.e.Decide(&Shift{Pool: "renders", By: by, Caller: Caller{Admin: true}}, b.now)
	b.apply(d.Events)
	return d.Denial
}

func renders(max Limit, resets Resets) func(*License) {
	return func(l *License) { l.Meters = map[string]MeterTerm{"renders": {Max: max, Resets: resets}} }
}

// An add-on's draws are drawn once, whatever base it is added to, and by whichever of the vendor's keys that is signed.
func TestAddOnIsDrawnOnce(t *testing.T) {
	credits := doc("c.lic", id("credits"), role(RoleAddOn), renders(10, ResetsNever))
	bases := [][]Document{
		{doc("a.lic", id("free"), role(RoleFree)), credits},
		{doc("a.lic", id("base-1")), credits},
		{doc("a.lic", id("base-2"), supersedes("base-1")), credits},
		{doc("a.lic", id("base-2"), key("2027-a"), issued(0)), credits},
		{doc("a.lic", id("base-3")),
			doc("d.lic", id("credits"), role(RoleAddOn), renders(10, ResetsNever), key("2027-a"), issued(0)), credits},
	}
	b := newBench(t)
	got := int64(0)
	for range 4 {
		for _, docs := range bases {
			b.judge(docs...)
			got += b.draw(3)
			b.again()
		}
	}
	if got != 10 {
		t.Errorf("%d draws of 10", got)
	}
}

// Only the licence's own share resets.
func TestAddOnKeepsItsPeriod(t *testing.T) {
	docs := []Document{doc("a.lic", renders(5, ResetsMonthly)),
		doc("b.lic", id("credits"), role(RoleAddOn), renders(10, ResetsNever))}
	b := newBench(t)
	b.judge(docs...)
	if n := b.draw(8); n != 8 {
		t.Fatalf("%d of 8", n)
	}
	b.now = noon.AddDate(0, 1, 0)
	if g := b.judge(docs...); g.Limit != 15 || b.e.drawn(g, b.now).Drawn != 3 {
		t.Errorf("in the next month %d of %s are drawn, want 3 of 15", b.e.drawn(g, b.now).Drawn, g.Limit)
	}
	if n := b.draw(100); n != 12 {
		t.Errorf("%d draws are left, want 12", n)
	}
	if d := b.shift(1); d == nil || d.Code != MeterEmpty {
		t.Errorf("one more: %v", d)
	}
	if d := b.shift(-16); d == nil || d.Code != BadRequest {
		t.Errorf("back more than was drawn: %v", d)
	}
}

// Draws that a former version counted under the base's id alone stay drawn: of the base, and where it has not enough,
// of its add-ons.
func TestFormerDraws(t *testing.T) {
	for _, row := range []struct{ former, left int64 }{{0, 15}, {4, 11}, {7, 8}, {15, 0}, {20, 0}} {
		docs := []Document{doc("a.lic", renders(5, ResetsNever)),
			doc("b.lic", id("credits"), role(RoleAddOn), renders(10, ResetsNever))}
		b := newBench(t)
		b.apply([]Event{{Kind: EventSet, At: noon, Draws: []Draw{{Key: "L1/renders", Drawn: row.former}}}})
		g := b.judge(docs...)
		if n := b.e.drawn(g, b.now).Drawn; n != row.former {
			t.Errorf("%d were drawn, and %d count", row.former, n)
		}
		got := b.draw(1)
		b.again()
		b.judge(docs[0])
		b.judge(docs...)
		if got += b.draw(100); got != row.left {
			t.Errorf("%d were drawn, and %d are left, want %d", row.former, got, row.left)
		}
		if row.former > 5 { // what was the add-on's stays so under another base
			b.judge(doc("a.lic", id("L9")), docs[1])
			if n := b.draw(100); n != 0 {
				t.Errorf("%d were drawn, and another base gives %d again", row.former, n)
			}
		}
	}
}

// TestPartsAreDrawnOnce draws, takes back, sets and restarts under changing bases and add-ons, and holds what each
// licence gave against a ledger of its own.
func TestPartsAreDrawnOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBench(t)
		maxima, ids := map[string]Limit{}, []string{"base-1", "base-2", "x", "y"}
		for _, id := range ids {
			maxima[id] = Limit(rapid.IntRange(0, 9).Draw(t, id))
		}
		given := map[string]int64{} // by licence id
		of := func(name string) string { return "usher/" + name + "/renders" }
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			base := pick(t, "base", ids[0], ids[1])
			docs, there := []Document{doc("a.lic", id(base), renders(maxima[base], ResetsNever))}, []string{base}
			for _, name := range ids[2:] {
				if rapid.Bool().Draw(t, name) {
					docs, there = append(docs, doc(name+".lic", id(name), role(RoleAddOn),
						renders(maxima[name], ResetsNever))), append(there, name)
				}
			}
			g := b.judge(docs...)
			left, drawn := int64(0), int64(0)
			for _, name := range there {
				left, drawn = left+max(0, int64(maxima[name])-given[name]), drawn+given[name]
			}
			if got := b.e.drawn(g, b.now).Drawn; got != drawn {
				t.Fatalf("under %v %d are drawn, want %d", there, got, drawn)
			}
			n, change := rapid.Int64Range(1, 12).Draw(t, "n"), int64(0)
			switch pick(t, "step", "draw", "shift", "take back", "set", "restart") {
			case "draw":
				if change = b.draw(n); change != min(n, left) {
					t.Fatalf("%d drawn of %d, and %d were left", change, n, left)
				}
			case "shift":
				if d := b.shift(n); (d == nil) != (n <= left) {
					t.Fatalf("%d more, and %d were left: %v", n, left, d)
				} else if d == nil {
					change = n
				}
			case "take back":
				if d := b.shift(-n); (d == nil) != (n <= drawn) {
					t.Fatalf("%d back, and %d were drawn: %v", n, drawn, d)
				} else if d == nil {
					change = -n
				}
			case "set":
				b.apply(b.e.Decide(&Adjust{Pool: "renders", Drawn: n, Caller: Caller{Admin: true}}, b.now).Events)
				change = n - drawn
			case "restart":
				b.again()
			}
			sum := int64(0)
			for _, name := range ids {
				now := b.e.meters[of(name)].drawn
				if now < 0 || now != given[name] && !slices.Contains(there, name) {
					t.Fatalf("%s stands at %d, and was at %d", name, now, given[name])
				}
				if slices.Contains(there, name) {
					sum += now
				}
				given[name] = now
			}
			if sum != drawn+change {
				t.Fatalf("%d drawn, and %d more: all stand at %d", drawn, change, sum)
			}
		}
	})
}
