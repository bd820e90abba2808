package enforcer

import (
	"fmt"
	"strings"
	"time"
)

// hostClock is a host of a story, whose clocks the agent reads.
type hostClock struct {
	machine
	last   time.Time // licence time
	read   time.Duration
	judged Clock
}

// runClock runs a command of a story of clocks:
//
//	host [TIME]             from now on the agent's clock is a host's, which may be wrong
//	run DURATION            lets time pass
//	suspend DURATION        the host sleeps
//	wall +DURATION|-DURATION|right|TIME   sets the wall clock
//	boot off=DURATION wall=right|TIME     starts the host again after it was off
//	restart                 starts the agent again
//	learn                   an upstream signs the right time
//	heal                    a document, issued now, resets the clock
//	clock                   shows
func (s *story) runClock(f []string) error {
	h := s.host
	if h == nil && f[0] != "host" {
		return fmt.Errorf("no such command")
	}
	switch f[0] {
	case "host":
		s.host = &hostClock{machine: machine{Clocks: Clocks{Wall: s.now, Boot: time.Hour, BootID: "b"}, real: s.now}}
		if len(f) > 1 {
			at, err := s.wall(f[1])
			if err != nil {
				return err
			}
			s.host.Wall = at
		}
		s.look(false)
	case "run", "suspend":
		d, err := duration(f[1])
		if err != nil {
			return err
		}
		for step := d; d > 0; d -= step {
			if f[0] == "run" {
				step = min(d, max(time.Second, min(time.Hour, d/600)))
			}
			h.real, h.Wall, h.Boot = h.real.Add(step), h.Wall.Add(step), h.Boot+step
			s.look(false)
		}
	case "wall":
		at, err := s.wall(f[1])
		if err != nil {
			return err
		}
		h.Wall = at
		s.look(false)
	case "boot":
		off, err := duration(strings.TrimPrefix(f[1], "off="))
		if err != nil {
			return err
		}
		h.real = h.real.Add(off)
		at, err := s.wall(strings.TrimPrefix(f[2], "wall="))
		if err != nil {
			return err
		}
		h.Clocks = Clocks{Wall: at, Boot: 5 * time.Second, BootID: h.BootID + "'"}
		h.last = zeroTime
		s.look(true)
	case "restart":
		h.last = zeroTime
		s.look(true)
	case "learn":
		h.mark = h.mark.Learn(h.Clocks, s.signed(), h.real)
		s.look(false)
	case "heal":
		h.mark, _ = h.mark.Heal(h.Clocks, h.real)
		s.look(false)
	case "clock":
		now, c := h.mark.Now(h.Clocks, s.signed())
		s.say("licence time %s from the %s; wall clock %s; right %s", s.at(now), c.From, s.at(h.Wall), s.at(h.real))
		if c.Behind > 0 {
			s.say("  behind by %v since %s", c.Behind, s.at(c.BehindSince))
		}
		if c.Ahead > 0 {
			s.say("  ahead by %v for %v", c.Ahead, c.AheadFor)
		}
	default:
		return fmt.Errorf("no such command")
	}
	return nil
}

// signed returns the date of the documents that is evidence of the time. It says when those that are dated ahead were
// first seen.
func (s *story) signed() time.Time {
	would := func(signed time.Time) (time.Time, Clock) { return s.host.mark.Now(s.host.Clocks, signed) }
	bare, _ := would(zeroTime)
	for i, d := range s.facts.Documents {
		if IsSet(bare) && d.Arrived.IsZero() {
			s.facts.Documents[i].Arrived = bare
		}
	}
	return Evidence(s.facts, "usher", would)
}

// right returns the right time.
func (s *story) right() time.Time {
	if s.host != nil {
		return s.host.real
	}
	return s.now
}

func (s *story) wall(v string) (time.Time, error) {
	switch {
	case v == "right":
		return s.host.real, nil
	case v[0] == '+' || v[0] == '-':
		d, err := duration(strings.TrimPrefix(v, "+"))
		return s.host.Wall.Add(d), err
	default:
		return time.Parse(time.RFC3339, v)
	}
}

// look reads the host's clocks, as the agent does before each decision and whenever the clock is set.
func (s *story) look(judge bool) {
	h, signed := s.host, s.signed()
	now, clock := h.mark.Now(h.Clocks, signed)
	h.mark = h.mark.Advance(h.Clocks, signed)
	by := Stepped(h.last, now, h.Boot-h.read)
	h.last, h.read, s.now, s.facts.Clock = now, h.Boot, now, clock
	if by != 0 {
		s.say("%s  the time was set by %v", s.at(now), by)
		s.one(&Step{By: by})
	}
	if moved := (clock.Behind - h.judged.Behind).Abs() >= time.Second; judge ||
		s.e.Verdict() != nil && (by != 0 || moved || due(s.e.Verdict().JudgeAgainAt, now)) {
		h.judged = clock
		was := s.e.Verdict()
		next := Judge(s.facts, now)
		if judge || was.Code != next.Code {
			s.judgeNow()
		} else {
			s.e.Apply(Event{Kind: EventVerdict, At: now, Verdict: next})
		}
	}
	for due(s.e.NextTick(), now) && s.one(&Tick{}) {
	}
}

func due(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }
