package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// Order is an operator's order to a running registry, over a socket that nobody else may write to.
type Order struct {
	// list, blocks, add, suspend, resume, revoke, renew, machines, forget, forgive, token, tokens, revoke-token, label,
	// rules, set-rules, fleet
	Do       string    `json:"do"`
	ID       string    `json:"id,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Expires  time.Time `json:"expires,omitzero"`  // zero: for ever
	Machines int64     `json:"machines,omitzero"` // AnyNumber: any number; zero: none is stated
	Agent    string    `json:"agent,omitempty"`   // the beginning of a host's key thumbprint
	Document []byte    `json:"document,omitempty"`
	// With token: how many hosts it admits, for how many seconds it is good, and a note. With revoke-token: Token is
	// the beginning of its id.
	Uses    int64  `json:"uses,omitzero"`
	Seconds int64  `json:"seconds,omitzero"`
	Note    string `json:"note,omitempty"`
	Token   string `json:"token,omitempty"`
	// Labels are those of a token, or of a host with label: it has these and no others then.
	Labels map[string]string `json:"labels,omitempty"`
	// Rules are those of set-rules.
	Rules enforcer.SiteRules `json:"rules,omitempty"`
}

// Done is the result of an Order.
type Done struct {
	Licences  []Listed   `json:"licences,omitempty"`
	Licence   *Licence   `json:"licence,omitempty"`
	Blocks    []OutBlock `json:"blocks,omitempty"`
	Forgotten int        `json:"forgotten,omitzero"`
	Forgiven  int        `json:"forgiven,omitzero"`
	Token     string     `json:"token,omitempty"` // a new one; it is shown once
	Tokens    []Token    `json:"tokens,omitempty"`
	Labelled  int        `json:"labelled,omitzero"`
	Rules     *Ruled     `json:"rules,omitempty"`
	// Fleet is how a broker stands in its fleet, with all that etcd says of that: JSON, as the agent's API has it.
	Fleet []byte `json:"fleet,omitempty"`
	Error string `json:"error,omitempty"`
}

// Carry carries an order out.
func (g *Registry) Carry(o Order) (d Done, err error) {
	switch o.Do {
	case "list":
		d.Licences, err = g.List()
	case "blocks":
		d.Blocks = g.OutBlocks()
	case "add":
		d.Licence, err = g.Add(o.Document, o.Machines)
	case "suspend":
		d.Licence, err = g.SetState(o.ID, StateSuspended, o.Reason)
	case "resume":
		d.Licence, err = g.SetState(o.ID, StateActive, "")
	case "revoke":
		d.Licence, err = g.SetState(o.ID, StateRevoked, o.Reason)
	case "renew":
		d.Licence, err = g.Renew(o.ID, o.Expires)
	case "machines":
		d.Licence, err = g.SetMachines(o.ID, o.Machines)
	case "forget":
		d.Forgotten, err = g.Forget(o.ID, o.Agent)
	case "forgive":
		d.Forgiven, err = g.Forgive(o.ID, o.Agent)
	case "token":
		var t *Token
		if d.Token, t, err = g.NewToken(o.ID, o.Uses, time.Duration(o.Seconds)*time.Second, o.Note,
			o.Labels); err == nil {
			d.Tokens = []Token{*t}
		}
	case "tokens":
		d.Tokens, err = g.Tokens(o.ID)
	case "revoke-token":
		var t *Token
		if t, err = g.RevokeToken(o.Token); err == nil {
			d.Tokens = []Token{*t}
		}
	case "label":
		d.Labelled, err = g.SetLabels(o.ID, o.Agent, o.Labels)
	case "rules":
		d.Rules, err = g.Rules()
	case "set-rules":
		d.Rules, err = g.SetRules(o.Rules)
	case "fleet":
		if g.broker.report == nil {
			return d, errors.New("this server is in no fleet: it was started without --fleet-endpoint")
		}
		d.Fleet, err = g.broker.report()
	default:
		err = fmt.Errorf("there is no order %q", o.Do)
	}
	if err == nil && !slices.Contains([]string{"list", "blocks", "tokens", "rules", "fleet"}, o.Do) {
		g.cfg.Log.Info("an operator's order", "do", o.Do, "licence", o.ID, "reason", o.Reason)
	}
	return d, err
}

// AdminHandler takes orders.
func (g *Registry) AdminHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var o Order
		d, err := Done{}, json.NewDecoder(io.LimitReader(r.Body, 2*online.MaxMessage)).Decode(&o)
		if err == nil {
			d, err = g.Carry(o)
		}
		if err != nil {
			d = Done{Error: err.Error()}
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
		json.NewEncoder(w).Encode(d)
	})
}

// Ask gives an order to the registry that listens on a socket.
func Ask(ctx context.Context, socket string, o Order) (Done, error) {
	b, err := json.Marshal(o)
	if err != nil {
		return Done{}, err
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://upstream/", bytes.NewReader(b))
	if err != nil {
		return Done{}, err
	}
	res, err := c.Do(req)
	if err != nil {
		return Done{}, err
	}
	defer res.Body.Close()
	var d Done
	if err := json.NewDecoder(io.LimitReader(res.Body, 256<<20)).Decode(&d); err != nil {
		return d, fmt.Errorf("the upstream's answer cannot be read: %w", err)
	}
	switch {
	case d.Error != "":
		return d, errors.New(d.Error)
	case res.StatusCode != http.StatusOK:
		return d, fmt.Errorf("the upstream has answered %d without a reason", res.StatusCode)
	case !d.answers(o.Do):
		return d, fmt.Errorf("the upstream's answer does not say what has been done; another program may be listening "+
			"on %s", socket)
	}
	return d, nil
}

// answers reports whether a result has what its order brings about.
func (d *Done) answers(do string) bool {
	switch do {
	case "list", "blocks", "tokens", "forget", "forgive", "label":
		return true // nothing and 0 are results
	case "token":
		return len(d.Tokens) == 1 && d.Token != ""
	case "revoke-token":
		return len(d.Tokens) == 1
	case "rules", "set-rules":
		return d.Rules != nil
	case "fleet":
		return len(d.Fleet) > 0
	default:
		return d.Licence != nil
	}
}
