package agent

import (
	"slices"
	"strconv"
	"time"

	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/dialect"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// openDialects takes the addresses of the dialects' listeners.
func (a *Agent) openDialects(known []plugin.Dialect) (*dialect.Dialects, error) {
	slots := slotsOf{front{a}}
	return dialect.Open(dialect.Config{Settings: a.settings, Dialects: known, Key: a.key, Vault: a.seals.State,
		Log: a.log, Slots: slots, Documents: slots, Server: a.server, Fingerprint: slots.Fingerprint,
		Adjusted: func(by enforcer.Caller, c dialect.Adjustment) {
			a.audit.NoteBy(by, eventlog.Event{Type: audit.MeterAdjusted, Subject: c.Meter,
				Fields: map[string]string{"by": strconv.FormatInt(c.By, 10), "drawn": strconv.FormatInt(c.Drawn, 10),
					"dialect": c.Dialect}})
		}})
}

// slotsOf is the agent as dialects see it.
type slotsOf struct{ front }

func (s slotsOf) Now() time.Time             { return s.desk.Now() }
func (s slotsOf) Verdict() *enforcer.Verdict { return s.desk.Verdict() }

func (s slotsOf) Owned(owner string, c enforcer.Caller) []*enforcer.Lease {
	return s.desk.OwnedBy(owner, c)
}

func (s slotsOf) SetData(r *enforcer.SetData) *enforcer.Denial { return s.desk.Do(r).Denial }

func (s slotsOf) Shift(r *enforcer.Shift) (int64, *enforcer.Denial) { return s.desk.Shift(r) }

// Document returns a document's bytes, which the caller may keep.
func (s slotsOf) Document(name string) []byte {
	s.court.mu.Lock()
	defer s.court.mu.Unlock()
	return slices.Clone(s.court.document(name))
}
