package agent

import (
	"context"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/desk"
	"github.com/usher-agent/usher/enforcer"
)

// slots is the desk with its grants in the API's form, as sessions and dialects ask it.
type slots struct{ *desk.Desk }

func granted(g desk.Grant, d *enforcer.Denial) (api.Grant, *enforcer.Denial) { return api.Grant(g), d }

func (s slots) Acquire(ctx context.Context, r *enforcer.Acquire) (api.Grant, *enforcer.Denial) {
	return granted(s.Desk.Acquire(ctx, r))
}

func (s slots) Begin(r *enforcer.Acquire, ready func()) (finish api.Finish, waits bool) {
	rest, waits := s.Desk.Begin(r, ready)
	return func(ctx context.Context) (api.Grant, *enforcer.Denial) { return granted(rest(ctx)) }, waits
}

func (s slots) Give(r enforcer.Request) (api.Grant, *enforcer.Denial) { return granted(s.Desk.Give(r)) }

func (s slots) Renew(r *enforcer.Renew) (api.Grant, *enforcer.Denial) {
	return granted(s.Desk.Renew(r))
}
