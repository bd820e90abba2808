package agent

import (
	"context"
	"fmt"

	"github.com/usher-agent/usher/agent/upstreams"
	"github.com/usher-agent/usher/plugin"
)

// fetchFirst brings first documents, from the first verdict on.
func (a *Agent) fetchFirst(ctx context.Context) error {
	select {
	case <-a.judged:
	case <-ctx.Done():
		return nil
	}
	f := &upstreams.Fetching{
		Upstreams: a.upstreams,
		Verdict:   a.desk.Verdict,
		Now:       a.desk.Now,
		Within:    a.settings().Upstream.Timeout.Duration(),
		Take:      a.fetched,
		Log:       a.log,
		Request: func(system string) *plugin.Request {
			return &plugin.Request{System: system, Product: a.product(), AgentKey: a.agentKey(),
				Document: a.former(system)}
		},
	}
	return f.Run(ctx)
}

// fetched takes a document that was fetched for a system.
func (a *Agent) fetched(ctx context.Context, system string, document []byte) error {
	v := a.court.verify(document)
	if v.problem != nil {
		return fmt.Errorf("%s: %s; %s", v.problem.Code, v.problem.Reason, v.problem.Hint)
	}
	if v.license.System != system {
		return fmt.Errorf("the document is a licence of the system %s, and was fetched for the system %s",
			v.license.System, system)
	}
	return a.renewed(ctx, v.license, document)
}

// former returns the document of a system's licence that another is to replace; nil: there is none.
func (a *Agent) former(system string) []byte {
	v := a.desk.Verdict()
	if v == nil {
		return nil
	}
	a.court.mu.Lock()
	defer a.court.mu.Unlock()
	for _, j := range v.Licenses {
		if j.License != nil && j.License.System == system {
			return a.court.document(j.Document)
		}
	}
	return nil
}
