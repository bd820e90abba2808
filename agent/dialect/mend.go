package dialect

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/usher-agent/usher/agent/journal"
)

// Look says which sockets and stores of dialects are not as they must be; nil: all are.
func (a *Dialects) Look() error {
	var errs []error
	for _, l := range a.listeners {
		if l.socket != nil {
			errs = append(errs, l.socket.Look())
		}
	}
	for _, system := range slices.Sorted(maps.Keys(a.spoken)) {
		errs = append(errs, a.spoken[system].store.look())
	}
	return errors.Join(errs...)
}

// Mend binds sockets again and begins journals anew, where that is needed. locked says why the state folder is not the
// agent's own now, so that nothing is written there; nil: it is.
func (a *Dialects) Mend(locked error) error {
	var errs []error
	for _, l := range a.listeners {
		if l.socket != nil {
			errs = append(errs, l.socket.Mend())
		}
	}
	for _, system := range slices.Sorted(maps.Keys(a.spoken)) {
		if err := a.spoken[system].store.mend(locked); err != nil {
			errs = append(errs, fmt.Errorf("store of the %s dialect: %w", system, err))
		}
	}
	return errors.Join(errs...)
}

// look says why the store's journal is not well; nil: it is.
func (s *store) look() error {
	if err := s.journal.Look(); !errors.Is(err, journal.ErrClosed) {
		return err
	}
	return nil
}

// mend begins the journal anew with all that was written, where it is not well. Then that is safe, and can be read.
func (s *store) mend(locked error) error {
	why := cmp.Or(locked, s.look())
	if why == nil {
		return nil
	}
	s.journal.Fail(why)
	if locked != nil {
		return locked
	}
	if err := s.compact(); err != nil {
		return fmt.Errorf("%w; beginning it anew failed: %w", why, err)
	}
	s.seal()
	return s.settle()
}
