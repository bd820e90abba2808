package client

import (
	"context"

	"github.com/usher-agent/usher/client/wire"
)

// UpstreamPreview returns what would leave the host with the agent's next call for each licence. Admins only.
func (c *Client) UpstreamPreview(ctx context.Context) ([]wire.UpstreamRequest, error) {
	out, err := get[wire.UpstreamPreview](ctx, c, "/v1/upstream")
	if err != nil {
		return nil, err
	}
	return out.Requests, nil
}

// UpstreamCall has the agent call its upstream at once. Admins only.
func (c *Client) UpstreamCall(ctx context.Context) error {
	return c.do(ctx, "POST", "/v1/upstream", nil, nil)
}
