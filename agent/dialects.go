package agent

import (
	"strconv"

	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/dialect"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// openDialects takes the addresses of the dialects' listeners.
func (a *Agent) openDialects(known []plugin.Dialect) (*dialect.Dialects, error) {
	return dialect.Open(dialect.Config{Settings: a.settings, Dialects: known, Key: a.signer.Key, Vault: a.seals.State,
		Log: a.log, Slots: slots{a.desk}, Documents: documentsOf{a}, Server: a.server,
		Fingerprint: front{a}.Fingerprint, Forced: a.audit.Forced,
		Adjusted: func(by enforcer.Caller, c dialect.Adjustment) {
			a.audit.NoteBy(by, eventlog.Event{Type: audit.MeterAdjusted, Subject: c.Meter,
				Fields: map[string]string{"by": strconv.FormatInt(c.By, 10), "drawn": strconv.FormatInt(c.Drawn, 10),
					"dialect": c.Dialect}})
		}})
}

// documentsOf is the licence folder as dialects see it.
type documentsOf struct{ *Agent }

// Document returns a document's bytes, which the caller may keep.
func (d documentsOf) Document(name string) []byte {
	return d.court.Document(name)
}
