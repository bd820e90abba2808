package ucloud

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// maxReported is how many jobs a UCloud is told of; later ones are left out.
const maxReported = 8000

// Provider is a Client that also speaks for the licence's provider: it tells the UCloud the licence's state here, and
// which jobs hold its slots, by control.update.
type Provider struct {
	*Client
	control *session
}

var _ plugin.Reporter = (*Provider)(nil)

// NewProvider checks the configuration. token returns the provider's API token or refresh token. It makes no call.
func NewProvider(c Config, token func() (string, error)) (*Provider, error) {
	client, err := NewClient(c)
	if err != nil {
		return nil, err
	}
	return &Provider{client, newSession(client.base, &client.cfg, token, true)}, nil
}

// Label returns "job".
func (p *Provider) Label() string { return labelJob }

// reported is what a UCloud was told last.
type reported struct {
	ID    string   `json:"id"` // of the licence; empty: nothing was told
	State string   `json:"state,omitzero"`
	Jobs  []string `json:"jobs,omitzero"` // that were bound, in the order of their acquires
}

// outgoing is an item of control.update. The platform's own clock counts.
type outgoing struct {
	ID     string `json:"id"`
	Update Update `json:"update"`
}

// Report tells the UCloud what has changed since the last report: first the bindings that are over, then the new ones,
// then the state. Ids of jobs that are no numbers stay here.
func (p *Provider) Report(ctx context.Context, r *plugin.Report) ([]byte, error) {
	var was, is reported
	if json.Unmarshal(r.State, &was) != nil {
		was = reported{} // it was lost
	}
	if r.Document != nil {
		want, e := p.claims(r.Document)
		if e != nil {
			return nil, e
		}
		if is.ID, e = p.resourceID(ctx, want); e != nil {
			return nil, e
		}
		if is.ID == "" {
			return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: fmt.Sprintf(
				"UCloud lists no licence of %s/%s, whose state it could be told", want.Resource.Provider,
				want.Resource.ID)}
		}
		is.State, is.Jobs = stateOf(r.Code), jobsOf(r.Leases)
	}
	if was.ID != "" && was.ID != is.ID { // another licence, or none, is here in its place
		if e := p.send(ctx, &was, &reported{ID: was.ID, State: StateUnavailable}, "REPLACED"); e != nil {
			return nil, e
		}
		was = reported{}
	}
	if is.ID != "" {
		if e := p.send(ctx, &was, &is, r.Code); e != nil {
			return nil, e
		}
	}
	b, err := json.Marshal(is)
	if err != nil {
		return nil, plugin.Transiently("%v", err)
	}
	return b, nil
}

// stateOf is a code in UCloud's words.
func stateOf(c enforcer.Code) string {
	switch {
	case c.State() == enforcer.StateValid:
		return StateReady
	case c == enforcer.Preparing, c == enforcer.NotYetValid:
		return StatePreparing
	default:
		return StateUnavailable
	}
}

// jobsOf returns the jobs of leases, each once.
func jobsOf(leases []plugin.Bearer) (out []string) {
	seen := map[string]bool{}
	for i := range leases {
		if job := leases[i].Labels[labelJob]; jobName(job) && !seen[job] && len(out) < maxReported {
			seen[job] = true
			out = append(out, job)
		}
	}
	return out
}

// send tells of one licence what is not so yet. The platform binds jobs of its own: what it lists is not bound again,
// and only what was bound from here is unbound. A licence that is gone has nothing to be told when it is over here.
func (p *Provider) send(ctx context.Context, was, is *reported, code enforcer.Code) *plugin.Error {
	bound, e := p.bound(ctx, is.ID)
	if e != nil {
		return e
	}
	var items []outgoing
	add := func(u Update) {
		u.Timestamp = ms(p.now())
		items = append(items, outgoing{is.ID, u})
	}
	had, has := set(was.Jobs), set(is.Jobs)
	for _, job := range was.Jobs {
		if !has[job] {
			add(Update{Binding: &Binding{Unbind, job}})
		}
	}
	for _, job := range is.Jobs {
		if !had[job] && !bound[job] {
			add(Update{Binding: &Binding{Bind, job}})
		}
	}
	if is.State != was.State {
		status := "License is ready for use"
		if is.State != StateReady {
			status = "License cannot be used: " + string(code)
		}
		add(Update{State: &is.State, Status: &status})
	}
	for part := range slices.Chunk(items, maxBulk) {
		if e := p.update(ctx, is, part); e != nil {
			return e
		}
	}
	return nil
}

// update makes one call of control.update.
func (p *Provider) update(ctx context.Context, is *reported, items []outgoing) *plugin.Error {
	body, err := json.Marshal(Bulk[outgoing]{items})
	if err != nil {
		return plugin.Transiently("%v", err)
	}
	var out jsontext.Value
	status, e := p.control.ask(ctx, http.MethodPost, controlBase+"/update", nil, body, &out)
	switch {
	case e != nil:
		return e
	case status == http.StatusNotFound && is.State == StateUnavailable && is.Jobs == nil:
		return nil // it is gone, and nothing holds it here
	case status != http.StatusOK:
		return &plugin.Error{Class: plugin.Misconfigured,
			Reason: fmt.Sprintf("%s answered %d to what it was told of licence %s", p.base.Host, status,
				plugin.Short(is.ID)),
			Hint: "check that upstream.ucloud.provider_token_file belongs to the licence's provider"}
	}
	return nil
}

// bound returns the jobs that the platform lists. What cannot be read is not listed.
func (p *Provider) bound(ctx context.Context, id string) (map[string]bool, *plugin.Error) {
	var l struct {
		Status struct {
			BoundTo jsontext.Value `json:"boundTo"`
		} `json:"status"`
	}
	if _, e := p.control.get(ctx, controlBase+"/retrieve", url.Values{"id": {id}}, &l); e != nil {
		return nil, e
	}
	var jobs []string
	if len(l.Status.BoundTo) > 0 && json.Unmarshal(l.Status.BoundTo, &jobs) != nil {
		jobs = nil
	}
	return set(jobs), nil
}

func set(list []string) map[string]bool {
	out := map[string]bool{}
	for _, s := range list {
		out[s] = true
	}
	return out
}
