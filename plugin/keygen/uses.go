package keygen

import (
	"context"
	"net/http"
	"net/url"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/plugin"
)

// Draw increments the licence's uses; the meter is [MeterUses]. Keygen has no idempotency tokens, so an increment whose
// answer was lost cannot be repeated safely. Draw therefore looks at the uses before it repeats one. If they have grown
// by as many since this agent's last answer, it takes that growth for its own. So no use is counted twice. If other
// machines used the licence meanwhile, some uses may not be counted.
func (c *Client) Draw(ctx context.Context, r *plugin.Draw) (*plugin.Drawn, error) {
	if r.Meter != MeterUses {
		return nil, budgetFault(plugin.SystemNoPools, "Keygen counts no draws of the meter %s, only uses",
			plugin.Short(r.Meter))
	}
	s, e := c.begin(ctx, &r.Request)
	if e != nil {
		return nil, e
	}
	before := s.state.Uses
	if set, err := parseDataset(s.doc.data); err == nil {
		before = max(before, usesOf(set)) // the file may be newer
	}
	if r.Again {
		now, e := s.uses(http.MethodGet, "", nil)
		if e != nil {
			return nil, e
		}
		if now >= before+r.N {
			return s.drawn(r.N, now)
		}
	}
	now, e := s.uses(http.MethodPost, "/actions/increment-usage",
		map[string]any{"meta": map[string]any{"increment": r.N}})
	if e != nil {
		return nil, e
	}
	return s.drawn(r.N, now)
}

func (s *session) drawn(n, uses int64) (*plugin.Drawn, error) {
	s.state.Uses = uses
	b, err := json.Marshal(s.state)
	if err != nil {
		return nil, plugin.Transiently("the state cannot be written: %v", err)
	}
	return &plugin.Drawn{Meter: MeterUses, N: n, State: b}, nil
}

// uses makes a call about the licence, and returns its uses after it.
func (s *session) uses(method, action string, body map[string]any) (int64, *plugin.Error) {
	a, e := s.send(method, "licenses/"+url.PathEscape(s.state.License)+action, body)
	switch {
	case e != nil:
		return 0, e
	case a.code() == "USES_LIMIT_EXCEEDED":
		return 0, budgetFault(plugin.SystemFull, "the licence has fewer uses left")
	case a.status == http.StatusConflict: // another increment is under way
		return 0, plugin.Transiently("Keygen is counting another use of the licence")
	case a.status != http.StatusOK:
		return 0, s.fault(a)
	}
	var at struct {
		Uses int64 `json:"uses"`
	}
	r, err := a.resource(&at)
	if err != nil || r.ID != s.state.License || at.Uses < 0 {
		return 0, plugin.Transiently("Keygen answered with a licence that cannot be read")
	}
	return at.Uses, nil
}

// usesOf returns the uses of the licence that a dataset is about.
func usesOf(set *dataset) int64 {
	about := &set.Data
	if about.Type != "licenses" {
		about = set.one("licenses", set.Data.related("license"))
	}
	var a struct {
		Uses int64 `json:"uses"`
	}
	if about == nil || about.attributes(&a) != nil {
		return 0
	}
	return a.Uses
}
