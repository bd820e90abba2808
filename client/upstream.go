package client

import (
	"context"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// UpstreamPreview returns the data that would leave the host with the agent's next call for each licence. Admins only.
func (c *Client) UpstreamPreview(ctx context.Context) ([]wire.UpstreamRequest, error) {
	out, err := get[wire.UpstreamPreview](ctx, c, "/v1/upstream")
	if err != nil {
		return nil, err
	}
	return out.Requests, nil
}

// ReleaseHost makes the agent give this host's place back, on one licence with an upstream or, with an empty id, on
// all. These licences do not count here until UpstreamCall. Admins only.
func (c *Client) ReleaseHost(ctx context.Context, id string) ([]wire.Released, error) {
	out := new(wire.Releases)
	if err := c.WhileAnswering(ctx, longest, func(ctx context.Context) error {
		return c.do(ctx, "POST", "/v1/license/release", wire.ReleaseRequest{License: id}, out)
	}); err != nil {
		return nil, err
	}
	return out.Licenses, nil
}

// Drain makes the agent grant no new leases until Undrain or its next start, and waits for the held leases to end.
// Admins only.
func (c *Client) Drain(ctx context.Context, r wire.DrainRequest) (*wire.Drain, error) {
	out := new(wire.Drain)
	call := func(ctx context.Context) error { return c.do(ctx, "POST", "/v1/drain", r, out) }
	var err error
	if r.Release {
		wait := longest + time.Duration(r.WaitSeconds*float64(time.Second))
		err = c.WhileAnswering(ctx, wait, call)
	} else {
		err = c.waiting(ctx, r.WaitSeconds, call)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Undrain makes the agent grant leases again. Admins only.
func (c *Client) Undrain(ctx context.Context) (*wire.Drain, error) {
	out := new(wire.Drain)
	if err := c.do(ctx, "DELETE", "/v1/drain", nil, out); err != nil {
		return nil, err
	}
	return out, nil
}

// UpstreamCall makes the agent call its upstream at once. It does not say what came of it. Admins only.
func (c *Client) UpstreamCall(ctx context.Context) error {
	return c.WhileAnswering(ctx, longest, func(ctx context.Context) error {
		return c.do(ctx, "POST", "/v1/upstream", nil, nil)
	})
}

// CallUpstream makes the agent call its upstream at once, and returns what came of each call. There is none where no
// licence demands an upstream. Admins only.
func (c *Client) CallUpstream(ctx context.Context) ([]wire.UpstreamOutcome, error) {
	var out wire.UpstreamCalls
	if err := c.WhileAnswering(ctx, longest, func(ctx context.Context) error {
		return c.do(ctx, "POST", "/v1/upstream", nil, &out)
	}); err != nil {
		return nil, err
	}
	return out.Calls, nil
}
