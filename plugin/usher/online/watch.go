package online

import (
	"context"
	"encoding/base64"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Watch waits for news of a licence's pools. The request says no more of the host than its key and its idle slots.
func (c *Client) Watch(ctx context.Context, r *plugin.Watch) (*plugin.News, error) {
	q := &Request{test: c.isTest(&r.Request), Call: CallWatch, Issued: c.cfg.Now().Unix(),
		Nonce: base64.RawURLEncoding.EncodeToString(r.Nonce), License: r.LicenseID, Product: r.Product,
		Watch: &WatchRequest{Idle: r.Idle, Seconds: int64(r.For / time.Second)}}
	reply, err := c.call(ctx, q, c.siteServer(&r.Request))
	if err != nil {
		return nil, err
	}
	out := &plugin.News{Pools: map[string]plugin.PoolNews{}}
	for pool, n := range reply.Watch {
		out.Pools[pool] = plugin.PoolNews{Wanted: min(max(0, n.Wanted), enforcer.MaxN),
			Free: min(max(0, n.Free), enforcer.MaxN)}
	}
	return out, nil
}
