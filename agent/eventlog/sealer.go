package eventlog

import "time"

// Sealer has somebody else know the last line of a log. It is of one goroutine.
type Sealer struct {
	seal     func(Head)
	is, said Head
	timer    *time.Timer // nil: nothing is due
}

// NewSealer returns a sealer that calls seal; nil: it does nothing.
func NewSealer(seal func(Head)) *Sealer { return &Sealer{seal: seal} }

// Soon says what the last line is. Due tells when it is to be sealed.
func (s *Sealer) Soon(is Head) {
	s.is = is
	if s.seal != nil && s.timer == nil && s.is != s.said {
		s.timer = time.NewTimer(sealAfter)
	}
}

// Due returns a channel that tells when Now is to be called; nil: nothing is due.
func (s *Sealer) Due() <-chan time.Time {
	if s.timer == nil {
		return nil
	}
	return s.timer.C
}

// Now seals the last line, where it is another than before.
func (s *Sealer) Now() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if s.seal != nil && s.is != s.said {
		s.seal(s.is)
		s.said = s.is
	}
}
