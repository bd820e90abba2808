package client

import (
	"context"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// Fleet returns how the agent stands in its fleet, and what the fleet's store says of all agents. Admins only.
func (c *Client) Fleet(ctx context.Context) (*wire.Fleet, error) {
	out := new(wire.Fleet)
	// The agent asks the store, which may not answer, while it answers others.
	if err := c.WhileAnswering(ctx, longest, func(ctx context.Context) error {
		return c.do(ctx, "GET", "/v1/fleet", nil, out)
	}); err != nil {
		return nil, err
	}
	return out, nil
}

// DrainHost has an agent of the fleet give its idle slots back and take none; with undo it ends that. host is the name
// of the agent's host, or the beginning of its key. Admins only.
func (c *Client) DrainHost(ctx context.Context, host string, undo bool) (*wire.FleetDone, error) {
	return c.orderHost(ctx, host, "drain", undo, nil, longest)
}

// EvictHost puts an agent out of the fleet, and waits until its slots are free, or no longer than wait, 15 minutes at
// most. Admins only.
func (c *Client) EvictHost(ctx context.Context, host string, wait time.Duration) (*wire.FleetDone, error) {
	return c.orderHost(ctx, host, "eviction", false, wire.FleetEviction{WaitSeconds: wait.Seconds()}, wait+longest)
}

// ReadmitHost lets an agent join the fleet again that was put out. Admins only.
func (c *Client) ReadmitHost(ctx context.Context, host string) (*wire.FleetDone, error) {
	return c.orderHost(ctx, host, "eviction", true, nil, longest)
}

func (c *Client) orderHost(ctx context.Context, host, order string, undo bool, body any, atMost time.Duration) (
	*wire.FleetDone, error) {
	method := "POST"
	if undo {
		method = "DELETE"
	}
	out := new(wire.FleetDone)
	if err := c.WhileAnswering(ctx, atMost, func(ctx context.Context) error {
		return c.do(ctx, method, "/v1/fleet/agents/"+segment(host)+"/"+order, body, out)
	}); err != nil {
		return nil, err
	}
	return out, nil
}
