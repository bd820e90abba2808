package agent

import (
	"context"

	"github.com/usher-agent/usher/agent/upstreams"
	"github.com/usher-agent/usher/plugin"
)

// fetchFirst brings first documents, from the first verdict on.
func (a *Agent) fetchFirst(ctx context.Context) error {
	select {
	case <-a.running.judged:
	case <-ctx.Done():
		return nil
	}
	f := &upstreams.Fetching{
		Upstreams: a.duties.Upstreams,
		Verdict:   a.desk.Verdict,
		Now:       a.desk.Now,
		Within:    a.settings().Upstream.Timeout.Duration(),
		Take: func(_ context.Context, system string, document []byte) error {
			return a.court.TakeFirst(system, document)
		},
		Log: a.log,
		Request: func(system string) *plugin.Request {
			return &plugin.Request{System: system, Product: a.product(), AgentKey: a.agentKey(),
				Document: a.former(system)}
		},
	}
	return f.Run(ctx)
}

// former returns the document of a system's licence that another is to replace; nil: there is none.
func (a *Agent) former(system string) []byte {
	v := a.desk.Verdict()
	if v == nil {
		return nil
	}
	for _, j := range v.Licenses {
		if j.License != nil && j.License.System == system {
			return a.court.Document(j.Document)
		}
	}
	return nil
}
