package court

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/usher-agent/usher/enforcer"
)

// maxReason is the longest reason of an emergency, in bytes.
const maxReason = 500

// errDenied says that a denial was found before anything was recorded.
var errDenied = errors.New("denied")

// BeginEmergency spends an emergency of the licence that needs one. It counts, and is judged, when BeginEmergency
// returns; it returns the licence and the time, too.
func (c *Court) BeginEmergency(reason string) (*enforcer.License, Emergency, *enforcer.Denial) {
	reason = strings.TrimSpace(reason)
	switch {
	case reason == "":
		return nil, Emergency{}, &enforcer.Denial{Code: enforcer.BadRequest, Field: "reason",
			Detail: "reason is missing", Hint: "say in a sentence why: the vendor is told"}
	case len(reason) > maxReason || strings.ContainsFunc(reason, unicode.IsControl):
		return nil, Emergency{}, &enforcer.Denial{Code: enforcer.BadRequest, Field: "reason",
			Detail: fmt.Sprintf("reason has %d bytes, or characters that cannot be printed", len(reason)),
			Hint:   fmt.Sprintf("give one line of at most %d bytes", maxReason)}
	}
	var spent *enforcer.License
	var begun Emergency
	var denial *enforcer.Denial
	// The history looks at one change after the other, so that the last emergency of a licence is spent once.
	err := c.history.change(nil, func(licenses map[enforcer.Ref]past) error {
		var now time.Time
		if spent, now, denial = c.mayBeginEmergency(); denial != nil {
			return errDenied
		}
		begun = Emergency{now, now.Add(spent.Emergency.Length), reason}
		addEmergency(licenses, spent.Ref(), begun)
		return nil
	})
	switch {
	case denial != nil:
		return nil, Emergency{}, denial
	case err != nil:
		return nil, Emergency{}, &enforcer.Denial{Code: enforcer.Storage,
			Detail: "the emergency could not be recorded, and has not begun: " + err.Error(),
			Hint:   "see to the disk that state.dir is on"}
	}
	c.Rejudge()
	return spent, begun, nil
}

// mayBeginEmergency returns the licence that an emergency begun now is spent on.
func (c *Court) mayBeginEmergency() (*enforcer.License, time.Time, *enforcer.Denial) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.cfg.Desk.Timing()
	if !c.ready {
		return nil, at.Now, &enforcer.Denial{Code: enforcer.EmergencyRefused,
			Detail: "the licence folder has not been read yet", Hint: "try again in a moment"}
	}
	facts := c.facts
	facts.Documents, facts.Clock = c.documents(nil), at.Clock
	c.arrive(facts.Documents)
	c.fill(&facts, at.Now)
	l, denial := enforcer.MayBeginEmergency(facts, enforcer.Judge(facts, at.Now), at.Now)
	if denial != nil {
		denial.Code = enforcer.EmergencyRefused
	}
	return l, at.Now, denial
}

// Return is what is recorded of a licence that was returned.
type Return struct {
	Ref      enforcer.Ref
	At       time.Time
	Product  string
	Document string // SHA-256 of what was returned, in hex
}

// GiveBack records that a licence is returned to the vendor, which stops it here for good: it is judged when GiveBack
// returns. Asked again it returns what was recorded then, and fresh is false.
func (c *Court) GiveBack(id string) (back Return, fresh bool, denial *enforcer.Denial) {
	err := c.history.change(nil, func(licenses map[enforcer.Ref]past) error {
		l, document, now := c.meant(id)
		ref, _ := returnedAs(licenses, id)
		if l != nil {
			ref = l.Ref()
		}
		was := pastOf(licenses, ref)
		back = Return{ref, was.Returned, was.Product, was.Document}
		before := !was.Returned.IsZero()
		switch {
		case l == nil && !before:
			denial = &enforcer.Denial{Code: enforcer.DocumentUnknown, Field: "license",
				Detail: fmt.Sprintf("there is no licence %q here that verifies", id),
				Hint:   "`usher license list` shows what is there"}
			return errDenied
		case l == nil || before && !l.Issued.After(was.Returned):
			return nil // nothing changes
		}
		sum := sha256.Sum256(c.cfg.Verifier.catalog.Signed(l.System, document))
		was.Returned, was.Document, was.Product = now, hex.EncodeToString(sum[:]), l.Product
		licenses[ref] = was
		back, fresh = Return{ref, was.Returned, was.Product, was.Document}, true
		return nil
	})
	switch {
	case denial != nil:
		return Return{}, false, denial
	case err != nil:
		return Return{}, false, &enforcer.Denial{Code: enforcer.Storage,
			Detail: "the return could not be recorded, and the licence stands: " + err.Error(),
			Hint:   "see to the disk that state.dir is on"}
	}
	if fresh {
		c.Rejudge()
	}
	return back, fresh, nil
}

// meant returns the licence that an id names and its document, or nil (see [enforcer.Meant]), and the licence time.
func (c *Court) meant(id string) (*enforcer.License, []byte, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Desk.Timing().Now
	if d := enforcer.Meant(c.documents(nil), id, c.cfg.Verifier.TimeTeller()); d != nil {
		return d.License, c.document(d.Name), now
	}
	return nil, nil, now
}
