package enforcer

import (
	"testing"
	"time"
)

// drawers is an enforcer whose callers draw from the site's meters renders and frames, of 20 each.
type drawers struct {
	*testing.T
	e    *Enforcer
	now  time.Time
	last byte
}

func newDrawers(t *testing.T, o Options) *drawers {
	o.Durable = true
	return &drawers{T: t, e: New(o), now: noon}
}

func (d *drawers) do(r Request) Decision {
	dec := d.e.Decide(r, d.now)
	for _, ev := range dec.Events {
		d.e.Apply(ev)
	}
	return dec
}

// taken puts a verdict in force under which the agent has taken so many renders and frames, and serves whoever waits.
func (d *drawers) taken(renders, frames Limit, more ...func(*Verdict)) []Event {
	grant := func(name string, n Limit) MeterGrant {
		return MeterGrant{Name: name, Key: "l/" + name, Limit: 20, Budget: n, Most: 20, Taken: true, Adjustable: true}
	}
	v := &Verdict{State: StateValid, Code: Valid, Meters: map[string]MeterGrant{"renders": grant("renders", renders),
		"frames": grant("frames", frames)}}
	for _, change := range more {
		change(v)
	}
	d.do(&SetVerdict{v})
	return d.serve(true)
}

func (d *drawers) serve(recheck bool) (out []Event) {
	for {
		dec := d.do(&Serve{Recheck: recheck})
		if len(dec.Events) == 0 {
			return out
		}
		out, recheck = append(out, dec.Events...), false
	}
}

// ask makes an acquire of so many renders that waits for an hour, or not at all.
func (d *drawers) ask(n int64, wait bool, more ...func(*Acquire)) Decision {
	d.last++
	r := &Acquire{ID: LeaseID{d.last}, Pool: "renders", N: n}
	if wait {
		r.Wait = time.Hour
	}
	for _, change := range more {
		change(r)
	}
	return d.do(r)
}

func (d *drawers) waits(what string, dec Decision) {
	d.Helper()
	if dec.Waiter == nil {
		d.Fatalf("%s does not wait: %+v", what, dec.Denial)
	}
}

// want wants the answers of waiters: by their ids, drawn or the code of their denial.
func (d *drawers) want(what string, got []Event, want ...any) {
	d.Helper()
	if 2*len(got) != len(want) {
		d.Fatalf("%s: got %+v, want %v", what, got, want)
	}
	for i, ev := range got {
		code := DenialCode("drawn")
		switch {
		case ev.Denial != nil:
			code = ev.Denial.Code
		case ev.Cause == CauseReplayed:
			code = "replayed"
		}
		if id := int(ev.Waiter.ID[0]); id != want[2*i] || string(code) != want[2*i+1] {
			d.Errorf("%s: %d is %s, want %v", what, id, code, want)
		}
	}
}

// Nobody passes those that wait for draws: neither an acquire that would fit and does not wait, nor one that waits, nor
// an adjustment upwards.
func TestDrawsAreNotPassed(t *testing.T) {
	d := newDrawers(t, Options{})
	d.taken(2, 0)
	d.waits("the first", d.ask(5, true))
	if dec := d.ask(1, false); dec.Denial == nil || dec.Denial.Code != MeterEmpty || !dec.Denial.MayGrow ||
		dec.Denial.Detail != "meter renders: 2 draws are left, and 1 acquires wait for draws of it" {
		t.Errorf("one that does not wait: %+v", dec)
	}
	d.waits("one behind", d.ask(1, true))
	shift := &Shift{Pool: "renders", By: 1}
	if dec := d.do(shift); dec.Denial == nil || dec.Denial.Code != MeterEmpty {
		t.Errorf("an adjustment: %+v", dec)
	}
	if p, _ := d.e.Pool("renders", d.now); p.Waiting != 6 || p.InUse != 0 {
		t.Errorf("%d are waited for, and %d drawn", p.Waiting, p.InUse)
	}
	d.want("too few", d.taken(4, 0))
	d.want("enough", d.taken(6, 0), 1, "drawn", 3, "drawn")
	d.taken(7, 0)
	if dec := d.do(shift); dec.Denial != nil {
		t.Errorf("an adjustment when nobody waits: %v", dec.Denial)
	}
}

// Of several meters all is drawn or nothing, and what waiting cannot help is said at once, in whichever order the
// meters are named.
func TestDrawsOfSeveralMeters(t *testing.T) {
	d := newDrawers(t, Options{})
	d.taken(0, 5)
	items := func(renders, frames int64) func(*Acquire) {
		return func(r *Acquire) {
			r.Pool, r.N, r.Items = "", 0, []Item{{Pool: "renders", N: renders}, {Pool: "frames", N: frames}}
		}
	}
	if dec := d.ask(0, true, items(1, 21)); dec.Denial == nil || dec.Denial.Pool != "frames" || dec.Denial.MayGrow {
		t.Errorf("more than there will ever be: %+v", dec)
	}
	d.waits("both", d.ask(0, true, items(2, 3)))
	frames := func(r *Acquire) { r.Pool = "frames" }
	d.waits("frames alone, behind it", d.ask(2, true, frames))
	d.want("one of the two", d.taken(1, 9))
	d.want("both", d.taken(2, 9), 2, "drawn", 3, "drawn")
}

