package agent

import (
	"context"
	"crypto/ed25519"
	"path/filepath"
	"time"

	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/eventlog"
)

// Events returns where the event log of a configuration lies, and the key that signs it.
func Events(c *config.Config) (dir string, key ed25519.PublicKey, err error) {
	private, err := keyFile(c).Existing()
	if err != nil {
		return "", nil, err
	}
	return filepath.Join(c.State.Dir, audit.Folder), private.Public().(ed25519.PublicKey), nil
}

// runEvents writes events until what it returns is called, which has what is left written.
func (a *Agent) runEvents(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.audit.Run(ctx)
	}()
	a.audit.Note(eventlog.Event{Type: audit.AgentStarted, Subject: a.product(), Fields: map[string]string{
		"version": a.options.Version, "agent_key": a.agentKey(), "anchors": a.anchorsFrom()}})
	return func() {
		a.audit.Note(eventlog.Event{Type: audit.AgentStopped})
		cancel()
		<-done
	}
}

// clockReset notes that a document has put the licence time back. What was planned by the false time is asked anew.
func (a *Agent) clockReset(from, to time.Time) {
	a.audit.ClockReset(from, to)
	a.log.Warn("a document of the vendor's says that the time believed was false; it has been put back",
		"from", from, "to", to)
	a.pulse.Now()
}
