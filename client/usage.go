package client

import (
	"context"
	"net/url"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// UsageFilter says which usage is asked for. The zero value is that of the last 24 hours.
type UsageFilter struct {
	Since, Until time.Time // zero: 24 hours before Until; now
	Pool         string    // of this pool only; not with Signed
	Signed       bool      // as a JWS of the agent's key: see Usage.Report
	Nonce        string    // that the JWS has in it, so that it cannot be an older one; up to 256 bytes
	ByUser       bool      // by user and day, too, as far as privacy.users allows: see Usage.Users
}

// Usage returns what was in use of the agent's pools, by hours. It is for admins.
func (c *Client) Usage(ctx context.Context, f UsageFilter) (*wire.Usage, error) {
	q := url.Values{}
	for name, t := range map[string]time.Time{"since": f.Since, "until": f.Until} {
		if !t.IsZero() {
			q.Set(name, t.UTC().Format(time.RFC3339))
		}
	}
	for name, text := range map[string]string{"pool": f.Pool, "nonce": f.Nonce} {
		if text != "" {
			q.Set(name, text)
		}
	}
	if f.ByUser {
		q.Set("by", "user")
	}
	if f.Signed {
		q.Set("signed", "true")
	}
	return get[wire.Usage](ctx, c, "/v1/usage?"+q.Encode())
}