// Draws do not come back: what an earlier waiter gets may leave too little for a later one, which is turned away when
// its turn comes, and those behind it are served.
func TestDrawsInVain(t *testing.T) {
	d := newDrawers(t, Options{})
	d.taken(0, 0)
	d.waits("the first", d.ask(12, true))
	d.waits("the second", d.ask(10, true))
	d.waits("the third", d.ask(8, true))
	d.want("all that there is", d.taken(20, 0), 1, "drawn", 2, "meter_empty", 3, "drawn")

	d.taken(20, 0, func(v *Verdict) {
		v.Meters["renders"] = MeterGrant{Name: "renders", Key: "next", Most: 20,
			Taken: true}
	})
	d.waits("under another licence", d.ask(3, true))
	d.waits("also", d.ask(4, true))
	d.want("the rest is another's", d.taken(0, 0, func(v *Verdict) {
		v.Meters["renders"] = MeterGrant{Name: "renders", Key: "next", Budget: 3, Most: 3, Taken: true}
	}), 5, "meter_empty", 4, "drawn")
}

// A new verdict turns away those that it grants nothing: when it is bad, and when the name is a pool's now, or
// nobody's.
func TestDrawsUnderAnotherVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Verdict)
		code   string
	}{
		"bad":      {func(v *Verdict) { v.State, v.Code = StateExpired, Expired }, "license_expired"},
		"no meter": {func(v *Verdict) { delete(v.Meters, "renders") }, "pool_unknown"},
		"a pool": {func(v *Verdict) {
			delete(v.Meters, "renders")
			v.Pools = map[string]PoolGrant{"renders": {Name: "renders", Limit: 9, Budget: 9, Most: 9}}
		}, "pool_unknown"},
		"nothing to share it by": {func(v *Verdict) {
			v.Meters["renders"] = MeterGrant{Name: "renders", NotShared: "nothing proves it"}
		}, "not_shared"},
		"the state was changed": {func(v *Verdict) { v.Withheld.Draws = "the journal was changed" }, "storage"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDrawers(t, Options{})
			d.taken(0, 0)
			d.waits("one", d.ask(1, true))
			d.want(name, d.taken(0, 0, c.change), 1, c.code)
			if dec := d.ask(1, true, func(r *Acquire) { r.Pool = "frames" }); name == "a pool" && dec.Waiter == nil {
				t.Errorf("of another meter: %+v", dec.Denial)
			}
		})
	}
}

// A waiter whose client token has got draws meanwhile gets those, in its turn, when its time is up, and when it is
// turned away; they are drawn once.
func TestDrawsWithOneToken(t *testing.T) {
	token := func(r *Acquire) { r.Token = "t" }
	d := newDrawers(t, Options{})
	d.taken(0, 0)
	d.waits("the first", d.ask(3, true, token))
	d.waits("its repetition", d.ask(3, true, token))
	d.want("enough for one", d.taken(3, 0), 1, "drawn", 2, "replayed")

	for name, end := range map[string]func(*drawers) []Event{
		"time is up": func(d *drawers) []Event {
			d.now = d.now.Add(time.Hour)
			return d.do(&Tick{}).Events
		},
		"turned away": func(d *drawers) []Event {
			return d.taken(3, 0, func(v *Verdict) { v.State, v.Code = StateExpired, Expired })
		},
	} {
		d := newDrawers(t, Options{})
		d.taken(0, 0)
		d.waits("the first", d.ask(3, true, token))
		d.waits("one between", d.ask(9, true))
		d.waits("the repetition", d.ask(3, true, token))
		d.want("enough for the first", d.taken(3, 0), 1, "drawn")
		code := "meter_empty"
		if name == "turned away" {
			code = "license_expired"
		}
		d.want(name, end(d), 2, code, 3, "replayed")
		if p, _ := d.e.Pool("renders", d.now); p.InUse != 3 || d.e.Waiting() != 0 {
			t.Errorf("%s: %d are drawn, and %d wait", name, p.InUse, d.e.Waiting())
		}
	}
}

// One user cannot fill the queue for draws, nor the memory by what waits in it.
func TestDrawsWaitWithinBounds(t *testing.T) {
	d := newDrawers(t, Options{MaxWaiters: 4})
	d.taken(0, 0)
	by := func(uid uint32) func(*Acquire) { return func(r *Acquire) { r.Caller.UID = uid } }
	for range 2 {
		d.waits("one of two", d.ask(1, true, by(1)))
	}
	if dec := d.ask(1, true, by(1)); dec.Denial == nil || dec.Denial.Code != RateLimited {
		t.Errorf("a third of one user: %+v", dec)
	}
	d.waits("another user's", d.ask(1, true, by(2)))
	for id := byte(1); id <= 4; id++ {
		d.do(&Cancel{ID: LeaseID{id}})
	}
	if d.e.Waiting() != 0 || len(d.e.forDraws) != 0 || len(d.e.accounts) != 0 {
		t.Errorf("%d wait, %d queues and %d accounts are left", d.e.Waiting(), len(d.e.forDraws), len(d.e.accounts))
	}
}
