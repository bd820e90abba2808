package plugin

import (
	"fmt"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// Answers reports why an answer that the anchor has signed is not believed; nil: it is. It is dated at, received at
// now, and about a test licence or a production licence. The rules are those of documents, with one difference: an
// answer is of now, whatever date it bears, so that a key past its end signs no fresh one. A test key speaks of test
// licences alone.
func (a Anchor) Answers(test bool, at, now time.Time) error {
	const day = "2006-01-02"
	latest := at
	if now.After(at) {
		latest = now
	}
	switch {
	case a.Revoked:
		return fmt.Errorf("key %q is revoked", a.KeyID)
	case a.Environment == enforcer.Test && !test:
		return fmt.Errorf("key %q is for tests, and the licence is a production licence", a.KeyID)
	case !a.NotBefore.IsZero() && latest.Before(a.NotBefore):
		return fmt.Errorf("key %q signs only from %s on", a.KeyID, a.NotBefore.UTC().Format(day))
	case !a.NotAfter.IsZero() && latest.After(a.NotAfter):
		return fmt.Errorf("key %q signed only until %s", a.KeyID, a.NotAfter.UTC().Format(day))
	}
	return nil
}
