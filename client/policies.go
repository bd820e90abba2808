package client

import (
	"context"
	"net/url"

	"github.com/usher-agent/usher/client/wire"
)

// Policies returns the site's rules in force, in their order, and what each has in use. Admins only.
func (c *Client) Policies(ctx context.Context) ([]wire.Policy, error) {
	out, err := get[wire.Policies](ctx, c, "/v1/policies")
	if err != nil {
		return nil, err
	}
	return out.Policies, nil
}

// ExplainPolicies returns what the site's rules say of a caller in a pool. The query's keys are pool, user, uid, exe,
// cgroup and pod, and any number of group and of label (as NAME=VALUE). Admins only.
func (c *Client) ExplainPolicies(ctx context.Context, query url.Values) (*wire.PolicyExplanation, error) {
	return get[wire.PolicyExplanation](ctx, c, "/v1/policies/explain?"+query.Encode())
}

// Waiting returns the acquires that wait, in their order: an admin's answer has those of all users, another's the
// user's own. It has 1,000 at most; more says that others wait behind these.
func (c *Client) Waiting(ctx context.Context) (waiting []wire.Waiter, more bool, err error) {
	out, err := get[wire.Waiting](ctx, c, "/v1/waiting")
	if err != nil {
		return nil, false, err
	}
	return out.Waiting, out.More, nil
}
