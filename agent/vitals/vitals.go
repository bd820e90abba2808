// Package vitals watches what the agent cannot do without: that what decides moves, and that the files by which it is
// reached and remembers are where the next start will look for them. What can be mended is mended. Whether the agent is
// ready, and whether the service manager's watchdog is fed, hangs on what is seen here, and not on a timer. Start
// reading at [Vitals.Run].
package vitals

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// The pace of looking, and for how long what decides may stand still.
const (
	Every      = time.Second
	StillAfter = 10 * time.Second
)

// Mover is something that decides: a loop that goes round when it is asked to, and counts its rounds.
type Mover interface {
	// Look has it go round now, and waits for nothing.
	Look()
	// Rounds returns how often it has gone round.
	Rounds() uint64
}

// Part is something that must be as it was made.
type Part struct {
	Name string
	// Look says why the part is not as it must be; nil: it is. It is called about every second, and after Mend.
	Look func() error
	// Mend makes it so again. Its error says why it cannot. nil: the part mends itself.
	Mend func() error
}

// Fault is a part that is not as it must be.
type Fault struct {
	Part, Reason string
	Since        time.Time
}

// Config is what New needs.
type Config struct {
	Movers map[string]Mover // by the name of the part
	Parts  []Part
	Now    func() time.Time // the wall clock
	// Beat says how long it is until the next look, of those that come so often; nil: that long.
	Beat func(every time.Duration) time.Duration
	Log  *slog.Logger
}

// Vitals knows what is wrong. Make one with New. It is safe for concurrent use.
type Vitals struct {
	c Config

	mu     sync.Mutex // guards all below; a leaf
	begun  bool
	looked time.Time // when the movers were looked at last
	parts  time.Time // when the parts were
	movers map[string]*moving
	faults map[string]Fault
}

// moving is how a mover was seen last.
type moving struct {
	rounds uint64
	moved  time.Time
}

// New returns Vitals that find no fault before Run.
func New(c Config) *Vitals {
	if c.Beat == nil {
		c.Beat = func(every time.Duration) time.Duration { return every }
	}
	v := &Vitals{c: c, movers: map[string]*moving{}, faults: map[string]Fault{}}
	for name := range c.Movers {
		v.movers[name] = &moving{}
	}
	return v
}

// Unfit says of each part whether it is not as it must be.
func (v *Vitals) Unfit() map[string]bool {
	out := map[string]bool{"files": false}
	for name := range v.c.Movers {
		out[name] = false
	}
	for _, p := range v.c.Parts {
		out[p.Name] = false
	}
	for _, f := range v.Faults() {
		out[f.Part] = true
	}
	return out
}

// Run looks until ctx ends. It returns nil.
func (v *Vitals) Run(ctx context.Context) error {
	done := make(chan struct{})
	go func() { // a disk that hangs keeps nobody from looking at the movers
		defer close(done)
		v.every(ctx, func() { v.lookAtParts(ctx) })
	}()
	v.every(ctx, v.lookAtMovers)
	select {
	case <-done:
	case <-time.After(StillAfter): // nor the agent from ending
	}
	return nil
}

func (v *Vitals) every(ctx context.Context, look func()) {
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		tick.Reset(v.c.Beat(Every))
		look()
	}
}

// lookAtMovers sees who has moved since the last look, and has everybody move.
func (v *Vitals) lookAtMovers() {
	v.mu.Lock()
	now := time.Now()
	away := now.Sub(v.looked) // where it is long, this process did not run
	if v.begun && away > 3*Every {
		v.parts = v.parts.Add(away)
	}
	for name, m := range v.c.Movers {
		is := v.movers[name]
		switch rounds := m.Rounds(); {
		case !v.begun, rounds != is.rounds:
			is.rounds, is.moved = rounds, now
		case away > 3*Every:
			is.moved = is.moved.Add(away)
		}
	}
	if !v.begun {
		v.parts = now
	}
	v.looked, v.begun = now, true
	reason := ""
	if now.Sub(v.parts) > StillAfter {
		reason = "a file system does not answer, so that it is not known whether the agent's files are there"
	}
	v.set("files", reason)
	for name, is := range v.movers {
		reason := ""
		if now.Sub(is.moved) > StillAfter {
			reason = "it has stood still for more than " + seconds(StillAfter) +
				", so that the agent decides nothing; " +
				"start the agent again, and report the log"
		}
		v.set(name, reason)
	}
	v.mu.Unlock()
	for _, m := range v.c.Movers {
		m.Look()
	}
}

// lookAtParts looks at each part and mends it. What is not well once ctx has ended is no fault: the agent stops.
func (v *Vitals) lookAtParts(ctx context.Context) {
	defer func() {
		v.mu.Lock()
		v.parts = time.Now()
		v.mu.Unlock()
	}()
	for _, p := range v.c.Parts {
		err := p.Look()
		if err != nil && p.Mend != nil && ctx.Err() == nil {
			wrong := err
			if err = cmp.Or(p.Mend(), p.Look()); err == nil {
				v.c.Log.Warn("a vital part was not as it must be, and is mended", "part", p.Name, "was", wrong)
			}
		}
		if err != nil && ctx.Err() != nil {
			return
		}
		reason := ""
		if err != nil {
			reason = err.Error()
		}
		v.mu.Lock()
		v.set(p.Name, reason)
		v.mu.Unlock()
	}
}

// set notes what is wrong with a part; empty: nothing is. v.mu is held.
func (v *Vitals) set(name, reason string) {
	switch was, is := v.faults[name]; {
	case reason == "" && is:
		delete(v.faults, name)
		v.c.Log.Info("a vital part is well again", "part", name)
	case reason != "" && !is:
		v.faults[name] = Fault{name, reason, v.c.Now()}
		v.c.Log.Error("a vital part is not well, and the agent is not ready", "part", name, "reason", reason)
	case reason != "":
		was.Reason = reason
		v.faults[name] = was
	}
}

// still returns for how long nobody has looked at the movers; zero: not for too long. v.mu is held.
func (v *Vitals) still() time.Duration {
	if d := time.Since(v.looked); v.begun && d > StillAfter {
		return d.Truncate(time.Second)
	}
	return 0
}

// Faults returns what is wrong, by part.
func (v *Vitals) Faults() []Fault {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := []Fault{}
	for _, f := range v.faults {
		out = append(out, f)
	}
	if d := v.still(); d > 0 {
		out = append(out, Fault{"vitals", "nobody has looked for " + seconds(d),
			v.c.Now().Add(-d)})
	}
	slices.SortFunc(out, func(a, b Fault) int { return cmp.Compare(a.Part, b.Part) })
	return out
}

// Moving reports whether everything that decides has moved of late. The parts do not matter here: to start the agent
// again would not mend them.
func (v *Vitals) Moving() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.still() > 0 {
		return false
	}
	for name := range v.movers {
		if _, bad := v.faults[name]; bad {
			return false
		}
	}
	return true
}

// seconds writes a span in words.
func seconds(d time.Duration) string { return fmt.Sprintf("%.0f seconds", d.Seconds()) }
