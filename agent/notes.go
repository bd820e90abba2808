package agent

import (
	"context"
	"sync"
	"time"

	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/files"
)

// leaseLogWait is how long the agent's end waits for the last lines of the log of leases.
const leaseLogWait = 5 * time.Second

// runEvents writes events until what it returns is called, which has what is left written.
func (a *Agent) runEvents(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.audit.Run(ctx)
	}()
	leases := make(chan struct{})
	go func() {
		defer close(leases)
		a.leases.Run(ctx)
	}()
	denied, enough := context.WithCancel(ctx)
	var tallies sync.WaitGroup
	for _, t := range a.denials {
		tallies.Go(func() { t.Run(denied) })
	}
	a.audit.Note(eventlog.Event{Type: audit.AgentStarted, Subject: a.product(), Fields: map[string]string{
		"version": a.options.Version, "agent_key": a.agentKey(), "anchors": a.anchorsFrom()}})
	return func() {
		enough()
		tallies.Wait()
		a.audit.Note(eventlog.Event{Type: audit.AgentStopped})
		cancel()
		<-done
		select {
		case <-leases:
		case <-time.After(leaseLogWait):
			a.leases.GiveUp()
			a.log.Error("the log of leases does not end, as where its disk hangs; its last lines may be missing")
		}
	}
}

// folderCorrected logs that a folder of the agent's own was open to others.
func (a *Agent) folderCorrected(folder, was string) {
	a.log.Warn("others could do more with a folder of the agent's than they may, which was corrected; share no folder "+
		"with a product but that of the socket alone", "folder", folder, "mode_was", was)
}

// clockReset notes that a document has put the licence time back. Calls that were planned by the false time are made at
// once.
func (a *Agent) clockReset(from, to time.Time) {
	a.audit.ClockReset(from, to)
	a.log.Warn("a document of the vendor's says that the time believed was false; it has been put back",
		"from", from, "to", to)
	a.duties.Pulse.Now()
}

// tellTampered logs what stands, and notes in the event log what is new.
func (a *Agent) tellTampered() {
	for _, f := range a.seals.Findings() {
		a.tellFinding(f)
	}
}

// tellFinding is tellTampered of one file.
func (a *Agent) tellFinding(f files.Finding) {
	a.log.Error("the state is not as the agent left it", "file", f.File, "fault", string(f.Fault), "found",
		f.At.Format(time.RFC3339), "effect", a.seals.Effect(f.File), "hint",
		"stop the agent and run `usher doctor --repair`, which accepts the state as it is")
	if a.seals.IsNew(f) {
		a.audit.Note(eventlog.Event{Type: audit.StateTampered, Subject: f.File, Code: string(f.Fault),
			Detail: a.seals.Effect(f.File)})
	}
}
