package online

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// Draws of a meter that a whole site shares come from a site server that has a fleet. A draw is one call. Its token
// makes it one draw, however often and of whichever server of the fleet it is asked for. It also names the token of the
// agent's draw before: so a request that is old, doubled or late takes nothing.

// SystemOrder is the system_code of a draw that does not follow the agent's last one; nothing was taken.
const SystemOrder = "DRAW_ORDER"

// DrawRequest asks for draws.
type DrawRequest struct {
	Meter string `json:"meter"`
	N     int64  `json:"n"`
	Token string `json:"token"`
	// After is the token of the agent's draw before, in the same period; empty: it has made none.
	After string `json:"after,omitempty"`
	// Period is when the period began, in seconds since 1970; absent: the meter never resets.
	Period *int64 `json:"period,omitempty"`
}

// Began returns when the period began; zero: the meter never resets.
func (r *DrawRequest) Began() time.Time {
	if r.Period == nil {
		return time.Time{}
	}
	return time.Unix(*r.Period, 0).UTC()
}

// DrawReply is what was taken.
type DrawReply struct {
	Meter string `json:"meter"`
	N     int64  `json:"n"`
}

// Site is one site server: it gives blocks, and draws where it has a fleet. It implements [plugin.Watcher] and
// [plugin.Drawer].
type Site struct{ *Client }

// NewSite returns the site server that a client speaks to.
func NewSite(c *Client) *Site { return &Site{c} }

var (
	_ plugin.Drawer  = (*Site)(nil)
	_ plugin.Watcher = (*Site)(nil)
	_ plugin.Drawer  = (*Several)(nil)
)

// drawState is the state of the calls for one licence's draws.
type drawState struct {
	Chains map[string]string    `json:"chains,omitempty"` // by server: what it said last
	Last   map[string]drawToken `json:"last,omitempty"`   // by meter: the agent's last draw
}

// drawToken is the token of a draw, and its period.
type drawToken struct {
	Token  string    `json:"token"`
	Period time.Time `json:"period,omitzero"`
}

func readDrawState(state []byte) (s drawState) {
	if json.Unmarshal(state, &s) != nil { // none: a server that knows of a last draw says which
		s = drawState{}
	}
	if s.Chains == nil {
		s.Chains = map[string]string{}
	}
	if s.Last == nil {
		s.Last = map[string]drawToken{}
	}
	return s
}

// text returns the state, without what a server can tell again where it is too much.
func (s drawState) text(at string) []byte {
	b, err := json.Marshal(s)
	if err == nil && len(b) > plugin.MaxState {
		maps.DeleteFunc(s.Chains, func(server, _ string) bool { return server != at })
		b, err = json.Marshal(s)
	}
	if err != nil || len(b) > plugin.MaxState {
		b, _ = json.Marshal(drawState{Chains: s.Chains})
	}
	return b
}

// Draw takes draws.
func (s *Site) Draw(ctx context.Context, r *plugin.Draw) (*plugin.Drawn, error) {
	state := readDrawState(r.State)
	got, err := s.Client.draw(ctx, r, &state, "")
	return got, uncertain(err, r.Again)
}

// Draw takes draws from the server that the agent asks, or from the first of the others that gives any.
func (s *Several) Draw(ctx context.Context, r *plugin.Draw) (*plugin.Drawn, error) {
	state, open := readDrawState(r.State), r.Again
	first := max(0, slices.Index(s.order, s.asked()))
	var last error
	for _, at := range slices.Concat(s.order[first:], s.order[:first]) {
		try, cancel := s.within(ctx)
		again := *r
		again.Nonce = rehash(append([]byte(at), r.Nonce...))
		got, err := s.all[at].draw(try, &again, &state, at)
		cancel()
		if err == nil {
			return got, nil
		}
		without := code(err) == plugin.SystemNoDraws
		if last == nil || !without {
			last = err
		}
		if !isAway(err) && !without || ctx.Err() != nil {
			break
		}
		if !without {
			open = true
			s.leave(at)
		}
	}
	return nil, uncertain(last, open)
}

// code returns the SystemCode of an error.
func code(err error) string {
	var e *plugin.Error
	if errors.As(err, &e) {
		return e.SystemCode
	}
	return ""
}

// uncertain returns an error of a draw so that the caller asks again with the same token, where it is open whether an
// earlier try took any: another server's no says nothing of that. The server that says that all are taken has looked.
func uncertain(err error, open bool) error {
	var e *plugin.Error
	if !errors.As(err, &e) || e.SystemCode == plugin.SystemFull {
		return err
	}
	switch e.SystemCode {
	case plugin.SystemAway, plugin.SystemSettling, systemPeriod, SystemOrder, SystemStale:
		open = true
	}
	if open {
		e.Class = plugin.Transient
	}
	return err
}

// systemPeriod is the system_code of a server whose clock has another period.
const systemPeriod = "OTHER_PERIOD"

// draw asks one server, at its address. A host that it does not know shows its licence; a draw that does not follow the
// last one is asked for once more, after the one that the server names.
func (c *Client) draw(ctx context.Context, r *plugin.Draw, state *drawState, at string) (*plugin.Drawn, error) {
	after := ""
	if was := state.Last[r.Meter]; was.Period.Equal(r.Period) {
		after = was.Token
	}
	shows, nonce := state.Chains[at] == "", r.Nonce
	for ordered := false; ; nonce = rehash(nonce) {
		reply, err := c.askDraw(ctx, r, state.Chains[at], after, nonce, shows)
		var order *orderError
		switch {
		case code(err) == SystemNotActivated && !shows:
			shows = true
			continue
		case errors.As(err, &order) && !ordered:
			after, ordered = order.last, true
			continue
		case err != nil:
			return nil, err
		case reply.Draw == nil:
			return nil, plugin.Transiently("%s: its answer has no draws", c.base.Host)
		}
		state.Chains[at], state.Last[r.Meter] = reply.Chain, drawToken{r.Token, r.Period}
		return &plugin.Drawn{Meter: reply.Draw.Meter, N: reply.Draw.N, State: state.text(at)}, nil
	}
}

// askDraw makes one call for draws.
func (c *Client) askDraw(ctx context.Context, r *plugin.Draw, chain, after string, nonce []byte, shows bool) (
	*Reply, error) {
	base := r.Request
	base.State, base.Nonce = []byte(chain), nonce
	q := c.request(CallDraw, &base)
	if shows {
		q.Document = string(r.Document)
	}
	q.Draw = &DrawRequest{Meter: r.Meter, N: r.N, Token: r.Token, After: after}
	if !r.Period.IsZero() {
		began := r.Period.Unix()
		q.Draw.Period = &began
	}
	return c.call(ctx, q, c.siteServer(&r.Request))
}

// orderError is the server's word that a draw does not follow the agent's last one, and that one's token.
type orderError struct {
	fault *plugin.Error
	last  string
}

func (e *orderError) Error() string { return e.fault.Error() }
func (e *orderError) Unwrap() error { return e.fault }

// noDraws is the error of a server that answers no calls for draws.
func (c *Client) noDraws() *plugin.Error {
	return &plugin.Error{Class: plugin.Misconfigured, SystemCode: plugin.SystemNoDraws,
		Reason: c.base.Host + " is a server of a version that gives no draws",
		Hint: "update the site server, and give it a fleet (--fleet-endpoint); or name the etcd under " +
			"fleet.endpoints here, and the meter under fleet.pools"}
}
